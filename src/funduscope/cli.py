"""The command line: what screens and looks; `cli_models` has what makes models. `EXIT` has the exit codes of our errors."""

from __future__ import annotations

import io
import json
import logging
import shlex
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import cv2
import typer
from rich.table import Table
from rich.text import Text

from . import cli_models, console, results_table, service
from .engine import contract, errors, models
from .engine.cluster import ClusterScreener
from .engine.labelled import challenge, dataset, evaluation
from .engine.labelled.sample import SPLITS
from .engine.labelled.worst import Worst
from .engine.outputs.folder import Onto, draw, expect
from .engine.outputs.report import FILE as PAGE
from .engine.outputs.rows import FORMATS, STEM
from .engine.outputs.rows import write as write_rows
from .engine.outputs.store import Store
from .engine.pictures import inputs
from .engine.readers import READERS
from .engine.readers.column import readable
from .engine.results import Result
from .engine.run import Run
from .engine.runners import BACKENDS
from .engine.screener import ScreenerSettings
from .engine.watch import Watch
from .progress import How, counted, followed
from .service.settings import KEY, ServiceSettings, read_keys
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
_MANY = 200  # pictures; of more, measuring first is repaid, and so is a process for each worker
_TIMEOUT = 60.0  # seconds for one picture: a slow network share is no fault of it

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
SiteOption = Annotated[
    Path | None,
    typer.Option("--site", help="A file of `calibrate --site`: a site's own operating points."),
]
OverlaysOption = Annotated[
    bool, typer.Option("--overlays", help="Also write pictures with contours, fovea and heat maps.")
]
BackendOption = Annotated[str, typer.Option("--backend", help=f"auto, {', '.join(BACKENDS)}.")]


@app.command()
def screen(
    pictures: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Files, folders, globs, archives (tar, zip), lists of paths."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results.")],
    model: ModelOption = None,
    backend: BackendOption = "auto",
    point: PointOption = None,
    site: SiteOption = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 8,
    workers: Annotated[int, typer.Option(min=1, help="Threads or processes that read and prepare.")] = 2,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds that reading a picture may take, each worker then a process of its own; 0: threads, without a limit. "
            f"Default: {_TIMEOUT:.0f} of more than {_MANY} pictures, else 0.",
        ),
    ] = None,
    overlays: OverlaysOption = False,
    with_report: Annotated[bool, typer.Option("--report", help="Also write an HTML page to search and sort.")] = False,
    parquet: Annotated[bool, typer.Option("--parquet", help="Also write DIR/screenings.parquet.")] = False,
    dicom: Annotated[
        bool,
        typer.Option(
            "--dicom", help="Also write a DICOM report and segmentation of each DICOM picture, into DIR/dicom."
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in DIR where it was cut; begin it where there is none.")
    ] = False,
    add: Annotated[
        bool, typer.Option("--add", help="With --resume: also take up pictures that the run does not have yet.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove the run in DIR and begin anew.")] = False,
    frame: Annotated[
        int | None, typer.Option("--frame", min=1, help="Which frame of DICOM files with several, from 1 on.")
    ] = None,
    no_tune: Annotated[
        bool, typer.Option("--no-tune", help="Do not measure the fastest way first, however many pictures there are.")
    ] = False,
    fail_on_bad: Annotated[
        bool, typer.Option("--fail-on-bad", help="Exit with 1 where a picture has no result.")
    ] = False,
    progress: Annotated[
        str, typer.Option("--progress", help="auto (a bar, or a line every 30 s), json (a line a second), none.")
    ] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            help="Screen on a Ray cluster (auto: this machine's), an actor on each node or GPU.",
        ),
    ] = None,
    gpus: Annotated[float, typer.Option("--ray-gpus", min=0, help="GPUs of each actor on the cluster.")] = 0,
) -> None:
    """Screen pictures: a row for each, whatever happens to it, in DIR/screenings.jsonl and DIR/screenings.csv.

    Where a list or the files name patients, DIR/patients.csv has a row for each of them. What is found is kept in
    DIR/run.sqlite as it comes: a run that was cut goes on with --resume.
    """
    if progress not in get_args(How):
        raise errors.SettingsError(f"--progress {progress}: allowed are {', '.join(get_args(How))}")
    if (add and not resume) or (overwrite and resume):
        raise errors.SettingsError("--add goes with --resume, and --overwrite without")
    onto: Onto = "overwrite" if overwrite else "add" if add else "resume" if resume else "new"
    expect(out, onto)
    found = inputs.search(pictures, leave_out=out)
    paths = [own if frame is None else replace(own, frame=frame) for own in found.pictures]
    if passed_over := found.told():
        console.stderr.print(f"left out: {passed_over}")
    shown: list[Result] = []
    noted: Counter[str] = Counter()
    settings = _settings(model or (), backend, batch, point, site)
    if len(paths) > _MANY and not no_tune and ray is None and settings.tunable and settings.record() is None:
        console.stderr.print(f"{len(paths)} pictures: first the fastest way here is measured (not with --no-tune)")
        _tune(settings)
    with settings.open() if ray is None else ClusterScreener(settings, ray, gpus=gpus) as screener:
        run = Run(
            screener,
            paths,
            out,
            onto=onto,
            overlays=overlays,
            report=with_report,
            parquet=parquet,
            dicom=dicom,
            workers=workers,
            timeout=(_TIMEOUT if len(paths) > _MANY else None) if timeout is None else timeout or None,
            inputs=list(pictures),
            left_out=found.left_out,
        )
        with stopping(run) as signals, resumable(out):
            for result in followed(run, "none" if quiet else cast(How, progress)):
                noted.update(map(str, result.warnings))
                if len(shown) < _SHOWN:
                    shown.append(result)
        kinds, notices = screener.models, dict.fromkeys(own.terms.notice for own in screener.contracts)
    done = sum(run.counts.values())
    if run.stopped:
        console.stderr.print(f"stopped after {done} of {len(run)} pictures; {how_to_go_on(out)}")
        raise typer.Exit(128 + signals[0] if signals else 1)
    if not quiet:
        results_table.show(shown, kinds, more=done - run.known - len(shown))
        told = f"; warnings: {counted(noted)}" if noted else ""
        earlier = f" ({run.known} of them before)" if run.known else ""
        console.stderr.print(
            f"{_pictures(done)}{earlier} in {run.seconds:.1f} s: {counted(run.counts)}{told}; rows in {out}/screenings.csv"
        )
        for count, what in (
            (run.changed, "had changed since, screened again"),
            (run.missed, "could not be drawn: gone or changed since"),
        ):
            if count:
                console.stderr.print(f"{_pictures(count)} {what}")
        if run.undocumented:
            console.stderr.print(f"without a DICOM report: {counted(run.undocumented)}")
        for notice in notices:
            console.stderr.print(notice, style="dim")
    if fail_on_bad and set(run.counts) != {"ok"}:
        raise typer.Exit(1)


@app.command()
def watch(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where pictures come in, with all below it.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results.")],
    model: ModelOption = None,
    backend: BackendOption = "auto",
    point: PointOption = None,
    site: SiteOption = None,
    overlays: OverlaysOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print rows as JSON, one a line.")] = False,
) -> None:
    """Screen each picture that comes into a folder when it is whole, once, until SIGINT or SIGTERM.

    DIR is the folder of a run: what is found is in its store at once, `rows` and `report` write from there at any time, and the
    rows are written at the end.
    """
    with _settings(model or (), backend, 8, point, site).open() as screener:
        watched = Watch(screener, folder, out, overlays=overlays)
        console.stderr.print(f"watching {folder}; end with Ctrl-C")
        with stopping(watched), resumable(out):
            for result in watched:
                print(result.to_json() if as_json else readable(str(result)), flush=True)
    console.stderr.print(
        f"{_pictures(sum(watched.counts.values()))}: {counted(watched.counts)}; rows in {out}/screenings.csv"
    )


@app.command()
def serve(
    model: ModelOption = None,
    backend: BackendOption = "auto",
    point: PointOption = None,
    site: SiteOption = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 8,
    host: Annotated[str, typer.Option(help="Address to listen at; one that other machines can reach needs a key.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen at.")] = 8000,
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key-file", metavar="FILE", help=f"Keys, one a line; one more may be in {KEY}. Without: no key."
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", metavar="FILE", help="The certificate and its chain, PEM.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="Its private key, PEM.")] = None,
    queue: Annotated[int, typer.Option(help="The most pictures that wait; more are refused with 429.")] = 64,
    max_mb: Annotated[int, typer.Option("--max-mb", help="The most MB of one request's body.")] = 32,
    deadline: Annotated[float, typer.Option(help="Seconds in which a request's pictures must be screened.")] = 30,
    results: Annotated[
        Path | None,
        typer.Option(
            "--results",
            metavar="DIR",
            help="Also show the results in a folder that `screen` or `watch` has written, or is writing, at /results.",
        ),
    ] = None,
) -> None:
    """Screen over HTTP, until SIGINT or SIGTERM: an interface for programs, and a page for people at its root.

    Nothing that is sent is kept, on disk or in a log; DIR is only read.
    """
    settings = ServiceSettings(
        host=host,
        port=port,
        keys=read_keys(key_file),
        tls_cert=tls_cert,
        tls_key=tls_key,
        queue=queue,
        max_bytes=max_mb * 2**20,
        max_pictures=min(queue, ServiceSettings.max_pictures),
        deadline_seconds=deadline,
        results=results,
    )
    service.expect()
    with _settings(model or (), backend, batch, point, site).open() as screener:
        scheme = "https" if tls_cert else "http"
        shown = f"[{host}]" if ":" in host else host
        console.stderr.print(f"serving at {scheme}://{shown}:{port}/; end with Ctrl-C")
        if not (settings.is_loopback or tls_cert):
            console.stderr.print("without TLS, keys and pictures travel as they are: put a proxy with TLS before it")
        service.serve(settings, screener)


@contextmanager
def stopping(run: Run | Watch) -> Iterator[list[int]]:
    """Let SIGINT and SIGTERM end a run in good order; a second one ends it at once. Gives: the signals that came."""
    came: list[int] = []

    def stop(number: int, frame: object) -> None:
        came.append(number)
        run.stop()
        for own in kept:
            signal.signal(own, signal.SIG_DFL)

    kept = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, before in kept.items():
            signal.signal(number, before)


@contextmanager
def resumable(out: Path) -> Iterator[None]:
    """Say how to go on where a run ends because its folder cannot be written."""
    try:
        yield
    except errors.OutputError as error:
        raise errors.OutputError(f"{error}. What was finished is kept; {how_to_go_on(out)}") from None


def _pictures(count: int) -> str:
    return f"{count} picture{'s' * (count != 1)}"


def how_to_go_on(out: Path) -> str:
    """The line that resumes this very command."""
    own = [argument for argument in sys.argv[1:] if argument not in ("--resume", "--overwrite")]
    return f"go on with: funduscope {shlex.join([*own, '--resume'])}"


FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `screen --out` has written.")]


@app.command()
def rows(
    folder: FolderArgument,
    form: Annotated[str, typer.Option("--format", help=f"{', '.join(FORMATS)}.")] = "csv",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to; DIR/screenings.FORMAT where not given.")
    ] = None,
) -> None:
    """Write the rows of a run, whole or cut or still running, from its store."""
    if form not in FORMATS:
        raise errors.SettingsError(f"--format {form}: allowed are {', '.join(FORMATS)}")
    with Store(folder) as store:
        path = out or folder / f"{STEM}.{form}"
        write_rows(store.rows(), path, form)
        console.stderr.print(f"{sum(store.counts().values())} of {store.total()} pictures: {path}")


@app.command()
def report(
    folder: FolderArgument,
    overlays: OverlaysOption = False,
) -> None:
    """Write the HTML page of a run from its store; photos are read again to be drawn."""
    with Store(folder) as store:
        missed = draw(folder, store, contours=overlays)
    if missed:
        console.stderr.print(f"{_pictures(missed)} could not be drawn: gone or changed since")
    console.stderr.print(f"the page: {folder / PAGE}")


def _settings(names: Sequence[str], backend: str, batch: int, point: str | None, site: Path | None) -> ScreenerSettings:
    """The library checks every value, and says what is wrong with it."""
    return ScreenerSettings(tuple(names), backend, batch, point=cast(Any, point), site=site)


@app.command()
def tune(model: ModelOption = None) -> None:
    """Measure every way to run the models on this machine, and keep the fastest that the gate lets pass.

    Every backend that is installed, on every precision that there is a file of, in a process of its own. What is kept serves
    wherever the same models are opened with the backend `auto`, until processor, cores, library versions or models change.
    """
    _tune(_settings(model or (), "auto", 8, None, None))


_LONG = 20  # letters of a verdict: what is longer stands below the table


def _tune(settings: ScreenerSettings) -> None:
    from .engine import tune as tuning

    opened = [models.load(name) for name in models.chosen(settings.models)]
    record = tuning.tune(opened, lambda text: console.stderr.print(text, style="dim"))
    table = Table(box=None)
    for column in ("model", "backend", "", "pictures/s", "one, ms", "of bounds", "verdict"):
        table.add_column(column, no_wrap=True)
    reasons = dict.fromkeys(trial.verdict for trial in record.trials if len(trial.verdict) > _LONG)
    for trial in record.trials:
        chosen = trial.way in [way.model_copy(update={"threads": trial.way.threads}) for way in record.ways.values()]
        table.add_row(
            trial.model,
            trial.way.backend,
            trial.precision,
            _plain(trial.pictures_per_second),
            _plain(trial.p50_ms),
            "–" if trial.strain is None else f"{trial.strain:.0%}",
            "taken" if chosen else "does not run" if trial.verdict in reasons else trial.verdict,
            style="bold green" if chosen else "" if trial.verdict == "passes" else "dim",
        )
    console.stderr.print(table)
    for reason in reasons:
        console.stderr.print(reason, style="dim", highlight=False)
    threads = {way.threads for way in record.ways.values()}
    at_once = "batch at a time" if record.slots == 1 else "batches at a time"
    console.stderr.print(f"{record.slots} {at_once}, {'/'.join(map(str, threads))} threads each")


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="A model file, or the name of an embedded model.")] = "default",
    as_json: Annotated[
        bool, typer.Option("--json", help="The whole contract as JSON; of `default`, each by its name.")
    ] = False,
) -> None:
    """Show what a model file says of itself, after checking that it is whole."""
    opened = [models.load(name) for name in models.chosen([model])]
    if as_json:
        documents = {own.contract.name: own.contract.model_dump() for own in opened}
        print(json.dumps(documents if model == "default" else documents.popitem()[1], indent=2))
    else:
        for own in opened:
            _print_contract(own)


def _print_contract(read: contract.Model) -> None:
    own = read.contract
    table = Table(show_header=False, box=None)
    table.add_column()
    table.add_column(overflow="fold")
    told: dict[str, Any] = {
        "model": f"{own.name} {own.version} ({own.kind}, {own.precision})",
        "file": f"{read.path} ({len(read.data) / 1e6:.1f} MB, whole)",
        "sha256": own.sha256,
        "terms": f"{own.terms.licence}\n{own.terms.notice}",
        "input": f"{own.input.name} {own.input.dtype} {own.input.shape} RGB",
        "outputs": "\n".join(f"{o.name} {o.dtype} {o.shape}" for o in own.outputs),
        **READERS[own.kind](own, None).describe(),
        "network": f"{own.training.network}; {own.training.strategy}; {own.training.steps} steps on {own.training.device}",
        "learned from": "\n".join(f"{d.name}: {d.pictures} pictures ({d.terms})" for d in own.training.data),
        "validation": "\n".join(
            f"{name}: " + ", ".join(f"{k} {v:.3f}" for k, v in row.items())
            for name, row in own.training.figures.items()
        ),
    }
    for key, value in told.items():
        table.add_row(f"[bold]{key}", Text(str(value)))
    console.stdout.print(table)


@app.command()
def evaluate(
    model: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Model files or names of embedded models, one of each kind; the word `default`: all embedded.",
        ),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DATASET", help="A folder with index.csv, or REFUGE's layout.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    backend: BackendOption = "auto",
    point: PointOption = None,
    site: SiteOption = None,
    submit: Annotated[
        Path | None,
        typer.Option(
            help="Write a submission to the REFUGE challenge into this new folder, and print its figures too."
        ),
    ] = None,
    worst: Annotated[
        Path | None,
        typer.Option(
            help="Write every picture's errors into this new folder, and draw the five worst of each kind, with what experts "
            "drew in white."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON on stdout.")] = False,
) -> None:
    """Measure models on a labelled data set, through the engine that ships."""
    if split not in SPLITS:
        raise errors.SettingsError(f"--split {split}: allowed are {', '.join(SPLITS)}")
    samples = dataset.load(folder)
    # a challenge keeps its labels to itself, and wants every picture
    samples = evaluation.choose(samples, split) if submit is None else [s for s in samples if s.split == split]
    with _settings(model, backend, 8, point, site).open() as screener:
        submission = None if submit is None else challenge.Submission(submit, screener.models, samples)
        farthest = None if worst is None else Worst(worst)
        watches = [own.add for own in (submission, farthest) if own]
        figures = evaluation.evaluate(screener, samples, *watches)
    submitted = submission.finish() if submission else {}
    if farthest:
        farthest.finish()
    if as_json:
        opened = [own.__dict__ for own in screener.models]
        document = {"models": opened, "split": split, "sets": figures}
        print(json.dumps(document | ({"refuge": submitted} if submission else {}), indent=2))
        return
    for name, row in figures.items():
        title = f"{name}, {split}: {_pictures(row['n'])}, {row['n_rejected']} rejected"
        table = _of_figures(title)
        for key, value in row.items():
            if isinstance(value, dict) and "n" in value:
                _add_figure(table, key, value)
        if "laterality" in row:
            at = row["laterality"]
            told = f"{at['right']} right, {at['wrong']} wrong"
            table.add_row("which eye", str(sum(at.values())), str(at["unknown"]), told)
        for name, part in row["quality"].items():
            _add_figure(table, f"{name}: rank correlation with quality", part)
        for name, part in row["scores"].items():
            _add_figure(table, f"{name}: auc", part)
        for name, part in row["decisions"].items():
            _add_decision(table, name, part)
        console.stdout.print(table)
    if submission:
        table = _of_figures(f"{submit}, as the REFUGE challenge counts")
        for key, value in submitted.items():
            _add_figure(table, key, value)
        console.stdout.print(table)


def _of_figures(title: str) -> Table:
    table = Table(title=Text(title), title_justify="left")
    for column in ("figure", "n", "not measurable", "value"):
        table.add_column(column)
    return table


def _add_decision(table: Table, name: str, row: dict[str, Any]) -> None:
    if "auc" in row:
        _add_figure(table, f"{name}: auc", row["auc"])
    if "at_threshold" in row:
        at = row["at_threshold"]
        rates = ", ".join(f"{rate} {_figure(at[rate])}" for rate in ("sensitivity", "specificity") if at[rate])
        seen = str(at["tp"] + at["fp"] + at["fn"] + at["tn"])
        doubt = f"{row['n_uncertain_sick']} + {row['n_uncertain_healthy']} uncertain"
        table.add_row(f"{name}: from {at['threshold']:.3f}", seen, doubt, rates)
    for whose, of_all in row.get("called", {}).items():
        told = f"{of_all['called']} called: {_figure(of_all)}"
        table.add_row(f"{name}: of all {whose}, refused ones too", str(of_all["n"]), "", told)
    if "heat_in_disc" in row:
        heat = row["heat_in_disc"]
        share = f"{_number(heat['share'])}, by chance {_number(heat['chance'])}"
        table.add_row(f"{name}: heat at the disc", str(heat["n"]), str(heat["n_not_measurable"]), share)
    if "heat_in_lesions" in row:
        heat = row["heat_in_lesions"]
        share = f"{_number(heat['share'])}, hottest {_number(heat['pointing'])}, by chance {_number(heat['chance'])}"
        table.add_row(f"{name}: heat at lesions", str(heat["n"]), str(heat["n_not_measurable"]), share)


def _add_figure(table: Table, name: str, part: dict[str, Any]) -> None:
    table.add_row(name, str(part["n"]), str(part["n_not_measurable"]), _figure(part))


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
        with redirect_stdout(console.Stdout(sys.stdout)) as stdout:
            try:
                app()
            finally:
                stdout.flush()  # what was not written yet would fail only after the exit code is chosen
    except errors.FunduscopeError as error:
        if not isinstance(error.__cause__, BrokenPipeError):  # who has read enough wants no word of it
            console.stderr.print(f"funduscope: {error}", style="red", markup=False)
        sys.exit(next(code for kind, code in EXIT.items() if isinstance(error, kind)))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _figure(part: dict[str, Any]) -> str:
    if "value" in part:
        return f"{_number(part['value'])} ({_number(part['low'])} to {_number(part['high'])})"
    interval = f" ({part['low']:.3f} to {part['high']:.3f})" if part.get("low") is not None else ""
    median = f", median {part['median']:.3f}" if part.get("median") is not None else ""
    return _number(part["mean"]) + interval + median
