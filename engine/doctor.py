"""What this installation has, what it lacks, and the line that mends it."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

from . import models
from .errors import BackendError, MissingExtra, ModelError, require
from .runners import gpu
from .runners.tensorrt import engines
from .runners.tensorrt.libraries import LIBRARIES
from .tuning import record

_LISTED = (
    "train",
    "convert",
    "export",
    "dicom",
    "dicom-out",
    "service",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "cuda",
    "bench",
)
_SAME = (("onnxruntime", "onnxruntime-gpu"), *(library.distributions for library in LIBRARIES.values()))


@dataclass(frozen=True)
class Finding:
    """One line of the examination. problem: something that screening needs is wrong."""

    state: Literal["ok", "absent", "problem"]
    what: str
    detail: str


def examine() -> list[Finding]:
    """All findings, in reading order."""
    findings = [Finding("ok", "python", f"{platform.python_version()} on {platform.platform()}")]
    try:
        needed = _requirements()
    except importlib.metadata.PackageNotFoundError:
        needed = {}
        told = "found on the path, but not installed: what it needs cannot be looked up"
        findings.append(Finding("absent", "funduscope", told))
    for name in needed.get("", ()):
        version = _installed(name)
        findings.append(Finding("ok" if version else "problem", name, version or f"pip install {name}"))
    if _version("onnxruntime") and _version("onnxruntime-gpu"):
        swap = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu (or onnxruntime)"
        findings.append(
            Finding("problem", "onnxruntime and onnxruntime-gpu", f"they overwrite one another; keep one: {swap}")
        )
    try:
        providers = ", ".join(require("onnxruntime", "").get_available_providers())
        findings.append(
            Finding("ok", "ONNX Runtime providers", f"{providers} (compiled in; a device must be there too)")
        )
    except MissingExtra:
        pass  # its own line says so
    except BackendError as error:
        findings.append(Finding("problem", "ONNX Runtime providers", str(error)))
    findings += [_gpu(), *_engines(), *_tuning()]
    for extra in _LISTED if needed else ():
        missing = [name for name in needed[extra] if _installed(name) is None]
        detail = f"lacks {', '.join(missing)}: pip install 'funduscope[{extra}]'" if missing else "complete"
        findings.append(Finding("absent" if missing else "ok", f"extra {extra}", detail))
    for name, path in models.embedded().items():
        try:
            own = models.load(path).contract
            findings.append(Finding("ok", f"model {name}", f"{own.version}, whole; weights: {own.terms.licence}"))
        except ModelError as error:
            findings.append(Finding("problem", f"model {name}", str(error)))
    return findings


def _tuning() -> list[Finding]:
    """What `tune` found for the embedded models, or what there is to find."""
    machine, found = record.this_machine(), list[Finding]()
    fast = [flag for flag in machine.flags if flag.startswith(("amx", "avx512_bf16", "avx512_vnni", "avx_vnni"))]
    if fast and _version("openvino") is None:
        told = f"{', '.join(fast)}: OpenVINO uses them, two to four times as fast: pip install 'funduscope[openvino]'"
        found.append(Finding("absent", "fast instructions", told))
    try:
        opened = [models.load(path) for path in models.embedded().values()]
    except ModelError:
        return found  # its own line says so
    kept = record.recall(model.sha256 for model in opened)
    if kept is None:
        return [
            *found,
            Finding("absent", "tuning", record.NOT_MEASURED),
        ]
    for model in opened:
        way = kept.ways[model.sha256]
        trial = next(own for own in kept.trials if own.way.sha256 == way.sha256 and own.way.backend == way.backend)
        told = f"{trial.precision} on {way.backend}, {way.threads} threads, {kept.slots} at once"
        found.append(
            Finding("ok", f"tuning of {model.contract.name}", f"{told}: {trial.pictures_per_second} pictures a second")
        )
    return found


def _requirements() -> dict[str, list[str]]:
    """Names of the distributions that this one states it needs, by extra; "" is the core.

    Raises: PackageNotFoundError where this one is not installed itself.
    """
    needed: dict[str, list[str]] = defaultdict(list)
    lines = importlib.metadata.requires("funduscope") or ()
    for line in sorted(lines, key=lambda line: line.startswith("funduscope[")):  # extras that hold others come last
        extra = re.search(r"""extra == ['"]([\w-]+)""", line)
        own = needed[extra[1] if extra else ""]
        if others := re.match(r"funduscope\[([\w,-]+)\]", line):
            own += [name for other in others[1].split(",") for name in needed[other]]
        elif name := re.match(r"[\w.-]+", line):
            own.append(name[0])
    return needed


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _installed(distribution: str) -> str | None:
    """The version of a distribution, or of one that brings the same."""
    names = next((names for names in _SAME if names[0] == distribution), (distribution,))
    return next((version for version in map(_version, names) if version), None)


def _gpu() -> Finding:
    try:
        found = gpu.device()
    except BackendError as error:
        return Finding("absent", "NVIDIA GPU", f"{error}; screening runs on the CPU")
    return Finding("ok", "NVIDIA GPU", f"{found.name}, {found.capability}, driver for CUDA {found.cuda}")


def _engines() -> list[Finding]:
    """The TensorRT engines of the folder, and whether each serves this machine."""
    where, findings, capability = engines.folder(), [], gpu.capability() or "none"
    for path in sorted(where.glob(f"*{engines.PLAN}")):
        try:
            facts = engines.facts_of(path).facts
            engines.plan_of(engines.Engine(path, facts))
        except ModelError as error:
            findings.append(Finding("absent", "engine", f"refused: {error}"))
            continue
        misfit = engines.misfit(facts, _installed(LIBRARIES[facts.library].distributions[0]) or "none", capability)
        state = f"fits; {facts.verified.how if facts.verified else 'not verified yet'}"
        name = f"engine {facts.model} {facts.precision} to batch {facts.profile.max}"
        findings.append(Finding("absent" if misfit else "ok", name, f"{misfit or state} ({path.name})"))
    return findings or [Finding("absent", "TensorRT engines", f"none in {where}; `funduscope build` makes them")]
