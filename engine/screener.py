"""The way of one photograph: read, prepare, run, find, place back. One picture at a time, or a stream in batches."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..postprocess import findings
from . import contract, photo, preprocess, results, runners
from .errors import Code, PhotoError, SettingsError
from .photo import Photo
from .results import ModelName, Rejected, Result, Screening

Source = str | os.PathLike[str] | bytes | NDArray[np.uint8] | Photo


@dataclass(frozen=True, eq=False)
class _Ready:
    """A picture that waits for the network; its full-size pixels only where they were asked for."""

    name: str
    sha256: str | None
    width: int
    height: int
    prepared: preprocess.Prepared
    photo: Photo | None


class Screener:
    """Owns a runner; safe to call from several threads. Use as a context manager, or call `close`."""

    def __init__(self, model: contract.Model, backend: str, runner: runners.Runner) -> None:
        own = model.contract
        self.model = ModelName(own.name, own.version, model.sha256, backend, own.precision)
        self.contract = own
        self._runner = runner
        self._geometry = own.geometry.build()
        self._rules = own.rules.build()

    @classmethod
    def open(
        cls, model: str | Path = "default", *, backend: str = "auto", batch: int = 8, threads: int | None = None
    ) -> Self:
        """Open a model: a path, or the name of an embedded one.

        Args: batch: the most pictures that `stream` runs at once; threads: of the backend, None for its own choice.
        Raises: ModelError, BackendError, SettingsError.
        """
        if batch < 1 or (threads is not None and threads < 1):
            raise SettingsError(f"batch {batch}, threads {threads}: each must be 1 or more")
        verified = contract.read(model)
        name, runner = runners.open_runner(verified, backend, max_batch=batch, threads=threads)
        return cls(verified, name, runner)

    def __call__(self, source: Source, name: str | None = None, *, keep_photo: bool = False) -> Result:
        """Screen one photograph, at the lowest latency. A bad picture gives a Rejected, never an exception.

        Args: source: path, bytes, uint8 (H, W, 3) RGB array, or Photo; name: how the result calls it.
        """
        ready = self._read(source, name, keep_photo)
        return ready if isinstance(ready, Rejected) else self._run([ready])[0]

    def stream(self, sources: Iterable[Source], *, workers: int = 2, keep_photo: bool = False) -> Iterator[Result]:
        """Screen many, in input order: reading and preparing overlap with the network, in bounded memory.

        Args: sources: read lazily (an array must not change until its result has come); workers: threads that read and
        prepare; keep_photo: leave the full-size pixels in the results, for drawing. Raises: SettingsError.
        """
        if workers < 1:
            raise SettingsError(f"workers {workers}: must be 1 or more")
        return self._stream(sources, workers, keep_photo)

    def _stream(self, sources: Iterable[Source], workers: int, keep_photo: bool) -> Iterator[Result]:
        size = self._runner.max_batch
        pool = ThreadPoolExecutor(workers, thread_name_prefix="funduscope")
        try:
            waiting: deque[Future[_Ready | Rejected]] = deque()
            for source in sources:
                waiting.append(pool.submit(self._read, source, None, keep_photo))
                if len(waiting) == 2 * size:  # one batch is taken, another is being prepared
                    yield from self._batch([waiting.popleft().result() for _ in range(size)])
            while waiting:
                yield from self._batch([waiting.popleft().result() for _ in range(min(size, len(waiting)))])
        finally:
            pool.shutdown(cancel_futures=True)  # the caller may have stopped in mid-stream

    def close(self) -> None:
        """Free the model."""
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _read(self, source: Source, name: str | None, keep_photo: bool) -> _Ready | Rejected:
        label = name or _label(source)
        read: Photo | None = None
        try:
            read = photo.read(source, name)
            prepared = preprocess.prepare(read, self._geometry)
        except PhotoError as error:
            return Rejected(label, read.sha256 if read else error.sha256, error.code, error.reason, self.model)
        height, width = read.pixels.shape[:2]
        return _Ready(read.name, read.sha256, width, height, prepared, read if keep_photo else None)

    def _batch(self, items: Sequence[_Ready | Rejected]) -> Iterator[Result]:
        ready = [item for item in items if isinstance(item, _Ready)]
        done = iter(self._run(ready) if ready else ())
        for item in items:
            yield item if isinstance(item, Rejected) else next(done)

    def _run(self, items: Sequence[_Ready]) -> list[Result]:
        outputs = self._runner(np.stack([item.prepared.image for item in items]))
        return [
            self._result(item, {name: output[k] for name, output in outputs.items()}) for k, item in enumerate(items)
        ]

    def _result(self, item: _Ready, maps: Mapping[str, NDArray[np.float32]]) -> Result:
        if not all(np.isfinite(output).all() for output in maps.values()):
            return Rejected(item.name, item.sha256, Code.MODEL_NONFINITE, "the model gave NaN or infinity", self.model)
        found = findings.find(maps, self._rules)
        if found.region is None:
            reason = "no optic disc was found; is this a fundus photograph that shows one?"
            return Rejected(item.name, item.sha256, Code.DISC_NOT_FOUND, reason, self.model)
        placement = item.prepared.placement
        back = placement.matrix() @ np.vstack([found.region.to_map(), [0, 0, 1]])
        disc, cup = results.outline(found.region.disc, back), results.outline(found.region.cup, back)
        assert disc is not None
        threshold = self.contract.glaucoma_threshold
        warnings = [Code.CUP_NOT_FOUND] * (cup is None) + [Code.FOVEA_NOT_FOUND] * (found.fovea is None)
        return Screening(
            name=item.name,
            sha256=item.sha256,
            width=item.width,
            height=item.height,
            warnings=tuple(warnings),
            vcdr=found.vcdr,
            disc=disc,
            cup=cup,
            fovea=placement.to_photo(*found.fovea) if found.fovea else None,
            glaucoma=None if found.glaucoma is None else found.glaucoma >= threshold,
            glaucoma_probability=found.glaucoma,
            glaucoma_network=found.glaucoma_network,
            glaucoma_vcdr=found.glaucoma_vcdr,
            threshold=threshold,
            model=self.model,
            findings=found,
            placement=placement,
            photo=item.photo,
        )


def _label(source: Source) -> str:
    if isinstance(source, Photo):
        return source.name
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return "array" if isinstance(source, np.ndarray) else "bytes"
