"""A screener on a Ray cluster: the same results in the same order, by actors on its nodes. Needs the extra `ray`."""

from __future__ import annotations

import socket
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from types import ModuleType
from typing import Any, Self

from .contract import Contract
from .errors import SettingsError, require
from .eyes import Listed
from .outputs.packing import as_bytes, as_text, packed, unpacked
from .pictures.photo import Source
from .results import ModelName, Result
from .screener import Screener, ScreenerSettings

_WINDOW = 50_000  # pictures that are under way on the cluster at once: what the driver holds in memory
_BATCHES = 8  # of a block, which one actor takes; a node that dies costs no more
_ANSWERS = 5.0  # seconds within which a cluster's address answers


@dataclass(frozen=True)
class _Opened:
    """What the nodes' screeners are."""

    models: tuple[ModelName, ...]
    contracts: tuple[Contract, ...]
    point: str | None


def _look(settings: ScreenerSettings) -> _Opened:
    """As a screener opens here."""
    with settings.open() as screener:
        return _Opened(screener.models, screener.contracts, screener.point)


class _Actor:
    """On a node: screens batches. Raises SettingsError where it opens otherwise than the others."""

    def __init__(self, settings: ScreenerSettings, models: tuple[ModelName, ...]) -> None:
        self._screener: Screener = settings.open()
        if self._screener.models != models:
            raise SettingsError(f"a node opens {self._screener.models}, another one {models}; name backend and models")

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        listed = [
            Listed(as_text(path), as_text(patient) or None, eye or None, int(frame) or None)
            for path, patient, eye, frame in zip(
                batch["path"], batch["patient"], batch["eye"], batch["frame"], strict=True
            )
        ]
        return {"found": [packed(result) for result in self._screener.stream(listed)]}


class ClusterScreener:
    """Like a `Screener`, for a `Run`: one actor on each node, or on each GPU. A context manager.

    Pictures are paths that every node can read: on shared storage, or members of archives there. A node that dies costs neither
    rows nor duplicates: its pictures are screened by another.

    Attributes:
        settings: What each actor opens. Its backend and models are to be the same on all nodes.
        models: As of a Screener.
        contracts: As of a Screener.
        point: As of a Screener.
    """

    def __init__(self, settings: ScreenerSettings, address: str = "auto", *, gpus: float = 0) -> None:
        """Connect, and open a screener on one node to see what it is.

        Args:
            settings: What each actor opens.
            address: Of the cluster, as `ray.init` takes it.
            gpus: Of each actor.

        Raises:
            MissingExtra: Ray is not installed.
            SettingsError: There is no cluster at the address.
        """
        self._ray: ModuleType = require("ray", "ray")
        require("ray.data", "ray")
        try:
            _expect_somebody(address)
            self._ray.init(address, log_to_driver=False, logging_level="ERROR")
        except (OSError, RuntimeError, ValueError) as error:
            raise SettingsError(f"{address}: no Ray cluster there ({error})") from None
        self.settings, self._gpus = settings, gpus
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        self._cpus = min((node["CPU"] for node in nodes if node.get("CPU")), default=1.0)
        self._actors = int(sum(node.get("GPU", 0) // gpus if gpus else bool(node.get("CPU")) for node in nodes)) or 1
        opened = self._ray.get(self._ray.remote(num_cpus=self._cpus, num_gpus=gpus)(_look).remote(settings))
        self.models, self.contracts, self.point = opened.models, opened.contracts, opened.point

    def stream(self, sources: Iterable[Source], **_of_a_screener: Any) -> Generator[Result]:
        """Screen many, in input order. Args: sources: paths or entries of lists; what else a Screener takes is not used.

        Raises: TypeError for other sources.
        """
        remaining = iter(sources)
        while window := [_listed(source) for source in islice(remaining, _WINDOW)]:
            yield from self._window(window)

    def _window(self, pictures: Sequence[Listed]) -> Iterator[Result]:
        data, batch = self._ray.data, self.settings.batch
        data.DataContext.get_current().execution_options.preserve_order = True
        data.DataContext.get_current().enable_progress_bars = False
        rows = [
            {
                "path": as_bytes(own.path),
                "patient": as_bytes(own.patient or ""),
                "eye": own.eye or "",
                "frame": own.frame or 0,
            }
            for own in pictures
        ]
        # blocks of whole batches: the same pictures share a batch as in a run on one machine
        size = batch * _BATCHES
        blocks = [data.from_items(rows[k : k + size], override_num_blocks=1) for k in range(0, len(rows), size)]
        found = (blocks[0].union(*blocks[1:]) if len(blocks) > 1 else blocks[0]).map_batches(
            _Actor,
            batch_size=batch,
            fn_constructor_args=(self.settings, self.models),
            concurrency=self._actors,
            num_cpus=None if self._gpus else self._cpus,
            num_gpus=self._gpus or None,
        )
        for row in found.iter_rows():
            yield unpacked(row["found"], self.models)

    def close(self) -> None:
        """Leave the cluster."""
        self._ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _expect_somebody(address: str) -> None:
    """Raise OSError where nobody listens, which Ray itself needs a quarter of an hour to say."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWERS).close()


def _listed(source: Source) -> Listed:
    if isinstance(source, Listed):
        return source
    if isinstance(source, str):
        return Listed(source)
    raise TypeError(f"a cluster screens paths and entries of lists, not {type(source).__name__}")
