"""What a training step of the second look is: the multi-task network's, on squares around the disc."""

from __future__ import annotations

from ...engine.spotting import Spotter
from ..multitask import batches
from ..multitask.job import MultiTaskJob, held_out, uncalibrated
from ..multitask.validation import score
from . import validation
from .config import Config
from .crops import drawn, seen


class DiscJob(MultiTaskJob):
    """See `system.Job`."""

    settings: Config
    curves = validation.CURVES

    def prepare(self) -> list[batches.Cached]:
        """See MultiTaskJob."""
        at, tasks = self.settings.geometry, self.settings.data.batch
        judged = [s for s in held_out(self._samples) if s.mask or s.labels("ratio") or s.labels("glaucoma")]
        self._squares = validation.crops(self.settings, judged)
        zoom, geometry = at.cache_diameters / at.diameters, self.settings.preparation(at.cache).build()
        taught = list[batches.Cached]()
        with Spotter() as spotter:
            for sample, own in self._samples:
                if sample.split != "train" or not any(task in own.weights and sample.labels(task) for task in tasks):
                    continue
                crop = seen(sample, geometry, spotter) if own.region == "full" else None
                case = crop.case if crop else drawn(sample, geometry)
                taught += [batches.cached(case, own, (zoom, zoom))] if case else []
        return taught

    def validate(self) -> tuple[dict[str, dict[str, float]], float]:
        """See `system.Job`."""
        maps = validation.predict(self.network, self._squares, self.settings.reading.first_share, self._device)
        figures = validation.measure(self._squares, maps, uncalibrated(self.settings.reading))
        return figures, score(figures, self._tasks)
