"""Whether a search with a `timeout` comes back in time: at most twice the deadline.

    python -m bench.deadlines [--rows 1000000] [--indexed 100000] [--repeats 20]

Two stores of 128 dimensions, made here: one of `rows` rows without a graph, with three metadata
columns, and one of `indexed` rows with one. Each line is one kind of search and one deadline: what
the searches took, the worst of them as a multiple of the deadline, and the share that was complete.
What is in memory before them is hidden from Python's garbage collection, whose 100 ms for the
modules of numba would else be the worst.

========== =====================================================================================
what       search
========== =====================================================================================
scan       one query, exact, over all rows
scans      1,000 queries in a call, exact
filter     one query under three clauses that were never asked before
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--indexed", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=20)
    given = parser.parse_args()
    vecdb.warmup()
    report = Report("deadlines")
    number = 0
    with TemporaryDirectory(prefix="vecdb-bench-") as folder:
        plain, indexed = Path(folder) / "plain", Path(folder) / "indexed"
        plain_store(plain, given.rows)
        indexed_store(indexed, given.indexed)
        with contextlib.ExitStack() as opened:
            made = searches(plain, indexed, opened)
            gc.freeze()
            for what, make in made.items():
                for deadline in DEADLINES_MS:
                    took, complete = [], 0
                    for _ in range(given.repeats):
                        number += 1
                        search = make(number)
                        with exclusive():
                            started = time.perf_counter()
                            found = search(timeout=deadline / 1000)
                            took.append(1000 * (time.perf_counter() - started))
                        complete += found.plan.complete
                    report.line(
                        what=what, deadline_ms=deadline, ms=summary(took),
                        worst=max(took) / deadline, complete=complete / given.repeats,
                    )  # fmt: skip


if __name__ == "__main__":
    main()
