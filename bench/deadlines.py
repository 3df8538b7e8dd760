"""Whether a search with a `timeout` comes back in time: at most twice the deadline.

    python -m bench.deadlines [--rows 1000000] [--indexed 100000] [--repeats 20]

Two stores of 128 dimensions, made here: one of `rows` rows without a graph, with three metadata
columns, and one of `indexed` rows with one. Each line is one kind of search and one deadline: what
the searches took, the worst of them as a multiple of the deadline, and the share that was complete.

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
import time
from collections.abc import Callable
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


def searches(plain: Path, indexed: Path) -> dict[str, Callable[[float, int], Any]]:
    """For each kind of search a call with a timeout and a number, which no two calls share."""
    rng = np.random.default_rng(3)
    flat, walked = vecdb.open(plain), vecdb.open(indexed)
    queries, far = drawn(rng, 5000), rng.random((1000, DIM), dtype=np.float32)

    def clauses(number: int) -> str:
        year, language = 1990 + number % 35, LANGUAGES[number % 8]
        return f"year > {year} AND lang IN ('{language}', 'x') AND NOT contains(name, '{number}')"

    def column(timeout: float, number: int) -> Any:
        with vecdb.open(plain) as fresh:
            return fresh.search(far[0], 10, where=clauses(number), timeout=timeout)

    return {
        "scan": lambda timeout, number: flat.search(
            far[number % 1000], 10, exact=True, timeout=timeout
        ),
        "scans": lambda timeout, _: flat.search(far, 10, exact=True, timeout=timeout),
        "filter": lambda timeout, number: flat.search(
            far[0], 10, where=clauses(number), timeout=timeout
        ),
        "column": column,
        "graph": lambda timeout, _: walked.search(queries, 10, ef_search=400, timeout=timeout),
        "filtered": lambda timeout, number: walked.search(
            queries[:1000], 10, where=vecdb.col("dice") < 0.05 + 1e-6 * number, ef_search=400,
            timeout=timeout,
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
        for what, search in searches(plain, indexed).items():
            for deadline in DEADLINES_MS:
                took, complete = [], 0
                for _ in range(given.repeats):
                    number += 1
                    with exclusive():
                        started = time.perf_counter()
                        found = search(deadline / 1000, number)
                        took.append(1000 * (time.perf_counter() - started))
                    complete += found.plan.complete
                report.line(
                    what=what, deadline_ms=deadline, ms=summary(took), worst=max(took) / deadline,
                    complete=complete / given.repeats,
                )  # fmt: skip


if __name__ == "__main__":
    main()
