"""Training, from top to bottom. One step: a batch, a descent, and now and then a validation and a checkpoint.

What each system does in a step is in its `job` module; all that surrounds it is here, once.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import re
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from ..engine import files
from ..engine.errors import SettingsError
from . import config, curves, memory
from .average import Average
from .settings import BaseConfig, Schedule
from .system import Job
from .systems import SYSTEMS

C = TypeVar("C", bound=BaseConfig)


def train(
    config_file: Path,
    out: Path,
    *,
    data_root: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    minutes: float | None = None,
) -> bool:
    """Train the network of a configuration file; checkpoints, metrics and curves go to `out`.

    Args: data_root: in place of the file's own; resume: go on from `out`/last.pt exactly (only `schedule.steps` may have
    changed); device: auto, cpu, cuda or cuda:N; minutes: stop cleanly, with a checkpoint, after that long.
    Returns: whether the last step was reached. Raises: SettingsError, DataError before the first step; SettingsError where
    the loss is no longer finite.
    """
    settings = config.load(config_file)
    root = data_root or (config_file.parent / settings.data.root)
    settings = with_root(settings, root.resolve())
    where = device_of(device)
    job = SYSTEMS[settings.kind].job(settings, root)
    make_folder(out)
    done = run(job, out, config_file.parent, resume=resume, device=where, minutes=minutes)
    (out / "config.toml").write_text(config_file.read_text(encoding="utf-8"), encoding="utf-8")
    return done


def run(job: Job, out: Path, folder: Path, *, resume: bool, device: torch.device, minutes: float | None = None) -> bool:
    """See `train`. Args: out: exists; folder: from where pretrained weights are named."""
    started = time.monotonic()
    console = Console(stderr=True)
    settings, plan = job.settings, job.settings.schedule
    last = out / "last.pt"
    if last.exists() and not resume:
        raise SettingsError(f"{last} exists; resume that run, or choose another folder")
    state = _saved_state(last, settings) if resume else None

    memory.keep_freed()
    torch.manual_seed(settings.seed)
    console.print(f"{settings.name}: preparing the pictures", highlight=False)
    job.start(device, folder if state is None else None)
    step, best, smooth = 0, float("-inf"), dict[str, float]()
    average = Average(job.network, plan.average)
    if state is not None:
        job.network.load_state_dict(state["network"])
        average.load(state.get("average", {}))
        job.optimiser.load_state_dict(state["optimiser"])
        step, best, smooth = state["step"], state["best"], state["smooth"]
        if step > plan.steps:
            raise SettingsError(f"{last} is of step {step} already; schedule.steps says {plan.steps}")
    log = _open_log(out / "metrics.jsonl", step)
    record = {"device": _device_name(device), "torch": str(torch.__version__), "bf16": plan.bf16}
    record["parameters"] = sum(parameter.numel() for parameter in job.network.parameters())

    with log, _progress(console) as progress:
        bar = progress.add_task("", total=plan.steps, completed=step, losses="")
        for batch in job.stream(step, plan.steps):
            lr = learning_rate(plan, step)
            job.network.train()
            if step >= plan.freeze_batchnorm * plan.steps:
                freeze_batchnorm(job.network)
            torch.manual_seed((settings.seed << 32) + step)  # dropout: step k draws the same in a resumed run
            values = job.step(batch, lr)
            step += 1
            average.update(step)
            if not all(map(math.isfinite, values.values())):
                raise SettingsError(
                    f"{settings.name}: the loss is {values} at step {step}: training has diverged; lower schedule.lr "
                    f"(here {lr:g}) and start again in another folder"
                )

            smooth = {task: 0.95 * smooth.get(task, value) + 0.05 * value for task, value in values.items()}
            progress.update(bar, completed=step, losses="  ".join(f"{t} {v:.4f}" for t, v in smooth.items()))
            stopping = minutes is not None and time.monotonic() - started > 60 * minutes
            regular = step % plan.validate_every == 0 or step == plan.steps
            if regular or stopping:
                with average:
                    figures, score = job.validate()
                    kept = average.copy()
                line = {"step": step, "lr": lr, "losses": smooth, "score": score, "sets": figures, **record}
                log.write(json.dumps(line) + "\n")
                log.flush()
                better = regular and score > best  # a stop must not choose a step that another run would not look at
                best = max(best, score) if regular else best
                checkpoint = {"config": settings.model_dump_json(), "step": step, "best": best, **record}
                if better:  # before last.pt, which says that it is there
                    save(checkpoint | {"network": kept}, out / "best.pt")
                running = {"network": job.network.state_dict(), "average": average.state}
                save(checkpoint | running | {"optimiser": job.optimiser.state_dict(), "smooth": dict(smooth)}, last)
                curves.draw(out / "metrics.jsonl", out / "curves.png", job.curves)
                progress.console.print(
                    f"step {step}  score {score:.4f}  {_short(figures, job.curves)}", highlight=False
                )
            if stopping:
                console.print(f"stopped at step {step} of {plan.steps}; resume the run to go on")
                break
    return step == plan.steps


def learning_rate(plan: Schedule, step: int) -> float:
    """Linear warm-up, constant, linear to zero over the last `decay` share."""
    rise = min(1.0, (step + 1) / plan.warmup)
    fall = min(1.0, (plan.steps - step) / max(1.0, plan.decay * plan.steps))
    return plan.lr * min(rise, fall)


def freeze_batchnorm(network: nn.Module) -> None:
    """BatchNorm by its running statistics, its scale and shift still learning."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def with_root(settings: C, root: Path) -> C:
    """The same configuration with its data below another folder."""
    return settings.model_copy(update={"data": settings.data.model_copy(update={"root": str(root)})})


def make_folder(out: Path) -> None:
    """Make a run's folder. Raises OutputError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.refused(out, error) from None


def save(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint in one piece: a crash leaves the old file or the new one."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def save_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Arrays as a compressed .npz, whole or not at all."""
    part = path.with_name(f"part-{path.name}")
    np.savez_compressed(part, allow_pickle=False, **arrays)
    part.replace(path)


def load_checkpoint(path: Path) -> tuple[BaseConfig, dict[str, Any]]:
    """A checkpoint's configuration and state; tensors and plain values only. Raises SettingsError for a foreign file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return config.from_json(state["config"]), state
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such checkpoint") from None
    except Exception as error:  # torch raises whatever its unpickler meets; all of it means: not our file
        raise SettingsError(f"{path}: not a Funduscope checkpoint ({type(error).__name__})") from error


def digest(network: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of a network's tensors: whether a calibration is of this very network."""
    found = hashlib.sha256()
    for name in sorted(network):
        found.update(name.encode())
        found.update(network[name].contiguous().numpy().tobytes())
    return found.hexdigest()


def _saved_state(path: Path, settings: BaseConfig) -> dict[str, Any]:
    saved, state = load_checkpoint(path)
    if changed := _changed(saved, settings, {"schedule": {"steps"}, "data": {"root", "workers"}}):
        raise SettingsError(f"{path}: {', '.join(changed)} changed since it was saved; only schedule.steps may")
    return state


def expect_same(path: Path, settings: BaseConfig) -> None:
    """Raises SettingsError where a checkpoint that is done is of another configuration."""
    if changed := _changed(load_checkpoint(path)[0], settings, {"data": {"root", "workers"}}):
        raise SettingsError(f"{path}: {', '.join(changed)} changed since it was trained; choose another folder")


def _changed(saved: BaseConfig, settings: BaseConfig, may: Any) -> list[str]:
    before, now = (own.model_dump(exclude=may) for own in (saved, settings))
    return [key for key, value in now.items() if before.get(key) != value]


def _open_log(path: Path, step: int) -> TextIO:
    """The metrics file, without lines of steps that a resumed run will make again, nor one that a crash has cut."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if step and path.exists() else ():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except ValueError:
            continue
    part = path.with_suffix(".part")
    part.write_text("".join(kept), encoding="utf-8")
    part.replace(path)
    return path.open("a", encoding="utf-8")


def device_of(name: str) -> torch.device:
    """The device of a name: auto, cpu, cuda or cuda:N. Raises SettingsError for one that is not here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not re.fullmatch(r"cuda(:\d+)?", name):
        raise SettingsError(f"device {name}: allowed are auto, cpu, cuda and cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(f"device {name}: torch sees {torch.cuda.device_count()} CUDA devices here")
    return device


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"


def _progress(console: Console) -> Progress:
    return Progress(
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
        console=console,
    )


def _short(figures: Mapping[str, Mapping[str, float]], keys: Collection[str]) -> str:
    rows = {name: " ".join(f"{k} {v:.3f}" for k, v in row.items() if k in keys) for name, row in figures.items()}
    return "  ".join(f"{name}: {row}" for name, row in rows.items() if row)
