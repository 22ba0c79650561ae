"""Screening over HTTP: one screener for all who ask, in an ASGI application that stands alone or within another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..engine.errors import require
from ..engine.screener import Screener, ScreenerSettings
from .settings import ServiceSettings

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["ServiceSettings", "application", "deployment", "serve"]


def application(settings: ServiceSettings, screener: Screener) -> Starlette:
    """The service as an ASGI application, to run or to mount.

    Args:
        settings: Keys and limits; where it listens is for `serve` alone.
        screener: Shared by all requests; it is warmed up when the application starts, and stays open when it ends.

    Returns:
        The application.

    Raises:
        MissingExtra: Starlette or another part is not installed.
    """
    expect()
    from .app import build

    return build(settings, screener)


def deployment(settings: ServiceSettings, opened: ScreenerSettings, **options: Any) -> Any:
    """The service as an application of Ray Serve, to be run by `ray.serve.run`. Each replica opens models of its own.

    Args:
        settings: Keys and limits, of each replica; where it listens, TLS and the number of connections are Ray's.
        opened: What each replica opens.
        **options: Of Ray's deployment, such as `num_replicas` or `ray_actor_options`.

    Returns:
        The application, bound.

    Raises:
        MissingExtra: Ray Serve, Starlette or another part is not installed.
    """
    expect()

    def build() -> Starlette:  # on the node of a replica
        return application(settings, opened.open())

    ray = require("ray.serve", "ray")
    given = {"name": "funduscope", "max_ongoing_requests": settings.connections} | options
    return ray.deployment(**given)(ray.ingress(build)()).bind()


def serve(settings: ServiceSettings, screener: Screener) -> None:
    """Listen and answer until SIGINT or SIGTERM.

    Args:
        settings: See `ServiceSettings`.
        screener: Stays open when it ends.

    Raises:
        MissingExtra: uvicorn or another part is not installed.
        SettingsError: The port is taken, or the address is none of this machine's.
    """
    expect()
    from .server import run

    run(settings, application(settings, screener))


def expect() -> None:
    """See that all parts are installed. Raises MissingExtra."""
    for module in ("starlette", "uvicorn", "python_multipart", "prometheus_client"):
        require(module, "service")
