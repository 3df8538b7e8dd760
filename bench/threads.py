"""Two search threads against one: QPS of one batch call, vecdb and hnswlib.

    python -m bench.threads --set sift-like

Wall-clock time, passes with one and two threads in turn, at beam width 64.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from typing import Any

from bench import datasets
from bench.engine import K
from bench.harness import Contest, Report, summary

EF = 64


class Batch:
    """One index, searched with a given number of threads; lives in its own process."""

    def __init__(self, name: str, source: str, rows: int | None) -> None:
        self._data = datasets.load(source, rows)
        self._search = {"vecdb": self._vecdb, "hnswlib": self._hnswlib}[name]()

    def _vecdb(self) -> Any:
        import vecdb

        vecdb.warmup()
        from vecdb import graph
        from vecdb.workers import Workers

        data = self._data
        # the caller takes a task too, so a pool of one would be more than one thread; a pool of two
        # keeps two cores busy, which is what hnswlib's two threads do
        pools = {1: None, 2: Workers(2)}
        built = graph.build(data.train, data.metric, workers=pools[2])
        return lambda threads: graph.search(
            built, data.train, data.test, K, EF, metric=data.metric, workers=pools[threads]
        )

    def _hnswlib(self) -> Any:
        import hnswlib

        data = self._data
        index = hnswlib.Index(data.metric, data.train.shape[1])
        index.init_index(len(data.train), ef_construction=200, M=16)
        index.add_items(data.train, num_threads=2)
        index.set_ef(EF)
        return lambda threads: index.knn_query(data.test, K, num_threads=threads)

    def qps(self, threads: int) -> float:
        """Queries per second over at least half a second."""
        asked, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < 0.5:
            self._search(threads)
            asked += len(self._data.test)
        return asked / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", default="sift-like", help="see bench/datasets.py")
    parser.add_argument("--rows", type=int, help="only the first so many rows")
    parser.add_argument("--passes", type=int, default=9)
    given = parser.parse_args()
    report = Report("threads", ("hnswlib",))
    figures: dict[tuple[str, int], list[float]] = defaultdict(list)
    with Contest(report, Batch, ["vecdb", "hnswlib"], given.set, given.rows) as contest:
        for _ in range(given.passes):
            for threads in (1, 2):
                for name, qps in contest.round("qps", threads):
                    figures[name, threads].append(qps)
    for name in dict.fromkeys(name for name, _ in figures):
        one, two = summary(figures[name, 1]), summary(figures[name, 2])
        ratios = [b / a for a, b in zip(figures[name, 1], figures[name, 2], strict=True)]
        report.line(library=name, one=one, two=two, two_to_one=summary(ratios))


if __name__ == "__main__":
    main()
