"""A store as an application uses it: one row added, one search, ten thousand times.

    python -m bench.singles --rows 10000

Each search asks for the row that was just added and must find it. Stores take turns of 250 rows
in processes of their own; the files and bytes left behind are counted after closing.
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

    def __init__(self, name: str, folder: Path, dim: int) -> None:
        if name.startswith("vecdb"):
            importlib.import_module("vecdb").warmup()
        self._store, self._path, self._dim = STORES[name](), folder / name, dim
        self._store.create(self._path, dim)
        self._rows = 0
        self.work(1)  # imports and first-call costs are bench.first_use's business

    def work(self, count: int) -> tuple[float, float, float, int]:
        """Seconds in adds, in searches, of CPU on all threads; and rows not found at once."""
        adding = searching = cpu = 0.0
        missed = 0
        for _ in range(count):
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
        return adding, searching, cpu, missed

    def finish(self) -> dict[str, int]:
        """Close, and count what is left on the disk."""
        self._store.close()
        return footprint(self._path)


def run(names: list[str], rows: int, dim: int) -> None:
    """Go round the stores until each has `rows` rows; report times and leftovers."""
    report = Report("singles", PACKAGES)
    turns: dict[str, list[tuple[float, float, float, int]]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory(prefix="vecdb-bench-") as folder,
        Contest(report, Day, names, Path(folder), dim) as contest,
    ):
        for _ in range(rows // TURN):
            for name, turn in contest.round("work", TURN):
                turns[name].append(turn)
        for name, left in contest.round("finish", timed=False):
            adding, searching, cpu, missed = (sum(part) for part in zip(*turns[name], strict=True))
            last = turns[name][-1]
            report.line(
                store=name,
                acknowledged_survives=STORES[name].durability,
                rows=rows,
                dim=dim,
                seconds=adding + searching,
                cpu_seconds=cpu,
                add_ms=1000 * adding / rows,
                search_ms=1000 * searching / rows,
                last_add_ms=1000 * last[0] / TURN,
                last_search_ms=1000 * last[1] / TURN,
                not_found_at_once=missed,
                **left,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stores", default=",".join(STORES), help="comma separated")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=384)
    given = parser.parse_args()
    run(given.stores.split(","), given.rows, given.dim)


if __name__ == "__main__":
    main()
