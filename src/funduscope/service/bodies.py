"""From a request's body to the pictures in it, under limits of size, number and time. Nothing is written to disk."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from ..engine.eyes import EYES, Listed
from .problems import CLOSE, unsupported
from .settings import ServiceSettings

FORM = "multipart/form-data"
RAW = ("application/octet-stream", "application/dicom")  # and image/*
NAME = "picture"  # of a raw body; the form's field of a picture of either eye


class _InMemory(MultiPartParser):
    spool_max_size = sys.maxsize  # a patient's picture is not left on a disk


def media_type(request: Request) -> str:
    """The body's, without parameters. Raises HTTPException: 415 where it is none of those that are taken."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise unsupported("the body is compressed; send it as it is")
    found = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if found != FORM and found not in RAW and not found.startswith("image/"):
        raise unsupported(f"content type {found or 'missing'}: send image/*, {', '.join(RAW)} or {FORM}")
    return found


async def pictures(request: Request, settings: ServiceSettings) -> list[Listed]:
    """The pictures of a request.

    Raises:
        HTTPException: 400 of a form that is not understood, 408 where it does not come in time, 413 where it is too large, 415.
        ClientDisconnect: Its client has gone.
    """
    kind = media_type(request)
    try:
        async with asyncio.timeout(settings.receive_seconds):
            chunks = _limited(request, settings.max_bytes)
            if kind == FORM:
                return await _of_form(request, chunks, settings.max_pictures)
            return [Listed(NAME, data=b"".join([chunk async for chunk in chunks]))]
    except TimeoutError:
        told = f"the body did not come within {settings.receive_seconds:g} seconds"
        raise HTTPException(408, told, CLOSE) from None


async def _limited(request: Request, most: int) -> AsyncGenerator[bytes]:
    """The body as it comes. Raises HTTPException: 413."""
    too_large = HTTPException(413, f"the body is larger than {most} bytes", CLOSE)
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > most:
        raise too_large
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > most:
            raise too_large
        yield chunk


async def _of_form(request: Request, chunks: AsyncGenerator[bytes], most: int) -> list[Listed]:
    try:
        form = await _InMemory(request.headers, chunks, max_files=most, max_fields=1, max_part_size=4096).parse()
    except MultiPartException as error:
        raise HTTPException(400, error.message, CLOSE) from None
    try:
        return _listed(form)
    finally:
        await form.close()


def _listed(form: FormData) -> list[Listed]:
    """The pictures of a form: fields named after the eye, or `picture`; a field `patient` says whose they are."""
    patient: str | None = None
    found: list[tuple[str, UploadFile]] = []
    for field, value in form.multi_items():
        if isinstance(value, str) and field == "patient":
            patient = value.strip() or None
        elif isinstance(value, UploadFile) and (field == NAME or (field and field.lower() in EYES)):
            found.append((field, value))
        else:
            raise HTTPException(
                400, f"the form has a field that is none of: {NAME}, right, left (files), patient (text)"
            )
    if not found:
        raise HTTPException(400, f"the form has no picture; send files in fields named {NAME}, right or left")
    return [
        Listed(upload.filename or NAME, patient, EYES.get(field.lower()), upload.file.read()) for field, upload in found
    ]
