"""Open a store of a million rows and fetch 1,000 random ids of it.

    python -m bench.open --rows 1000000

Every pass is a fresh process per store: imports are done (and vecdb's kernels loaded) before the
clock starts, since bench.first_use measures those; all files have just been read, so that the page
cache holds them.
`open_ms` runs to the handle, `get_ms` covers the first `get` of 1,000 random ids with their
metadata, `again_ms` the next, `search_ms` the first search (an exact scan where the store has not
built its index; ``--index`` waits for it). The bytes that a row costs beyond its vector and its
metadata stand beside them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from bench.harness import Contest, Report, summary
from bench.stores import MODULES, PACKAGES, STORES, footprint, import_everything, make_rows

BATCH = 1_000  # zvec takes 1,024 at most, Chroma 5,461


class Filled:
    """Fills one store once; lives in its own process."""

    def __init__(self, name: str, folder: Path, dim: int) -> None:
        self._store, self._path, self._dim = STORES[name](), folder / name, dim
        self._store.create(self._path, dim)

    def fill(self, rows: int, index: bool) -> dict[str, float]:
        """Add, build the index if asked to, close; seconds and what is on the disk."""
        start, content = time.perf_counter(), 0
        for first in range(0, rows, BATCH):
            batch = make_rows(first, min(BATCH, rows - first), self._dim)
            content += batch.content
            self._store.add(self._store.prepare(batch))
        if index:
            self._store.optimize()
        self._store.close()
        seconds, left = time.perf_counter() - start, footprint(self._path)
        return {"fill_s": seconds, "bytes_per_row_beyond": (left["bytes"] - content) / rows, **left}


class Opened:
    """Opens one store in a fresh process."""

    def __init__(self, name: str, folder: Path, rows: int, dim: int) -> None:
        import_everything(name)
        for file in filter(Path.is_file, (folder / name).rglob("*")):
            file.read_bytes()
        self._store, self._path, self._rows, self._dim = STORES[name](), folder / name, rows, dim

    def measure(self, seed: int) -> dict[str, float]:
        """Milliseconds to open, to get 1,000 rows twice, to search once."""
        rng = np.random.default_rng(seed)
        count = min(1000, self._rows // 2)
        ids, others = rng.choice(self._rows, (2, count), replace=False).tolist()
        query = rng.standard_normal(self._dim, dtype=np.float32)
        marks = [time.perf_counter()]
        self._store.open(self._path)
        marks.append(time.perf_counter())
        found = self._store.get(ids)
        marks.append(time.perf_counter())
        self._store.get(others)
        marks.append(time.perf_counter())
        self._store.search(query, 10)
        marks.append(time.perf_counter())
        if found != count:
            raise ValueError(f"{found} rows came back of {count}")
        spent = 1000 * np.diff(marks)
        return dict(
            zip(("open_ms", "get_ms", "again_ms", "search_ms"), spent.tolist(), strict=True)
        )


def run(names: list[str], rows: int, dim: int, passes: int, *, index: bool) -> None:
    """Fill each store once, then open it `passes` times, each in a new process."""
    report = Report("open", PACKAGES)
    measured: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory(prefix="vecdb-bench-") as temporary:
        folder = Path(temporary)
        with Contest(report, Filled, names, folder, dim) as contest:
            filled = dict(contest.round("fill", rows, index, timed=False))
        for turn in range(passes):
            with Contest(report, Opened, list(filled), folder, rows, dim) as contest:
                for name, spent in contest.round("measure", turn):
                    for what, value in spent.items():
                        measured[name][what].append(value)
    for name, figures in measured.items():
        spread = {what: summary(values) for what, values in figures.items()}
        report.line(store=name, rows=rows, dim=dim, **spread, **filled[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stores", default=",".join(MODULES), help="comma separated")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--index", action="store_true", help="build the index before closing")
    given = parser.parse_args()
    run(given.stores.split(","), given.rows, given.dim, given.passes, index=given.index)


if __name__ == "__main__":
    main()
