"""The service under load: how long answers take beside a call in Python, what too much gets, and what many requests leave behind.

    python -m pytest benchmarks/soak/test_service.py -s            # a quarter of an hour, alone on the machine
    FUNDUSCOPE_SOAK=.1 python -m pytest benchmarks/soak/test_service.py -s

Each test prints the figures that the documentation states.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import http.client
import itertools
import json
import os
import random
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil

from funduscope import Run, Screener
from funduscope.engine.eyes import Listed

SHARE = float(os.environ.get("FUNDUSCOPE_SOAK", "1"))
SAMPLE = Path(__file__).parents[2] / "examples" / "retina_cc0.jpg"
REQUESTS, MANY, FEW = int(2000 * SHARE), int(10_000 * SHARE), int(4000 * SHARE)
CLIENTS = 16
FIRST_LOOK, LOOK = 10.0, 1.0  # seconds that an answer may take, the first of which reads all
SLOPE = 1.0  # MB a 1,000 requests that memory may grow by, in the second half
LEAK = """
import sys
from funduscope import cli
from funduscope.engine.screener import Screener
kept, submit = [], Screener.submit
Screener.submit = lambda *given, **how: (kept.append(bytearray(32_000)), submit(*given, **how))[1]
sys.argv = ["funduscope", *sys.argv[1:]]
cli.main()
"""


def own_picture(number: int) -> bytes:
    """The sample with a comment of its own, so that its SHA-256 tells whose the answer is."""
    data, note = SAMPLE.read_bytes(), b"%012d" % number
    return data[:2] + b"\xff\xfe" + (len(note) + 2).to_bytes(2, "big") + note + data[2:]


class Client:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, body: bytes) -> tuple[int, dict[str, Any], float]:
        """Status, answer, and the seconds that it took."""
        begin = time.perf_counter()
        self._connection.request("POST", "/v1/screenings", body, {"Content-Type": "image/jpeg"})
        answer = self._connection.getresponse()
        heard = answer.read()
        return answer.status, json.loads(heard), time.perf_counter() - begin

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()


@contextmanager
def serving(*options: str, program: Sequence[str] = ("-m", "funduscope")) -> Iterator[tuple[int, psutil.Process]]:
    """A service in a process of its own, ready: its port and process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, *program, "serve", "--port", str(port), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while True:
                assert process.poll() is None
                with suppress(OSError), closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
                    connection.request("GET", "/health/ready")
                    if connection.getresponse().status == 200:
                        break
                time.sleep(0.05)
            yield port, psutil.Process(process.pid)
        finally:
            process.terminate()


def closed_loop(port: int, clients: int, count: int) -> tuple[list[float], float]:
    """So many clients that each ask again when they are answered: seconds of each answer, and of all."""
    numbers, times, lock = iter(range(count)), list[float](), threading.Lock()

    def work() -> None:
        with Client(port) as client:
            while (number := next_of(numbers, lock)) is not None:
                body = own_picture(number)
                status, answer, took = client.ask(body)
                right(status, answer, body)
                with lock:
                    times.append(took)

    begin = time.perf_counter()
    together([work] * clients)
    return times, time.perf_counter() - begin


def open_loop(port: int, rate: float, count: int, evenly: bool) -> list[float]:
    """Requests at so many a second, evenly or when they come: seconds of each, from when it was to be sent."""
    chances, lock, times = random.Random(0), threading.Lock(), list[float]()
    due = list(itertools.accumulate(1 / rate if evenly else chances.expovariate(rate) for _ in range(count)))
    numbers, begin = iter(range(count)), time.perf_counter() + 0.1

    def work() -> None:
        with Client(port) as client:
            while (number := next_of(numbers, lock)) is not None:
                body = own_picture(number)
                time.sleep(max(0.0, begin + due[number] - time.perf_counter()))
                status, answer, _ = client.ask(body)
                right(status, answer, body)
                with lock:
                    times.append(time.perf_counter() - begin - due[number])

    together([work] * (2 * CLIENTS))
    return times


def right(status: int, answer: dict[str, Any], body: bytes) -> None:
    """That the answer is of this very picture."""
    assert status == 200, answer
    assert answer["screenings"][0]["sha256"] == hashlib.sha256(body).hexdigest()


def together(works: Sequence[Callable[[], None]]) -> None:
    with concurrent.futures.ThreadPoolExecutor(len(works)) as pool:
        for done in [pool.submit(work) for work in works]:
            done.result()


def next_of(numbers: Iterator[int], lock: threading.Lock) -> int | None:
    with lock:
        return next(numbers, None)


def ms(times: Sequence[float]) -> dict[str, float]:
    return {f"p{share}_ms": round(1000 * float(np.percentile(times, share)), 1) for share in (50, 99)}


def test_answers_come_in_time_and_to_whom_they_belong() -> None:
    with serving() as (port, _), Client(port) as client:
        first = client.ask(own_picture(0))[2]
        steady = [client.ask(own_picture(k))[2] for k in range(1, 60)]
        print("\nfirst after ready, ms", round(1000 * first, 1), "then", ms(steady))
        assert first <= 1.5 * np.median(steady)
        with Screener.open() as screener:
            ways: dict[str, Callable[[bytes], Any]] = {"call": screener, "http": client.ask}
            times: dict[str, list[float]] = {name: [] for name in ways}
            for k in range(100):
                for name, ask in ways.items():
                    begin = time.perf_counter()
                    ask(own_picture(k))
                    times[name].append(time.perf_counter() - begin)
        print({name: ms(own) for name, own in times.items()})
        capacity = 0.0
        for clients in (1, 4, CLIENTS):
            took, whole = closed_loop(port, clients, REQUESTS)
            capacity = len(took) / whole
            print(f"{clients} clients: {capacity:.1f} a second", ms(took))
            assert np.percentile(took, 99) <= 3 * np.median(took)
        for evenly in (True, False):
            took = open_loop(port, 0.7 * capacity, REQUESTS, evenly)
            print(f"open loop at {0.7 * capacity:.1f} a second, {'evenly' if evenly else 'at random'}", ms(took))


def test_many_clients_get_what_a_stream_gets() -> None:
    rates: dict[str, list[float]] = {"http": [], "stream": []}
    count = max(64, int(400 * SHARE))
    with serving() as (port, _), Screener.open() as screener:
        closed_loop(port, CLIENTS, 32)
        list(screener.stream([own_picture(k) for k in range(32)]))
        for _ in range(3):  # by turns
            rates["http"].append(count / closed_loop(port, CLIENTS, count)[1])
            begin = time.perf_counter()
            assert sum(1 for _ in screener.stream(own_picture(k) for k in range(count))) == count
            rates["stream"].append(count / (time.perf_counter() - begin))
    share = float(np.median(np.divide(rates["http"], rates["stream"])))
    print("\n", {name: [round(own, 1) for own in all_] for name, all_ in rates.items()}, f"http gets {share:.2f}")
    assert share >= 0.85  # the clients compute on the same cores


def test_too_much_is_refused_at_once() -> None:
    with serving("--queue", "16") as (port, _):
        refused, lock = list[float](), threading.Lock()

        def work() -> None:
            until = time.monotonic() + max(3, 20 * SHARE)
            while time.monotonic() < until:
                with Client(port) as client:
                    body = own_picture(0)
                    status, answer, took = client.ask(body)
                if status == 429:
                    with lock:
                        refused.append(took)
                    time.sleep(0.2)
                else:
                    right(status, answer, body)

        together([work] * 48)
        print("\nrefused", len(refused), ms(refused))
        assert len(refused) > 10
        assert np.percentile(refused, 99) < 0.1


def left_behind(process: psutil.Process, port: int, count: int, bad: float = 0.05) -> dict[str, float]:
    """What so many requests leave in the service: growth of memory in the second half, MB a 1,000; threads, handles."""
    chances, numbers, lock = random.Random(0), iter(range(count)), threading.Lock()
    seen = list[tuple[int, float]]()

    def work() -> None:
        with Client(port) as client:
            while (number := next_of(numbers, lock)) is not None:
                body = own_picture(number)
                if spoilt := chances.random() < bad:
                    body = body[: chances.choice((1, 100, 5000, 100_000))]
                status, answer, _ = client.ask(body)
                assert status in ((415, 422) if spoilt else (200,)), answer
                if number % 50 == 0:
                    seen.append((number, process.memory_info().rss / 1e6))

    closed_loop(port, CLIENTS, 64)
    threads, handles = process.num_threads(), process.num_fds()
    together([work] * CLIENTS)
    numbers_seen, memory = map(np.array, zip(*sorted(seen), strict=True))
    half = len(seen) // 2
    slope = np.median((memory[half + 4 :] - memory[half:-4]) / (numbers_seen[half + 4 :] - numbers_seen[half:-4]))
    time.sleep(1)
    return {
        "slope": 1000 * float(slope),
        "grown": float(memory[-1] - memory[half]),
        "threads": process.num_threads() - threads,
        "handles": process.num_fds() - handles,
    }


def test_many_requests_leave_nothing_behind() -> None:
    with serving() as (port, process):
        left = left_behind(process, port, MANY)
    print(f"\n{MANY} requests", left)
    assert left["slope"] <= SLOPE
    assert left["threads"] <= 2
    assert left["handles"] <= 2


def test_a_planted_leak_is_seen() -> None:
    with serving(program=("-c", LEAK)) as (port, process):
        left = left_behind(process, port, FEW)
    print(f"\n{FEW} requests, 32 kB kept of each", left)
    assert left["slope"] > SLOPE


def test_the_results_of_a_large_run_can_be_looked_through(tmp_path: Path) -> None:
    count = round(100_000 * SHARE)
    with Screener.open(batch=8) as screener:
        list(Run(screener, [Listed(str(SAMPLE))], tmp_path))
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as store, store:
        for table, row in (("pictures", None), ("results", "row")):
            names = [name for _, name, *_ in store.execute(f"PRAGMA table_info({table})")]
            drawn = "json_set(row, '$.any_dr_probability', abs(random()) / 9.3e18, '$.name', 'eye ' || value)"
            taken = [{"number": "value", row: drawn}.get(name, name) for name in names]
            numbers = f"SELECT 1 AS value UNION ALL SELECT value + 1 FROM many LIMIT {count - 1}"
            store.execute(
                f"WITH RECURSIVE many AS ({numbers}) INSERT INTO {table} "
                f"SELECT {', '.join(taken)} FROM {table}, many WHERE number = 0"
            )
    with serving("--results", str(tmp_path)) as (port, process):
        base = process.memory_info().rss
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            for what in (
                "",
                "",
                "?sort=-any_dr_probability",
                f"?sort=name&offset={count - 1000}",
                "?search=eye+77",
                f"/{count // 2}?sort=vcdr",
                f"/{count // 2 + 1}?sort=vcdr",
            ):
                begin = time.perf_counter()
                connection.request("GET", f"/v1/results{what}")
                answer = connection.getresponse()
                heard = json.loads(answer.read())
                took = time.perf_counter() - begin
                assert answer.status == 200, heard
                print(f"results{what}: {heard.get('found', '')} rows, {1000 * took:.0f} ms")
                assert heard.get("pictures", count) == count
                assert took < (LOOK if what else FIRST_LOOK)
        print(f"memory {(process.memory_info().rss - base) / 1e6:.0f} MB for {count} rows")
