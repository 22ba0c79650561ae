"""What the service is run with: where it listens, who may ask, and how much at once."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path

from ..engine.errors import SettingsError
from ..engine.outputs.store import Store

KEY = "FUNDUSCOPE_API_KEY"  # the environment variable
_SHORTEST = 16  # characters of a key


@dataclass(frozen=True)
class ServiceSettings:
    """Where the service listens, who may ask, and how much at once.

    Attributes:
        host: Address to listen at; one that other machines can reach needs a key.
        port: To listen at.
        keys: One of them must come with each request; none: anyone who reaches the service may ask.
        tls_cert: PEM file of the certificate and its chain.
        tls_key: PEM file of the certificate's private key.
        queue: The most pictures that wait or are worked on; more are refused with 429.
        max_bytes: Of one request's body.
        max_pictures: Of one request.
        receive_seconds: In which a request must have come in, headers and body each.
        deadline_seconds: In which its pictures must be screened.
        connections: The most at once; more are refused with 503.
        results: The folder of a run whose results can be looked through; None: there is no such page.

    Example:
        ```python
        from funduscope.service import ServiceSettings, application

        with funduscope.Screener.open() as screener:
            app = application(ServiceSettings(queue=16), screener)
        ```

    Raises:
        SettingsError: A value is wrong.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[str, ...] = field(default=(), repr=False)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    queue: int = 64
    max_bytes: int = 32 * 2**20
    max_pictures: int = 16
    receive_seconds: float = 20.0
    deadline_seconds: float = 30.0
    connections: int = 64
    results: Path | None = None

    def __post_init__(self) -> None:
        if not self.is_loopback and not self.keys:
            raise SettingsError(
                f"host {self.host}: other machines can reach it, so it needs a key; put one into {KEY} or a key file"
            )
        if any(len(key) < _SHORTEST or not key.isascii() or not key.isprintable() for key in self.keys):
            raise SettingsError(f"a key must have {_SHORTEST} or more characters, all of them printable ASCII")
        if self.results is not None:
            with Store(self.results):  # says so where there is no run
                pass
        if not 0 <= self.port < 65536:
            raise SettingsError(f"port {self.port}: must be 0 to 65535")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise SettingsError("TLS needs both files: the certificate and its private key")
        for path in (self.tls_cert, self.tls_key):
            if path is not None and not path.is_file():
                raise SettingsError(f"{path}: there is no such file; TLS needs certificate and private key as PEM")
        for name in ("queue", "max_bytes", "max_pictures", "receive_seconds", "deadline_seconds", "connections"):
            if getattr(self, name) <= 0:
                raise SettingsError(f"{name} {getattr(self, name)}: must be above 0")
        if self.max_pictures > self.queue:
            raise SettingsError(
                f"max_pictures {self.max_pictures}: cannot be more than the queue has places, {self.queue}"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def read_keys(path: Path | None) -> tuple[str, ...]:
    """The keys of a file, one a line (empty lines and those with # do not count), and that of the environment.

    Args:
        path: Of the file; None: the environment alone.

    Raises:
        SettingsError: The file cannot be read, or has no key.
    """
    keys = [os.environ[KEY]] if os.environ.get(KEY) else []
    if path is not None:
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError) as error:
            raise SettingsError(f"{path}: cannot be read as a file of keys ({type(error).__name__})") from error
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise SettingsError(f"{path}: has no key; write one a line")
        keys += found
    return tuple(dict.fromkeys(keys))
