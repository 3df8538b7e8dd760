"""What a wanted recall takes on a graph: measured on its own rows, kept in its ``meta``.

A bounded walk (:mod:`vecdb.graph.selective`) expands what lies within `slack` times the k-th best
distance. How much slack a recall takes depends on how sparse the rows are around the query, which
the k-th distance itself tells, and on the share of allowed rows. So a calibration holds, for some
shares, the recall at growing slacks in classes of the k-th distance.

Sampled rows are the queries, each *barred* from its own walk: its links lead nowhere, and the graph
is about as if it had never held the row. Of six stand-ins tried this one predicts new queries best:
recall at slack 1.05 / 1.1 / 1.15 / 1.2 (no filter) was

===================== ======================== ========================
queries               text 64,000 x 384        Fashion 60,000 x 784
===================== ======================== ========================
new, held out         .915 / .968 / .985 / .991 .951 / .985 / .997 / .999
rows, barred          .914 / .964 / .984 / .990 .958 / .991 / .998 / 1.00
rows, merely not hits .981 / .994 / .997 / .998 .975 / .995 / .999 / 1.00
rows + neighbours'    .979 / .993 / .996 / .997 .973 / .995 / .999 / 1.00
difference / 2
midpoints             .982 / .996 / .998 / .998 .971 / .992 / .999 / 1.00
===================== ======================== ========================

The new queries of the GloVe set are rarer words than its rows, further from them (median .509
against .459) and harder (.870 against .942 at 1.1); there the classes of distance mend it.
Filters are random ones and balls around a row, asked by the sampled rows nearest to its centre and
by those furthest away.

Asked for .95, held-out queries got, without a filter and with random ones, balls around the query
and balls away from it that pass 1 to 99 % of the rows (24 measurements of each set):

===================== ============== ================ ================
set                   no filter      lowest, filtered highest, filtered
===================== ============== ================ ================
text 64,000 x 384     .977           .978             1.00
Fashion 60,000 x 784  .957           .946             1.00
GloVe 100,000 x 100   .960           .951             1.00
===================== ============== ================ ================

1.00 is a scan, which the planner takes where few rows pass; walks reach .993 at most. It errs on
the side of more work: a bound is taken from the k-th best so far, which is further than the k-th.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.graph.layout import Graph
from vecdb.graph.search import search
from vecdb.kernels.scan import query_norms, rescore, scan
from vecdb.workers import Workers

__all__ = ["Effort", "calibrate", "effort_for", "kept"]

SHARES = (1.0, 0.6, 0.3)
SLACKS = (1.0, 1.03, 1.06, 1.1, 1.15, 1.21, 1.28, 1.4, 1.6, 2.0, 3.0)
CAP = 1024  # nodes that may wait in a bounded walk

_CLASSES = 5  # of the k-th distance
_SAMPLE = 400
_COMPARED = 60_000_000  # rows times queries of an exact scan, at most
_ANCHORS = 4  # balls of each share
_SAFETY = 0.9  # share of the allowed misses that is aimed at
_TIED = 0.01  # of the usual k-th distance: what is below it is told apart less finely
_SURE = 0.9995  # recall after which more slack is not measured
_GAIN = 0.0005  # of recall by a step of slack, with less it is not worth its hops


class Effort(NamedTuple):
    """What a bounded walk takes: its slack and its beam, as :func:`vecdb.graph.search.search` wants
    them, and the nodes that it will expand on average."""

    slack: NDArray[np.float32]
    beam: int
    hops: float


class _Asked(NamedTuple):
    """Queries by sampled rows under one filter."""

    rows: NDArray[np.int64]
    allowed: NDArray[np.uint8] | None


def calibrate(
    graph: Graph, vectors: NDArray[Any], k: int, workers: Workers | None = None
) -> dict[str, Any]:
    """Measure recall at `k` over slack; some seconds of CPU for 100,000 rows.

    Returns
    -------
    dict
        JSON-safe: ``k``, ``slacks``, and for each of :data:`SHARES` the upper ``edges`` of the
        classes of the squared k-th distance in the inner space (one less than classes),
        ``recall``, a list over the slacks for each class, and ``hops``, their mean at each slack.
    """
    rng = np.random.default_rng(0)
    upper = graph.arrays["upper_rows"]  # a descent that ends at the row itself would know its links
    rows = np.setdiff1d(np.arange(graph.rows), upper) if len(upper) < graph.rows else upper
    count = min(_SAMPLE, len(rows), max(32, _COMPARED // max(1, graph.rows)))
    sample = np.sort(rng.choice(rows, count, replace=False))
    return {
        "k": k,
        "slacks": list(SLACKS),
        "shares": [
            _class(graph, vectors, k, _questions(graph, vectors, sample, share, rng), workers)
            for share in SHARES
        ],
    }


def kept(graph: Graph, k: int) -> dict[str, Any] | None:
    """The calibration that is kept in the graph's meta; None when there is none of this kind."""
    found = graph.meta.get("calibration")
    if not isinstance(found, dict) or found.get("k") != k or found.get("slacks") != list(SLACKS):
        return None
    shares = found.get("shares")
    if not isinstance(shares, list) or len(shares) != len(SHARES):
        return None
    return found if all(_sound(entry) for entry in shares) else None


def effort_for(calibration: dict[str, Any], share: float, target: float) -> Effort:
    """What a recall takes under a filter that passes a share of the rows."""
    near = int(np.argmin([abs(np.log(share / known)) for known in SHARES]))
    wanted = 1 - _SAFETY * (1 - target)
    curves = []
    hops = 0.0
    for found in calibration["shares"][: near + 1]:  # where all neighbours pass, 1.0 is the share
        slacks = np.array(calibration["slacks"][: len(found["hops"])])
        needed = [_slack(np.array(recall), slacks, wanted) for recall in found["recall"]]
        hops = float(np.mean(np.interp(needed, slacks, found["hops"])))
        curves.append((np.array([*found["edges"], np.inf]), np.array(needed)))
    edges = np.unique(np.concatenate([edges for edges, _ in curves]))
    slack = np.max([needed[np.searchsorted(own, edges)] for own, needed in curves], axis=0)
    bound = np.array([edges, slack], np.float32)
    return Effort(bound, CAP, hops * max(1.0, SHARES[near] / share))


def _sound(entry: Any) -> bool:
    """Whether one share's measurements are what :func:`calibrate` writes."""
    if not isinstance(entry, dict):
        return False
    try:
        edges, hops = (np.array(entry[name], np.float64) for name in ("edges", "hops"))
        recall = np.array(entry["recall"], np.float64)
    except (KeyError, TypeError, ValueError):
        return False
    if edges.ndim != 1 or recall.shape != (len(edges) + 1, len(hops)) or not len(hops):
        return False
    finite = all(np.isfinite(values).all() for values in (edges, hops, recall))
    return finite and len(hops) <= len(SLACKS) and 0 <= recall.min() <= recall.max() <= 1


def _slack(recall: NDArray[np.float64], slacks: NDArray[np.float64], target: float) -> float:
    """Where the curve reaches the target; misses fall geometrically between two slacks."""
    missed = np.log(np.maximum(1 - np.maximum.accumulate(recall), 1e-4))
    return float(np.interp(-np.log(1 - target), -missed, slacks))


def _questions(
    graph: Graph,
    vectors: NDArray[Any],
    sample: NDArray[np.int64],
    share: float,
    rng: np.random.Generator,
) -> list[_Asked]:
    if share == 1.0:
        return [_Asked(sample, None)]
    asked = [_Asked(sample, _bitmap(rng.random(graph.rows) < share))]
    every = np.arange(graph.rows)[None]
    for anchor in rng.choice(sample, min(_ANCHORS, len(sample)), replace=False):
        centre = vectors[anchor : anchor + 1].astype(np.float32)
        away = rescore(vectors, centre, every, graph.meta["metric"])[0]
        order = np.argsort(away[sample], kind="stable")
        some = max(1, len(sample) // (2 * _ANCHORS))
        ends = np.sort(np.concatenate([order[:some], order[-some:]]))
        asked.append(_Asked(sample[ends], _bitmap(away <= np.quantile(away, share))))
    return asked


def _class(
    graph: Graph,
    vectors: NDArray[Any],
    k: int,
    questions: list[_Asked],
    workers: Workers | None,
) -> dict[str, Any]:
    """Edges, recall and hops for one share, over all its questions."""
    metric = graph.meta["metric"]
    sets = []
    for rows, allowed in questions:
        queries = vectors[rows].astype(np.float32)
        found, distances, _ = scan(
            vectors, queries, k + 1, metric, allowed=allowed, workers=workers
        )
        distances = np.sort(np.where(found == rows[:, None], np.inf, distances), axis=1)[:, :k]
        sets.append((rows, allowed, queries, distances))
    reach = np.concatenate([_furthest(distances) for *_, distances in sets])
    radii = np.concatenate([
        _inner(graph, queries, _furthest(distances)) for _, _, queries, distances in sets
    ])  # fmt: skip
    wanted = np.concatenate([np.isfinite(distances).sum(axis=1) for *_, distances in sets])
    limit = reach + 1e-5 * np.maximum(np.abs(reach), _TIED * np.median(np.abs(reach)))
    edges = np.unique(np.quantile(radii, np.arange(1, _CLASSES) / _CLASSES))
    place = np.searchsorted(edges, radii)
    recall: list[list[float]] = [[] for _ in range(len(edges) + 1)]
    total: list[float] = []
    hops: list[float] = []
    for slack in SLACKS:
        bound = np.array([[np.inf], [slack]], np.float32)
        answers = [
            search(
                graph, vectors, queries, k, CAP, metric=metric, allowed=allowed, slack=bound,
                barred=rows, workers=workers,
            )
            for rows, allowed, queries, _ in sets
        ]  # fmt: skip
        near = np.concatenate([answer.distances for answer in answers])
        hits = np.minimum((near <= limit[:, None]).sum(axis=1), wanted)
        for i, curve in enumerate(recall):
            mine = place == i
            curve.append(float(hits[mine].sum() / max(1, wanted[mine].sum())))
        hops.append(float(sum(answer.counters[0] for answer in answers)) / len(hits))
        total.append(float(hits.sum() / max(1, wanted.sum())))
        if total[-1] >= _SURE or (len(total) > 4 and total[-1] - total[-2] < _GAIN):
            break
    return {"edges": edges.tolist(), "recall": recall, "hops": hops}


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
