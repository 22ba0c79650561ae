"""The command line: what screens and looks; `cli_models` has what makes models. `EXIT` has the exit codes of our errors."""

from __future__ import annotations

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
import typer
from rich.table import Table
from rich.text import Text

from . import cli_models, console
from .engine import contract, errors
from .engine.contract import PointName
from .engine.labelled import dataset, evaluation
from .engine.labelled.sample import SPLITS
from .engine.outputs import drawing as overlay
from .engine.outputs import patients, report
from .engine.outputs import rows as sinks
from .engine.pictures import inputs
from .engine.results import DISEASES, Rejected, Result, Screening
from .engine.runners import BACKENDS
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
BackendOption = Annotated[str, typer.Option("--backend", help=f"auto, {', '.join(BACKENDS)}.")]


@app.command()
def screen(
    pictures: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Files, folders, globs, CSV lists of paths.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results.")],
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
            page = report.Report(out / "report.html", screener.contracts, screener.models)
            outputs.append(stack.enter_context(page))
        sinks.remove([out / patients.FILE])  # of an earlier run
        outputs.append(stack.enter_context(patients.Patients(out)))
        rows = stack.enter_context(sinks.Rows(out))  # last in, first closed: the rows are whole whatever a drawing does
        outputs.append(rows)
        results = screener.stream(paths, workers=workers, keep_photo=overlays or with_report)
        for result in stack.enter_context(console.progress()).track(results, total=len(paths)):
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
    console.stderr.print(f"{len(paths)} pictures in {seconds:.1f} s: {dict(rows.counts)}; rows in {out}/screenings.csv")
    for notice in dict.fromkeys(own.terms.notice for own in screener.contracts):
        console.stderr.print(notice, style="dim")
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
    console.stdout.print(table)


def _decisions(own: contract.Contract) -> dict[str, str]:
    """How a model's outputs are read, as rows of a table."""
    if isinstance(own, contract.MultiTask):
        rules = "\n".join(f"{key} {value}" for key, value in own.rules.model_dump().items())
        return {"rules": rules, "glaucoma from": f"{own.glaucoma_threshold:.4f}"}
    rows: dict[str, str] = {"operating point": own.point}
    for disease in DISEASES:
        decision: contract.DecisionPart = getattr(own.decisions, disease)
        lines = [f"temperature {decision.temperature:g}"]
        for name, at in decision.points:
            rates = (
                f"{rate} {part.value:.3f} ({part.low:.2f} to {part.high:.2f})"
                for rate, part in at
                if isinstance(part, contract.EstimatePart)
            )
            doubt = f"uncertain within {at.uncertain_logit:.3f} of its logit"
            lines.append(f"{name} from {at.threshold:.4f}, {doubt}: {', '.join(rates)}")
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
        console.stdout.print(table)


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
            f"{title}: heat at the disc",
            str(heat["n"]),
            str(heat["n_not_measurable"]),
            f"{_number(heat['share'])}, by chance {_number(heat['chance'])}",
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
    console.stdout.print(table)
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(4)


app.add_typer(cli_models.app)


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
        console.stderr.print(f"funduscope: {error}", style="red", markup=False)
        sys.exit(next(code for kind, code in EXIT.items() if isinstance(error, kind)))


def _print_results(shown: list[Result], total: int) -> None:
    table = Table(caption=f"and {total - len(shown)} more" if total > len(shown) else None)
    table.add_column("picture", overflow="fold", min_width=10)
    for column in ("vCDR", "glaucoma", "second opinion", "referable DR"):
        table.add_column(column)
    table.add_column("remarks", overflow="fold")
    for result in shown:
        name = Path(result.name).name
        if isinstance(result, Rejected):
            why = f"{result.status}: {result.code}, {result.reason}"
            table.add_row(Text(name), *["–"] * 4, Text(" ".join((why, *result.warnings))))
            continue
        found = result.classification
        glaucoma = _called(result.glaucoma, "unmeasured", result.glaucoma_probability) if result.model else "–"
        opinions = (found.glaucoma, found.referable_dr) if found else ()
        called = [_called(own.positive, "unsure", own.probability) for own in opinions] or ["–", "–"]
        table.add_row(Text(name), _number(result.vcdr), glaucoma, *called, " ".join(result.warnings))
    console.stdout.print(table)


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
