"""One HTML page about a run: what the figures mean, and a table to search and sort, with small pictures of each eye."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote

from .. import drawing
from ..contract import TermsPart
from ..diseases import DISEASES
from ..eyes import Eyes
from ..files import writing
from ..readers import READERS
from ..readers import verdicts as all_verdicts
from ..readers.column import Verdict, readable
from ..results import ModelName, Result, Screening, in_words
from .overlays import Drawer, Drawings, named

FILE = "report.html"
FOLDER = "report"
LIMIT = 10_000  # pictures on the page; all are in the CSV
EMBEDDED = (
    200  # of so many pictures at most, the page is one file; of more it loads them from the folder as one scrolls
)
LICENCE = "MODEL_LICENSE"  # the file that the embedded models' terms name
_SIDE = 320  # of a picture on the page, px

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.5rem;margin:0}.notice{border-left:4px solid #b45309;background:#fff7ed;padding:.6rem 1rem;margin:1rem 0}
table{border-collapse:collapse;width:100%}td,th{padding:.5rem .6rem;border-bottom:1px solid #d8dee4;text-align:left}
th{font-weight:600;background:#f6f8fa;position:sticky;top:0}td{vertical-align:top}
td.n{font-variant-numeric:tabular-nums;white-space:nowrap}
td.w{overflow-wrap:anywhere;min-width:8rem}td.p{min-width:316px}img{width:150px;height:150px;object-fit:contain;border-radius:6px;background:#000}
figure{display:inline-block;width:150px;vertical-align:top;margin:0 4px 6px 0}footer{overflow-wrap:anywhere}
@media(max-width:76rem){.table{overflow-x:auto}}
figcaption{color:#59636e;font-size:.75rem;text-align:center}.bad{color:#b42318}.code{display:inline-block}.hint{color:#59636e;font-size:.85rem}
.key{white-space:nowrap}.key b{display:inline-block;width:.8em;height:.8em;border-radius:50%;margin:0 .3em 0 1em}
th button{font:inherit;border:0;background:none;padding:0;cursor:pointer;text-align:left}
th button::after{content:"\\a0\\2195";color:#8c959f}th[aria-sort=ascending] button::after{content:"\\a0\\2191";color:inherit}
th[aria-sort=descending] button::after{content:"\\a0\\2193";color:inherit}
input{font:inherit;padding:.3rem .6rem;width:20rem;max-width:100%;margin:.5rem 0;border:1px solid #8c959f;border-radius:6px}
"""

# Sorting and searching move and hide rows that are there; without scripts the page is whole, in the order of the run.
_SCRIPT = """
const body = document.querySelector("tbody"), rows = [...body.rows], search = document.querySelector("input");
const told = document.querySelector("output"), texts = rows.map(row => row.textContent.toLowerCase());
const heads = [...document.querySelectorAll("th")];
search.addEventListener("input", () => {
  const words = search.value.toLowerCase().split(/\\s+/);
  let shown = 0;
  rows.forEach((row, k) => { row.hidden = !words.every(word => texts[k].includes(word)); shown += !row.hidden; });
  told.textContent = search.value ? `${shown} of ${rows.length}` : "";
});
heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
  const down = head.getAttribute("aria-sort") === "ascending";
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const keys = new Map(rows.map(row => [row, row.cells[column].dataset.key ?? ""]));
  const order = (a, b) => keys.get(a).localeCompare(keys.get(b), undefined, {numeric: true});
  body.append(...[...rows].sort((a, b) => (!keys.get(a) - !keys.get(b)) || (down ? order(b, a) : order(a, b))));
}));
"""


def drawings(folder: Path) -> Drawings:
    """What draws the page's pictures below the folder of a run."""
    return Drawings(folder / FOLDER, _parts, quality=82)


def _parts(result: Screening) -> dict[str, Drawer]:
    parts: dict[str, Drawer] = {"": lambda photo: drawing.contoured(photo, result, _SIDE)}
    if result.disc is not None:
        parts[".disc"] = lambda photo: drawing.close_up(photo, result, _SIDE)
    for disease, heat in drawing.heat_maps(result).items():
        parts[f".{disease}"] = partial(drawing.heated, heat=heat, side=_SIDE)
    return parts


def _shown(part: str) -> str:
    """What a part shows, for people."""
    known = {"": "the whole photo", "disc": "the optic disc"}
    name = part.removeprefix(".")
    return known[name] if name in known else f"heat of {DISEASES[name].title}"


def write(
    folder: Path,
    results: Iterable[tuple[int, Result]],
    counts: Mapping[str, int],
    models: Sequence[ModelName],
    terms: Sequence[TermsPart],
) -> None:
    """Write the page into the folder of a run.

    Args:
        folder: Of the run; its pictures were drawn by `drawings`.
        results: Each with its number.
        counts: Of all, by status or code.
        models: Those that are open, in order.
        terms: Of each.

    Raises:
        OutputError: It cannot be written.
    """
    with writing(folder / FILE) as file:
        for text in _page(folder, results, counts, models, terms):
            file.write(text.encode("utf-8", "replace"))


def _page(
    folder: Path,
    results: Iterable[tuple[int, Result]],
    counts: Mapping[str, int],
    models: Sequence[ModelName],
    terms: Sequence[TermsPart],
) -> Iterator[str]:
    total = sum(counts.values())
    tally = ", ".join(f"{count} {html.escape(name)}" for name, count in sorted(counts.items()))
    verdicts = [verdict for own in models for verdict in READERS[own.kind].verdicts]
    titles = "".join(f"<th><button>{html.escape(verdict.title)}</button>" for verdict in verdicts)
    meanings = " ".join(f"{_sentence(verdict)}" for verdict in verdicts)
    notices = "".join(f"<p>{html.escape(notice)}</p>" for notice in dict.fromkeys(own.notice for own in terms))
    named_models = "<br>".join(
        f"Model {html.escape(own.name)} {html.escape(own.version)} ({own.precision}, {html.escape(own.backend)}), "
        f"SHA-256 {own.sha256}. Weights: {html.escape(its.licence)}."
        for own, its in zip(models, terms, strict=True)
    )
    if any(LICENCE in its.licence for its in terms):
        named_models += f"<br>{LICENCE} lies in the package, in funduscope/models."
    yield f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Funduscope report</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style>
<h1>Funduscope: {total} photograph{"s" * (total != 1)}</h1><p class="hint">{tally}</p>
<div class="notice">{notices}</div>
<p><b>refer</b>: the disease is called, as its probability reaches the threshold that stands below it. <b>no</b>: it does not
reach it. <b>open</b>: too near to the threshold to say, or not measurable.</p>
<p>{meanings}
Heat: where a model sees the disease, from blue (little) to red (much).
<span class="key"><b style="background:#40dc60"></b>disc</span> <span class="key"><b style="background:#46aaff"></b>cup</span>
<span class="key"><b style="background:#ffe13c"></b>fovea</span></p>
<p><label>Search <input type="search" placeholder="a name, a patient, refer, a code"></label> <output class="hint"></output></p>
<div class="table"><table>
<thead><tr><th>pictures<th><button>name</button><th><button>vCDR</button>{titles}<th><button>remarks</button></tr></thead>
<tbody>"""
    embed = total <= EMBEDDED
    for place, (number, result) in enumerate(results):
        if place == LIMIT:
            break
        yield _row(folder, number, result, verdicts, embed)
    more = f"<p>and {total - LIMIT} more, in screenings.csv</p>" if total > LIMIT else ""
    yield f"""</tbody></table></div>{more}
<footer class="hint">{named_models}</footer><script>{_SCRIPT}</script></html>
"""


def _sentence(verdict: Verdict) -> str:
    """What a verdict is, for people."""
    title = verdict.title[:1].upper() + verdict.title[1:]  # DR stays DR
    meaning = verdict.meaning
    for own in all_verdicts():  # its columns by what the page calls them
        for part, name in (("", ""), ("_probability", "'s probability"), ("_threshold", "'s threshold")):
            meaning = meaning.replace(f"`{own.name}{part}`", f"{own.title}{name}")
    return f"{html.escape(title)}: {html.escape(meaning, quote=False)}."


def _row(folder: Path, number: int, result: Result, verdicts: Sequence[Verdict], embed: bool) -> str:
    text = readable(result.name)
    key = f' data-key="{html.escape(text)}"'
    name = f'<td class="w"{key}>{html.escape(text).replace("/", "/<wbr>")}'  # folds there first
    if whose := _whose(result.eyes):
        name += f'<br><span class="hint">{whose}</span>'
    if not isinstance(result, Screening):
        remarks = ", ".join(filter(None, (f"{result.code}: {html.escape(result.reason)}", _folding(result.warnings))))
        return (
            f'<tr><td>{name}<td class="bad">{result.status}{"<td>" * len(verdicts)}'
            f'<td class="w" data-key="{result.code}">{remarks}</tr>\n'
        )
    images = "".join(
        f'<figure><img alt="{_shown(part)}" loading="lazy" src="{_source(folder, file, embed)}">'
        f"<figcaption>{_shown(part)}</figcaption></figure>"
        for part, file in _files(number, result).items()
        if (folder / FOLDER / file).is_file()
    )
    cells = "".join(_decision(result, verdict, verdicts) for verdict in verdicts)
    vcdr = "–" if result.vcdr is None else f"{result.vcdr:.3f}"
    measured = "" if result.vcdr is None else f' data-key="{vcdr}"'
    remarks = _folding(result.warnings)
    row = f'<tr><td class="p">{images}{name}<td class="n"{measured}>{vcdr}{cells}'
    return f'{row}<td class="w" data-key="{" ".join(result.warnings)}">{remarks}</tr>\n'


def _folding(codes: Sequence[str]) -> str:
    """Codes that are each kept together, with its comma, or fold at their underscores where the column is narrower."""
    listed = ", ".join(codes).replace("_", "_<wbr>").split(" ") if codes else []
    return " ".join(f'<span class="code">{code}</span>' for code in listed)


def _whose(eyes: Eyes) -> str:
    """Patient and eye, where they are known, such as `P-1, left (from the list)`."""
    parts = [] if eyes.patient is None else [html.escape(readable(eyes.patient))]
    if eyes.eye is not None:
        parts.append(f"{eyes.eye} (from the {eyes.source})" if eyes.source else eyes.eye)
    return ", ".join(parts)


def _files(number: int, result: Screening) -> dict[str, str]:
    parts = _parts(result)
    return dict(zip(parts, named(number, result, parts), strict=True))


def _source(folder: Path, file: str, embed: bool) -> str:
    """Of an image: the file's own bytes, or where it lies beside the page."""
    if not embed:
        return f"{FOLDER}/{quote(file)}"
    return f"data:image/jpeg;base64,{base64.b64encode((folder / FOLDER / file).read_bytes()).decode()}"


def _decision(result: Screening, verdict: Verdict, verdicts: Sequence[Verdict]) -> str:
    decision = result.decisions.get(verdict.name)
    if decision is None or decision.threshold is None:
        return "<td>–"
    key = "" if decision.probability is None else f' data-key="{decision.probability:.6f}"'
    told = f"from {decision.threshold:.3f}" + "".join(f"<br>as {title} is" for title in _by(result, verdict, verdicts))
    return f'<td class="n"{key}>{in_words(decision)}<br><span class="hint">{told}</span>'


def _by(result: Screening, verdict: Verdict, verdicts: Sequence[Verdict]) -> list[str]:
    """The verdicts on diseases within this one's that had it called below its threshold, or left open as they are."""
    own = result.decisions[verdict.name]
    if own.called is False or own.probability is None or own.threshold is None:
        return []
    if own.called and own.probability >= own.threshold:
        return []
    within = [other for other in verdicts if DISEASES[other.disease].within == verdict.disease]
    return [o.title for o in within if o.name in result.decisions and result.decisions[o.name].called is own.called]
