"""One self-contained HTML page about a run: what the figures mean, a table, and a small picture of each eye."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from .. import drawing
from ..contract import Contract
from ..diseases import DISEASES
from ..files import write_text
from ..readers import READERS
from ..readers.column import Verdict
from ..results import ModelName, Result, Screening, in_words

LIMIT = 500  # pictures on the page; all are in the CSV
_SIDE = 320  # of a picture on the page, px

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.5rem;margin:0}.notice{border-left:4px solid #b45309;background:#fff7ed;padding:.6rem 1rem;margin:1rem 0}
table{border-collapse:collapse;width:100%}td,th{padding:.5rem .6rem;border-bottom:1px solid #d8dee4;text-align:left}
th{font-weight:600;background:#f6f8fa}td{vertical-align:top}td.n{font-variant-numeric:tabular-nums;white-space:nowrap}
td.w{overflow-wrap:anywhere;min-width:11rem}td.p{min-width:320px}img{width:150px;height:150px;object-fit:contain;border-radius:6px;background:#000}
figure{display:inline-block;margin:0 6px 6px 0}
figcaption{color:#59636e;font-size:.75rem;text-align:center}.bad{color:#b42318}.hint{color:#59636e;font-size:.85rem}
.key b{display:inline-block;width:.8em;height:.8em;border-radius:50%;margin:0 .3em 0 1em}
"""


@dataclass(frozen=True, eq=False)
class Entry:
    """One result with its small pictures as JPEG, by what they show; none for a rejected one."""

    result: Result
    pictures: dict[str, bytes]


class Report:
    """Gathers entries and writes the page at the end; a context manager. Results must have kept their photos.

    Args: contracts, models: of the screener, in the same order.
    """

    def __init__(self, path: Path, contracts: Sequence[Contract], models: Sequence[ModelName]) -> None:
        self._path, self._contracts, self._models = path, contracts, models
        self._entries: list[Entry] = []
        self._counts: Counter[str] = Counter()

    def write(self, result: Result) -> None:
        """Take up a result; its pictures only for the first LIMIT."""
        self._counts[result.status if isinstance(result, Screening) else result.code] += 1
        if len(self._entries) < LIMIT:
            self._entries.append(_entry(result))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is None:
            write_text(self._path, page(self._entries, self._counts, self._contracts, self._models))


def _entry(result: Result) -> Entry:
    if not isinstance(result, Screening) or result.photo is None:
        return Entry(result, {})
    drawn = {"the whole photo": drawing.contoured(result.photo, result, _SIDE)}
    if result.disc is not None:
        drawn["the optic disc"] = drawing.close_up(result.photo, result, _SIDE)
    for disease, heat in drawing.heat_maps(result).items():
        drawn[f"heat of {DISEASES[disease].title}"] = drawing.heated(result.photo, heat, _SIDE)
    pictures = {name: drawing.encoded(picture, ".jpg", quality=82) for name, picture in drawn.items()}
    return Entry(replace(result, photo=None), pictures)


def page(
    entries: Sequence[Entry], counts: Mapping[str, int], contracts: Sequence[Contract], models: Sequence[ModelName]
) -> str:
    """The page. Args: entries: at most LIMIT of them; counts: rows by status or code; contracts, models: see `Report`."""
    total = sum(counts.values())
    tally = ", ".join(f"{count} {html.escape(name)}" for name, count in sorted(counts.items()))
    verdicts = [verdict for own in models for verdict in READERS[own.kind].verdicts]
    shown = [_row(entry, verdicts) for entry in entries]
    titles = "".join(f"<th>{html.escape(verdict.title)}" for verdict in verdicts)
    meanings = " ".join(f"{_sentence(verdict)}" for verdict in verdicts)
    notices = "".join(
        f"<p>{html.escape(notice)}</p>" for notice in dict.fromkeys(own.terms.notice for own in contracts)
    )
    named = "<br>".join(
        f"Model {html.escape(own.name)} {html.escape(own.version)} ({own.precision}, {html.escape(own.backend)}), "
        f"SHA-256 {own.sha256}. Weights: {html.escape(document.terms.licence)}."
        for own, document in zip(models, contracts, strict=True)
    )
    more = f"<p>{total - len(shown)} more are in screenings.csv.</p>" if total > len(shown) else ""
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Funduscope report</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style>
<h1>Funduscope: {total} photograph{"s" * (total != 1)}</h1><p class="hint">{tally}</p>
<div class="notice">{notices}</div>
<p>A disease is called (refer) where its probability reaches the threshold behind it, and left open near it, or where it
could not be measured. {meanings}
Heat: where a model sees the disease, from blue (little) to red (much).
<span class="key"><b style="background:#40dc60"></b>disc <b style="background:#46aaff"></b>cup
<b style="background:#ffe13c"></b>fovea</span></p>
<table><thead><tr><th>pictures<th>name<th>vCDR{titles}<th>remarks</tr></thead>
<tbody>{"".join(shown)}</tbody></table>{more}
<p class="hint">{named}</p></html>
"""


def _sentence(verdict: Verdict) -> str:
    """What a verdict is, for people."""
    title = verdict.title[:1].upper() + verdict.title[1:]  # DR stays DR
    return f"{html.escape(title)}: {html.escape(verdict.meaning.replace('`', ''))}."


def _row(entry: Entry, verdicts: Sequence[Verdict]) -> str:
    result = entry.result
    shown = html.escape(result.name.encode("utf-8", "replace").decode()).replace("/", "/<wbr>")  # folds there first
    name = f'<td class="w">{shown}'
    if not isinstance(result, Screening):
        remarks = ", ".join((f"{result.code}: {html.escape(result.reason)}", *result.warnings))
        return f'<tr><td>{name}<td class="bad">{result.status}{"<td>" * len(verdicts)}<td>{remarks}</tr>'
    images = "".join(
        f'<figure><img alt="{alt}" src="data:image/jpeg;base64,{base64.b64encode(picture).decode()}">'
        f"<figcaption>{alt}</figcaption></figure>"
        for alt, picture in entry.pictures.items()
    )
    cells = "".join(f'<td class="n">{_decision(result, verdict)}' for verdict in verdicts)
    vcdr = "–" if result.vcdr is None else f"{result.vcdr:.3f}"
    return f'<tr><td class="p">{images}{name}<td class="n">{vcdr}{cells}<td>{", ".join(result.warnings)}</tr>'


def _decision(result: Screening, verdict: Verdict) -> str:
    decision = result.decisions.get(verdict.name)
    if decision is None:
        return "–"
    return f'{in_words(decision)}<br><span class="hint">from {decision.threshold:.3f}</span>'
