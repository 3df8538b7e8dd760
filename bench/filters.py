"""Filtered search against rivals: QPS and recall over selectivity.

    python -m bench.filters text-384-angular [LIBRARY ...] [--kinds KIND ...] [--keep FOLDER]

The filters are those of :mod:`bench.filter_data`: random ones, and ones that favour or exclude the
neighbourhood of the query. Every library answers one query a call on one thread, at several beams;
a point of the report is one library, filter and beam, its latency the median of the queries after
a warm-up, turn by turn with the other libraries. ``best`` lines compare, per filter, the fastest
beam of each library whose recall@10 is at least .95. ``target`` is vecdb asked for
`target_recall=.95`, ``scan`` its own exact scan of the float32 rows that pass; ``x_rival`` and
``x_scan`` say how many times as fast as the best rival and as that scan the better of ``vecdb`` and
``target`` is; ``unfiltered`` lines say what share of its QPS without a filter a library keeps under
one that passes 99 %, at the same beam, the fastest of five turns of each query asked both ways.
Long runs can be split by kind and by library (some rivals need an environment of their own):
``best``, ``unfiltered`` and the plot (:mod:`bench.filter_plot`) look at all reports of the set in
``bench/out``. With ``--keep`` indexes are kept in a folder and used again, and ``--kinds`` without
a kind makes them and measures nothing; ``--rows`` takes the first rows alone; ``--seconds`` is what
one library may take for one beam of one filter. One kind of filter takes a minute or two then.

Needs ``bench/requirements-engine.txt``, and ``-db.txt`` for LanceDB, zvec, Chroma and sqlite-vec.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.datasets import OUT, Dataset
from bench.filter_data import KINDS, SHARES, K, Rows, distances, rows_of
from bench.filter_plot import OURS, fastest, plot, reached
from bench.filter_rivals import LIBRARIES, Subject
from bench.harness import Contest, Report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source")
    parser.add_argument("libraries", nargs="*", choices=[[], *LIBRARIES])
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--seconds", type=float, default=0.5)
    asked = parser.parse_args()
    names = asked.libraries or list(LIBRARIES)
    rows = rows_of(asked.source, asked.rows)
    stem = f"filters-{rows.data.name}"
    report = Report("-".join([stem, *asked.kinds, *names]), names)
    subjects = Contest(report, Subject, names, asked.source, asked.rows, asked.keep, asked.seconds)
    measure(report, rows, subjects, asked.kinds)
    points = known(stem, "beam")
    pairs = known(stem, "kept")
    for kind in KINDS:
        for share in SHARES:
            report.line(**summary(points, kind, share))
        kept = {pair["library"]: pair["kept"] for pair in pairs if pair["kind"] == kind}
        report.line(unfiltered=kind, share=SHARES[-2], x_unfiltered=kept)
    plot(points, OUT / f"{stem}.png", rows.data.name)


def known(stem: str, name: str) -> list[dict[str, Any]]:
    """The points of all reports of a set that have a field of that name."""
    lines = [line for path in sorted(OUT.glob(f"{stem}-*.jsonl")) for line in path.open()]
    return [point for point in map(json.loads, lines) if name in point]


def measure(report: Report, rows: Rows, subjects: Contest, kinds: Iterable[str]) -> None:
    """Report one point per library, filter and beam."""
    with subjects as contest:
        for kind in kinds:
            rough = compared(rows.data, rows.queries(kind))
            for share in SHARES:
                truth = nearest(rows, kind, share, rough)
                for name, beams in contest.round("run", kind, share):
                    for beam, (answers, seconds) in beams.items():
                        report.line(
                            kind=kind, share=share, library=name, beam=beam,
                            recall=recall(rows, kind, answers, truth),
                            qps=1 / float(np.median(seconds)),
                            short=sum(
                                len(ids) < int(np.isfinite(true).sum())
                                for ids, true in zip(answers, truth, strict=False)
                            ),
                        )  # fmt: skip
            for name, ratios in contest.round("kept", kind):
                report.line(
                    kind=kind, library=name, kept=float(np.median(list(ratios.values()))),
                    by_beam=ratios,
                )  # fmt: skip


def compared(data: Dataset, queries: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """What orders the rows by their distance from each query, but for rounding: (queries, rows)."""
    train = data.train.astype(np.float32)
    if data.metric == "cosine":
        train /= np.linalg.norm(train, axis=1, keepdims=True)
    products = queries.astype(np.float32) @ train.T
    return np.square(train).sum(axis=1) - 2 * products if data.metric == "l2" else -products


def nearest(
    rows: Rows, kind: str, share: float, rough: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Distances (queries, K) of the true neighbours among the rows that pass, padded with inf."""
    passing = {
        name: np.flatnonzero(rows.columns[name] < share)
        for name in {name for name, _ in rows.asked[kind]}
    }
    found = np.full((len(rough), K), np.inf)
    for i, (name, number) in enumerate(rows.asked[kind]):
        near = passing[name]
        if len(near) > 2 * K:
            near = near[np.argpartition(rough[i, near], 2 * K)[: 2 * K]]
        query = rows.data.test[number].astype(np.float64)
        closest = distances(rows.data, query, rows.data.train[near].astype(np.float64))
        closest = np.sort(closest)[:K]
        found[i, : len(closest)] = closest
    return found


def recall(
    rows: Rows, kind: str, answers: list[list[int]], truth: npt.NDArray[np.float64]
) -> float:
    """Share of the true neighbours found, counted by distance so that ties cost nothing."""
    hits = wanted = 0
    for (_, number), ids, true in zip(rows.asked[kind], answers, truth, strict=False):
        there = int(np.isfinite(true).sum())
        wanted += there
        if ids and there:
            query = rows.data.test[number].astype(np.float64)
            away = distances(rows.data, query, rows.data.train[ids].astype(np.float64))
            hits += min(there, int((away <= true[there - 1] * (1 + 1e-6) + 1e-9).sum()))
    return hits / wanted if wanted else 1.0


def summary(points: list[dict[str, Any]], kind: str, share: float) -> dict[str, Any]:
    """QPS of each library at its fastest beam with the wanted recall, and what that makes of
    vecdb's, asked for a beam or a recall, against the best rival's and its own exact scan."""
    found = fastest(points, kind, share)
    qps = {name: point["qps"] for name, point in found.items() if reached(point)}
    rivals = {name: value for name, value in qps.items() if name not in OURS}
    line: dict[str, Any] = {"best": kind, "share": share, "qps": qps}
    if rivals:
        line["rival"] = max(rivals, key=rivals.__getitem__)
    ours = max(qps.get("vecdb", 0), qps.get("target", 0))
    for against, other in (("rival", max(rivals.values(), default=0)), ("scan", qps.get("scan"))):
        if other and ours:
            line[f"x_{against}"] = ours / other
    return line


if __name__ == "__main__":
    main()
