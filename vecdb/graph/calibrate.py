"""What a wanted recall takes on a graph: measured on its own rows, kept in its ``meta``.

A bounded walk (:mod:`vecdb.graph.selective`) expands what lies within `slack` times the k-th best
distance. How much slack a recall takes depends on how sparse the rows are around the query, which
the k-th distance itself tells, on the share of allowed rows, and on whether they lie around the
query. So a calibration holds, for some shares, the recall at growing slacks in classes of the k-th
distance: under random filters, and under filters that hide the neighbourhood of the query (they
pass the rows nearest to an anchor, and the queries lie in the half that is further from it).

Sampled rows are the queries, each *barred* from its own walk: where a link leads to it, the walk
meets the row that would be linked in its place (:func:`vecdb.graph.selective.stand_in`), and the
graph is about as if it had never held the barred row. Without stand-ins a barred row leaves a hole,
for its neighbours lack the links that it made superfluous. Recall at slack 1.03 / 1.06 / 1.1 was

======================== ==================== ==================== ====================
queries, no filter       text 64,000 x 384    Fashion 60,000 x 784 GloVe 100,000 x 100
======================== ==================== ==================== ====================
rows, barred             .886 / .938 / .974   .934 / .965 / .987   .869 / .910 / .952
rows left out of the     .892 / .938 / .972   not measured         .868 / .912 / .956
graph
the set's queries        .895 / .943 / .977   .924 / .959 / .985   .722 / .795 / .883
======================== ==================== ==================== ====================

So the mean holds for queries like the rows, under filters of both kinds too. Those of the GloVe set
are rarer words and miss more than any row as far from the others; :mod:`vecdb.graph.effort` makes
up for a part of that. ``python -m bench.targets SET`` prints what remains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.graph.effort import CAP, SHARES, SLACKS
from vecdb.graph.layout import Graph
from vecdb.graph.search import search
from vecdb.kernels.scan import query_norms, rescore, scan
from vecdb.workers import Workers

__all__ = ["calibrate"]

_CLASSES = 5  # of the k-th distance
_SAMPLE = 2000
_ANCHORS = 40  # of filters that hide a neighbourhood, some regions being harder than others
_COMPARED = 160_000_000  # rows times queries of an exact scan, at most
_TIED = 0.01  # of the usual k-th distance: what is below it is told apart less finely
_SURE = 0.9995  # recall after which more slack is not measured
_FLAT = 0.99  # recall from which on fewer rows are asked for: there are nine hops in ten
_THINNED = 3  # times fewer, but
_FEW = 300  # at least
_GAIN = 0.0005  # of recall by a step of slack, with less it is not worth its hops


class _Asked(NamedTuple):
    """Rows to ask for under one filter, and the filter; None passes all."""

    rows: NDArray[np.int64]
    allowed: NDArray[np.uint8] | None


def calibrate(
    graph: Graph, vectors: NDArray[Any], k: int, workers: Workers | None = None
) -> dict[str, Any]:
    """Measure recall at `k` over slack; some twenty seconds of CPU for 100,000 rows.

    Returns
    -------
    dict
        JSON-safe: ``k``, ``slacks``, and curves: ``shares`` for each of
        :data:`vecdb.graph.effort.SHARES`, ``hidden`` for each but the first of them. Curves are the
        upper ``edges`` of the classes of the squared k-th distance in the inner space (one less
        than classes), and for each class lists over the slacks of its ``recall`` and its mean
        ``hops``.
    """
    rng = np.random.default_rng(0)
    upper = graph.arrays["upper_rows"]  # a descent that ends at the row itself would know its links
    rows = np.setdiff1d(np.arange(graph.rows), upper) if len(upper) < graph.rows else upper
    count = min(_SAMPLE, len(rows), max(32, _COMPARED // max(1, graph.rows)))
    sample = np.sort(rng.choice(rows, count, replace=False))
    random = [
        _Asked(sample, None if share == 1 else _bitmap(rng.random(graph.rows) < share))
        for share in SHARES
    ]
    some = max(1, count // _ANCHORS)
    hidden = [_hidden(graph, vectors, SHARES[1:], rows, some, rng) for _ in range(_ANCHORS)]
    return {
        "k": k,
        "slacks": list(SLACKS),
        "shares": [_curves(graph, vectors, k, [asked], workers) for asked in random],
        "hidden": [
            _curves(graph, vectors, k, asked, workers) for asked in zip(*hidden, strict=True)
        ],
    }


def _hidden(
    graph: Graph,
    vectors: NDArray[Any],
    shares: Sequence[float],
    rows: NDArray[np.int64],
    count: int,
    rng: np.random.Generator,
) -> list[_Asked]:
    """For each share a filter that passes the rows nearest to an anchor, and rows far from it."""
    anchor = vectors[rng.integers(graph.rows)].astype(np.float32)
    every = np.arange(graph.rows)[None]
    order = np.argsort(rescore(vectors, anchor[None], every, graph.meta["metric"])[0])
    far = np.intersect1d(order[graph.rows // 2 :], rows)
    sample = np.sort(rng.choice(far, min(count, len(far)), replace=False))
    return [_Asked(sample, _bitmap(_first(order, share))) for share in shares]


def _first(order: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Flags of the rows that come first in an order."""
    flags = np.zeros(len(order), np.bool_)
    flags[order[: int(share * len(order))]] = True
    return flags


def _curves(
    graph: Graph, vectors: NDArray[Any], k: int, asked: Sequence[_Asked], workers: Workers | None
) -> dict[str, Any]:
    """Edges, recall and hops of sampled rows under filters of one share."""
    pairs = [(each, _truth(graph, vectors, k, each, workers)) for each in asked]
    radii = np.concatenate([truth.radii for _, truth in pairs])
    edges = np.unique(np.quantile(radii, np.arange(1, _CLASSES) / _CLASSES))
    points: list[_Point] = []
    for slack in SLACKS:
        points.append(_point(graph, vectors, k, slack, pairs, edges, workers))
        total = [point.total for point in points]
        if total[-1] >= _SURE or (len(total) > 4 and total[-1] - total[-2] < _GAIN):
            break
        if total[-1] >= _FLAT > max(total[:-1], default=0.0):
            step = max(1, min(_THINNED, len(radii) // _FEW))
            pairs = [_every(step, *pair) for pair in pairs]
    recall, hops = (
        [list(curve) for curve in zip(*found, strict=True)]
        for found in ([point.recall for point in points], [point.hops for point in points])
    )
    return {"edges": edges.tolist(), "recall": recall, "hops": hops}


class _Point(NamedTuple):
    """What one slack gave: recall and mean hops by class, and recall of all."""

    recall: list[float]
    hops: list[float]
    total: float


def _point(
    graph: Graph,
    vectors: NDArray[Any],
    k: int,
    slack: float,
    pairs: Sequence[tuple[_Asked, _Truth]],
    edges: NDArray[np.float64],
    workers: Workers | None,
) -> _Point:
    """Recall and hops of walks with one slack, in the classes that the edges part."""
    walks = [_walk(graph, vectors, k, slack, *pair, workers) for pair in pairs]
    hits, steps = (np.concatenate(found) for found in zip(*walks, strict=True))
    wanted = np.concatenate([truth.wanted for _, truth in pairs])
    place = np.searchsorted(edges, np.concatenate([truth.radii for _, truth in pairs]))
    sums = [
        np.bincount(place, values, len(edges) + 1)
        for values in (hits, wanted, steps, np.ones(len(place)))
    ]
    found, whole, walked, count = sums
    return _Point(
        (found / np.maximum(1, whole)).tolist(),
        (walked / np.maximum(1, count)).tolist(),
        float(hits.sum() / max(1, wanted.sum())),
    )


class _Truth(NamedTuple):
    """Of each row asked for: the distance up to which a row is a neighbour, how many there are, and
    the squared k-th distance in the inner space."""

    limit: NDArray[np.float32]
    wanted: NDArray[np.int64]
    radii: NDArray[np.float64]


def _truth(
    graph: Graph, vectors: NDArray[Any], k: int, asked: _Asked, workers: Workers | None
) -> _Truth:
    """The true neighbours of the rows asked for, by an exact scan."""
    rows, allowed = asked
    metric, queries = graph.meta["metric"], vectors[rows].astype(np.float32)
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
    """Neighbours found, and nodes expanded, by a walk for each of the rows asked for."""
    rows, allowed = asked
    answer = search(
        graph, vectors, vectors[rows].astype(np.float32), k, CAP, metric=graph.meta["metric"],
        allowed=allowed, slack=np.array([[np.inf], *[[slack]] * 4], np.float32), barred=rows,
        workers=workers,
    )  # fmt: skip
    hits = (answer.distances <= truth.limit[:, None]).sum(axis=1)
    return np.minimum(hits, truth.wanted), answer.hops


def _every(step: int, asked: _Asked, truth: _Truth) -> tuple[_Asked, _Truth]:
    """One of so many of the rows asked for, with its truth."""
    some = asked._replace(rows=asked.rows[::step].copy())
    return some, _Truth(truth.limit[::step], truth.wanted[::step], truth.radii[::step])


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
