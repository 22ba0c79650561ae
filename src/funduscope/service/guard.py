"""What every request passes: the key, the notice on its answer, the count of it. Nothing of it is written to a log."""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
import traceback
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import problems
from .metrics import Metrics

OPEN = frozenset({"/", "/health/live", "/health/ready", "/openapi.json", "/v2/health/live", "/v2/health/ready"})
SCREENINGS = "/v1/screenings"
NOTICE = "Funduscope-Notice"  # the header
_GONE = 499  # as nginx counts a client that did not wait
_log = logging.getLogger("funduscope")


class Guard:
    """ASGI middleware.

    Args:
        app: What is guarded.
        keys: One of them must come with each request that is not for a page in `OPEN`; none: all may ask.
        notice: What a person must be told with every result.
        metrics: Where requests are counted.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], notice: str, metrics: Metrics) -> None:
        self._app, self._notice, self._metrics = app, notice, metrics
        self._keys = [_digest(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, path = time.perf_counter(), scope["path"].removeprefix(scope.get("root_path", ""))
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[NOTICE] = self._notice
                headers["Cache-Control"] = "no-store"
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        try:
            if path in OPEN or self._has_key(Headers(scope=scope)):
                await self._app(scope, receive, sending)
            else:
                told = "a key is needed: Authorization: Bearer KEY, or X-API-Key: KEY"
                refusal = problems.answer(401, told, {**problems.CLOSE, "WWW-Authenticate": "Bearer"})
                await refusal(scope, receive, sending)
        except ClientDisconnect:
            status = _GONE
        except Exception as error:  # its message may name a picture; where it was raised does not
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.error("a request failed: %s\n%s", type(error).__name__, where)
            if not status:
                await problems.answer(500, "something is wrong here, not with the request")(scope, receive, sending)
        finally:
            self._metrics.request(status, time.perf_counter() - begun if path == SCREENINGS else None)

    def _has_key(self, headers: Headers) -> bool:
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        given = headers.get("x-api-key") or (bearer.strip() if kind.lower() == "bearer" else "")
        digest = _digest(given)
        same = [hmac.compare_digest(digest, key) for key in self._keys]  # all of them, whichever it is
        return any(same) or not self._keys


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
