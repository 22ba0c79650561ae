"""The results of a run's folder, to look through: filtered, sorted and paged here; nothing is ever written there.

A run may go on writing meanwhile. Its store is opened for each request anew and for reading alone, so that nothing holds it; what
is filtered and sorted by is copied into an index in memory, which takes up what has changed since.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, ParamSpec, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..engine.errors import OutputError, PhotoError, SettingsError
from ..engine.eyes import Listed
from ..engine.outputs.store import FILE, Store
from ..engine.pictures import photo as pictures
from ..engine.pictures.photo import Photo
from ..engine.readers import verdicts
from ..engine.results import Result, columns
from . import layers, pages
from .catalogue import verdicts_of
from .guard import RESULTS, RESULTS_PAGE

_MOST = 500  # rows of an answer
_ORDERS = 8  # that are kept
_LAST = 2**31  # number of a picture
_WORDS = 16  # of a search; more do not count
_CALLS = {"refer": "{} = 1", "no": "{} = 0", "open": "({} IS NULL AND status = 'ok')"}
_TEXTS = ("name", "patient", "eye", "status", "code", "warnings")  # what is searched
_STAMP = "number, size, modified, sha256, code"  # a result that was made anew has another
_GONE = "the picture is gone, or has changed since it was screened"
_NEW = f"SELECT {_STAMP}, row FROM run.results WHERE number NOT IN (SELECT number FROM rows)"
P = ParamSpec("P")
T = TypeVar("T")
_log = logging.getLogger("funduscope")


def routes(folder: Path) -> list[Route]:
    """The addresses. Args: folder: of a run."""
    shown = _Results(folder)
    return [
        Route(RESULTS_PAGE, shown.page),
        Route(RESULTS, shown.listed),
        Route(f"{RESULTS}/{{number}}", shown.one),
        Route(f"{RESULTS}/{{number}}/photo", shown.photo),
    ]


@dataclass(frozen=True)
class _Asked:
    """Which rows, in which order.

    Attributes:
        where: SQL of the filter.
        values: For it.
        order: SQL of the order; no two rows are alike in it.
        offset: How many rows come before those that are wanted.
        limit: How many are wanted.
    """

    where: str
    values: tuple[str, ...]
    order: str
    offset: int
    limit: int


def _asked(parameters: Mapping[str, str], sortable: Sequence[str]) -> _Asked:
    """What a request's parameters say. Args: sortable: columns of the index. Raises HTTPException: 400."""
    calls = {own.name for own in verdicts()}
    known = {"search", "status", "sort", "offset", "limit", *calls}
    if parameters.keys() - known:
        raise HTTPException(400, f"an unknown parameter; there are: {', '.join(sorted(known))}")
    words = parameters.get("search", "").casefold().split()[:_WORDS]
    clauses, values = ["1", *["instr(words, ?)"] * len(words)], words
    if status := parameters.get("status"):
        clauses.append("status = ?")
        values.append(status)
    for name in sorted(calls & parameters.keys()):
        if parameters[name] not in _CALLS:
            raise HTTPException(400, f"{name}: allowed are {', '.join(_CALLS)}")
        clauses.append(_CALLS[parameters[name]].format(name))
    sort = parameters.get("sort", "number")
    by = sort.removeprefix("-")
    if by not in sortable:
        raise HTTPException(400, f"sort: allowed are {', '.join(sortable)}, or - before one")
    direction = "DESC" if sort.startswith("-") else "ASC"
    return _Asked(
        " AND ".join(clauses),
        tuple(values),
        f"{by} {direction} NULLS LAST, number",
        _whole(parameters, "offset", 0, _LAST),
        _whole(parameters, "limit", 50, _MOST),
    )


def _number(request: Request) -> int:
    """Of a picture, in an address. Raises HTTPException: 400."""
    return _whole(request.path_params, "number", 0, _LAST)


def _whole(parameters: Mapping[str, str], name: str, default: int, most: int) -> int:
    given = parameters.get(name, str(default))
    if not (given.isascii() and given.isdecimal()) or len(given) > 10 or int(given) > most:
        raise HTTPException(400, f"{name}: a whole number from 0 to {most}")
    return int(given)


class _Index:
    """What rows are filtered and sorted by, in memory. For any thread.

    Args:
        folder: Of the run.

    Attributes:
        columns: Their names; each but `number` is of the rows.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path, self._lock = folder, folder / FILE, Lock()
        self._calls = [own.name for own in verdicts()]
        given = {column.name for column in columns()}
        wanted = (*_TEXTS, "vcdr", *(f"{call}_probability" for call in self._calls), *self._calls)
        self.columns = ("number", *(name for name in wanted if name in given))
        self._touched: tuple[object, ...] = ()  # the store's files when they were last looked at
        self._identity: object = None  # of the run
        self._orders: dict[object, list[int]] = {}  # the last that were asked for
        self._more = [name for name in self.columns if name not in _STAMP.split(", ")]
        self._file = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, uri=True)
        held = ", ".join([_STAMP.replace("number", "number INTEGER PRIMARY KEY"), *self._more, "words"])
        self._file.execute(f"CREATE TABLE rows ({held})")
        self._width = held.count(",") + 1

    def page(self, asked: _Asked) -> dict[str, Any]:
        """Those that are wanted, how many are found, and how many there are, by code or status."""
        of_one = f"SELECT {', '.join(self.columns)} FROM rows WHERE number = ?"
        with self._lock:
            order = self._order(asked)
            counts = self._file.execute("SELECT coalesce(code, status), count(*) FROM rows GROUP BY 1").fetchall()
            wanted = order[asked.offset : asked.offset + asked.limit]
            rows = [self._row(self._file.execute(of_one, (number,)).fetchone()) for number in wanted]
        return {"counts": dict(counts), "found": len(order), "rows": rows}

    def beside(self, number: int, asked: _Asked) -> dict[str, int | None]:
        """One row's place among those that are asked for, from 0 on, and the numbers before and after it; None: not there."""
        with self._lock:
            order = self._order(asked)
        place = order.index(number) if number in order else None
        if place is None:
            return {"place": None, "previous": None, "next": None}
        around = [None, *order, None]
        return {"place": place, "previous": around[place], "next": around[place + 2]}

    def _order(self, asked: _Asked) -> list[int]:
        """The numbers of all rows that are asked for. With the lock held."""
        self._refresh()
        key = asked.where, asked.values, asked.order
        if key not in self._orders:
            if len(self._orders) == _ORDERS:
                self._orders.pop(next(iter(self._orders)))
            chosen = f"SELECT number FROM rows WHERE {asked.where} ORDER BY {asked.order}"
            self._orders[key] = [number for (number,) in self._file.execute(chosen, asked.values)]
        return self._orders[key]

    def _row(self, values: Sequence[Any]) -> dict[str, Any]:
        row = dict(zip(self.columns, values, strict=True))
        called = {name: None if row[name] is None else bool(row[name]) for name in self._calls}
        return {**row, **called, "warnings": json.loads(row["warnings"])}

    def _refresh(self) -> None:
        """Take up what has changed in the store since."""
        touched = tuple(_touched(self._path.with_name(f"{FILE}{suffix}")) for suffix in ("", "-wal"))
        if touched == self._touched:
            return
        with Store(self._folder) as store:  # it says what is wrong where it is none
            identity = store.noted("begun")
        self._file.execute("ATTACH ? AS run", (f"{self._path.absolute().as_uri()}?mode=ro",))
        try:
            with self._file:
                self._file.execute("BEGIN")
                if identity != self._identity:  # another run has taken its place
                    self._file.execute("DELETE FROM rows")
                self._file.execute(
                    "DELETE FROM rows WHERE number IN (SELECT number FROM "
                    f"(SELECT {_STAMP} FROM rows EXCEPT SELECT {_STAMP} FROM run.results))"
                )
                self._file.executemany(
                    f"INSERT INTO rows VALUES ({', '.join('?' * self._width)})",
                    map(self._taken, self._file.execute(_NEW)),
                )
        finally:
            self._file.execute("DETACH run")
        self._orders.clear()
        self._touched, self._identity = touched, identity

    def _taken(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """A line of the index. Args: values: of a line of the store: the stamp, then the row."""
        *known, text = values
        row = json.loads(text)
        words = " ".join(str(row[name]) for name in _TEXTS if row[name]).casefold()
        return (*known, *(json.dumps(v) if isinstance(v := row.get(name), list) else v for name in self._more), words)


def _touched(path: Path) -> tuple[int, ...] | None:
    """What changes where a file is written or another takes its place; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


class _Results:
    """What the addresses answer."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._index = folder, _Index(folder)
        self._page = pages.page("results")

    async def page(self, request: Request) -> Response:
        """For people."""
        return self._page

    async def listed(self, request: Request) -> Response:
        """A part of the rows, and how many there are."""
        asked = _asked(request.query_params, self._index.columns)
        return JSONResponse(await run_in_threadpool(self._read, self._listed, asked))

    async def one(self, request: Request) -> Response:
        """A row, what is drawn of it, and which rows are beside it."""
        asked = _asked(request.query_params, self._index.columns)
        return JSONResponse(await run_in_threadpool(self._read, self._one, _number(request), asked))

    async def photo(self, request: Request) -> Response:
        """The picture."""
        return await run_in_threadpool(self._read, self._photo, _number(request))

    def _read(self, what: Callable[P, T], *asked: P.args, **more: P.kwargs) -> T:
        """Raises HTTPException: 503 where the store cannot be read."""
        try:
            return what(*asked, **more)
        except (SettingsError, OutputError, sqlite3.Error) as error:
            _log.error("the results cannot be read: %s", error)
            raise HTTPException(503, "the results cannot be read now; the service's log says why") from None

    def _listed(self, asked: _Asked) -> dict[str, Any]:
        page = self._index.page(asked)
        with Store(self._folder) as store:
            models = store.models() if store.noted("begun") else ()
            total = store.total()
        return {
            "pictures": total,
            "models": [vars(model) for model in models],
            "verdicts": [verdict for model in models for verdict in verdicts_of(model)],
            **page,
        }

    def _one(self, number: int, asked: _Asked) -> dict[str, Any]:
        listed, result = self._stored(number)
        photo = _seen(listed, result)
        return {
            "number": number,
            **self._index.beside(number, asked),
            "photo": photo is not None,
            "screening": result.to_dict(),
            "layers": layers.of(result, photo),
        }

    def _photo(self, number: int) -> Response:
        photo = _seen(*self._stored(number))
        if photo is None:
            raise HTTPException(404, _GONE)
        return layers.shown(photo)

    def _stored(self, number: int) -> tuple[Listed, Result]:
        with Store(self._folder) as store:
            found = store.one(number)
        if found is None:
            raise HTTPException(404, "there is no result of this number")
        return found


def _seen(listed: Listed, result: Result) -> Photo | None:
    """The photo, if it is the one that was screened: a file is shown that has its SHA-256, and no other."""
    try:
        photo = pictures.load(listed)
    except PhotoError:
        return None
    return photo if photo.sha256 is not None and photo.sha256 == result.sha256 else None
