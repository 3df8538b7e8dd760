"""What a wanted recall takes on a graph: measured on its rows or queries, kept in its ``meta``.

A bounded walk (:mod:`vecdb.graph.selective`) expands what lies within `slack` times the k-th best
distance. How much slack a recall takes depends on how sparse the rows are around the query, which
the k-th distance itself tells, on the share of allowed rows, and on whether they lie around the
query. So a calibration holds, for some shares, the recall at growing slacks in classes of the k-th
distance: under random filters, and under filters that hide the neighbourhood of the query (they
pass the rows nearest to an anchor, and the queries lie in the half that is further from it).

Sampled rows are the queries, each *barred* from its own walk: where a link leads to it, the walk
meets the row that would be linked in its place (:func:`vecdb.graph.selective.stand_in`), and the
graph is about as if it had never held the barred row. Without stand-ins a barred row leaves a hole,
for its neighbours lack the links that it made superfluous. A graph may come with queries that are
asked instead. Recall without a filter at slack 1.03 / 1.06 / 1.1 (``python -m bench.targets SET``
prints it of the rows, with ``--own`` of each half of the set's queries, here the first) was

======================== ==================== ==================== ====================
asked                    text 64,000 x 384    Fashion 60,000 x 784 GloVe 100,000 x 100
======================== ==================== ==================== ====================
rows, barred             .889 / .938 / .972   .928 / .959 / .984   .868 / .912 / .954
queries                  .906 / .944 / .976   .922 / .958 / .986   .735 / .809 / .896
======================== ==================== ==================== ====================

So rows tell the recall of queries like them. Those of the GloVe set are rarer words and miss more
than rows; :mod:`vecdb.graph.effort` makes up for a part of that, asking the queries for all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.graph.effort import CAP, SHARES, SLACKS
from vecdb.graph.layout import MAX_QUERIES, Graph
from vecdb.graph.search import search
from vecdb.kernels.scan import query_norms, rescore, scan
from vecdb.workers import Workers

__all__ = ["calibrate"]

_CLASSES = 5  # of the k-th distance
_ANCHORS = 40  # of filters that hide a neighbourhood, some regions being harder than others
_COMPARED = 160_000_000  # rows times queries of an exact scan, at most
_TIED = 0.01  # of the usual k-th distance: what is below it is told apart less finely
_SURE = 0.9995  # recall after which more slack is not measured
_FLAT = 0.99  # recall from which on fewer queries are asked: there are nine hops in ten
_THINNED = 3  # times fewer, but
_FEW = 300  # at least
_GAIN = 0.0005  # of recall by a step of slack, with less it is not worth its hops


class _Asked(NamedTuple):
    """Queries, of each the row that it is or -1, and their filter; None passes all."""

    queries: NDArray[np.float32]
    rows: NDArray[np.int64]
    allowed: NDArray[np.uint8] | None = None

    def some(self, which: Any) -> _Asked:
        """Some of the queries."""
        return self._replace(queries=self.queries[which], rows=self.rows[which])


def calibrate(
    graph: Graph, vectors: NDArray[Any], k: int, workers: Workers | None = None
) -> dict[str, Any]:
    """Measure recall at `k` over slack, with the queries that came with the graph or else its rows;
    ``python -m bench.targets`` prints how long it takes.

    Returns
    -------
    dict
        JSON-safe: ``k``, ``slacks``, ``asked`` ("rows" or "queries"), and curves: ``shares`` for
        each of :data:`vecdb.graph.effort.SHARES`, ``hidden`` for each but the first of them. Curves
        are the upper ``edges`` of the classes of the squared k-th distance in the inner space (one
        less than classes), and for each class lists over the slacks of its ``recall`` and its mean
        ``hops``.
    """
    rng = np.random.default_rng(0)
    count = min(MAX_QUERIES, max(32, _COMPARED // max(1, graph.rows)))
    sample = _sample(graph, vectors, count, rng)
    random = [
        sample if share == 1 else sample._replace(allowed=_bitmap(rng.random(graph.rows) < share))
        for share in SHARES
    ]
    some = max(1, count // _ANCHORS)
    hidden = [_hidden(graph, vectors, sample, some, rng) for _ in range(_ANCHORS)]
    return {
        "k": k,
        "slacks": list(SLACKS),
        "asked": "rows" if graph.queries is None else "queries",
        "shares": [_curves(graph, vectors, k, [asked], workers) for asked in random],
        "hidden": [
            _curves(graph, vectors, k, asked, workers) for asked in zip(*hidden, strict=True)
        ],
    }


def _sample(graph: Graph, vectors: NDArray[Any], count: int, rng: np.random.Generator) -> _Asked:
    """Up to so many of the graph's queries or, where there are none, of its rows."""
    if graph.queries is not None:
        count = min(count, len(graph.queries))
        chosen = rng.permutation(len(graph.queries))[:count]
        return _Asked(graph.queries[np.sort(chosen)], np.full(count, -1))
    upper = graph.arrays["upper_rows"]  # a descent that ends at the row itself would know its links
    rows = np.setdiff1d(np.arange(graph.rows), upper) if len(upper) < graph.rows else upper
    rows = np.sort(rng.choice(rows, min(count, len(rows)), replace=False)).astype(np.int64)
    return _Asked(vectors[rows].astype(np.float32), rows)


def _hidden(
    graph: Graph, vectors: NDArray[Any], sample: _Asked, count: int, rng: np.random.Generator
) -> list[_Asked]:
    """For each share but the first a filter that passes the rows nearest to an anchor, asked by
    queries of the half that is further from it."""
    anchor = vectors[rng.integers(graph.rows)].astype(np.float32)
    away = rng.permutation(_order(sample.queries, anchor, graph)[len(sample.rows) // 2 :])
    few = sample.some(np.sort(away[:count]))
    order = _order(vectors, anchor, graph)
    return [few._replace(allowed=_bitmap(_first(order, share))) for share in SHARES[1:]]


def _order(rows: NDArray[Any], anchor: NDArray[np.float32], graph: Graph) -> NDArray[np.int64]:
    """Row numbers by distance from an anchor."""
    every = np.arange(len(rows))[None]
    return np.argsort(rescore(rows, anchor[None], every, graph.meta["metric"])[0])


def _first(order: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Flags of the rows that come first in an order."""
    flags = np.zeros(len(order), np.bool_)
    flags[order[: int(share * len(order))]] = True
    return flags


def _curves(
    graph: Graph, vectors: NDArray[Any], k: int, asked: Sequence[_Asked], workers: Workers | None
) -> dict[str, Any]:
    """Edges, recall and hops of queries under filters of one share."""
    pairs = [(each, _truth(graph, vectors, k, each, workers)) for each in asked]
    radii = _joined(pairs, "radii")
    edges = np.unique(np.quantile(radii, np.arange(1, _CLASSES) / _CLASSES))
    classes = np.searchsorted(edges, radii)
    points: list[_Point] = []
    for slack in SLACKS:
        walks = [_walk(graph, vectors, k, slack, *pair, workers) for pair in pairs]
        hits, hops = (np.concatenate(found) for found in zip(*walks, strict=True))
        points.append(_point(hits, hops, _joined(pairs, "wanted"), classes, len(edges) + 1))
        total = [point.total for point in points]
        if total[-1] >= _SURE or (len(total) > 4 and total[-1] - total[-2] < _GAIN):
            break
        if total[-1] >= _FLAT > max(total[:-1], default=0.0):
            step = max(1, min(_THINNED, len(radii) // _FEW))
            pairs = [_every(step, *pair) for pair in pairs]
            classes = np.searchsorted(edges, _joined(pairs, "radii"))
    recall, hops_of = (
        [list(curve) for curve in zip(*found, strict=True)]
        for found in ([point.recall for point in points], [point.hops for point in points])
    )
    return {"edges": edges.tolist(), "recall": recall, "hops": hops_of}


class _Point(NamedTuple):
    """What one slack gave: recall and mean hops by class, and recall of all."""

    recall: list[float]
    hops: list[float]
    total: float


def _point(
    hits: NDArray[np.int64],
    hops: NDArray[np.int64],
    wanted: NDArray[np.int64],
    classes: NDArray[np.int64],
    count: int,
) -> _Point:
    """Recall and hops of walks in so many classes."""
    found, whole, walked = (np.bincount(classes, of, count) for of in (hits, wanted, hops))
    return _Point(
        (found / np.maximum(1, whole)).tolist(),
        (walked / np.maximum(1, np.bincount(classes, minlength=count))).tolist(),
        float(hits.sum() / max(1, wanted.sum())),
    )


class _Truth(NamedTuple):
    """Of each query: the distance up to which a row is a neighbour, how many there are, and the
    squared k-th distance in the inner space."""

    limit: NDArray[np.float32]
    wanted: NDArray[np.int64]
    radii: NDArray[np.float64]


def _truth(
    graph: Graph, vectors: NDArray[Any], k: int, asked: _Asked, workers: Workers | None
) -> _Truth:
    """The true neighbours of queries, by an exact scan; a query that is a row is not its own."""
    queries, rows, allowed = asked
    metric = graph.meta["metric"]
    found, distances, _ = scan(vectors, queries, k + 1, metric, allowed=allowed, workers=workers)
    distances = np.sort(np.where(found == rows[:, None], np.inf, distances), axis=1)[:, :k]
    reach = _furthest(distances)
    limit = reach + 1e-5 * np.maximum(np.abs(reach), _TIED * np.median(np.abs(reach)))
    wanted = np.isfinite(distances).sum(axis=1)
    return _Truth(limit.astype(np.float32), wanted, _inner(graph, queries, reach))


def _walk(
    graph: Graph,
    vectors: NDArray[Any],
    k: int,
    slack: float,
    asked: _Asked,
    truth: _Truth,
    workers: Workers | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Neighbours found, and nodes expanded, by a walk for each query."""
    answer = search(
        graph, vectors, asked.queries, k, CAP, metric=graph.meta["metric"],
        allowed=asked.allowed, slack=np.array([[np.inf], *[[slack]] * 4], np.float32),
        barred=asked.rows, workers=workers,
    )  # fmt: skip
    hits = (answer.distances <= truth.limit[:, None]).sum(axis=1)
    return np.minimum(hits, truth.wanted), answer.hops


def _every(step: int, asked: _Asked, truth: _Truth) -> tuple[_Asked, _Truth]:
    """One of so many of the queries, with its truth."""
    mine = np.arange(0, len(asked.rows), step)
    return asked.some(mine), _Truth(truth.limit[mine], truth.wanted[mine], truth.radii[mine])


def _joined(pairs: Sequence[tuple[_Asked, _Truth]], name: str) -> NDArray[Any]:
    """One field of the truths of several filters."""
    return np.concatenate([getattr(truth, name) for _, truth in pairs])


def _furthest(distances: NDArray[np.float32]) -> NDArray[np.float32]:
    """The greatest finite distance of each row; very small where there is none."""
    known = np.where(np.isfinite(distances), distances, np.float32(-3e38))
    return np.asarray(known.max(axis=1), np.float32)


def _inner(
    graph: Graph, queries: NDArray[np.float32], distances: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Distances of the metric as squared distances of the inner space."""
    if graph.meta["metric"] == "l2":
        return distances.astype(np.float64)
    if graph.meta["metric"] == "cosine":
        return 2.0 * distances.astype(np.float64)
    radius = float(graph.meta["radius"])
    norms = np.maximum(query_norms(queries), 1e-30).astype(np.float64)
    return np.asarray(2 * radius * (radius + distances / norms))


def _bitmap(flags: NDArray[np.bool_]) -> NDArray[np.uint8]:
    bits = np.packbits(flags, bitorder="little")
    return np.concatenate([bits, np.zeros(-len(bits) % 8, np.uint8)])
