"""A store larger than the memory it may use: what becomes of recall, throughput and latency.

    python -m bench.beyond_memory

The rows are unit rows of 1,536 dimensions, as embeddings of text have them, in the compact layout
(``codes="int8"``): links and codes are a fifth of the store. ``--dim 128`` takes SIFT-like rows and
``--codes auto`` the fastest layout, whose graph is three quarters of the store there.

The searching process runs in a control group of its own (version 1 or 2; needs root) whose memory
limit is what the process takes before it opens the store, plus a share of the store's bytes: all of
it and a tenth more, a half, a quarter. Page cache counts towards that limit, so the rest is read
from the disk, again and again. Each share is measured in up to three ways (``--ways``):

``read``    what vecdb does by itself: the links and codes are mapped and told to be used at random,
            the float rows of a query are read, all that are not in memory asked for at once
``touch``   the float rows are touched where they are mapped, one after the other
``ahead``   the same with the system's read-ahead

Queries come one a call for the latency, and in batches on
``--threads`` threads for the throughput: waiting for the disk, not the cores, is what they share.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench import sparse
from bench.datasets import Dataset, recall, sift_like, text_like, truth
from bench.harness import Apart, Report

SHARES = (1.1, 0.5, 0.25)
WAYS = ("read", "touch", "ahead")
SETTLING = 4000  # queries before the clock starts: the hot part of the store has been read by then
SINGLE = 1000
BATCH = 4000
QUERIES = SETTLING + SINGLE + BATCH  # none is asked twice: it would find its pages in memory
SCRATCH = 24 << 20  # beside the store: threads, results, page tables
JUDGED = 200  # queries whose recall is computed

_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")

Floats = npt.NDArray[np.float32]


class Limited:
    """A process in a control group that searches one store."""

    def __init__(
        self, group: Path, path: Path, share: float, way: str, threads: int, queries: Floats
    ) -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))
        import vecdb

        vecdb.warmup()
        self._queries = queries  # its memory is none of the store's
        size = sum(file.stat().st_size for file in path.iterdir())
        limit = _usage(group) + SCRATCH + int(share * size)
        _limit_file(group).write_text(str(limit))
        sparse.fill_cache(path)
        self._col = vecdb.open(path, threads=threads)
        self._stack = contextlib.ExitStack()
        for part in self._col._store.snapshot.parts if way != "read" else ():
            assert part.segment.graph is not None
            part.segment.graph.read_rows_from(None, -1, 0)
            for file in part.segment.files if way == "ahead" else ():
                self._stack.enter_context(file.mapping.streaming())

    def measure(self, ef: int) -> dict[str, Any]:
        """Latency of single queries, throughput of batches, the answers to the first queries."""
        search, queries = self._col.search, self._queries
        search(queries[:SETTLING], 10, ef_search=ef)
        single, many = queries[SETTLING:][:SINGLE], queries[SETTLING + SINGLE :]
        spent = np.empty(len(single))
        for i, query in enumerate(single):
            start = time.perf_counter()
            search(query, 10, ef_search=ef)
            spent[i] = time.perf_counter() - start
        before, cpu, start = _pages_in(), time.process_time(), time.perf_counter()
        search(many, 10, ef_search=ef)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        return {
            "p50_ms": 1e3 * float(np.median(spent)),
            "p99_ms": 1e3 * float(np.quantile(spent, 0.99)),
            "qps_single": len(single) / float(spent.sum()),
            "qps_batch": len(many) / seconds,
            "cpu_us_per_query": 1e6 * cpu / len(many),
            "pages_per_query": (_pages_in() - before) / len(many),
            "ids": search(queries[:JUDGED], 10, ef_search=ef).ids,
        }


def run(
    path: Path, data: Dataset, ef: int, threads: int, shares: list[float], ways: list[str]
) -> None:
    """Measure every share in every way; one line each."""
    report = Report("beyond_memory")
    size = sum(file.stat().st_size for file in path.iterdir())
    judged = Dataset(data.name, data.metric, data.train, data.test[:JUDGED])
    best = truth(judged, 10)
    for share in shares:
        for way in ways:
            with control_group() as group:
                sparse.drop_cache(path)
                process = Apart(Limited, group, path, share, way, threads, data.test)
                figures = process.call("measure", ef)
                process.close()
            found = recall(judged, figures.pop("ids"), best)
            report.line(
                rows=len(data.train), store_gb=size / 1e9, memory_share=share, way=way,
                ef_search=ef, threads=threads, recall=found, **figures,
            )  # fmt: skip


@contextlib.contextmanager
def control_group() -> Iterator[Path]:
    """A new control group for memory, removed when its processes have ended."""
    root = _V1 if _V1.is_dir() else _V2
    group = root / f"vecdb-bench-{os.getpid()}"
    group.mkdir()
    try:
        if not _limit_file(group).exists():
            raise OSError(f"{root} has no memory controller: enable it in cgroup.subtree_control")
        yield group
    finally:
        for _ in range(100):
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)


def _limit_file(group: Path) -> Path:
    return group / ("memory.limit_in_bytes" if group.parent == _V1 else "memory.max")


def _usage(group: Path) -> int:
    name = "memory.usage_in_bytes" if group.parent == _V1 else "memory.current"
    return int((group / name).read_text())


def _pages_in() -> int:
    """Pages of 4 KiB that this process has had the disk read."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["read_bytes"]) // 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=1536, help="128 takes SIFT-like rows")
    parser.add_argument("--codes", default="int8", help="of the index; auto for the fastest")
    parser.add_argument("--path", type=Path, help="a store of these rows; made when not there")
    parser.add_argument("--ef", type=int, default=64)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of the store")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    given = parser.parse_args()
    if given.dim == 128:
        data = sift_like(given.rows, QUERIES)
        known = Dataset(
            f"{data.name}-{given.rows}", "l2", data.train.astype("f4"), data.test.astype("f4")
        )
    else:
        rows, queries = text_like(given.rows, QUERIES, given.dim)
        known = Dataset(f"text-like-{given.dim}-{given.rows}", "cosine", rows, queries)
    with tempfile.TemporaryDirectory(prefix="vecdb-bench-") as folder:
        path = given.path or Path(folder) / "store"
        if not path.exists():
            sparse.found(path, known.train, known.metric, given.codes)
        run(path, known, given.ef, given.threads, given.shares, given.ways)


if __name__ == "__main__":
    main()
