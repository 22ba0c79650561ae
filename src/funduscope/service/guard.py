"""What every request passes: the key, the notice on its answer, the count of it. Nothing of it is written to a log."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
import traceback
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import problems
from .metrics import Metrics
from .settings import ServiceSettings

RESULTS_PAGE = "/results"
OPEN = frozenset(
    {"/", RESULTS_PAGE, "/health/live", "/health/ready", "/openapi.json", "/v2/health/live", "/v2/health/ready"}
)
SCREENINGS = "/v1/screenings"
MODELS = "/v1/models"
RESULTS = "/v1/results"
NOTICE = "Funduscope-Notice"  # the header
_GONE = 499  # as nginx counts a client that did not wait
_log = logging.getLogger("funduscope")


class Guard:
    """ASGI middleware.

    Args:
        app: What is guarded.
        settings: One of its keys must come with each request that is not for a page in `OPEN`; without keys, all may ask.
        notice: What a person must be told with every result.
        metrics: Where requests are counted.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings, notice: str, metrics: Metrics) -> None:
        self._app, self._settings, self._notice, self._metrics = app, settings, notice, metrics
        self._keys = [_digest(key) for key in settings.keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, path = time.perf_counter(), scope["path"].removeprefix(scope.get("root_path", ""))
        status, whole = 0, False  # of the answer; whether the request has come in

        async def receiving() -> Message:
            nonlocal whole
            message = await receive()
            whole = not message.get("more_body", False)
            return message

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[NOTICE] = self._notice
                headers["Cache-Control"] = "no-store"
                headers["X-Content-Type-Options"] = "nosniff"
            elif status >= 400 and status != 408 and not whole and not message.get("more_body", False):
                # it is answered; but who is still sending would see no answer if the connection were closed now
                await send({**message, "more_body": True})
                await self._drain(receiving)
                message = {"type": "http.response.body"}
            await send(message)

        try:
            if path in OPEN or self._has_key(Headers(scope=scope)):
                await self._app(scope, receiving, sending)
            else:
                told = "a key is needed: Authorization: Bearer KEY, or X-API-Key: KEY"
                refusal = problems.answer(401, told, {**problems.CLOSE, "WWW-Authenticate": "Bearer"})
                await refusal(scope, receiving, sending)
        except ClientDisconnect:
            status = _GONE
        except Exception as error:  # its message may name a picture; where it was raised does not
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.error("a request failed: %s\n%s", type(error).__name__, where)
            if not status:
                await problems.answer(500, "something is wrong here, not with the request")(scope, receiving, sending)
        finally:
            self._metrics.request(status, time.perf_counter() - begun if path == SCREENINGS else None)

    async def _drain(self, receive: Receive) -> None:
        """Take the rest of a body that is not wanted, within the limits of one that is."""
        most = self._settings.max_bytes
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.receive_seconds):
                while most > 0 and (message := await receive()).get("more_body", False):
                    most -= len(message["body"])

    def _has_key(self, headers: Headers) -> bool:
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        given = headers.get("x-api-key") or (bearer.strip() if kind.lower() == "bearer" else "")
        digest = _digest(given)
        same = [hmac.compare_digest(digest, key) for key in self._keys]  # all of them, whichever it is
        return any(same) or not self._keys


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
