"""Whether a search with a `timeout` comes back in time: at most twice the deadline.

    python -m bench.deadlines [--rows 1000000] [--indexed 100000] [--repeats 20]

Two stores of 128 dimensions, made here: one of `rows` rows without a graph, with three metadata
columns, and one of `indexed` rows with one. Each line is one kind of search and one deadline: what
the searches took, the worst of them as a multiple of the deadline, and the share that was complete.

A busy machine delays whatever runs on it. So after each search a loop that does nothing but look at
the clock until the same deadline takes its turn: ``loop`` is the worst of these as a multiple of
the deadline, about what the machine alone costs the search as well. ``collected_ms`` is the longest
garbage collection of Python inside one of the searches, included in what they took.

========== =====================================================================================
what       search
========== =====================================================================================
scan       one query, exact, over all rows
scans      1,000 queries in a call, exact
filter     one query under three clauses, as text, that were never asked before
column     the same, over columns that this process has not read yet
graph      5,000 queries in a call, a beam of 400
filtered   1,000 queries in a call under a filter that passes 5 %, a beam of 400
========== =====================================================================================
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

import vecdb
from bench.filter_speed import LANGUAGES
from bench.harness import Report, exclusive, summary

DIM = 128
DEADLINES_MS = (5, 20, 100)


def plain_store(path: Path, rows: int) -> None:
    """Rows in one segment with a year, a language and a name; no graph."""
    rng = np.random.default_rng(0)
    columns = {
        "year": rng.integers(1990, 2025, rows),
        "lang": rng.choice(LANGUAGES, rows).tolist(),
        "name": [f"name {number}" for number in rng.integers(rows // 2, size=rows).tolist()],
    }
    with vecdb.create(path, DIM, "l2") as made:
        made.add(rng.random((rows, DIM), dtype=np.float32), metadata=columns)
        made.flush()


def indexed_store(path: Path, rows: int) -> None:
    """Rows with a graph and a random column."""
    rng = np.random.default_rng(1)
    with vecdb.create(path, DIM, "l2") as made:
        made.add(drawn(rng, rows), metadata={"dice": rng.random(rows)})
        made.optimize()


def drawn(rng: np.random.Generator, rows: int) -> npt.NDArray[np.float32]:
    """Rows that lie along 16 directions, with a little noise."""
    basis = np.random.default_rng(2).standard_normal((16, DIM), dtype=np.float32)
    noise = rng.standard_normal((rows, DIM), dtype=np.float32)
    return rng.standard_normal((rows, 16), dtype=np.float32) @ basis + 0.3 * noise


def searches(
    plain: Path, indexed: Path, opened: contextlib.ExitStack
) -> dict[str, Callable[[int], Callable[..., Any]]]:
    """For each kind what gives, for a number that no two calls share, a search with a timeout."""
    rng = np.random.default_rng(3)
    flat, walked = (opened.enter_context(vecdb.open(path)) for path in (plain, indexed))
    queries, far = drawn(rng, 5000), rng.random((1000, DIM), dtype=np.float32)

    def clauses(number: int) -> str:
        year, language = 1990 + number % 35, LANGUAGES[number % 8]
        return f"year > {year} AND lang IN ('{language}', 'x') AND NOT contains(name, '{number}')"

    def fresh(number: int) -> Callable[..., Any]:
        return partial(
            opened.enter_context(vecdb.open(plain)).search, far[0], 10, where=clauses(number)
        )

    flat.query(clauses(0), limit=0)
    return {
        "scan": lambda number: partial(flat.search, far[number % 1000], 10, exact=True),
        "scans": lambda _: partial(flat.search, far, 10, exact=True),
        "filter": lambda number: partial(flat.search, far[0], 10, where=clauses(number)),
        "column": fresh,
        "graph": lambda _: partial(walked.search, queries, 10, ef_search=400),
        "filtered": lambda number: partial(
            walked.search, queries[:1000], 10, where=vecdb.col("dice") < 0.05 + 1e-6 * number,
            ef_search=400,
        ),
    }  # fmt: skip


class Collections:
    """Milliseconds of the longest garbage collection since the last look."""

    def __init__(self) -> None:
        self._started, self._longest = 0.0, 0.0
        gc.callbacks.append(self._note)

    def longest(self) -> float:
        found, self._longest = self._longest, 0.0
        return found

    def _note(self, phase: str, _: dict[str, int]) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._started = now
        else:
            self._longest = max(self._longest, 1000 * (now - self._started))


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds that a call took, and its result."""
    started = time.perf_counter()
    found = run()
    return 1000 * (time.perf_counter() - started), found


def loop(deadline_ms: float) -> None:
    """Look at the clock until the deadline."""
    until = time.perf_counter() + deadline_ms / 1000
    while time.perf_counter() < until:
        pass


def measure(
    make: Callable[[int], Callable[..., Any]],
    deadline_ms: float,
    numbers: range,
    collections: Collections,
) -> dict[str, Any]:
    """Searches with these numbers and one deadline, the loop after each."""
    took, loops, collected, complete = [], [], [], 0
    for number in numbers:
        search = make(number)
        with exclusive():
            collections.longest()
            milliseconds, found = timed(partial(search, timeout=deadline_ms / 1000))
            collected.append(collections.longest())
            loops.append(timed(partial(loop, deadline_ms))[0])
        took.append(milliseconds)
        complete += found.plan.complete
    return {
        "deadline_ms": deadline_ms, "ms": summary(took), "worst": max(took) / deadline_ms,
        "loop": max(loops) / deadline_ms, "collected_ms": max(collected),
        "complete": complete / len(numbers),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--indexed", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=20)
    given = parser.parse_args()
    vecdb.warmup()
    report = Report("deadlines")
    with TemporaryDirectory(prefix="vecdb-bench-") as folder:
        plain, indexed = Path(folder) / "plain", Path(folder) / "indexed"
        plain_store(plain, given.rows)
        indexed_store(indexed, given.indexed)
        with contextlib.ExitStack() as opened:
            made = searches(plain, indexed, opened)
            collections, first = Collections(), 1
            for what, make in made.items():
                for deadline in DEADLINES_MS:
                    numbers = range(first, first + given.repeats)
                    first += given.repeats
                    report.line(what=what, **measure(make, deadline, numbers, collections))


if __name__ == "__main__":
    main()
