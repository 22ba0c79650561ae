"""Listening: uvicorn, with a limit in time on headers too. No log of who asked what."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..engine.errors import SettingsError
from .settings import ServiceSettings


def run(settings: ServiceSettings, app: ASGIApp) -> None:
    """Listen until SIGINT or SIGTERM, then answer what has come in. Raises SettingsError."""
    server = _Server(configured(settings, app))
    try:
        listening = socket.create_server(
            (settings.host, settings.port), family=socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        )
    except OSError as error:
        told = f"cannot listen at {settings.host}:{settings.port}: {error.strerror}; choose another host or port"
        raise SettingsError(told) from error
    with listening:
        server.run([listening])


def configured(settings: ServiceSettings, app: ASGIApp) -> uvicorn.Config:
    """Uvicorn's configuration. Raises SettingsError where the TLS files are none."""

    class Protocol(_Prompt):
        seconds = settings.receive_seconds

    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=Protocol,
        ws="none",
        access_log=False,
        log_config=None,
        log_level=logging.WARNING,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.connections,
        timeout_graceful_shutdown=int(settings.deadline_seconds) + 1,
        ssl_certfile=settings.tls_cert and str(settings.tls_cert),
        ssl_keyfile=settings.tls_key and str(settings.tls_key),
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(
            f"{settings.tls_cert}, {settings.tls_key}: are no certificate and private key as PEM"
        ) from error
    return config


class _Server(uvicorn.Server):
    def handle_exit(self, sig: int, frame: object) -> None:
        """The first signal ends it in good order, a second one at once; uvicorn would raise it anew in the end."""
        self.force_exit = self.should_exit
        self.should_exit = True


class _Prompt(H11Protocol):
    """Answers without delay, and closes a connection whose headers do not come in time; uvicorn itself would wait for ever."""

    seconds: float
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # an answer's head and body are two writes; asyncio sees to that for sockets of its own alone
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._late = self.loop.call_later(self.seconds, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:  # the headers are whole
            self._stop()
        elif self._late is None:
            self._late = self.loop.call_later(self.seconds, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
