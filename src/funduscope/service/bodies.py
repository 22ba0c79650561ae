"""From a request's body to the pictures in it, under limits of size, number and time. Nothing is written to disk."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

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
    if media_type(request) != FORM:
        return [Listed(NAME, data=await whole(request, settings))]
    async with _in_time(settings):
        return await _of_form(request, _limited(request, settings.max_bytes), settings.max_pictures)


async def whole(request: Request, settings: ServiceSettings) -> bytes:
    """A body of whatever type. Raises HTTPException: 408, 413, 415; ClientDisconnect."""
    async with _in_time(settings):
        return b"".join([chunk async for chunk in _limited(request, settings.max_bytes)])


@asynccontextmanager
async def _in_time(settings: ServiceSettings) -> AsyncIterator[None]:
    """Raises HTTPException: 408."""
    try:
        async with asyncio.timeout(settings.receive_seconds):
            yield
    except TimeoutError:
        told = f"the body did not come within {settings.receive_seconds:g} seconds"
        raise HTTPException(408, told, CLOSE) from None


async def _limited(request: Request, most: int) -> AsyncGenerator[bytes]:
    """The body as it comes. Raises HTTPException: 413, 415."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise unsupported("the body is compressed; send it as it is")
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
        Listed(upload.filename or NAME, patient, EYES.get(field.lower()), data=upload.file.read())
        for field, upload in found
    ]
