"""Training, from top to bottom. One step: batches, a round of the tasks, and now and then a validation and a checkpoint."""

from __future__ import annotations

import json
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from ..engine import dataset
from ..engine.errors import DataError, OutputError, SettingsError
from ..engine.preprocess import Geometry
from ..engine.sample import Sample
from ..postprocess.findings import Rules
from . import batches, cases, config, curves, losses, validation
from .config import Config, Reading, SetSettings
from .mtl import MultiTaskOptimiser
from .networks import TASKS, Deployed, MultiTaskUNet


def uncalibrated(reading: Reading) -> Rules:
    """Rules before calibration has fitted them: half is half, and the vCDR is its own logit."""
    return Rules(0.5, 0.5, reading.fovea_mode, reading.fovea_min_peak, vcdr_coefficient=1.0, vcdr_intercept=0.0)


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
    Returns: whether the last step was reached. Raises: SettingsError, DataError before the first step.
    """
    started = time.monotonic()
    settings = config.load(config_file)
    root = data_root or (config_file.parent / settings.data.root)
    settings = settings.model_copy(update={"data": settings.data.model_copy(update={"root": str(root.resolve())})})
    where = _device(device)
    console = Console(stderr=True)
    samples = read_samples(settings, root)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); choose another --out") from None
    last = out / "last.pt"
    if last.exists() and not resume:
        raise SettingsError(f"{last} exists; go on with --resume, or choose another --out")
    state = _saved_state(last, settings) if resume else None

    torch.manual_seed(settings.seed)
    network = MultiTaskUNet(settings.network.width, settings.network.dropout)
    if settings.network.imagenet and state is None:
        network.load_imagenet(config_file.parent / settings.network.imagenet)

    geometry = Geometry(settings.geometry.size, settings.geometry.fov_threshold)
    console.print(f"{settings.name}: preparing {len(samples)} pictures", highlight=False)
    held = [cases.prepare(s, geometry) for s, own in samples if s.split == "val" and own.region == "full"]
    pictures = batches.cache_all(
        [(s, own) for s, own in samples if s.split == "train"],
        Geometry(settings.geometry.cache, settings.geometry.fov_threshold),
        settings.data.workers,
    )
    drawer = batches.Batches(pictures, settings)

    network = network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    tasks = [task for task in TASKS if task in settings.data.batch]
    plan = settings.schedule
    optimiser = MultiTaskOptimiser(
        {task: network.reach(task) for task in tasks}, plan.strategy, plan.lr, plan.weight_decay
    )
    step, best = 0, float("-inf")
    if state is not None:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        step, best = state["step"], state["best"]
    log = _open_log(out / "metrics.jsonl", step)
    (out / "config.toml").write_text(config_file.read_text(encoding="utf-8"), encoding="utf-8")
    record = {"device": _device_name(where), "torch": str(torch.__version__), "bf16": plan.bf16}
    record["parameters"] = sum(parameter.numel() for parameter in network.parameters())
    rules = uncalibrated(settings.reading)
    smooth: dict[str, float] = {}

    with log, _progress(console) as progress:
        bar = progress.add_task("", total=plan.steps, completed=step, losses="")
        for batch in drawer.stream(step, plan.steps):
            lr = learning_rate(settings, step)
            network.train()
            if step >= plan.freeze_batchnorm * plan.steps:
                freeze_batchnorm(network)
            torch.manual_seed((settings.seed << 32) + step)  # dropout: step k draws the same in a resumed run
            values = optimiser.step(task_losses(network, batch, settings, where), lr)
            step += 1

            smooth = {task: 0.95 * smooth.get(task, value) + 0.05 * value for task, value in values.items()}
            progress.update(bar, completed=step, losses="  ".join(f"{t} {v:.4f}" for t, v in smooth.items()))
            stopping = minutes is not None and time.monotonic() - started > 60 * minutes
            if step % plan.validate_every == 0 or step == plan.steps or stopping:
                maps = list(validation.predict(Deployed(network), [case.prepared.image for case in held], where))
                figures = validation.measure(held, maps, rules)
                score = validation.score(figures, tasks)
                line = {"step": step, "lr": lr, "losses": smooth, "score": score, "sets": figures, **record}
                log.write(json.dumps(line) + "\n")
                log.flush()
                better, best = score > best, max(best, score)
                checkpoint = {"config": settings.model_dump_json(), "step": step, "best": best, **record}
                checkpoint["network"] = network.state_dict()
                if better:  # before last.pt, which says that it is there
                    save(checkpoint, out / "best.pt")
                save(checkpoint | {"optimiser": optimiser.state_dict()}, last)
                curves.draw(out / "metrics.jsonl", out / "curves.png")
                progress.console.print(f"step {step}  score {score:.4f}  {_short(figures)}", highlight=False)
            if stopping:
                console.print(f"stopped at step {step} of {plan.steps}; go on with --resume")
                break
    return step == plan.steps


def task_losses(
    network: MultiTaskUNet, batch: dict[str, batches.Batch], settings: Config, device: torch.device
) -> dict[str, Callable[[], Tensor]]:
    """Per task, a call that runs the network through what that task needs, on its batch, and returns its loss."""
    functions = losses.of_tasks(settings.schedule.fovea_loss)
    together = settings.schedule.strategy == "sum" and settings.data.sampler == "shared"
    joint: dict[str, Tensor] = {}  # one forward pass serves all tasks where the parameters do not move in between

    def loss(task: str) -> Tensor:
        own = batch[task].to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.schedule.bf16):
            if together:
                joint.update(joint or network(own.images, batch.keys()))
            logits = joint[task] if together else network(own.images, (task,))[task]
        return losses.labelled_mean(functions[task](logits, own.targets[task]), own.has[task])

    return {task: lambda task=task: loss(task) for task, own in batch.items() if own.has[task].any()}  # type: ignore[misc]


def learning_rate(settings: Config, step: int) -> float:
    """Linear warm-up, constant, linear to zero over the last `decay` share."""
    plan = settings.schedule
    rise = min(1.0, (step + 1) / plan.warmup)
    fall = min(1.0, (plan.steps - step) / max(1.0, plan.decay * plan.steps))
    return plan.lr * min(rise, fall)


def freeze_batchnorm(network: nn.Module) -> None:
    """BatchNorm by its running statistics, its scale and shift still learning."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def read_samples(settings: Config, root: Path) -> list[tuple[Sample, SetSettings]]:
    """All pictures of the configured sets that teach at least one task; refuses what cannot be trained on."""
    pairs = []
    for own in settings.data.sets:
        samples = dataset.read(root / own.path)
        for sample in samples:
            sample.read_masks()  # a missing file or a foreign value is an error now, not in epoch 7
        pairs += [(s, own) for s in samples if any(s.labels(task) for task in own.weights)]
    for task in settings.data.batch:
        taught = [s for s, own in pairs if task in own.weights and s.labels(task) and s.split == "train"]
        if not taught:
            raise DataError(f"no training picture is labelled for the task {task}")
        if task == "glaucoma" and len({s.glaucoma for s in taught}) == 1:
            raise DataError("all training pictures have the same glaucoma label; both classes are needed")
        held = [s for s, own in pairs if s.split == "val" and own.region == "full" and s.labels(task)]
        if not held or (task == "glaucoma" and len({s.glaucoma for s in held}) == 1):
            both = " of both classes" if task == "glaucoma" else ""
            raise DataError(f"the validation split needs full pictures labelled for the task {task}{both}")
    return pairs


def save(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint in one piece: a crash leaves the old file or the new one."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def load_checkpoint(path: Path) -> tuple[Config, dict[str, Any]]:
    """A checkpoint's configuration and state; tensors and plain values only. Raises SettingsError for a foreign file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return Config.model_validate_json(state["config"]), state
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such checkpoint") from None
    except Exception as error:  # torch raises whatever its unpickler meets; all of it means: not our file
        raise SettingsError(f"{path}: not a Funduscope checkpoint ({type(error).__name__})") from error


def _saved_state(path: Path, settings: Config) -> dict[str, Any]:
    saved, state = load_checkpoint(path)

    def comparable(own: Config) -> dict[str, Any]:
        return own.model_dump(exclude={"schedule": {"steps"}, "data": {"root", "workers"}})

    if comparable(saved) != comparable(settings):
        changed = [key for key, value in comparable(settings).items() if comparable(saved)[key] != value]
        raise SettingsError(f"{path}: {', '.join(changed)} changed since it was saved; only schedule.steps may")
    return state


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


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not re.fullmatch(r"cuda(:\d+)?", name):
        raise SettingsError(f"--device {name}: allowed are auto, cpu, cuda and cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(f"--device {name}: torch sees {torch.cuda.device_count()} CUDA devices here")
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


def _short(figures: dict[str, dict[str, float]]) -> str:
    return "  ".join(f"{n}: " + " ".join(f"{k} {v:.3f}" for k, v in row.items()) for n, row in figures.items() if row)
