"""Durable ingest: batches of 1,000 rows x 384 dims with 4 metadata columns.

    python -m bench.ingest --batches 50

The clock runs from a batch's `add` to its acknowledgement; what that acknowledgement is worth
("disk" or "process") stands beside every figure. Stores take turns batch by batch in processes of
their own; each pass starts with empty folders. Building the index afterwards is timed apart.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from bench.harness import Contest, Report, summary
from bench.stores import PACKAGES, STORES, footprint, make_rows

TURN = 5  # batches


class Filling:
    """One store that fills up; lives in its own process."""

    def __init__(self, name: str, folder: Path, dim: int, size: int) -> None:
        self._store, self._path, self._dim, self._size = STORES[name](), folder / name, dim, size
        self._store.create(self._path, dim)
        self._rows = 0

    def add(self, batches: int) -> float:
        """Seconds that so many more batches took."""
        prepared = []
        for _ in range(batches):
            prepared.append(self._store.prepare(make_rows(self._rows, self._size, self._dim)))
            self._rows += self._size
        start = time.perf_counter()
        for batch in prepared:
            self._store.add(batch)
        return time.perf_counter() - start

    def finish(self) -> dict[str, float]:
        """Seconds to build the index and close, and what is left on the disk."""
        start = time.perf_counter()
        self._store.optimize()
        seconds = time.perf_counter() - start
        self._store.close()
        return {"index_s": seconds, **footprint(self._path)}


def run(names: list[str], batches: int, size: int, dim: int, passes: int) -> None:
    """Fill every store `passes` times and report rows per second."""
    report = Report("ingest", PACKAGES)
    rates: dict[str, list[float]] = defaultdict(list)
    ends: dict[str, dict[str, float]] = {}
    for _ in range(passes):
        seconds: dict[str, float] = defaultdict(float)
        with (
            tempfile.TemporaryDirectory(prefix="vecdb-bench-") as folder,
            Contest(report, Filling, names, Path(folder), dim, size) as contest,
        ):
            for _ in range(batches // TURN):
                for name, spent in contest.round("add", TURN):
                    seconds[name] += spent
            ends |= contest.round("finish")
        for name, spent in seconds.items():
            rates[name].append(batches * size / spent)
    for name, end in ends.items():
        report.line(
            store=name,
            acknowledged_survives=STORES[name].durability,
            rows=batches * size,
            dim=dim,
            rows_per_s=summary(rates[name]),
            **end,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stores", default=",".join(STORES), help="comma separated")
    parser.add_argument("--batches", type=int, default=50)
    parser.add_argument("--size", type=int, default=1000, help="rows a batch")
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--passes", type=int, default=3)
    given = parser.parse_args()
    run(given.stores.split(","), given.batches, given.size, given.dim, given.passes)


if __name__ == "__main__":
    main()
