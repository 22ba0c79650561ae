"""One self-contained HTML page about a run: what the figures mean, a table, and a small picture of each eye."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import simplejpeg

from . import overlay
from .contract import Contract
from .results import Result, Screening
from .sinks import write_text

LIMIT = 500  # pictures on the page; all are in the CSV
_SIDE = 320  # of a picture on the page, px

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.5rem;margin:0}.notice{border-left:4px solid #b45309;background:#fff7ed;padding:.6rem 1rem;margin:1rem 0}
table{border-collapse:collapse;width:100%}td,th{padding:.5rem .6rem;border-bottom:1px solid #d8dee4;text-align:left}
th{font-weight:600;background:#f6f8fa}td{vertical-align:top}td.n{font-variant-numeric:tabular-nums;white-space:nowrap}
td.w{overflow-wrap:anywhere}td.p{white-space:nowrap}img{width:150px;height:150px;object-fit:contain;border-radius:6px;margin-right:6px}.bad{color:#b42318}.hint{color:#59636e;font-size:.85rem}
.key b{display:inline-block;width:.8em;height:.8em;border-radius:50%;margin:0 .3em 0 1em}
"""


@dataclass(frozen=True, eq=False)
class Entry:
    """One result with its small pictures as JPEG: the whole photo and the disc; None for a rejected one."""

    result: Result
    pictures: tuple[bytes, bytes] | None


class Report:
    """Gathers entries and writes the page at the end; a context manager. Results must have kept their photos."""

    def __init__(self, path: Path, contract: Contract, backend: str) -> None:
        self._path, self._contract, self._backend = path, contract, backend
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
            write_text(self._path, page(self._entries, self._counts, self._contract, self._backend))


def _entry(result: Result) -> Entry:
    if not isinstance(result, Screening) or result.photo is None:
        return Entry(result, None)
    drawn = overlay.draw(result.photo, result, _SIDE), overlay.close_up(result.photo, result, _SIDE)
    whole, disc = (bytes(simplejpeg.encode_jpeg(picture, quality=82)) for picture in drawn)
    return Entry(replace(result, photo=None), (whole, disc))


def page(entries: Sequence[Entry], counts: Mapping[str, int], contract: Contract, backend: str) -> str:
    """The page. Args: entries: at most LIMIT of them; counts: rows by status or code."""
    total = sum(counts.values())
    tally = ", ".join(f"{count} {html.escape(name)}" for name, count in sorted(counts.items()))
    shown = [_row(entry, contract.glaucoma_threshold) for entry in entries]
    more = f"<p>{total - len(shown)} more are in screenings.csv.</p>" if total > len(shown) else ""
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Funduscope report</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style>
<h1>Funduscope: {total} photograph{"s" * (total != 1)}</h1><p class="hint">{tally}</p>
<p class="notice">{html.escape(contract.terms.notice)}</p>
<p>Glaucoma is called where its probability reaches {contract.glaucoma_threshold:.3f}: the mean of the network's own score
and of a logistic regression on the vertical cup-to-disc ratio (vCDR).
<span class="key"><b style="background:#40dc60"></b>disc <b style="background:#46aaff"></b>cup
<b style="background:#ffe13c"></b>fovea</span></p>
<table><thead><tr><th>picture<th>name<th>glaucoma<th>vCDR<th>network, vCDR score<th>remarks</tr></thead>
<tbody>{"".join(shown)}</tbody></table>{more}
<p class="hint">Model {html.escape(contract.name)} {html.escape(contract.version)} ({contract.precision}, {html.escape(backend)}),
SHA-256 {contract.sha256}. Weights: {html.escape(contract.terms.licence)}.</p></html>
"""


def _row(entry: Entry, threshold: float) -> str:
    result = entry.result
    name = f'<td class="w">{html.escape(result.name.encode("utf-8", "replace").decode())}'
    if not isinstance(result, Screening):
        return (
            f'<tr><td>{name}<td class="bad">{result.status}<td><td><td>{result.code}: {html.escape(result.reason)}</tr>'
        )
    images = "".join(
        f'<img alt="{alt}" src="data:image/jpeg;base64,{base64.b64encode(picture).decode()}">'
        for picture, alt in zip(entry.pictures or (), ("the whole photo", "the optic disc"), strict=False)
    )
    call = {True: "refer", False: "not called", None: "not measurable"}[result.glaucoma]
    probability = f"{_number(result.glaucoma_probability)} (threshold {threshold:.3f})"
    parts = f"{_number(result.glaucoma_network)}, {_number(result.glaucoma_vcdr)}"
    remarks = ", ".join(result.warnings)
    return (
        f'<tr><td class="p">{images}{name}<td class="n">{call}<br><span class="hint">{probability}</span>'
        f'<td class="n">{_number(result.vcdr)}<td class="n">{parts}<td>{remarks}</tr>'
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
