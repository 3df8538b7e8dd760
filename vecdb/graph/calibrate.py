"""What a wanted recall takes on a graph: measured on its rows or queries, kept in its ``meta``.

A bounded walk (:mod:`vecdb.graph.selective`) expands what lies within `slack` times the k-th best
distance. How much slack a recall takes depends on how sparse the rows are around the query, which
the k-th distance itself tells, on the share of allowed rows, and on whether they lie around the
query. So a calibration holds, for some shares, the recall at growing slacks in classes of the k-th
distance: under random filters, and under filters that hide the neighbourhood of the query (they
pass the rows nearest to an anchor, and the queries lie in the half that is further from it; what
these cut off is looked at, see :mod:`vecdb.graph.islands`).

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

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from vecdb.graph.effort import CAP, SHARES, SLACKS
from vecdb.graph.islands import cut_off
from vecdb.graph.layout import MAX_QUERIES, Graph
from vecdb.graph.search import search
from vecdb.kernels.scan import query_norms, rescore, scan
from vecdb.workers import Workers

__all__ = ["calibrate"]

_T = TypeVar("_T")
_CLASSES = 8  # of the k-th distance, at most
_IN_CLASS = 50  # queries in each at least: the recall of fewer says little
_DICE = 4  # random filters of a share: what one of them hides is in the way of all queries
_ANCHORS = 160  # of filters that hide a neighbourhood, some regions being much harder than others
_AWAY = 4  # queries of each at least, where a large graph is asked so few that it has fewer anchors
_COMPARED = 160_000_000  # rows times queries of an exact scan, at most
_TIED = 0.01  # of the usual k-th distance: what is below it is told apart less finely
_SURE = 0.9995  # recall after which more slack is not measured
_FLAT = 0.99  # recall from which on fewer queries are asked: there are nine hops in ten
_THINNED = 3  # times fewer, but
_FEW = 300  # at least
_GAIN = 0.0005  # of recall by a step of slack, with less it is not worth its hops


class _Asked(NamedTuple):
    """Queries, of each the row that it is or -1, their filter, None passes all, and what that cuts
    off."""

    queries: NDArray[np.float32]
    rows: NDArray[np.int64]
    allowed: NDArray[np.uint8] | None = None
    cut: NDArray[np.int64] | None = None

    def some(self, which: Any) -> _Asked:
        """Some of the queries."""
        return self._replace(queries=self.queries[which], rows=self.rows[which])


class _Truth(NamedTuple):
    """Of each query: the distance up to which a row is a neighbour, how many there are, and the
    squared k-th distance in the inner space."""

    limit: NDArray[np.float32]
    wanted: NDArray[np.int64]
    radii: NDArray[np.float64]


_Pair = tuple[_Asked, _Truth]


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
    whole = _nested(graph, vectors, k, sample, np.zeros(graph.rows), SHARES[:1], workers)
    random = [
        _nested(graph, vectors, k, some, rng.random(graph.rows), SHARES[1:], workers)
        for some in _dealt(sample, count)
    ]
    away = max(_AWAY, count // _ANCHORS)
    hidden = _each(
        lambda anchor: _hidden(graph, vectors, k, sample, anchor, away),
        rng.integers(graph.rows, size=max(1, count // away)).tolist(),
        workers,
    )
    shares, behind = (
        [[each[share] for each in every if share in each] for share in SHARES]
        for every in ([whole, *random], hidden)
    )
    return {
        "k": k,
        "slacks": list(SLACKS),
        "asked": "rows" if graph.queries is None else "queries",
        "shares": [_curves(graph, vectors, k, pairs, workers) for pairs in shares],
        "hidden": [_curves(graph, vectors, k, pairs, workers) for pairs in behind[1:]],
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


def _dealt(sample: _Asked, count: int) -> list[_Asked]:
    """The queries, dealt to several random filters; few are asked under more than one of them."""
    every = len(sample.rows)
    each = min(every, max(1, count // _DICE))
    return [sample.some(np.arange(i * each, (i + 1) * each) % every) for i in range(_DICE)]


def _hidden(
    graph: Graph, vectors: NDArray[Any], k: int, sample: _Asked, anchor: int, count: int
) -> dict[float, _Pair]:
    """Under filters that pass the rows nearest to an anchor: so many queries of the half that is
    further from it, evenly taken from near to far."""
    place = vectors[anchor].astype(np.float32)
    away = _order(sample.queries, place, graph)[len(sample.rows) // 2 :]
    some = np.linspace(0, len(away) - 1, min(count, len(away))).astype(np.int64)
    ranks = np.empty(graph.rows)
    ranks[_order(vectors, place, graph)] = np.arange(graph.rows) / graph.rows
    asked = _nested(graph, vectors, k, sample.some(np.sort(away[some])), ranks, SHARES[1:], None)
    return {share: (_with_cut(graph, some), truth) for share, (some, truth) in asked.items()}


def _with_cut(graph: Graph, asked: _Asked) -> _Asked:
    """With the rows that the filter cuts off."""
    assert asked.allowed is not None
    matching = int(np.bitwise_count(asked.allowed).sum())
    return asked._replace(cut=cut_off(graph, asked.allowed, matching))


def _order(rows: NDArray[Any], anchor: NDArray[np.float32], graph: Graph) -> NDArray[np.int64]:
    """Row numbers by distance from an anchor."""
    every = np.arange(len(rows))[None]
    return np.argsort(rescore(rows, anchor[None], every, graph.meta["metric"])[0])


def _nested(
    graph: Graph,
    vectors: NDArray[Any],
    k: int,
    sample: _Asked,
    ranks: NDArray[np.float64],
    shares: Sequence[float],
    workers: Workers | None,
) -> dict[float, _Pair]:
    """For each share the queries under a filter that passes the rows of less rank, and the truth:
    each filter passes what the one before does, so only what it adds is compared."""
    metric = graph.meta["metric"]
    nearest = np.full((len(sample.rows), k), np.inf, np.float32)
    pairs, reached = {}, 0.0
    for share in sorted(shares):
        added = _bitmap((reached <= ranks) & (ranks < share))
        found, distances, _ = scan(
            vectors, sample.queries, k + 1, metric, allowed=added, workers=workers
        )
        distances[found == sample.rows[:, None]] = np.inf  # one that is a row is not its own
        nearest = np.sort(np.concatenate([nearest, distances], axis=1), axis=1)[:, :k]
        allowed = None if share == 1 else _bitmap(ranks < share)
        pairs[share] = sample._replace(allowed=allowed), _truth(graph, sample.queries, nearest)
        reached = share
    return pairs


def _truth(graph: Graph, queries: NDArray[Any], nearest: NDArray[np.float32]) -> _Truth:
    """What is a neighbour of queries, by the distances of the nearest."""
    reach = _furthest(nearest)
    limit = reach + 1e-5 * np.maximum(np.abs(reach), _TIED * np.median(np.abs(reach)))
    wanted = np.isfinite(nearest).sum(axis=1)
    return _Truth(limit.astype(np.float32), wanted, _inner(graph, queries, reach))


def _curves(
    graph: Graph, vectors: NDArray[Any], k: int, pairs: Sequence[_Pair], workers: Workers | None
) -> dict[str, Any]:
    """Edges, recall and hops of queries under filters of one share."""
    radii = _joined(pairs, "radii")
    count = max(1, min(_CLASSES, len(radii) // _IN_CLASS))
    edges = np.unique(np.quantile(radii, np.arange(1, count) / count))
    classes = np.searchsorted(edges, radii)
    points: list[_Point] = []
    for slack in SLACKS:
        walk = partial(_walk, graph, vectors, k, slack, workers)
        walks = _each(walk, pairs, workers)
        hits, hops = (np.concatenate(found) for found in zip(*walks, strict=True))
        points.append(_point(hits, hops, _joined(pairs, "wanted"), classes, len(edges) + 1))
        total = [point.total for point in points]
        if total[-1] >= _SURE or (len(total) > 4 and total[-1] - total[-2] < _GAIN):
            break
        if total[-1] >= _FLAT > max(total[:-1], default=0.0):
            step = max(1, min(_THINNED, len(radii) // _FEW))
            pairs = [_every(step, pair) for pair in pairs]
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


def _walk(
    graph: Graph,
    vectors: NDArray[Any],
    k: int,
    slack: float,
    workers: Workers | None,
    pair: _Pair,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Neighbours found, and nodes expanded, by a walk for each query."""
    asked, truth = pair
    answer = search(
        graph, vectors, asked.queries, k, CAP, metric=graph.meta["metric"],
        allowed=asked.allowed, cut=asked.cut,
        slack=np.array([[np.inf], *[[slack]] * 4], np.float32), barred=asked.rows, workers=workers,
    )  # fmt: skip
    hits = (answer.distances <= truth.limit[:, None]).sum(axis=1)
    return np.minimum(hits, truth.wanted), answer.hops


def _every(step: int, pair: _Pair) -> _Pair:
    """One of so many of the queries, with its truth."""
    asked, truth = pair
    mine = np.arange(0, len(asked.rows), step)
    return asked.some(mine), _Truth(truth.limit[mine], truth.wanted[mine], truth.radii[mine])


def _each(task: Callable[[Any], _T], items: Sequence[Any], workers: Workers | None) -> list[_T]:
    """The results of a task for all items, on all threads."""
    if workers is None:
        return [task(item) for item in items]
    found: dict[int, _T] = {}
    workers.each(lambda i: found.update({i: task(items[i])}), range(len(items)))
    return [found[i] for i in range(len(items))]


def _joined(pairs: Sequence[_Pair], name: str) -> NDArray[Any]:
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
