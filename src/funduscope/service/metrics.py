"""What Prometheus may ask: how many, how long, how many wait. Never what was in a picture, nor whose it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ..engine.results import Result

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Of one application: two of them do not share their figures."""

    def __init__(self, waiting: Callable[[], float]) -> None:
        self._registry = CollectorRegistry()
        own = {"registry": self._registry, "namespace": "funduscope"}
        self._requests = Counter("requests", "Requests by status.", ["status"], **own)  # type: ignore[arg-type]
        self._pictures = Counter("pictures", "Pictures by status and code.", ["status", "code"], **own)  # type: ignore[arg-type]
        self._seconds = Histogram(
            "screening_seconds",
            "From a request for screening to its answer.",
            buckets=_SECONDS,
            **own,  # type: ignore[arg-type]
        )
        Gauge("pictures_waiting", "That wait or are worked on.", **own).set_function(waiting)  # type: ignore[arg-type]

    def request(self, status: int, seconds: float | None) -> None:
        """Count one. Args: seconds: of one for screening; None of any other."""
        self._requests.labels(str(status)).inc()
        if seconds is not None:
            self._seconds.observe(seconds)

    def pictures(self, results: Iterable[Result]) -> None:
        """Count results."""
        for result in results:
            self._pictures.labels(result.status, str(result.code or "")).inc()

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)
