"""How near `target_recall` comes to what was asked, on queries that the store never held.

    python -m bench.targets text-384-angular [--targets .9 .95 .99] [--keep FOLDER]

========== ======================================== ============================================
kind       filter                                   queries
========== ======================================== ============================================
random     ``dice < share``, a random column        all of the set
favoured   ``rank < share``, the order of the rows  the 40 nearest to the anchor: their
           by distance from a row, the anchor       neighbourhood passes
excluded   the same                                 40 of the half that is further from it: theirs
                                                    does not, unless most rows pass
========== ======================================== ============================================

The last two are asked for 12 anchors, for some regions are harder than others. A line is one target
and filter: the recall with the standard error of its mean over the queries, nodes and rows looked
at per query, and the strategy; ``points`` is how far the recall is from what was asked. Where the
planner finds that comparing with every row that matches costs least (``scan``), the answer has a
recall of 1 or nearly so, whatever was asked; so ``worst`` lines give the greatest distance above
and below over the points that a graph answered.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

import vecdb
from bench.datasets import Dataset, load
from bench.filter_data import KINDS, K, distances, ranked
from bench.harness import Report

SHARES = (0.01, 0.1, 0.3, 0.6, 0.9, 0.99, 1.0)
ANCHORS = 12
SOME = 40  # queries of a favoured or excluded neighbourhood

Asked = list[tuple[str, npt.NDArray[Any]]]  # a column, and the queries under filters of it


def store_of(data: Dataset, columns: dict[str, npt.NDArray[Any]], path: Path) -> Any:
    """The store with these columns; made where there is none."""
    if not path.exists():
        with vecdb.create(path, data.train.shape[1], data.metric) as made:
            made.add(data.train, metadata=columns)
            made.optimize()
    return vecdb.open(path, threads=1)


def filters_of(data: Dataset) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Asked]]:
    """The columns that filters look at, and what is asked under each kind of filter."""
    rng = np.random.default_rng(0)
    columns = {"dice": rng.random(len(data.train))}
    asked: dict[str, Asked] = {"random": [("dice", data.test)], "favoured": [], "excluded": []}
    for number, row in enumerate(rng.choice(len(data.train), ANCHORS, replace=False)):
        name, anchor = f"rank{number}", data.train[row]
        columns[name] = ranked(data, anchor)
        order = np.argsort(distances(data, anchor, data.test), kind="stable")
        asked["favoured"].append((name, data.test[order[:SOME]]))
        further = rng.permutation(order[len(order) // 2 :])
        asked["excluded"].append((name, data.test[further[:SOME]]))
    return columns, asked


def hits_of(
    store: Any, asked: Asked, share: float, target: float
) -> tuple[npt.NDArray[np.float64], float, str]:
    """Recall of each query, nodes and rows looked at per query, and the strategies."""
    shares, visited, strategies = [], 0, set()
    for column, queries in asked:
        where = vecdb.col(column) < share if share < 1 else None
        truth = store.search(queries, K, where=where, exact=True).distances[:, -1:]
        reach = truth + 1e-5 * np.maximum(np.abs(truth), 1e-3)
        found = store.search(queries, K, where=where, target_recall=target)
        shares.append((found.distances <= reach).sum(axis=1).clip(max=K) / K)
        visited += found.plan.visited
        strategies.add(found.plan.strategy)
    every = np.concatenate(shares)
    return every, visited / len(every), "+".join(sorted(strategies))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source")
    parser.add_argument("--targets", nargs="*", type=float, default=[0.9, 0.95, 0.99])
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    parser.add_argument("--shares", nargs="*", type=float, default=SHARES)
    parser.add_argument("--keep", type=Path)
    chosen = parser.parse_args()
    data = load(chosen.source)
    columns, asked = filters_of(data)
    report = Report(f"targets-{data.name}")
    points: dict[tuple[str, float], list[float]] = {}
    with TemporaryDirectory() as fresh:
        folder = Path(fresh) if chosen.keep is None else chosen.keep / data.name
        folder.mkdir(parents=True, exist_ok=True)
        with store_of(data, columns, folder / "targets") as store:
            for kind in chosen.kinds:
                for share in chosen.shares:
                    for target in chosen.targets:
                        shares, visited, strategy = hits_of(store, asked[kind], share, target)
                        away = 100 * (float(shares.mean()) - target)
                        if "graph" in strategy:
                            points.setdefault((kind, target), []).append(away)
                        report.line(
                            kind=kind, share=share, target=target, recall=shares.mean(),
                            error=shares.std() / np.sqrt(len(shares)), points=away,
                            visited=visited, strategy=strategy,
                        )  # fmt: skip
    for (kind, target), away in points.items():
        report.line(worst=kind, target=target, below=min(away), above=max(away))


if __name__ == "__main__":
    main()
