"""In which format results are answered: what a request accepts, FHIR, and DICOM as part 18 of its standard sends it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..engine.errors import BackendError
from ..engine.eyes import Listed
from ..engine.outputs import dicom, fhir
from ..engine.results import Result, Screening
from .problems import CLOSE

JSON, FHIR, DICOM = "application/json", "application/fhir+json", "application/dicom"
RELATED = "multipart/related"  # several DICOM files
_QUALITY = re.compile(r";\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*(?:;|$)")
_VERSION = re.compile(r";\s*fhirversion\s*=\s*\"?([\d.]+)")


def asked(request: Request) -> str:
    """What is liked best of the formats that there are; JSON where none of them is named, or a later version of FHIR."""
    best, most = JSON, 0.0
    for own in ",".join(request.headers.getlist("accept")).lower().split(","):
        kind = own.partition(";")[0].strip()
        quality = float(found[1]) if (found := _QUALITY.search(own)) else 1.0
        version = found[1] if (found := _VERSION.search(own)) else fhir.FHIR
        known = {
            JSON: True,
            "application/*": True,
            "*/*": True,
            FHIR: version.startswith(fhir.FHIR),
            DICOM: True,
            RELATED: DICOM in own,
        }
        if known.get(kind) and quality > most:
            best, most = JSON if "*" in kind else kind, quality
    return best


def is_dicom(form: str) -> bool:
    """Whether a format is one of DICOM's."""
    return form in (DICOM, RELATED)


def expect_dicom() -> None:
    """Raises HTTPException: 406 where DICOM cannot be written here."""
    try:
        dicom.expect()
    except BackendError as error:
        raise HTTPException(406, str(error), CLOSE) from None


def as_fhir(results: Sequence[Result], notice: str, status: int) -> Response:
    """A bundle."""
    made = fhir.bundle(results, notice, datetime.now(UTC))
    return JSONResponse(made, status, media_type=f"{FHIR}; fhirVersion={fhir.FHIR}")


def as_dicom(form: str, sources: Sequence[Listed], results: Sequence[Result]) -> Response:
    """The report of the one picture; or, of all pictures, what `screen --dicom` writes: reports and segmentations.

    Raises:
        HTTPException: 422 where there is none of these.
    """
    made = [
        dicom.documents(result, source.data or b"")
        for source, result in zip(sources, results, strict=True)
        if isinstance(result, Screening)
    ]
    if form == DICOM:
        files = [own.report for own in made if own.report is not None]
    else:
        files = [file for own in made for file in (own.report, own.segmentation) if file is not None]
    if not files:
        why = ", ".join(dict.fromkeys(own.lacking for own in made if own.lacking)) or "pictures without a result"
        raise HTTPException(422, f"without a DICOM report: {why}; {JSON} has what was found")
    if form == DICOM:
        return Response(files[0], media_type=DICOM)
    boundary = uuid.uuid4().hex
    head = f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode()
    body = b"".join(part for file in files for part in (head, file, b"\r\n")) + f"--{boundary}--\r\n".encode()
    return Response(body, media_type=f'{RELATED}; type="{DICOM}"; boundary={boundary}')
