"""vecdb with its defaults against hnswlib on every made set: where is it weak, untuned?

    python -m bench.breadth
    python -m bench.breadth --sets uniform,items --rows 10000

A line for each set of :data:`bench.made.MADE`: recall@10 by beam width and QPS at recall .90, .95
and .99 (one thread, batches through the collection, CPU seconds; hnswlib with M=16 and
ef_construction=200), their ratios; then what those get who ask for nothing: recall and single calls
a second of the default search, and recall when asked for .95.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from typing import Any

from bench import curves, datasets
from bench.engine import LEVELS, K, Subject
from bench.harness import Contest, Report, summary
from bench.made import MADE

TARGET = 0.95


class Side(Subject):
    """vecdb or hnswlib over one set; lives in its own process."""

    def usual(self) -> dict[str, float]:
        """What a collection gives by default."""
        ask, queries = self._library.ask, self._queries  # type: ignore[attr-defined]
        best = datasets.truth(self._data, K)
        found = {
            "default_recall": datasets.recall(self._data, ask(queries, K), best),
            "target_recall": datasets.recall(
                self._data, ask(queries, K, target_recall=TARGET), best
            ),
        }
        start = time.process_time()
        self._library.ask_each(queries, K)  # type: ignore[attr-defined]
        return {**found, "single_per_s": len(queries) / (time.process_time() - start)}


def run(name: str, rows: int | None, passes: int, threads: int) -> dict[str, Any]:
    """Build, sweep and compare on one set."""
    data = datasets.load(name, rows)
    datasets.truth(data, K)
    report = Report(f"breadth-{data.name}", ("hnswlib",))
    line: dict[str, Any] = {"set": data.name, "rows": len(data.train)}
    speeds: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    with Contest(report, Side, ["vecdb store", "hnswlib"], name, rows, threads) as contest:
        built = dict(contest.round("build", timed=False))
        recalls = dict(contest.round("recalls", timed=False))
        for _ in range(passes):
            for library, swept in contest.round("qps"):
                for ef, qps in swept.items():
                    speeds[library][ef].append(qps)
        usual = contest.ask("vecdb store", "usual")
    at: dict[str, list[float | None]] = {}
    for library, swept in recalls.items():
        points = [
            curves.Point(ef, recall, summary(speeds[library][ef])["median"])
            for ef, recall in swept.items()
        ]
        at[library] = [curves.qps_at(points, level) for level in LEVELS]
        line[library] = {
            "rows_per_s": built[library]["rows_per_s"], "recall": swept, "qps_at": at[library],
        }  # fmt: skip
    if len(at) == 2:
        both = zip(at["vecdb store"], at["hnswlib"], strict=True)
        line["ratio"] = [own / base if own and base else None for own, base in both]
    report.line(**line, **usual)
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", default=",".join(MADE), help="names of made sets")
    parser.add_argument("--rows", type=int, help="only the first so many rows of each")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="for the builds; searches use one")
    given = parser.parse_args()
    for name in given.sets.split(","):
        run(name, given.rows, given.passes, given.threads)


if __name__ == "__main__":
    main()
