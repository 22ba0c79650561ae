"""What is wrong with a request, as RFC 9457 has it: `application/problem+json` with status, title and detail."""

from __future__ import annotations

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

CLOSE = {"Connection": "close"}  # the rest of a body that is not wanted is not waited for


def answer(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """A refusal; `error` is what clients of the Open Inference Protocol look for."""
    title = HTTPStatus(status).phrase
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail, "error": detail}
    return JSONResponse(content, status, headers, media_type="application/problem+json")


async def of_exception(request: Request, error: Exception) -> Response:
    """The answer to what an endpoint raises."""
    assert isinstance(error, HTTPException)
    return answer(error.status_code, error.detail, dict(error.headers or {}))


def unsupported(detail: str) -> HTTPException:
    """415."""
    return HTTPException(415, detail, CLOSE)


def busy(status: int, detail: str) -> HTTPException:
    """429 or 503: come again."""
    return HTTPException(status, detail, {**CLOSE, "Retry-After": "1"})
