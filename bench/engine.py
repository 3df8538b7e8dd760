"""Recall@10 against QPS, vecdb and every rival on one data set.

    python -m bench.engine --set sift-like
    VECDB_DATA=... python -m bench.engine --set glove-100-angular --only vecdb,hnswlib

One search thread; each library in a process of its own; `--passes` rounds over all libraries and
beam widths, the median of them counts. Seconds of search are CPU seconds of the process: on a quiet
machine they are the wall's, and neither other programs nor a library's hidden threads gain by them.
Writes one JSON line per point, then QPS at recall .90,
.95 and .99 with ratios to hnswlib and to the best rival, and a PNG, to ``bench/out``.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from typing import Any

from bench import curves, datasets
from bench.datasets import Dataset
from bench.harness import Contest, Report, resident_bytes, summary
from bench.rivals import LIBRARIES

K = 10
LEVELS = (0.90, 0.95, 0.99)
PACKAGES = (
    "hnswlib", "rabitqlib", "pyglass-portable", "pyvsag", "scalable-vs", "faiss-cpu", "usearch",
    "voyager", "ngt",
)  # fmt: skip
_SHORTEST = 0.1  # seconds: a faster sweep point is repeated until so much time was measured


class Subject:
    """One library with its index over one data set; lives in its own process."""

    def __init__(self, library: str, source: str, rows: int | None, threads: int) -> None:
        self._library = LIBRARIES[library]()
        self._data = data = datasets.load(source, rows)
        self._train, self._queries, self._metric = data.train, data.test, data.metric
        if self._library.unit and data.metric == "cosine":
            self._train, self._queries = map(datasets.normalised, (data.train, data.test))
            self._metric = "l2"
        self._threads = threads
        self._recalls: dict[float, float] = {}

    def build(self) -> dict[str, float]:
        """Seconds, rows per second and growth of this process in MiB."""
        before, start = resident_bytes(), time.perf_counter()
        self._library.build(self._train, self._metric, self._threads)
        seconds = time.perf_counter() - start
        grown = (resident_bytes() - before) / 2**20
        return {"seconds": seconds, "rows_per_s": len(self._train) / seconds, "grown_mib": grown}

    def recalls(self) -> dict[float, float]:
        """Recall per beam width, up to the first one beyond .9995."""
        best = datasets.truth(self._data, K)
        for ef in self._library.beams:
            ids = self._library.search(self._queries, K, ef)
            self._recalls[ef] = datasets.recall(self._data, ids, best)
            if self._recalls[ef] > 0.9995:
                break
        return self._recalls

    def qps(self) -> dict[float, float]:
        """Queries per second at each of those widths, one pass."""
        return {ef: self._speed(ef) for ef in self._recalls}

    def _speed(self, ef: float) -> float:
        asked, start = 0, time.process_time()
        while (spent := time.process_time() - start) < _SHORTEST or not asked:
            self._library.search(self._queries, K, ef)
            asked += len(self._queries)
        return asked / spent


def run(source: str, names: list[str], passes: int, threads: int, rows: int | None) -> None:
    """Build all, sweep all, report, draw."""
    data = datasets.load(source, rows)
    datasets.truth(data, K)  # once, before the libraries' processes ask for it
    report = Report(f"engine-{data.name}", PACKAGES)
    speeds: dict[tuple[str, float], list[float]] = defaultdict(list)
    with Contest(report, Subject, names, source, rows, threads) as contest:
        for name, built in contest.round("build", timed=False):
            report.line(set=data.name, library=name, build=built, threads=threads)
        recalls = dict(contest.round("recalls", timed=False))
        for _ in range(passes):
            for name, swept in contest.round("qps"):
                for ef, qps in swept.items():
                    speeds[name, ef].append(qps)

    points: dict[str, list[curves.Point]] = {}
    for name in filter(recalls.__contains__, names):
        points[name] = []
        for ef, recall in recalls[name].items():
            qps = summary(speeds[name, ef])
            points[name].append(curves.Point(ef, recall, qps["median"]))
            report.line(set=data.name, library=name, ef=ef, recall=recall, qps=qps)
    _compare(report, data, points)
    title = f"{data.name}: {len(data.train):,} x {data.train.shape[1]}"
    curves.draw(report.path.with_suffix(".png"), title, points)


def _compare(report: Report, data: Dataset, points: dict[str, list[curves.Point]]) -> None:
    """QPS at fixed recall, and the ratios that the engine is judged by."""
    at = {
        name: {level: curves.qps_at(found, level) for level in LEVELS}
        for name, found in points.items()
    }
    for name, qps in at.items():
        ratios: dict[str, Any] = {}
        for level in LEVELS:
            own, base = qps[level], at.get("hnswlib", {}).get(level)
            rivals = [
                (value, rival)
                for rival, levels in at.items()
                if not rival.startswith("vecdb") and (value := levels[level])
            ]
            if own and base:
                ratios[f"to_hnswlib_{level}"] = own / base
            if own and rivals and name.startswith("vecdb"):
                ratios[f"to_best_{level}"] = [own / max(rivals)[0], max(rivals)[1]]
        report.line(set=data.name, library=name, qps_at=qps, **ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", default="sift-like", help="see bench/datasets.py")
    parser.add_argument("--only", help="libraries, comma separated; default: the usual")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="for the builds; searches use one")
    parser.add_argument("--rows", type=int, help="only the first so many rows")
    given = parser.parse_args()
    usual = [name for name in LIBRARIES if name not in {"NGT", "vecdb store"}]  # slow, superfluous
    names = given.only.split(",") if given.only else usual
    run(given.set, names, given.passes, given.threads, given.rows)


if __name__ == "__main__":
    main()
