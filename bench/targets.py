"""How near `target_recall` comes to what was asked, on queries that the store never held.

    python -m bench.targets text-384-angular [--targets .9 .95 .99] [--own] [--keep FOLDER]

========== ======================================== ============================================
kind       filter                                   queries
========== ======================================== ============================================
random     ``dice < share``, a random column        all of the set
favoured   ``rank < share``, the order of the rows  the 15 nearest to the anchor: their
           by distance from a row, the anchor       neighbourhood passes
excluded   the same                                 15 of the half that is further from it: theirs
                                                    does not, unless most rows pass
========== ======================================== ============================================

The first is asked for 4 columns, the last two for 150 anchors, for some regions are harder than
others, and a few by far: of 30 the mean says little. A line is one target and filter: the recall,
nodes and rows looked at per query, and the share of the queries that were ``scanned``. Where the
planner finds that comparing with every row that matches costs least, the answer has a recall of 1
or nearly so, whatever was asked: no walk was calibrated for it. So ``points`` is how far the recall
of the other queries, those that a graph answered, is from what was asked, in hundredths, and
``give_or_take`` half of the 95 % interval of that figure: from the spread over the queries, under
the last two kinds over the anchors, as the queries of one share their region. ``worst`` lines give
the points furthest above and below, and as ``scans`` the number of filters that are left out
because nine queries in ten or more were scanned. The harder queries are scanned first, so those
that are left say too much where many were: with ``--walk`` the planner finds no scan cheaper, and
a graph answers every query of a filter for which it is calibrated.

The store is calibrated as it was built, on its own rows; with ``--own``, by ``col.calibrate`` on
one half of the queries, and the other half is asked: each half in turn, in two stores, of both of
which a point counts all queries. A line for each store says what its calibration saw without a
filter: the recall at growing slack, the first of which is the least work that a walk can be given,
and the ``missed`` shares of the classes from near to far queries at slack 1.1; with ``--own`` also
the seconds of CPU that it took.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

import vecdb
from bench.datasets import Dataset, load
from bench.filter_data import KINDS, K, distances, ranked
from bench.harness import Report
from vecdb.query import planner

SHARES = (0.01, 0.1, 0.3, 0.6, 0.9, 0.99, 1.0)
DICE = 4
ANCHORS = 150
SOME = 15  # queries of a favoured or excluded neighbourhood
SLACK = 1.1  # at which the classes of a calibration are shown
MOST = 0.9  # share of scanned queries from which on the others are too few for a figure
NORMAL = 1.96  # half of a 95 % interval in standard errors

Asked = list[tuple[str, npt.NDArray[Any]]]  # a column, and the queries under filters of it


def store_of(data: Dataset, columns: dict[str, npt.NDArray[Any]], path: Path) -> Any:
    """The store with these columns; made where there is none."""
    if not path.exists():
        dim = data.train.shape[1]
        with finished(path) as new, vecdb.create(new, dim, data.metric) as made:
            made.add(data.train, metadata=columns)
            made.optimize()
    return vecdb.open(path, threads=1)


@contextmanager
def finished(path: Path) -> Iterator[Path]:
    """Where to make a store that comes to `path` once it is whole."""
    new = path.with_name(f"{path.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    yield new
    new.rename(path)


def filters_of(data: Dataset) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Asked]]:
    """The columns that filters look at, and what is asked under each kind of filter."""
    rng = np.random.default_rng(0)
    columns = {f"dice{i}": rng.random(len(data.train)) for i in range(DICE)}
    asked: dict[str, Asked] = {
        "random": [(name, data.test) for name in columns], "favoured": [], "excluded": []
    }  # fmt: skip
    for number, row in enumerate(rng.choice(len(data.train), ANCHORS, replace=False)):
        name, anchor = f"rank{number}", data.train[row]
        columns[name] = ranked(data, anchor).astype(np.float32)
        order = np.argsort(distances(data, anchor, data.test), kind="stable")
        asked["favoured"].append((name, data.test[order[:SOME]]))
        further = rng.permutation(order[len(order) // 2 :])
        asked["excluded"].append((name, data.test[further[:SOME]]))
    return columns, asked


def halved(data: Dataset, folder: Path, report: Report) -> Iterator[tuple[Any, dict[str, Asked]]]:
    """Copies of the store in a folder, each calibrated on half of the queries, and what it is asked
    of the other half."""
    order = np.random.default_rng(1).permutation(len(data.test))
    halves = np.array_split(data.test[order], 2)
    for number, (own, rest) in enumerate([halves, halves[::-1]]):
        path = folder / f"targets-own-{number}"
        if not path.exists():
            with finished(path) as new:
                shutil.copytree(folder / "targets", new)
                with vecdb.open(new, "w", threads=1) as made:
                    before = time.process_time()
                    made.calibrate(own)
                    spent = time.process_time() - before
                report.line(calibrated_on=len(own), cpu_seconds=spent)
        yield vecdb.open(path, threads=1), filters_of(dataclasses.replace(data, test=rest))[1]


def seen(store: Any) -> dict[str, Any]:
    """What the calibration kept in a store of one segment saw without a filter."""
    index = store._store.snapshot.parts[0].segment.graph
    if index is None or "calibration" not in index.meta:
        return {"asked": "nothing yet"}
    calibration = index.meta["calibration"]
    curves, slacks = calibration["shares"][0], calibration["slacks"]
    recall = np.array(curves["recall"])
    shown = min(slacks.index(SLACK), recall.shape[1] - 1)
    return {
        "asked": calibration["asked"], "slacks": slacks[: recall.shape[1]],
        "recall": recall.mean(axis=0).tolist(), "missed": (1 - recall[:, shown]).tolist(),
    }  # fmt: skip


def measured(
    folds: list[tuple[Any, dict[str, Asked]]], kind: str, share: float, target: float
) -> dict[str, Any]:
    """The recall of all queries, of those that a graph answered its distance from the target with
    half of the 95 % interval, and nodes and rows looked at per query."""
    groups: dict[Any, list[float]] = {}
    every, visited = [], 0
    for fold, (store, asked) in enumerate(folds):
        for column, queries in asked[kind] if share < 1 or kind != "random" else asked[kind][:1]:
            where = vecdb.col(column) < share if share < 1 else None
            truth = store.search(queries, K, where=where, exact=True).distances[:, -1]
            for number, (query, kth) in enumerate(zip(queries, truth, strict=True)):
                found = store.search(query, K, where=where, target_recall=target)
                reach = kth + 1e-5 * max(abs(kth), 1e-3)
                every.append(min(K, int((found.distances <= reach).sum())) / K)
                visited += found.plan.visited
                if found.plan.strategy == "graph":
                    group = (fold, number) if kind == "random" else column
                    groups.setdefault(group, []).append(every[-1])
    line = {"recall": np.mean(every), "visited": visited / len(every)}
    return {
        **line,
        **distance_from(target, list(groups.values())),
        "scanned": 1 - sum(map(len, groups.values())) / len(every),
    }


def distance_from(target: float, groups: list[list[float]]) -> dict[str, float]:
    """How far the mean of some recalls is from the target, and half of its 95 % interval, from the
    spread over the groups, which may be of unlike sizes; nothing where there are fewer than two."""
    if len(groups) < 2:
        return {}
    every = np.concatenate(groups)
    apart = np.array([(np.array(group) - every.mean()).sum() for group in groups])
    error = np.sqrt(np.square(apart).sum() * len(groups) / (len(groups) - 1)) / len(every)
    return {"points": 100 * (every.mean() - target), "give_or_take": 100 * NORMAL * error}


def never_cheaper(costs: Any, matching: int, hops: float) -> tuple[bool, str]:
    """In place of the planner's comparison of a scan with a walk."""
    return False, "a scan was not to be"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source")
    parser.add_argument("--targets", nargs="*", type=float, default=[0.9, 0.95, 0.99])
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    parser.add_argument("--shares", nargs="*", type=float, default=SHARES)
    parser.add_argument("--own", action="store_true")
    parser.add_argument("--walk", action="store_true")
    parser.add_argument("--keep", type=Path)
    chosen = parser.parse_args()
    vecdb.warmup()  # until the kernels are there every answer is exact
    if chosen.walk:
        planner._cheaper = never_cheaper
    data = load(chosen.source)
    columns, asked = filters_of(data)
    report = Report(f"targets-{data.name}" + "-own" * chosen.own + "-walk" * chosen.walk)
    points: dict[tuple[str, float], list[dict[str, Any]]] = {}
    with TemporaryDirectory() as fresh, ExitStack() as opened:
        folder = Path(fresh) if chosen.keep is None else chosen.keep / data.name
        folder.mkdir(parents=True, exist_ok=True)
        folds = [(opened.enter_context(store_of(data, columns, folder / "targets")), asked)]
        if chosen.own:
            folds = [(opened.enter_context(s), a) for s, a in halved(data, folder, report)]
        for store, _ in folds:
            report.line(**seen(store))
        for kind in chosen.kinds:
            for share in chosen.shares:
                for target in chosen.targets:
                    found = measured(folds, kind, share, target)
                    points.setdefault((kind, target), []).append(found)
                    report.line(kind=kind, share=share, target=target, **found)
    for (kind, target), found in points.items():
        report.line(worst=kind, target=target, **worst(found))


def worst(points: list[dict[str, Any]]) -> dict[str, Any]:
    """The points furthest below and above among those that a graph answered."""
    walked = [point for point in points if "points" in point and point["scanned"] < MOST]
    line: dict[str, Any] = {"scans": len(points) - len(walked)}
    if walked:
        for name, choose in (("below", min), ("above", max)):
            point = choose(walked, key=lambda point: point["points"])
            line |= {name: point["points"], f"{name}_give_or_take": point["give_or_take"]}
    return line


if __name__ == "__main__":
    main()
