"""The command line. Results go to files and stdout, messages to stderr; `EXIT` has the exit codes of our errors."""

from __future__ import annotations

import functools
import io
import json
import logging
import sys
import time
import warnings
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from .engine import contract, dataset, errors, evaluation, gate, inputs, overlay, patients, preprocess, report, sinks
from .engine.contract import PointName
from .engine.results import DISEASES, Rejected, Result, Screening
from .engine.sample import SPLITS
from .engine.screener import Screener
from .version import __version__

EXIT = {
    errors.MissingExtra: 4,
    errors.BackendError: 4,
    errors.ModelError: 3,
    errors.SettingsError: 3,
    errors.OutputError: 5,
    errors.FunduscopeError: 3,
}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Screens colour photographs of the retina for glaucoma and diabetic retinopathy. "
    "A screening aid for research use, not a diagnosis.",
)
_stderr = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
_stdout = Console(highlight=False)
_SHOWN = 20  # rows of the printed table

ModelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model", help="A model file, or the name of an embedded model; repeat for one of each kind. Default: all."
    ),
]
PointOption = Annotated[
    str | None,
    typer.Option("--point", help="The classifier's operating point: high_sensitivity, balanced, high_specificity."),
]
DataOption = Annotated[
    list[Path] | None, typer.Option("--data", help="Labelled data sets, whose pictures go through the gate; repeat.")
]
BackendOption = Annotated[str, typer.Option("--backend", help="auto, or a backend's name.")]


@app.command()
def screen(
    pictures: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Files, folders, globs, CSV lists of paths.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")],
    model: ModelOption = None,
    backend: BackendOption = "auto",
    point: PointOption = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 8,
    workers: Annotated[int, typer.Option(min=1, help="Threads that read and prepare.")] = 2,
    overlays: Annotated[
        bool, typer.Option("--overlays", help="Also write pictures with contours, fovea and heat maps.")
    ] = False,
    with_report: Annotated[bool, typer.Option("--report", help="Also write one HTML page.")] = False,
    fail_on_bad: Annotated[
        bool, typer.Option("--fail-on-bad", help="Exit with 1 where a picture has no result.")
    ] = False,
) -> None:
    """Screen pictures: a row for each, whatever happens to it, in DIR/screenings.jsonl and DIR/screenings.csv.

    Where a list or the files name patients, DIR/patients.csv has a row for each of them.
    """
    paths = inputs.expand(pictures, leave_out=out)
    started, clock = datetime.now(UTC), time.monotonic()
    shown: list[Result] = []
    with (
        Screener.open(*(model or ()), backend=backend, batch=batch, point=_point(point)) as screener,
        ExitStack() as stack,
    ):
        outputs: list[sinks.Sink] = []
        if overlays:
            outputs.append(overlay.Overlays(out / "overlays"))
        if with_report:
            page = report.Report(out / "report.html", screener.contracts, screener.models[0].backend)
            outputs.append(stack.enter_context(page))
        sinks.remove(path for path in (out / patients.FILE,) if path.exists())  # of an earlier run
        outputs.append(stack.enter_context(patients.Patients(out)))
        rows = stack.enter_context(sinks.Rows(out))  # last in, first closed: the rows are whole whatever a drawing does
        outputs.append(rows)
        results = screener.stream(paths, workers=workers, keep_photo=overlays or with_report)
        for result in stack.enter_context(_progress()).track(results, total=len(paths)):
            for output in outputs:
                output.write(result)
            if len(shown) < _SHOWN:
                shown.append(replace(result, photo=None) if isinstance(result, Screening) else result)
    seconds = time.monotonic() - clock
    record: dict[str, Any] = {
        "inputs": pictures,
        "pictures": len(paths),
        "counts": dict(rows.counts),
        "seconds": round(seconds, 3),
    }
    settings = {
        "batch": batch,
        "workers": workers,
        "overlays": overlays,
        "report": with_report,
        "point": screener.point,
    }
    record["settings"] = settings
    sinks.write_run(out, screener.models, screener.contracts, started, record)
    _print_results(shown, len(paths))
    _stderr.print(f"{len(paths)} pictures in {seconds:.1f} s: {dict(rows.counts)}; rows in {out}/screenings.csv")
    for notice in dict.fromkeys(own.terms.notice for own in screener.contracts):
        _stderr.print(notice, style="dim")
    if fail_on_bad and set(rows.counts) != {"ok"}:
        raise typer.Exit(1)


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="A model file, or the name of an embedded model.")] = "default",
    as_json: Annotated[
        bool, typer.Option("--json", help="The whole contract as JSON; of `default`, each by its name.")
    ] = False,
) -> None:
    """Show what a model file says of itself, after checking that it is whole."""
    models = [contract.read(name) for name in (contract.embedded() if model == "default" else [model])]
    if as_json:
        documents = {own.contract.name: own.contract.model_dump() for own in models}
        print(json.dumps(documents if model == "default" else documents.popitem()[1], indent=2))
    else:
        for own in models:
            _print_contract(own)


def _print_contract(read: contract.Model) -> None:
    own = read.contract
    table = Table(show_header=False, box=None)
    table.add_column()
    table.add_column(overflow="fold")
    rows: dict[str, Any] = {
        "model": f"{own.name} {own.version} ({own.kind}, {own.precision})",
        "file": f"{read.path} ({len(read.data) / 1e6:.1f} MB, whole)",
        "sha256": own.sha256,
        "terms": f"{own.terms.licence}\n{own.terms.notice}",
        "input": f"{own.input.name} {own.input.dtype} {own.input.shape} RGB",
        "outputs": "\n".join(f"{o.name} {o.dtype} {o.shape}" for o in own.outputs),
        **_decisions(own),
        "network": f"{own.training.network}; {own.training.strategy}; {own.training.steps} steps on {own.training.device}",
        "learned from": "\n".join(f"{d.name}: {d.pictures} pictures ({d.terms})" for d in own.training.data),
        "validation": "\n".join(
            f"{name}: " + ", ".join(f"{k} {v:.3f}" for k, v in row.items())
            for name, row in own.training.figures.items()
        ),
    }
    for key, value in rows.items():
        table.add_row(f"[bold]{key}", Text(str(value)))
    _stdout.print(table)


def _decisions(own: contract.Contract) -> dict[str, str]:
    """How a model's outputs are read, as rows of a table."""
    if isinstance(own, contract.MultiTask):
        rules = "\n".join(f"{key} {value}" for key, value in own.rules.model_dump().items())
        return {"rules": rules, "glaucoma from": f"{own.glaucoma_threshold:.4f}"}
    rows: dict[str, str] = {"operating point": own.point}
    for disease in DISEASES:
        decision: contract.DecisionPart = getattr(own.decisions, disease)
        lines = [
            f"temperature {decision.temperature:g}, uncertain within {decision.uncertain_logit:.3f} of a threshold's logit"
        ]
        for name, at in decision.points:
            rates = (
                f"{rate} {part.value:.3f} ({part.low:.2f} to {part.high:.2f})"
                for rate, part in at
                if rate != "threshold"
            )
            lines.append(f"{name} from {at.threshold:.4f}: {', '.join(rates)}")
        rows[disease] = "\n".join(lines)
    return rows


def _point(name: str | None) -> PointName | None:
    allowed = get_args(PointName)
    if name is not None and name not in allowed:
        raise errors.SettingsError(f"--point {name}: allowed are {', '.join(allowed)}")
    return cast(PointName | None, name)


@app.command()
def evaluate(
    model: Annotated[
        str, typer.Argument(help="A model file, the name of an embedded model, or default for all of them.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="DATASET", help="A folder with index.csv, or REFUGE's layout.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    backend: BackendOption = "auto",
    point: PointOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON on stdout.")] = False,
) -> None:
    """Measure a model on a labelled data set, through the engine that ships."""
    if split not in SPLITS:
        raise errors.SettingsError(f"--split {split}: allowed are {', '.join(SPLITS)}")
    samples = evaluation.choose(dataset.read(folder), split)
    with Screener.open(model, backend=backend, point=_point(point)) as screener:
        figures = evaluation.evaluate(screener, samples)
    if as_json:
        models = [own.__dict__ for own in screener.models]
        print(json.dumps({"models": models, "split": split, "sets": figures}, indent=2))
        return
    for name, row in figures.items():
        title = f"{name}, {split}: {row['n']} pictures, {row['n_rejected']} rejected"
        table = Table(title=Text(title), title_justify="left")
        for column in ("figure", "n", "not measurable", "value"):
            table.add_column(column)
        for key, value in row.items():
            for label, part in value.items() if key == "auc" else [("", value)]:
                if isinstance(part, dict) and "n" in part:
                    table.add_row(f"{key} {label}", str(part["n"]), str(part["n_not_measurable"]), _figure(part))
        if "at_threshold" in row:
            at = row["at_threshold"]
            table.add_row("at the threshold", str(at["tp"] + at["fp"] + at["fn"] + at["tn"]), "", _rates(at))
        if "laterality" in row:
            at = row["laterality"]
            told = f"{at['right']} right, {at['wrong']} wrong"
            table.add_row("which eye", str(sum(at.values())), str(at["unknown"]), told)
        for disease, own in row.get("classifier", {}).items():
            _add_opinion(table, f"classifier, {disease}", own)
        _stdout.print(table)


def _add_opinion(table: Table, title: str, own: dict[str, Any]) -> None:
    if "auc" in own:
        table.add_row(f"{title}: auc", str(own["auc"]["n"]), str(own["auc"]["n_not_measurable"]), _figure(own["auc"]))
    if "at_threshold" in own:
        at = own["at_threshold"]
        rates = ", ".join(f"{rate} {_figure(at[rate])}" for rate in ("sensitivity", "specificity") if at[rate])
        seen = str(at["tp"] + at["fp"] + at["fn"] + at["tn"])
        table.add_row(
            f"{title}: from {at['threshold']:.3f}",
            seen,
            f"{own['n_uncertain_sick']} + {own['n_uncertain_healthy']} uncertain",
            rates,
        )
    if "heat_in_disc" in own:
        heat = own["heat_in_disc"]
        table.add_row(
            f"{title}: heat at the disc", str(heat["n"]), "", f"{heat['share']:.3f}, by chance {heat['chance']:.3f}"
        )


@app.command()
def doctor() -> None:
    """Show versions, backends and devices, what is missing and how to get it; exit 4 where screening cannot work."""
    from .engine import doctor as examination

    findings = examination.examine()
    table = Table(show_header=False, box=None)
    for finding in findings:
        style = {"ok": "green", "absent": "dim", "problem": "red"}[finding.state]
        table.add_row(f"[{style}]{finding.state}", finding.what, Text(finding.detail))
    _stdout.print(table)
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(4)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="The run's TOML file; see training/configs.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for checkpoints, metrics and curves.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of the data sets, in place of the file's.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on exactly where OUT/last.pt was saved.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    minutes: Annotated[float | None, typer.Option(help="Stop after so long, with a checkpoint to go on from.")] = None,
) -> None:
    """Train a network of either kind, then calibrate it on the validation split."""
    _require_training()
    from .training.calibrate import calibrate as fit
    from .training.train import train as run

    finished = run(config, out, data_root=data, resume=resume, device=device, minutes=minutes)
    if finished:
        fit(out, data)
        _stderr.print(f"calibrated: {out}/calibration.json")


@app.command()
def calibrate(
    run: Annotated[Path, typer.Argument(help="A folder that `train` made.")],
    data: Annotated[Path | None, typer.Option("--data", help="Folder of the data sets, in place of the run's.")] = None,
    fit_on: Annotated[str, typer.Option(help="predicted, or paper: the source's drawn masks.")] = "predicted",
) -> None:
    """Fit thresholds, and what else lies between outputs and decisions, on the validation split."""
    _require_training()
    from .training.calibrate import calibrate as fit

    if fit_on not in ("predicted", "paper"):
        raise errors.SettingsError(f"--fit-on {fit_on}: allowed are predicted, paper")
    result = fit(run, data, fit_on)  # type: ignore[arg-type]
    print(json.dumps(result, indent=2))


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
    from .training.classifier.tables import tables as run

    print(run(grid, out, data_root=data, device=device, minutes=minutes))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A folder that `train` made.")],
    out: Annotated[Path, typer.Option("--out", help="The ONNX file to write.")],
    data: Annotated[list[Path], typer.Option("--data", help="Data sets; 32 pictures of them go through the gate.")],
    name: Annotated[
        str | None, typer.Option(help="The model's name in its contract; the file's own where none is given.")
    ] = None,
    version: Annotated[str, typer.Option(help="The model's version in its contract.")] = "1",
) -> None:
    """Export a trained network to an ONNX file with its contract; refused where it differs from torch."""
    for module in ("torch", "onnx", "onnxscript"):
        errors.require(module, "export")
    from .export.onnx import export as write

    model, outcome = write(run, out, _pictures(data, None, 32), name=name or out.stem, version=version)
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
    from .engine import verify
    from .export import convert as conversion

    if to not in ("fp16", "int8"):
        raise errors.SettingsError(f"--to {to}: allowed are fp16, int8")
    if to == "int8" and not data:
        raise errors.SettingsError("--to int8: name data sets with --data; it is calibrated on their pictures")
    read = contract.read(model)
    geometry = read.contract.geometry.build()
    judged = verify.pictures(_pictures(data, "val", 64), geometry) if data else verify.views(geometry)
    if to == "fp16":
        written, outcome = conversion.to_fp16(read, out, judged)
    else:
        calibration = verify.pictures(_pictures(data or [], "train", 64), geometry)
        written, outcome, frontier = conversion.to_int8(read, out, calibration, judged, signed=signed)
        for step in frontier:
            verdict = "passes" if step.report.passes() else "refused"
            _stderr.print(f"{len(step.in_float)} layers in float: {verdict}  {' '.join(step.in_float[-1:])}")
    _print_written(written, outcome)


@app.command()
def build(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Model files or embedded names; all where none is given."),
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
    from .engine import engines, gpu, verify
    from .export import tensorrt

    chosen = tensorrt.library(library, foreign=bool(targets))
    where, profile = out or engines.folder(), tensorrt.profile(batch)
    for read in [contract.read(name) for name in models or contract.embedded()]:
        for target in (*(targets or ()),) or (None,):
            with _progress() as bar:
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
            if facts.verified:
                continue
            try:
                own = gpu.first().capability
            except errors.BackendError as error:
                own = str(error)
            if own != facts.compute_capability:
                _stderr.print(
                    f"not verified: it is for {facts.compute_capability}; the gate runs where it is first opened ({own})"
                )
                continue
            images, how = _shown(data, read.contract.geometry.build())
            for line in verify.engine(read, engine, images, how).lines():
                _stderr.print(line)


@app.command("verify")
def verify_(
    reference: Annotated[str, typer.Argument(help="The fp32 model file, or the name of an embedded model.")],
    candidate: Annotated[str, typer.Argument(help="Another model file, or a TensorRT engine.")],
    data: DataOption = None,
    backend: Annotated[str, typer.Option("--backend", help="What runs a model file.")] = "onnxruntime",
    batch: Annotated[str, typer.Option(help="Of a model file: fewest,best,most.")] = "1,8,32",
) -> None:
    """The gate: a candidate beside ONNX Runtime fp32 on the CPU, on measures and decisions. Exit 3 where it does not pass.

    On the test split of data sets, else on 32 views of the photograph that comes with the package. An engine that passes
    is marked as verified; one that fails is deleted.
    """
    from .engine import engines, runners, verify
    from .export import tensorrt

    read = contract.read(reference)
    images, how = _shown(data, read.contract.geometry.build())
    if candidate.endswith(engines.PLAN):
        report = verify.engine(read, engines.facts_of(Path(candidate)), images, how)
    else:
        sizes, other = tensorrt.profile(batch).sizes, contract.read(candidate)
        if (other.contract.input, other.contract.outputs) != (read.contract.input, read.contract.outputs):
            raise errors.ModelError(
                f"{candidate}: it has other inputs or outputs than {reference}; compare like with like"
            )
        with runners.open_runner(other, backend, max_batch=sizes[-1])[1] as runner:
            report = verify.run(read, runner, images, sizes)
    for line in (*report.lines(), how):
        print(line)
    if not report.passes():
        raise errors.ModelError(f"{candidate}: it differs from {reference} by more than its precision allows")


def _show_phase(bar: Progress, task: TaskID, phase: str, done: int, total: int) -> None:
    bar.update(task, description=phase, completed=done, total=total)


def _shown(data: list[Path] | None, geometry: preprocess.Geometry) -> tuple[NDArray[np.uint8], str]:
    """Pictures for the gate, and what they are called."""
    from .engine import verify

    if not data:
        return verify.views(geometry), verify.SELF_CHECK
    return verify.pictures(
        _pictures(data, "test", 64), geometry
    ), f"verified on {', '.join(folder.name for folder in data)}"


def _pictures(data: list[Path], split: str | None, count: int) -> list[Path]:
    """About so many pictures, an equal part of each data set."""
    per_set = -(-count // len(data))
    chosen = ([s.image for s in dataset.read(folder) if split in (None, s.split)][:per_set] for folder in data)
    return [path for part in chosen for path in part]


def _print_written(model: contract.Model, outcome: gate.Report) -> None:
    for line in outcome.lines():
        _stderr.print(line)
    print(f"{model.path}  {len(model.data) / 1e6:.2f} MB  sha256 {model.sha256}")


def _version(show: bool) -> None:
    if show:
        print(f"funduscope {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what is chosen and why.")] = False,
) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s", stream=sys.stderr)
    warnings.filterwarnings("ignore", module="PIL")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # a damaged picture is told in its row


def main() -> None:
    """Entry point: our own errors become one line on stderr and an exit code; any other is a bug and keeps its traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the console cannot show must not end a run
    try:
        app()
    except errors.FunduscopeError as error:
        _stderr.print(f"funduscope: {error}", style="red", markup=False)
        sys.exit(next(code for kind, code in EXIT.items() if isinstance(error, kind)))


def _require_training() -> None:
    for module in ("torch", "sklearn", "matplotlib", "safetensors"):
        errors.require(module, "train")


def _progress() -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=_stderr, transient=True, disable=not _stderr.is_terminal)


def _print_results(shown: list[Result], total: int) -> None:
    table = Table(caption=f"and {total - len(shown)} more" if total > len(shown) else None)
    table.add_column("picture", overflow="fold", min_width=10)
    for column in ("vCDR", "glaucoma", "second opinion", "referable DR"):
        table.add_column(column)
    table.add_column("remarks", overflow="fold")
    for result in shown:
        name = Path(result.name).name
        if isinstance(result, Rejected):
            table.add_row(Text(name), *["–"] * 4, Text(f"{result.status}: {result.code}, {result.reason}"))
            continue
        found = result.classification
        glaucoma = _called(result.glaucoma, "unmeasured", result.glaucoma_probability) if result.model else "–"
        opinions = (found.glaucoma, found.referable_dr) if found else ()
        called = [_called(own.positive, "unsure", own.probability) for own in opinions] or ["–", "–"]
        table.add_row(Text(name), _number(result.vcdr), glaucoma, *called, " ".join(result.warnings))
    _stdout.print(table)


def _called(call: bool | None, otherwise: str, probability: float | None) -> str:
    return f"{ {True: 'refer', False: 'no', None: otherwise}[call] } {_number(probability)}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _figure(part: dict[str, Any]) -> str:
    if "value" in part:
        return f"{_number(part['value'])} ({_number(part['low'])} to {_number(part['high'])})"
    median = f", median {part['median']:.3f}" if part.get("median") is not None else ""
    return _number(part["mean"]) + median


def _rates(at: dict[str, Any]) -> str:
    return (
        f"sensitivity {_number(at['sensitivity'])}, specificity {_number(at['specificity'])} at {at['threshold']:.3f}"
    )
