"""Durable ingest: batches of 1,000 rows x 384 dims with 4 metadata columns.

    python -m bench.ingest --batches 50

The clock runs from a batch's `add` to its acknowledgement; what that acknowledgement is worth
("disk" or "process") stands beside every figure. Stores take turns of five batches in processes of
their own, in which imports are done and vecdb's kernels loaded (bench.first_use measures those);
each pass starts with empty folders. With ``--index``, building the index afterwards is timed apart.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from bench.harness import Contest, Report, summary
from bench.stores import PACKAGES, STORES, footprint, import_everything, make_rows

TURN = 5  # batches


class Filling:
    """One store that fills up; lives in its own process."""

    def __init__(self, name: str, folder: Path, dim: int, size: int) -> None:
        import_everything(name)
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

    def index(self) -> float:
        """Seconds to build the index over all rows."""
        start = time.perf_counter()
        self._store.optimize()
        return time.perf_counter() - start

    def finish(self) -> dict[str, int]:
        """Close; what is left on the disk."""
        self._store.close()
        return footprint(self._path)


def run(names: list[str], batches: int, size: int, dim: int, passes: int, *, index: bool) -> None:
    """Fill every store `passes` times; report each pass and the medians."""
    report = Report("ingest", PACKAGES)
    rates: dict[str, list[float]] = defaultdict(list)
    for turn in range(passes):
        seconds: dict[str, float] = defaultdict(float)
        with (
            tempfile.TemporaryDirectory(prefix="vecdb-bench-") as folder,
            Contest(report, Filling, names, Path(folder), dim, size) as contest,
        ):
            for _ in range(batches // TURN):
                for name, spent in contest.round("add", TURN):
                    seconds[name] += spent
            built = dict(contest.round("index")) if index else {}
            for name, left in contest.round("finish", timed=False):
                rates[name].append(batches * size / seconds[name])
                extra = {"index_s": built[name]} if index else {}
                report.line(
                    store=name, turn=turn, add_s=seconds[name], rows=batches * size, **extra, **left
                )
    for name, values in rates.items():
        survives = STORES[name].durability
        report.line(store=name, acknowledged_survives=survives, dim=dim, rows_per_s=summary(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stores", default=",".join(STORES), help="comma separated")
    parser.add_argument("--batches", type=int, default=50)
    parser.add_argument("--size", type=int, default=1000, help="rows a batch")
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--index", action="store_true", help="build the index afterwards, timed")
    given = parser.parse_args()
    names = given.stores.split(",")
    run(names, given.batches, given.size, given.dim, given.passes, index=given.index)


if __name__ == "__main__":
    main()
