"""The short way for the commonest search: one query, no filter, no deleted rows.

The answer and the plan are those of :func:`vecdb.query.execute.search`; what is left out is the
arrays of batches, some 25 us of Python beside a walk of 10 to 100 us, and as much beside the scan
of a memtable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vecdb import kernels
from vecdb.query.plan import PartPlan, Plan
from vecdb.query.planner import Choice, choose

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.segment import Segment
    from vecdb.store import Snapshot
    from vecdb.workers import Workers

__all__ = ["Single", "search_single"]


class Single(NamedTuple):
    """The answer to one query: (k,) ids and distances, nearest first, and the plan."""

    ids: npt.NDArray[Any]
    distances: npt.NDArray[np.float32]
    plan: Plan


class _Found(NamedTuple):
    """What one part gave: as many rows as wanted, or all that it has."""

    ids: npt.NDArray[Any]
    distances: npt.NDArray[np.float32]
    visited: int
    estimated: int
    computed: int
    plan: PartPlan


def search_single(
    snapshot: Snapshot, query: Any, k: Any, ef_search: Any, workers: Workers
) -> Single | None:
    """The `k` nearest rows, or None where the long way must be taken (or raises an error)."""
    schema = snapshot.schema
    if (
        type(query) is not np.ndarray
        or query.dtype != np.float32
        or query.shape != (schema.dim,)
        or type(k) is not int
        or not 0 < k <= snapshot.rows
        or not (ef_search is None or (type(ef_search) is int and ef_search > 0))
        or not 0.0 < float(np.dot(query, query)) < np.inf  # NaN and Inf are the long way's errors
        or not kernels.ready()
    ):
        return None
    found = []
    for part in snapshot.parts:
        if part.live is not None:
            return None
        data = part.segment
        choice = choose(data, part.live_rows, k, ef_search, schema.metric, exact=False)
        one = (_walk if choice.strategy == "graph" else _scan)(
            data, query, min(k, data.rows), choice, schema.metric, workers
        )
        if one is None:
            return None
        found.append(one)
    ids, distances = found[0].ids, found[0].distances
    if len(found) > 1:
        distances = np.concatenate([part.distances for part in found])
        order = np.argsort(distances, kind="stable")[:k]
        ids = np.concatenate([part.ids for part in found])[order]
        distances = distances[order]
    rows, visited = snapshot.rows, sum(part.visited for part in found)
    estimated, computed = sum(p.estimated for p in found), sum(p.computed for p in found)
    plans = tuple(part.plan for part in found)
    plan = Plan(rows, rows, 1, visited, estimated, computed, True, True, plans)
    return Single(ids, distances, plan)


def _walk(
    data: Segment, query: Any, k: int, choice: Choice, metric: str, _workers: Workers
) -> _Found | None:
    from vecdb.graph import search_one

    assert data.graph is not None
    found = search_one(data.graph, data.vectors, query, k, choice.beam, metric=metric)
    if found.rows[-1] < 0:
        return None
    visited, estimated, computed, _ = found.counters.tolist()
    plan = PartPlan("graph", data.rows, data.rows, choice.beam, 0, choice.reason)
    return _Found(data.ids.get(found.rows), found.distances, visited, estimated, computed, plan)


def _scan(
    data: Segment, query: Any, k: int, choice: Choice, metric: str, workers: Workers
) -> _Found | None:
    from vecdb.kernels.scan import scan

    with data.streaming():
        rows, distances, _ = scan(
            data.vectors, query[None], k, metric, workers=workers, codes=data.codes
        )
    if rows[0, -1] < 0:
        return None
    plan = PartPlan("scan", data.rows, data.rows, 0, 1, choice.reason)
    return _Found(data.ids.get(rows[0]), distances[0], data.rows, 0, data.rows, plan)
