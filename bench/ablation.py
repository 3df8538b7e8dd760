"""What each part of the engine brings: the same searches with one part off at a time.

    python -m bench.ablation --set glove-100-angular

Every variant is swept over beam widths in alternating passes on one thread and compared at equal
recall. "float32" is the same traversal over full float32 distances, with pruning, codes and
prefetch all off.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections import defaultdict
from typing import Any

from bench import curves, datasets
from bench.engine import LEVELS, K
from bench.harness import Report, exclusive, summary
from bench.rivals import BEAMS

_SHORTEST = 0.1  # seconds a point is measured at least


def variants() -> dict[str, dict[str, bool]]:
    """The knobs that each variant turns off."""
    from vecdb.graph import Knobs

    names = [field.name for field in dataclasses.fields(Knobs) if field.type in ("bool", bool)]
    single = {f"without {name}": {name: False} for name in names}
    return {"full": {}, **single, "float32": dict.fromkeys(names, False)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", default="sift-like", help="see bench/datasets.py")
    parser.add_argument("--rows", type=int, help="only the first so many rows")
    parser.add_argument("--passes", type=int, default=5)
    given = parser.parse_args()

    import vecdb

    vecdb.warmup()
    from vecdb import graph
    from vecdb.workers import Workers

    report = Report("ablation")
    data = datasets.load(given.set, given.rows)
    best = datasets.truth(data, K)
    pool = Workers()
    built = graph.build(data.train, data.metric, workers=pool)
    pool.close()

    def ask(knobs: Any, ef: int) -> Any:
        return graph.search(
            built, data.train, data.test, K, ef, metric=data.metric, knobs=graph.Knobs(**knobs)
        )

    swept: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
    speeds: dict[tuple[str, int], list[float]] = defaultdict(list)
    for name, knobs in variants().items():
        for ef in BEAMS:
            found = ask(knobs, ef)
            counts = dict(zip(graph.COUNTERS, found.counters.tolist(), strict=True))
            per_query = {what: count / len(data.test) for what, count in counts.items()}
            swept[name][ef] = {"recall": datasets.recall(data, found.rows, best), **per_query}
            if swept[name][ef]["recall"] > 0.9995:
                break
    for _ in range(given.passes):
        for name, knobs in variants().items():
            with exclusive():
                for ef in swept[name]:
                    asked, start = 0, time.process_time()
                    while (spent := time.process_time() - start) < _SHORTEST:
                        ask(knobs, ef)
                        asked += len(data.test)
                    speeds[name, ef].append(asked / spent)

    full: dict[float, float | None] = {}
    for name, found in swept.items():
        points = []
        for ef, counts in found.items():
            qps = summary(speeds[name, ef])
            points.append(curves.Point(ef, counts["recall"], qps["median"]))
            report.line(set=data.name, variant=name, ef=ef, qps=qps, **counts)
        at = {level: curves.qps_at(points, level) for level in LEVELS}
        full = full or at
        ratios = {level: full[level] / qps for level, qps in at.items() if qps and full[level]}  # type: ignore[operator]
        report.line(set=data.name, variant=name, qps_at=at, full_to_this=ratios)


if __name__ == "__main__":
    main()
