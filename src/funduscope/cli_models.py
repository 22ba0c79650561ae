"""The commands of those who make models: train, calibrate, compare, export, convert, build and verify.

What they need is imported when they run: to screen, none of it has to be there.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, TaskID

from . import console
from .engine import contract, errors, models
from .engine.gate.comparison import Report
from .engine.labelled import shown
from .engine.screener import ScreenerSettings

DataOption = Annotated[
    list[Path] | None, typer.Option("--data", help="Labelled data sets, whose pictures go through the gate; repeat.")
]

app = typer.Typer()


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="The run's TOML file; see training/configs.")],
    out: Annotated[Path, typer.Option("--out", metavar="OUT", help="Folder for checkpoints, metrics and curves.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of the data sets, in place of the file's.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on exactly where OUT/last.pt was saved.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    minutes: Annotated[float | None, typer.Option(help="Stop after so long, with a checkpoint to go on from.")] = None,
) -> None:
    """Train a network, then calibrate it on the validation split."""
    _require_training()
    from .training.calibrate import calibrate as fit
    from .training.train import train as run

    finished = run(config, out, data_root=data, resume=resume, device=device, minutes=minutes)
    if finished:
        fit(out, data)
        console.stderr.print(f"calibrated: {out}/calibration.json")


@app.command()
def calibrate(
    run: Annotated[Path | None, typer.Argument(help="A folder that `train` made; not with --site.")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Folder of the data sets, in place of the run's.")] = None,
    site: Annotated[
        Path | None,
        typer.Option(
            "--site",
            metavar="TABLE",
            help="Your own labelled pictures, 50 and more: a table with the columns image, glaucoma (0, 1), dr_grade (0 to 4). "
            "Fits operating points of your own to finished models.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="With --site: the file to write, for `screen --site`.")] = Path(
        "site.json"
    ),
    name: Annotated[str | None, typer.Option(help="With --site: its name, in every row. Default: the file's.")] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="With --site: a model file or embedded model. Default: all.")
    ] = None,
    fit_on: Annotated[
        str, typer.Option(help="Of a multi-task run: predicted, or paper: the source's drawn masks.")
    ] = "predicted",
    reading: Annotated[
        Path | None, typer.Option(help="A configuration file whose [reading] takes the place of the run's.")
    ] = None,
) -> None:
    """Fit thresholds, and what else lies between outputs and decisions, on the validation split.

    What the operating points aim at stands in the configuration's [reading]. Export the run again afterwards.
    """
    if (run is None) == (site is None):
        raise errors.SettingsError("calibrate a run, or with --site finished models: give the one or the other")
    if site is not None:
        _calibrate_site(site, out, name, model or ())
        return
    assert run is not None
    _require_training()
    from .training.calibrate import calibrate as fit

    if fit_on not in ("predicted", "paper"):
        raise errors.SettingsError(f"--fit-on {fit_on}: allowed are predicted, paper")
    result = fit(run, data, fit_on, reading)
    print(json.dumps(result, indent=2))


def _calibrate_site(table: Path, out: Path, name: str | None, model: Sequence[str]) -> None:
    from .engine import files
    from .engine import site as sites
    from .engine.labelled import dataset, siting

    files.expect(out)
    samples = dataset.load(table, unsplit="val")
    found = siting.fit(
        ScreenerSettings(tuple(model)),
        samples,
        name or table.stem,
        lambda told: console.stderr.print(told, highlight=False),
    )
    sites.save(found, out)
    console.stderr.print(f"{found}: {out}; use it with `funduscope screen --site {out}`", highlight=False)


@app.command()
def tables(
    grid: Annotated[Path, typer.Argument(help="The grid's TOML file; see training/configs/tables.toml.")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder for results.jsonl and tables.md; finished cells there stay.")
    ],
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of the data sets, in place of the file's.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    minutes: Annotated[float | None, typer.Option(help="Start no run after so long; call again to go on.")] = None,
) -> None:
    """Compare classifier networks, losses and learning rates over seeds, and print the tables."""
    _require_training()
    from .training.tables import tables as run

    print(run(grid, out, data_root=data, device=device, minutes=minutes))


@app.command()
def export(
    run: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="A folder that `train` made. With --triton: model files or embedded names; none: all embedded.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The ONNX file to write.")] = None,
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="Data sets; 32 pictures of them go through the gate.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The model's name in its contract; the file's own where none is given.")
    ] = None,
    version: Annotated[str, typer.Option(help="The model's version in its contract.")] = "1",
    triton: Annotated[
        Path | None,
        typer.Option("--triton", metavar="FOLDER", help="Write models into a model repository for Triton instead."),
    ] = None,
    tensorrt: Annotated[
        bool, typer.Option("--tensorrt", help="With --triton: let TensorRT run what it can, within ONNX Runtime.")
    ] = False,
) -> None:
    """Export a trained network to an ONNX file with its contract; refused where it differs from torch.

    That needs RUN, --out and --data. With --triton, models that are files already are written into a repository.
    """
    if triton is not None:
        if out or data or name:
            raise typer.BadParameter("--triton goes without --out, --data and --name: its models are files already")
        from .export import triton as repository

        for path in repository.write([models.load(own) for own in models.chosen(run or ())], triton, tensorrt=tensorrt):
            print(path)
        return
    if tensorrt:
        raise typer.BadParameter("--tensorrt goes with --triton")
    if not run or len(run) > 1 or out is None or not data:
        raise typer.BadParameter("name one RUN, --out and --data; or --triton")
    for module in ("torch", "onnx", "onnxscript"):
        errors.require(module, "export")
    from .export.onnx import export as write

    chosen = shown.chosen(data, None, 32)
    model, outcome = write(Path(run[0]), out, chosen, name=name or out.stem, version=version)
    _print_written(model, outcome)


@app.command()
def convert(
    model: Annotated[str, typer.Argument(help="An fp32 model file, or the name of an embedded model.")],
    to: Annotated[str, typer.Option("--to", help="fp16 or int8.")],
    out: Annotated[Path, typer.Option("--out", help="The ONNX file to write.")],
    data: DataOption = None,
    signed: Annotated[bool, typer.Option("--signed", help="int8 for TensorRT; for CPUs leave it out.")] = False,
) -> None:
    """Write a model in half precision or 8-bit integers; refused where it differs from the fp32 model in what it says.

    int8 is calibrated on the train split of the data sets; the gate looks at their val split, and chooses by it which layers
    must stay float.
    """
    from .engine.gate.pictures import prepared
    from .export import convert as conversion

    if to not in ("fp16", "int8"):
        raise errors.SettingsError(f"--to {to}: allowed are fp16, int8")
    if to == "int8" and not data:
        raise errors.SettingsError("--to int8: name data sets with --data; it is calibrated on their pictures")
    read = models.load(model)
    geometry = read.contract.geometry.build()
    images = shown.shown(data, "val", geometry)
    if to == "fp16":
        written, outcome = conversion.to_fp16(read, out, images)
    else:
        calibration = prepared(shown.chosen(data or [], "train"), geometry)
        written, outcome, frontier = conversion.to_int8(read, out, calibration, images, signed=signed)
        for step in frontier:
            verdict = "passes" if step.report.passes() else "refused"
            console.stderr.print(f"{len(step.in_float)} layers in float: {verdict}  {' '.join(step.in_float[-1:])}")
    console.stderr.print(shown.how(data))
    _print_written(written, outcome)


@app.command()
def build(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Model files or embedded names; default, or none: all embedded."),
    ] = None,
    batch: Annotated[str, typer.Option(help="Pictures at once: fewest,best,most.")] = "1,8,32",
    targets: Annotated[
        list[str] | None,
        typer.Option("--for", help="A GPU's compute capability, such as sm_89; repeat. Default: this machine's GPU."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the engines. Default: the cache.")] = None,
    library: Annotated[
        str | None, typer.Option(help="tensorrt or tensorrt-rtx. Default: the one that is installed.")
    ] = None,
    workspace_mb: Annotated[int, typer.Option(min=1, help="The most scratch memory of a layer.")] = 4096,
    optimisation_level: Annotated[int, typer.Option(min=0, max=5, help="More builds longer.")] = 3,
    data: DataOption = None,
) -> None:
    """Build TensorRT engines; those for this machine's GPU go through the gate at once, others where they are first opened.

    Precision lies in the model: `funduscope convert` makes fp16 and int8 files. Engines in another folder than the cache
    are found through the environment variable FUNDUSCOPE_ENGINES.
    """
    from .engine.gate.verify import verify_engine
    from .engine.runners import gpu
    from .engine.runners.tensorrt import engines
    from .export import tensorrt

    chosen = tensorrt.choose_library(library, foreign=bool(targets))
    where, profile = out or engines.folder(), engines.profile(batch)
    wanted: list[str | None] = [*targets] if targets else [None]
    for read in [models.load(name) for name in models.chosen(names or ())]:
        for target in wanted:
            with console.progress() as bar:
                engine, is_new = tensorrt.build(
                    read,
                    chosen,
                    profile,
                    target,
                    where,
                    workspace_mb=workspace_mb,
                    optimisation_level=optimisation_level,
                    progress=functools.partial(_show_phase, bar, bar.add_task("build", total=None)),
                )
            facts = engine.facts
            size = f"{engine.path.stat().st_size / 1e6:.1f} MB"
            print(f"{engine.path}  {size}  {'built' if is_new else 'was there'}")
            if facts.verified and (not data or facts.verified.how == shown.how(data)):
                continue
            try:
                own = gpu.device().capability
            except errors.BackendError as error:
                own = str(error)
            if own != facts.compute_capability:
                console.stderr.print(
                    f"not verified: it is for {facts.compute_capability}; the gate runs where it is first opened ({own})"
                )
                continue
            images = shown.shown(data, "test", read.contract.geometry.build())
            for line in verify_engine(read, engine, images, shown.how(data)).lines():
                console.stderr.print(line)


@app.command("verify")
def verify_(
    reference: Annotated[
        str, typer.Argument(help="The fp32 model file or embedded name; of an engine, the file it was built of.")
    ],
    candidate: Annotated[str, typer.Argument(help="Another model file, or a TensorRT engine.")],
    data: DataOption = None,
    backend: Annotated[str, typer.Option("--backend", help="What runs a model file.")] = "onnxruntime",
    batch: Annotated[str, typer.Option(help="Of a model file: fewest,best,most.")] = "1,8,32",
) -> None:
    """The gate: a candidate beside ONNX Runtime fp32 on the CPU, on measures and decisions. Exit 3 where it does not pass.

    On the test split of data sets, else on 32 views of the photograph that comes with the package. An engine that passes
    is marked as verified; one that fails is deleted.
    """
    from .engine import runners
    from .engine.gate.verify import verify_engine, verify_model
    from .engine.runners.tensorrt import engines

    if backend == "auto":
        raise errors.SettingsError(
            f"--backend auto: the gate looks at one backend; name it: {', '.join(runners.BACKENDS)}"
        )
    read = models.load(reference)
    images = shown.shown(data, "test", read.contract.geometry.build())
    if candidate.endswith(engines.PLAN):
        report = verify_engine(read, engines.facts_of(Path(candidate)), images, shown.how(data))
    else:
        sizes, other = engines.profile(batch).sizes, models.load(candidate)
        if read.contract.precision != "fp32":
            raise errors.ModelError(
                f"{reference}: it is {read.contract.precision}; the gate compares with the fp32 model"
            )
        if (other.contract.input, other.contract.outputs) != (read.contract.input, read.contract.outputs):
            raise errors.ModelError(
                f"{candidate}: it has other inputs or outputs than {reference}; compare like with like"
            )
        with runners.open_runner(other, backend, max_batch=sizes[-1]) as runner:
            report = verify_model(read, runner, images, sizes)
    for line in report.lines():
        print(line)
    if not report.passes():
        raise errors.ModelError(
            f"{candidate} with {backend}: does not pass beside {reference} in ONNX Runtime fp32; see the lines marked FAILS"
        )
    print(f"passes ({shown.how(data)}{'' if data else f' on {report.pictures} views'})")


def _show_phase(bar: Progress, task: TaskID, phase: str, done: int, total: int) -> None:
    bar.update(task, description=phase, completed=done, total=total)


def _print_written(model: contract.Model, outcome: Report) -> None:
    for line in outcome.lines():
        console.stderr.print(line)
    print(f"{model.path}  {len(model.data) / 1e6:.2f} MB  sha256 {model.sha256}")


def _require_training() -> None:
    for module in ("torch", "sklearn", "matplotlib", "safetensors"):
        errors.require(module, "train")
