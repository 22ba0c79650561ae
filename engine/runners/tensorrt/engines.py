"""TensorRT engines on disk: the raw plan, which trtexec loads as well, and beside it a file of facts.

An engine is a build product of one model file for one kind of GPU, one TensorRT and one operating system. No facts, or facts
that disagree with the plan, the model or this machine: the plan is refused before any library sees it.
"""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from ...contract import Digest, Model, Strict
from ...errors import ModelError, SettingsError
from ...files import cache, remove, write_bytes, write_text
from .libraries import LIBRARIES, Name

FOLDER_VARIABLE = "FUNDUSCOPE_ENGINES"
PLAN, FACTS, KERNELS = ".engine", ".json", ".kernels"


class Profile(Strict):
    """Pictures at once: the fewest, the number that the engine is fastest at, the most."""

    min: Annotated[int, Field(ge=1)]
    opt: Annotated[int, Field(ge=1)]
    max: Annotated[int, Field(ge=1)]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes that a batch is padded to."""
        return tuple(sorted({self.min, self.opt, self.max}))


class Verified(Strict):
    """That the gate let the engine pass. how: `self-check`, or `verified on` the data sets; against: SHA-256 of the
    reference model; device: where it ran; figures: what the gate saw."""

    how: str
    against: Digest
    pictures: int
    device: str
    figures: dict[str, float]


class Facts(Strict):
    """What is known of a plan. compute_capability: such as sm_89; os: such as linux_x86_64; profile: see Profile."""

    format: Literal["funduscope-engine/1"]
    library: Name
    library_version: str
    compute_capability: str
    os: str
    model: str
    model_sha256: Digest
    precision: str
    profile: Profile
    workspace_mb: int
    optimisation_level: int
    engine_sha256: Digest
    verified: Verified | Literal[False]

    @property
    def key(self) -> str:
        """The file's name in a folder of engines, without its suffix."""
        sizes = "_".join(str(size) for size in (self.profile.min, self.profile.opt, self.profile.max))
        library = f"{self.library}-{self.library_version}"
        return f"{self.model_sha256[:16]}-{self.precision}-{library}-{self.compute_capability}-{self.os}-batch{sizes}"

    def command(self, where: Path, model: Path | None) -> str:
        """What builds the engine again, into a folder. model: its file, where that is known."""
        target = f" --for {self.compute_capability}" if LIBRARIES[self.library].builds_for_others else ""
        command = (
            f"funduscope build {model or 'MODEL'} --library {self.library}{target}"
            f" --batch {self.profile.min},{self.profile.opt},{self.profile.max} --workspace-mb {self.workspace_mb}"
            f" --optimisation-level {self.optimisation_level} --out {where}"
        )
        own = f"{self.model} {self.precision}, SHA-256 {self.model_sha256[:16]}"
        return command if model else f"{command} (MODEL: {own})"


@dataclass(frozen=True)
class Engine:
    """A plan's file, and its facts."""

    path: Path
    facts: Facts

    @property
    def facts_path(self) -> Path:
        """The file beside it."""
        return self.path.with_suffix(FACTS)


class Unverified(ModelError):
    """An engine fits, but the gate has not let it pass on this machine.

    Attributes:
        engine: Which.
    """

    def __init__(self, model: Path, engine: Engine) -> None:
        super().__init__(model, engine)
        self.model, self.engine = model, engine

    def __str__(self) -> str:
        check = f"funduscope verify {self.model} {self.engine.path}"
        return f"{self.engine.path}: not verified on this machine yet; do so with: {check}"


def profile(text: str) -> Profile:
    """From `fewest,best,most`. Raises SettingsError."""
    try:
        fewest, best, most = (int(part) for part in text.split(","))
        if not 1 <= fewest <= best <= most:
            raise ValueError
    except ValueError:
        raise SettingsError(
            f"batches of {text}: must be three rising numbers: fewest,best,most, such as 1,8,32"
        ) from None
    return Profile(min=fewest, opt=best, max=most)


def folder() -> Path:
    """Where engines are looked for: $FUNDUSCOPE_ENGINES, or a folder of the user's cache."""
    return cache(FOLDER_VARIABLE, "engines")


def this_os() -> str:
    """The operating system and processor, as facts name them."""
    return f"{platform.system()}_{platform.machine()}".lower()


def write(where: Path, facts: Facts, plan: bytes) -> Engine:
    """Store a plan in one piece, then its facts: a plan that was cut off has none. Nothing of one that was there is left.

    facts: engine_sha256 is set here. Raises OutputError.
    """
    facts = facts.model_copy(update={"engine_sha256": hashlib.sha256(plan).hexdigest()})
    engine = Engine(where / (facts.key + PLAN), facts)
    delete(engine)
    write_bytes(engine.path, plan)
    return state(engine, facts)


def state(engine: Engine, facts: Facts) -> Engine:
    """Write an engine's facts anew."""
    write_text(engine.facts_path, json.dumps(facts.model_dump(), indent=1) + "\n")
    return Engine(engine.path, facts)


def delete(engine: Engine) -> None:
    """Remove an engine, its facts and the kernels that were compiled of it. Raises OutputError."""
    remove((engine.facts_path, engine.path, engine.path.with_suffix(KERNELS)))


def facts_of(path: Path) -> Engine:
    """The engine of a plan's file, by its facts; the plan is not read. Raises ModelError where they are missing or wrong."""
    beside = path.with_suffix(FACTS)
    try:
        facts = Facts.model_validate(json.loads(beside.read_text(encoding="utf-8")))
    except OSError as error:
        raise ModelError(f"{path}: no facts beside it ({beside.name}: {error.strerror}); {_REBUILD}") from None
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ModelError(f"{beside}: not the facts of an engine; {_REBUILD}\n" + "\n".join(lines)) from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{beside}: not the facts of an engine ({error}); {_REBUILD}") from None
    if path.name != facts.key + PLAN:
        command = facts.command(path.parent, None)
        raise ModelError(f"{path}: its facts are those of {facts.key}{PLAN}; build it again: {command}")
    return Engine(path, facts)


def plan_of(engine: Engine, model: Path | None = None) -> bytes:
    """The plan's bytes, after their hash was checked.

    model: the file that it was built of, where that is known. Raises ModelError with the command that builds it again.
    """
    again = f"build it again: {engine.facts.command(engine.path.parent, model)}"
    try:
        plan = engine.path.read_bytes()
    except OSError as error:
        raise ModelError(f"{engine.path}: {error.strerror}; {again}") from None
    if hashlib.sha256(plan).hexdigest() != engine.facts.engine_sha256:
        raise ModelError(f"{engine.path}: damaged: its SHA-256 is not the one in its facts; {again}")
    return plan


def misfit(facts: Facts, library_version: str, compute_capability: str) -> str | None:
    """Why an engine does not fit this machine; None where it does."""
    pairs = {
        f"{facts.library}": (facts.library_version, library_version),
        "the GPU": (facts.compute_capability, compute_capability),
        "the operating system": (facts.os, this_os()),
    }
    wrong = [f"{what} {has}, here {is_}" for what, (has, is_) in pairs.items() if has != is_]
    return f"for {'; '.join(wrong)}" if wrong else None


@dataclass(frozen=True)
class Wanted:
    """What an engine must be for."""

    model: Model
    library: Name
    library_version: str
    compute_capability: str
    batch: int

    def misfit(self, facts: Facts) -> str | None:
        """Why an engine cannot serve; None where it can."""
        if facts.model_sha256 != self.model.sha256:
            return f"for the model {facts.model_sha256[:16]}, here {self.model.sha256[:16]}"
        if facts.library != self.library:
            return f"for {facts.library}, wanted {self.library}"
        if facts.profile.max < self.batch:
            return f"for batches to {facts.profile.max}, wanted {self.batch}"
        return misfit(facts, self.library_version, self.compute_capability)

    @property
    def command(self) -> str:
        """What builds it."""
        return f"funduscope build {self.model.path} --library {self.library} --batch 1,{self.batch},{self.batch}"


def find(wanted: Wanted, where: Path | None = None) -> Engine:
    """The engine of a folder that serves: a verified one before others, then the smallest profile.

    Raises: ModelError that says why none of those that are there does, and the command that builds one.
    """
    where, fitting, reasons = where or folder(), [], []
    for path in sorted(where.glob(f"*{PLAN}")):
        try:
            engine = facts_of(path)
        except ModelError as error:
            reasons.append(str(error))
            continue
        reason = wanted.misfit(engine.facts)
        if reason is None:
            fitting.append(engine)
        elif engine.facts.model_sha256 == wanted.model.sha256:
            reasons.append(f"{path.name}: {reason}")
    if not fitting:
        lines = "".join(f"\n  {reason}" for reason in reasons)
        raise ModelError(
            f"no engine of {wanted.model.path} for this machine in {where}; build it: {wanted.command}{lines}"
        )
    return min(fitting, key=lambda engine: (not engine.facts.verified, engine.facts.profile.max))


_REBUILD = "build it again with `funduscope build`"
