"""A store as an application uses it: one row added, one search, ten thousand times.

    python -m bench.singles --rows 10000

Each search asks for the row that was just added and must find it. Stores take turns of 250 rows
in processes of their own; the files and bytes left behind are counted after closing, and how many
of these a row costs beyond its vector and its metadata, which no store can do without. A store that
has worked for ``--seconds`` stops where it is: its line has the rows that it got to, and what a row
cost it until then, which grows with the rows in most stores.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from bench.harness import Contest, Report
from bench.stores import PACKAGES, STORES, footprint, make_rows

TURN = 250  # rows


class Day:
    """One store that lives through a day of single rows; in its own process."""

    def __init__(self, name: str, folder: Path, dim: int, seconds: float) -> None:
        if name.startswith("vecdb"):
            importlib.import_module("vecdb").warmup()
        self._store, self._path, self._dim = STORES[name](), folder / name, dim
        self._store.create(self._path, dim)
        self._rows, self._content, self._left = 0, 0, 60 + seconds
        self.work(1)  # imports and first-call costs are bench.first_use's business
        self._left = seconds

    def work(self, count: int) -> tuple[float, float, float, int, int]:
        """Seconds in adds, in searches, of CPU on all threads; rows not found at once; rows."""
        adding = searching = cpu = 0.0
        missed, first = 0, self._rows
        while self._rows < first + count and adding + searching < self._left:
            rows = make_rows(self._rows, 1, self._dim)
            prepared = self._store.prepare(rows)
            busy, start = time.process_time(), time.perf_counter()
            self._store.add(prepared)
            added = time.perf_counter()
            found = self._store.search(rows.vectors[0], 10)
            searching += time.perf_counter() - added
            cpu += time.process_time() - busy
            adding += added - start
            missed += found[:1] != [self._rows]
            self._rows += 1
            self._content += rows.content
        self._left -= adding + searching
        return adding, searching, cpu, missed, self._rows - first

    def finish(self) -> dict[str, float]:
        """Close, and count what is left on the disk."""
        self._store.close()
        left = footprint(self._path)
        return {**left, "bytes_per_row_beyond": (left["bytes"] - self._content) / self._rows}


def run(names: list[str], rows: int, dim: int, seconds: float) -> None:
    """Go round the stores until each has all rows or no time left; report times and leftovers."""
    report = Report("singles", PACKAGES)
    turns: dict[str, list[tuple[float, float, float, int, int]]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory(prefix="vecdb-bench-") as folder,
        Contest(report, Day, names, Path(folder), dim, seconds) as contest,
    ):
        for _ in range(rows // TURN):
            for name, turn in contest.round("work", TURN):
                if turn[-1]:
                    turns[name].append(turn)
        for name, left in contest.round("finish", timed=False):
            sums = (sum(part) for part in zip(*turns[name], strict=True))
            adding, searching, cpu, missed, done = sums
            last = turns[name][-1]
            report.line(
                store=name,
                acknowledged_survives=STORES[name].durability,
                rows=done,
                wanted=rows,
                dim=dim,
                seconds=adding + searching,
                rows_per_s=done / (adding + searching),
                cpu_seconds=cpu,
                add_ms=1000 * adding / done,
                search_ms=1000 * searching / done,
                last_add_ms=1000 * last[0] / last[-1],
                last_search_ms=1000 * last[1] / last[-1],
                not_found_at_once=missed,
                **left,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stores", default=",".join(STORES), help="comma separated")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--seconds", type=float, default=40, help="of each store at most")
    given = parser.parse_args()
    run(given.stores.split(","), given.rows, given.dim, given.seconds)


if __name__ == "__main__":
    main()
