"""The short way for the commonest search: one query, with or without a filter.

The answer and the plan are those of :func:`vecdb.query.execute.search`; what is left out is the
arrays of batches, some 25 us of Python beside a walk of 10 to 100 us, and as much beside the scan
of a memtable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vecdb import kernels
from vecdb.filter import masks
from vecdb.query.calibrate import check_target, effort_of
from vecdb.query.plan import PartPlan, Plan
from vecdb.query.planner import Choice, choose, walkable

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.filter.masks import Allowed
    from vecdb.filter.sql import Params
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
    """What one part gave: as many rows as wanted, or all that match."""

    ids: npt.NDArray[Any]
    distances: npt.NDArray[np.float32]
    visited: int
    estimated: int
    computed: int
    plan: PartPlan


def search_single(
    snapshot: Snapshot,
    query: Any,
    k: Any,
    workers: Workers,
    *,
    where: Any = None,
    params: Params = None,
    ef_search: Any = None,
    target_recall: Any = None,
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
        or not (ef_search is None or target_recall is None)
        or not 0.0 < float(np.dot(query, query)) < np.inf  # NaN and Inf are the long way's errors
        or not kernels.ready()
    ):
        return None
    target = check_target(target_recall)
    allowed = masks.allowed(where, snapshot, params)
    matching = sum(passing.count for passing in allowed)
    if matching < k:
        return None
    found = []
    for part, passing in zip(snapshot.parts, allowed, strict=True):
        if not passing.count:
            continue
        data, wanted = part.segment, min(k, passing.count)
        effort = None
        if target is not None and walkable(data):
            effort = effort_of(data, k, target, passing.count, workers)
        choice = choose(
            data, passing.count, k, ef_search, schema.metric, exact=False, effort=effort
        )  # fmt: skip
        search = _scan if choice.exact else _graph
        one = search(data, query, wanted, passing, choice, schema.metric, workers)
        if one is None:
            return None
        found.append(one)
    one = found[0] if len(found) == 1 else _merged(found, k)
    plans = tuple([part.plan for part in found])
    plan = Plan(
        snapshot.rows, matching, 1, one.visited, one.estimated, one.computed, True, True, plans
    )  # fmt: skip
    return Single(one.ids, one.distances, plan)


def _merged(found: list[_Found], k: int) -> _Found:
    """The nearest rows of several parts, and what they cost together."""
    distances = np.concatenate([part.distances for part in found])
    order = np.argsort(distances, kind="stable")[:k]
    ids = np.concatenate([part.ids for part in found])[order]
    visited, estimated = sum(part.visited for part in found), sum(part.estimated for part in found)
    computed = sum(part.computed for part in found)
    return _Found(ids, distances[order], visited, estimated, computed, found[0].plan)


def _graph(
    data: Segment, query: Any, k: int, passing: Allowed, choice: Choice, metric: str, _: Workers
) -> _Found | None:
    """A walk, or a scan of the records; None where the rows that it met are too few to believe."""
    from vecdb.graph import search_one

    assert data.graph is not None
    walked = choice.strategy == "graph"
    found = search_one(
        data.graph, data.vectors, query, k, choice.beam, metric=metric, allowed=passing.bits,
        matching=passing.count, slack=choice.slack, scan=not walked,
    )  # fmt: skip
    if found.rows[-1] < 0 or (walked and passing.bits is not None and found.met[0] < choice.need):
        return None
    visited, estimated, computed, _ = found.counters.tolist()
    plan = PartPlan(choice.strategy, data.rows, passing.count, choice.beam, 0, choice.reason)
    return _Found(data.ids.get(found.rows), found.distances, visited, estimated, computed, plan)


def _scan(
    data: Segment, query: Any, k: int, passing: Allowed, choice: Choice, metric: str,
    workers: Workers,
) -> _Found | None:  # fmt: skip
    from vecdb.kernels.scan import scan

    with data.streaming():
        rows, distances, _ = scan(
            data.vectors, query[None], k, metric, allowed=passing.bits, workers=workers,
            codes=data.codes,
        )  # fmt: skip
    if rows[0, -1] < 0:
        return None
    plan = PartPlan("scan", data.rows, passing.count, 0, 1, choice.reason)
    return _Found(data.ids.get(rows[0]), distances[0], passing.count, 0, passing.count, plan)
