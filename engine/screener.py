"""The way of one photograph: read, prepare, run, find, place back. One picture at a time, or a stream in batches.

Up to two models look at the same decoded picture: the multi-task model and the classifier. Each has its own preparation.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from ..postprocess import findings, measures, scores
from . import contract, results, runners
from .contract import PointName
from .errors import Code, ModelError, PhotoError, SettingsError
from .pictures import photo, preprocess
from .pictures.inputs import Listed
from .pictures.photo import Photo
from .pictures.preprocess import Placement
from .results import DISEASES, Classification, Eyes, HeatMap, ModelName, Opinion, Rejected, Result, Screening

Source = str | os.PathLike[str] | bytes | NDArray[np.uint8] | Photo | Listed
Outputs = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class _Ready:
    """A picture that waits for the networks; its full-size pixels only where they were asked for.

    prepared: by the multi-task model and by the classifier; None where that model is not open, or cannot use the picture.
    """

    name: str
    sha256: str | None
    eyes: Eyes
    warnings: tuple[Code, ...]
    width: int
    height: int
    prepared: tuple[preprocess.Prepared | None, preprocess.Prepared | None]
    photo: Photo | None


Kind = TypeVar("Kind", contract.MultiTask, contract.Classifier)


class _Opened(Generic[Kind]):
    """One model, ready to run."""

    def __init__(self, model: contract.Model, own: Kind, backend: str, batch: int, threads: int | None) -> None:
        name, self.runner = runners.open_runner(model, backend, max_batch=batch, threads=threads)
        self.document: Kind = own
        self.name = ModelName(own.name, own.version, own.sha256, name, self.runner.precision)
        self.geometry = own.geometry.build()

    def run(self, prepared: Sequence[preprocess.Prepared | None]) -> Iterator[Outputs | None]:
        """Each picture's outputs; None for a picture that is not there."""
        present = [one.image for one in prepared if one is not None]
        outputs = self.runner(np.stack(present)) if present else {}
        rows = iter(range(len(present)))
        for one in prepared:
            k = next(rows) if one is not None else None
            yield None if k is None else {name: output[k] for name, output in outputs.items()}


class Screener:
    """Owns the runners; safe to call from several threads. Use as a context manager, or call `close`."""

    def __init__(
        self, models: Sequence[contract.Model], backend: str, batch: int, threads: int | None, point: PointName | None
    ) -> None:
        self._multitask: _Opened[contract.MultiTask] | None = None
        self._classifier: _Opened[contract.Classifier] | None = None
        self._batch_size = batch
        if not models:
            raise ModelError("no models are embedded in this installation; install it again, or name model files")
        with ExitStack() as undo:
            undo.callback(self.close)
            for model in models:
                own = model.contract
                if isinstance(own, contract.MultiTask) and self._multitask is None:
                    self._multitask = _Opened(model, own, backend, batch, threads)
                elif isinstance(own, contract.Classifier) and self._classifier is None:
                    self._classifier = _Opened(model, own, backend, batch, threads)
                else:
                    raise SettingsError(
                        f"{model.path}: a second model of the kind {own.kind}; open one of each kind at most"
                    )
            if point is not None and self._classifier is None:
                raise SettingsError(
                    f"operating point {point}: only a classifier has operating points, and none is open"
                )
            undo.pop_all()
        self._rules = self._multitask.document.rules.build() if self._multitask else None
        self.point: PointName | None = point or (self.classifier.point if self.classifier else None)

    @classmethod
    def open(
        cls,
        *models: str | Path,
        backend: str = "auto",
        batch: int = 8,
        threads: int | None = None,
        point: PointName | None = None,
    ) -> Self:
        """Open models: paths, or names of embedded ones; none, or `default`: all that are embedded.

        Args: batch: the most pictures that `stream` runs at once; threads: of the backend, None for its own choice;
        point: the classifier's operating point, None for its own choice.
        Raises: ModelError, BackendError, SettingsError.
        """
        if batch < 1 or (threads is not None and threads < 1):
            raise SettingsError(f"batch {batch}, threads {threads}: each must be 1 or more")
        if point is not None and point not in get_args(PointName):
            raise SettingsError(f"operating point {point}: allowed are {', '.join(get_args(PointName))}")
        names: Iterable[str | Path] = models
        if not models or tuple(map(str, models)) == ("default",):
            names = contract.embedded()
        elif "default" in map(str, models):
            raise SettingsError("default means all embedded models; name it alone, or name each model")
        return cls([contract.read(name) for name in names], backend, batch, threads, point)

    @property
    def _opened(self) -> list[_Opened[Any]]:
        return [own for own in (self._multitask, self._classifier) if own is not None]

    @property
    def multitask(self) -> contract.MultiTask | None:
        """The contract of the multi-task model; None where none is open."""
        return self._multitask.document if self._multitask else None

    @property
    def classifier(self) -> contract.Classifier | None:
        """The contract of the classifier; None where none is open."""
        return self._classifier.document if self._classifier else None

    @property
    def contracts(self) -> tuple[contract.Contract, ...]:
        """The contracts of the open models."""
        return tuple(own for own in (self.multitask, self.classifier) if own is not None)

    @property
    def models(self) -> tuple[ModelName, ...]:
        """The names of the open models, in the order of `contracts`."""
        return tuple(own.name for own in self._opened)

    def __call__(self, source: Source, name: str | None = None, *, keep_photo: bool = False) -> Result:
        """Screen one photograph, at the lowest latency. A bad picture gives a Rejected, never an exception.

        Args: source: path, bytes, uint8 (H, W, 3) RGB array, or Photo; name: how the result calls it.
        """
        ready = self._read(source, name, keep_photo)
        return ready if isinstance(ready, Rejected) else self._run([ready])[0]

    def stream(self, sources: Iterable[Source], *, workers: int = 2, keep_photo: bool = False) -> Iterator[Result]:
        """Screen many, in input order: reading and preparing overlap with the networks, in bounded memory.

        Args: sources: read lazily (an array must not change until its result has come); workers: threads that read and
        prepare; keep_photo: leave the full-size pixels in the results, for drawing. Raises: SettingsError.
        """
        if workers < 1:
            raise SettingsError(f"workers {workers}: must be 1 or more")
        return self._stream(sources, workers, keep_photo)

    def _stream(self, sources: Iterable[Source], workers: int, keep_photo: bool) -> Iterator[Result]:
        size, slots = self._batch_size, max(own.runner.slots for own in self._opened)
        readers = ThreadPoolExecutor(workers, thread_name_prefix="funduscope")
        networks = ThreadPoolExecutor(slots, thread_name_prefix="funduscope")
        try:
            waiting: deque[Future[_Ready | Rejected]] = deque()
            running: deque[Future[list[Result]]] = deque()

            def start(count: int) -> None:
                items = [waiting.popleft().result() for _ in range(count)]
                running.append(networks.submit(self._batch, items))

            for source in sources:
                waiting.append(readers.submit(self._read, source, None, keep_photo))
                if len(running) < slots:
                    if len(waiting) == 2 * size:  # one batch is taken, another is being read
                        start(size)
                elif len(waiting) > size:
                    yield from running.popleft().result()
                    start(size)
            while waiting or running:
                if len(running) == slots or not waiting:
                    yield from running.popleft().result()
                else:
                    start(min(size, len(waiting)))
        finally:
            for pool in (readers, networks):
                pool.shutdown(cancel_futures=True)  # the caller may have stopped in mid-stream

    def close(self) -> None:
        """Free the models."""
        for own in self._opened:
            own.runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _read(self, source: Source, name: str | None, keep_photo: bool) -> _Ready | Rejected:
        listed = source if isinstance(source, Listed) else Listed("", None, None)
        label = name or _label(source)
        read: Photo | None = None
        try:
            read = photo.read(source.path if isinstance(source, Listed) else source, name)
            eyes, warnings = _eyes(listed, read)
            first = preprocess.prepare(read, self._multitask.geometry) if self._multitask else None
            second = None
            if self._classifier:
                try:
                    second = preprocess.prepare(read, self._classifier.geometry)
                except PhotoError:
                    if first is None:  # nothing else could say anything of this picture
                        raise
                    warnings = (*warnings, Code.CLASSIFIER_UNGRADABLE)
        except PhotoError as error:
            known = read or error
            return self._rejected(label, known.sha256, error.code, error.reason, *_eyes(listed, known))
        height, width = read.pixels.shape[:2]
        kept = read if keep_photo else None
        return _Ready(read.name, read.sha256, eyes, warnings, width, height, (first, second), kept)

    def _rejected(
        self, name: str, sha256: str | None, code: Code, reason: str, eyes: Eyes, warnings: tuple[Code, ...]
    ) -> Rejected:
        first, second = (own.name if own else None for own in (self._multitask, self._classifier))
        return Rejected(name, sha256, code, reason, first, second, eyes, warnings)

    def _batch(self, items: Sequence[_Ready | Rejected]) -> list[Result]:
        ready = [item for item in items if isinstance(item, _Ready)]
        done = iter(self._run(ready) if ready else ())
        return [item if isinstance(item, Rejected) else next(done) for item in items]

    def _run(self, items: Sequence[_Ready]) -> list[Result]:
        nothing: list[Outputs | None] = [None] * len(items)
        first, second = (
            nothing if own is None else list(own.run([item.prepared[k] for item in items]))
            for k, own in enumerate((self._multitask, self._classifier))
        )
        return [self._result(*each) for each in zip(items, first, second, strict=True)]

    def _result(self, item: _Ready, maps: Outputs | None, opinions: Outputs | None) -> Result:
        for outputs in (maps, opinions):
            if outputs is not None and not all(np.isfinite(output).all() for output in outputs.values()):
                reason = "the model gave NaN or infinity"
                return self._rejected(item.name, item.sha256, Code.MODEL_NONFINITE, reason, item.eyes, item.warnings)
        screening = Screening(
            name=item.name,
            sha256=item.sha256,
            width=item.width,
            height=item.height,
            warnings=item.warnings,
            eyes=item.eyes,
            photo=item.photo,
        )
        first, second = item.prepared
        if self._multitask and self._rules and first and maps is not None:
            found = _measured(screening, self._multitask, self._rules, maps, first.placement)
            if found is None:
                reason = "no optic disc was found; is this a fundus photograph that shows one?"
                return self._rejected(item.name, item.sha256, Code.DISC_NOT_FOUND, reason, item.eyes, item.warnings)
            screening = found
        if self._classifier and self.point and second and opinions is not None:
            screening = _classified(screening, self._classifier, self.point, opinions, second.placement)
        return screening


def _measured(
    screening: Screening,
    opened: _Opened[contract.MultiTask],
    rules: findings.Rules,
    maps: Outputs,
    placement: Placement,
) -> Screening | None:
    """With what the multi-task model found; None without a disc."""
    found = findings.find(maps, rules)
    if found.region is None:
        return None
    back = placement.matrix() @ np.vstack([found.region.to_map(), [0, 0, 1]])
    disc, cup = results.outline(found.region.disc, back), results.outline(found.region.cup, back)
    assert disc is not None
    fovea = placement.to_photo(*found.fovea) if found.fovea else None
    warnings = [Code.CUP_NOT_FOUND] * (cup is None) + [Code.FOVEA_NOT_FOUND] * (fovea is None)
    eyes = screening.eyes
    seen = measures.eye_of((disc.x, disc.y), fovea, disc.vertical_diameter_px) if fovea else None
    if seen and eyes.eye is None:
        eyes = replace(eyes, eye=seen, source="picture")
    elif seen and seen != eyes.eye and Code.LATERALITY_CONFLICT not in screening.warnings:
        warnings.append(Code.LATERALITY_CONFLICT)
    threshold = opened.document.glaucoma_threshold
    return replace(
        screening,
        warnings=(*screening.warnings, *warnings),
        eyes=eyes,
        vcdr=found.vcdr,
        disc=disc,
        cup=cup,
        fovea=fovea,
        glaucoma=None if found.glaucoma is None else found.glaucoma >= threshold,
        glaucoma_probability=found.glaucoma,
        glaucoma_network=found.glaucoma_network,
        glaucoma_vcdr=found.glaucoma_vcdr,
        threshold=threshold,
        model=opened.name,
        findings=found,
        placement=placement,
    )


def _classified(
    screening: Screening,
    opened: _Opened[contract.Classifier],
    point: PointName,
    outputs: Outputs,
    placement: Placement,
) -> Screening:
    """With the classifier's opinions."""
    own = opened.document
    grid = None if own.map_grid is None else placement.matrix() @ own.map_grid.to_square()
    opinions = {}
    for disease in DISEASES:
        decision: contract.DecisionPart = getattr(own.decisions, disease)
        probability = float(outputs[disease])
        at: contract.PointPart = getattr(decision.points, point)
        heat = None
        if grid is not None and decision.map_scale is not None:
            heat = HeatMap(np.clip(outputs[f"{disease}_map"] / np.float32(decision.map_scale), 0, 1), grid)
        positive = scores.decide(probability, at.threshold, at.uncertain_logit)
        opinions[disease] = Opinion(probability, at.threshold, positive, heat)
    if not opinions["any_dr"].positive and opinions["referable_dr"].positive is not False:  # which is one grade of any
        opinions["any_dr"] = replace(opinions["any_dr"], positive=opinions["referable_dr"].positive)
    found = Classification(**opinions, point=point, model=opened.name)
    warnings = [Code.GLAUCOMA_UNCERTAIN] * (found.glaucoma.positive is None)
    warnings += [Code.DR_UNCERTAIN] * (found.referable_dr.positive is None)
    warnings += [Code.ANY_DR_UNCERTAIN] * (found.any_dr.positive is None)
    if screening.glaucoma_probability is not None and screening.threshold is not None:
        first = scores.from_threshold(screening.glaucoma_probability, screening.threshold)
        second = scores.from_threshold(found.glaucoma.probability, own.decisions.glaucoma.points.balanced.threshold)
        contrary = found.glaucoma.positive is (not screening.glaucoma)
        warnings += [Code.GLAUCOMA_DISAGREEMENT] * (contrary or abs(first - second) > own.disagreement)
    return replace(screening, classification=found, warnings=(*screening.warnings, *warnings))


def _eyes(listed: Listed, read: Photo | PhotoError) -> tuple[Eyes, tuple[Code, ...]]:
    """What the list and the file say of whose eye it is, and whether they contradict each other; the list has the last word."""
    patient = listed.patient or read.patient
    if listed.eye:
        conflict = (Code.LATERALITY_CONFLICT,) if read.eye and listed.eye != read.eye else ()
        return Eyes(patient, listed.eye, "list"), conflict
    return (Eyes(patient, read.eye, "file") if read.eye else Eyes(patient)), ()


def _label(source: Source) -> str:
    if isinstance(source, Photo):
        return source.name
    if isinstance(source, Listed):
        return source.path
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return "array" if isinstance(source, np.ndarray) else "bytes"
