"""Ten billion rows: how long until they are open, and until they answer.

    python -m bench.load_10b --rows 10000000000 --dim 128

Makes a store of 10,000,000,000 addressable rows of 128 float32 dimensions (5 TB of vectors, 20 TB
with the graphs) by vecdb's own writer, and opens it with ``vecdb.open`` in fresh processes, at 10
million, 100 million, 1 billion and 10 billion rows in the same number of segments. What is real:

- the first segment: a million vectors with their graph;
- in each other segment 64 vectors at random rows, with a graph over them;
- every manifest, header, footer, section table, checksum and block hash, and the ids of all rows.

All other bytes are holes of sparse files: they read as zeros and take no space, and no graph leads
to them. So these figures say what opening, looking up and reaching rows cost at this size. They do
not say how long a walk over 150 graphs of 64 million real rows each would take.

Each pass is a fresh process. ``open`` is measured after ``from vecdb import open``, nothing else;
``get`` and ``search`` with Arrow imported and the kernels loaded from their cache. "warm" passes
begin with all bytes that are no holes in the page cache, "cold" ones with the store's files dropped
from it. Every answer is checked, and each pass ends by reading back all rows between the holes.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench import sparse
from bench.datasets import OUT, sift_like
from bench.harness import Apart, Report, exclusive, resident_bytes, summary

SEGMENT_ROWS = 64 << 20  # what a segment grows to
SOLID = 1_000_000
LOOKS = 50  # later gets and searches, of which the median counts
LOOKS_EVERYWHERE = 10  # later searches of all segments

Floats = npt.NDArray[np.float32]


class Fresh:
    """A process that has imported vecdb's own modules and nothing else of weight."""

    def __init__(self, path: Path) -> None:
        from vecdb import open as vecdb_open

        self._path, self._open = path, vecdb_open

    def measure(self) -> dict[str, float]:
        """Milliseconds to the handle, growth of resident memory, microseconds of `len`."""
        before, start = resident_bytes(), time.perf_counter()
        handle = self._open(self._path)
        opened = time.perf_counter()
        grown = resident_bytes() - before
        marked = time.perf_counter()
        rows = len(handle)
        counted = time.perf_counter()
        return {
            "open_ms": 1e3 * (opened - start),
            "open_resident_mb": grown / 1e6,
            "len_us": 1e6 * (counted - marked),
            "rows": rows,
        }


class Serving:
    """A process with Arrow imported and the kernels loaded."""

    def __init__(self, path: Path, sown: sparse.Sown, solid: sparse.Sown) -> None:
        import pyarrow.compute  # noqa: F401

        import vecdb

        vecdb.warmup()
        self._path, self._vecdb, self._sown, self._solid = path, vecdb, sown, solid

    def measure(self, seed: int) -> dict[str, float]:
        """Time to the first and to later answers; each of them is checked."""
        rng = np.random.default_rng(seed)
        before = resident_bytes()
        handle = self._vecdb.open(self._path)
        some = rng.permutation(len(self._sown.ids))[: LOOKS + 1]
        gets = [self._get(handle, i) for i in some]
        again = [self._get(handle, i) for i in some]
        near = [self._search(handle, self._solid, i, below=SOLID) for i in range(LOOKS + 1)]
        far = [self._search(handle, self._sown, i) for i in some[: LOOKS_EVERYWHERE + 1]]
        resident = resident_bytes() - before
        self._compare(handle.get(self._sown.ids, vectors=True), self._sown.vectors)
        return {
            "first_get_us": gets[0],
            "other_segments_get_us": float(np.median(gets[1:])),
            "again_get_us": float(np.median(again)),
            "first_search_ms": near[0] / 1e3,
            "later_search_ms": float(np.median(near[1:])) / 1e3,
            "first_search_everywhere_ms": far[0] / 1e3,
            "later_search_everywhere_ms": float(np.median(far[1:])) / 1e3,
            "resident_mb": resident / 1e6,
        }

    def _get(self, handle: Any, i: int) -> float:
        start = time.perf_counter()
        table = handle.get(self._sown.ids[i], vectors=True)
        spent = time.perf_counter() - start
        self._compare(table, self._sown.vectors[i])
        return 1e6 * spent

    def _compare(self, table: Any, written: Floats) -> None:
        found = table["vector"].combine_chunks().flatten().to_numpy()
        if not np.array_equal(found, written.reshape(-1)):
            raise ValueError(f"rows {table['id'][:3]} ... are not as they were written")

    def _search(self, handle: Any, known: sparse.Sown, i: int, below: int = 0) -> float:
        """Microseconds of a search beside a known row: of the ids below a bound, or of all."""
        row, query = known.ids[i], known.vectors[i] + np.float32(0.25)
        where = self._vecdb.col("id") < below if below else None
        start = time.perf_counter()
        hits = handle.search(query, 10, where=where)
        spent = time.perf_counter() - start
        if hits.ids[0] != row or not hits.plan.complete or hits.plan.strategy != "graph":
            raise ValueError(f"row {row} expected first, got {hits.ids[:3]}, {hits.plan}")
        return 1e6 * spent


def run(path: Path, rows: list[int], dim: int, passes: int) -> list[dict[str, Any]]:
    """Grow the store to each size and measure it; returns the lines that were reported."""
    report = Report("load_10b")
    segments = -(-(max(rows) - SOLID) // SEGMENT_ROWS)
    start = time.perf_counter()
    data = _vectors(SOLID + segments * sparse.SOWN, dim)
    if not (path / "LOCK").exists():
        sparse.found(path, data[:SOLID])
    picks = np.random.default_rng(1).choice(SOLID, LOOKS + 1, replace=False)
    solid = sparse.Sown(picks, data[picks])
    graphs = sparse.patches(data[SOLID:])
    report.line(
        made="one segment of real rows, and graphs for the others",
        rows=SOLID,
        seconds=time.perf_counter() - start,
    )
    lines = []
    for count in rows:
        start = time.perf_counter()
        sown = sparse.grow(path, count, data[SOLID:], graphs)
        seconds = time.perf_counter() - start
        logical, used = sparse.bytes_used(path)
        line = {
            "rows": count,
            "dim": dim,
            "segments": segments + 1,
            "real_rows": SOLID + len(sown.ids),
            "made_s": seconds,
            "logical_tb": logical / 1e12,
            "disk_gb": used / 1e9,
            **_passes(path, sown, solid, passes, "warm"),
            **_passes(path, sown, solid, max(1, passes // 2), "cold"),
        }
        report.line(**line)
        lines.append(line)
    return lines


def table(lines: list[dict[str, Any]]) -> str:
    """The figures of the largest store in words, medians of warm passes."""
    least, most = lines[0], lines[-1]

    def warm(what: str, line: dict[str, Any] = most) -> float:
        return float(line[f"warm_{what}"]["median"])

    share = warm("open_ms") / warm("open_ms", least)
    return "\n".join(
        (
            f"{most['rows']:,} rows of {most['dim']} dimensions in {most['segments']} segments:"
            f" {most['logical_tb']:.1f} TB, of which {most['disk_gb']:.2f} GB are no holes",
            f"open, fresh process                {warm('open_ms'):8.2f} ms"
            f"  (cold {most['cold_open_ms']['median']:.0f} ms)",
            f"  against {least['rows']:,} rows          {share:8.2f} x",
            f"  growth of resident memory        {warm('open_resident_mb'):8.2f} MB",
            f"len                                {warm('len_us'):8.1f} us",
            f"get of a real row, first touch     {warm('first_get_us') / 1e3:8.2f} ms",
            f"  of another segment               {warm('other_segments_get_us'):8.1f} us",
            f"  again                            {warm('again_get_us'):8.1f} us",
            f"first search, segment of {SOLID:,} {warm('first_search_ms'):8.2f} ms",
            f"  later                            {warm('later_search_ms'):8.2f} ms",
            f"first search of all segments       {warm('first_search_everywhere_ms'):8.1f} ms",
            f"  later                            {warm('later_search_everywhere_ms'):8.1f} ms",
        )
    )


def plot(lines: list[dict[str, Any]], file: Path) -> None:
    """Time to open and to answer against the number of rows."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    rows = [line["rows"] for line in lines]
    for what, label in (
        ("warm_open_ms", "open"),
        ("warm_first_get_us", "first get of a row"),
        ("warm_first_search_ms", "first search, 1 segment"),
        ("warm_first_search_everywhere_ms", "first search, all segments"),
    ):
        scale = 1e-3 if what.endswith("_us") else 1
        points = [line[what] for line in lines]
        middle = [scale * point["median"] for point in points]
        spread = [
            [m - scale * p["min"] for m, p in zip(middle, points, strict=True)],
            [scale * p["max"] - m for m, p in zip(middle, points, strict=True)],
        ]
        axes.errorbar(rows, middle, yerr=spread, marker="o", capsize=3, label=label)
    axes.set(
        xscale="log", yscale="log", xlabel="rows (addressable)", ylabel="milliseconds",
        title=f"{lines[0]['segments']} segments of 128 dimensions, warm page cache",
    )  # fmt: skip
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="center", bbox_to_anchor=(0.5, 0.68), ncols=2)
    figure.savefig(file, dpi=120)


def _passes(
    path: Path, sown: sparse.Sown, solid: sparse.Sown, passes: int, cache: str
) -> dict[str, Any]:
    """Median, least and greatest figure over fresh processes, with a cold or a warm page cache."""
    found: dict[str, list[float]] = defaultdict(list)
    for turn in range(passes):
        for factory, args, given in (
            (Fresh, (path,), ()),
            (Serving, (path, sown, solid), (turn,)),
        ):
            process = Apart(factory, *args)
            (sparse.drop_cache if cache == "cold" else sparse.fill_cache)(path)
            with exclusive():
                figures = process.call("measure", *given)
            process.close()
            for what, value in figures.items():
                found[what].append(value)
    if len(set(found.pop("rows"))) != 1:
        raise ValueError("the number of rows changed")
    return {f"{cache}_{what}": summary(values) for what, values in found.items()}


def _vectors(rows: int, dim: int) -> Floats:
    """Descriptors like SIFT's at 128 dimensions, clustered normal ones at any other."""
    if dim == 128:
        return sift_like(rows, 1).train.astype(np.float32)
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((1000, dim), dtype=np.float32)
    out = rng.standard_normal((rows, dim), dtype=np.float32)
    for start in range(0, rows, 100_000):
        block = out[start : start + 100_000]
        block += centres[rng.integers(0, len(centres), len(block))]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000_000, help="of the largest store")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--path", type=Path, help="where to make the store; its parent must exist")
    parser.add_argument("--keep", action="store_true", help="leave the store there")
    parser.add_argument("--json", action="store_true", help="JSON lines only, no table at the end")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--plot", type=Path, default=OUT / "load_10b.png")
    given = parser.parse_args()
    if given.rows < 10 * SOLID:
        parser.error(f"--rows must be at least {10 * SOLID:,}")
    sizes = [10**power for power in range(7, 19) if 10**power < given.rows] + [given.rows]
    folder = given.path or Path(tempfile.mkdtemp(prefix="vecdb-10b-")) / "store"
    try:
        lines = run(folder, sizes, given.dim, given.passes)
    finally:
        if not given.keep:
            shutil.rmtree(folder if given.path else folder.parent, ignore_errors=True)
    plot(lines, given.plot)
    if not given.json:
        print(table(lines))


if __name__ == "__main__":
    main()
