"""The short way for the commonest search: one query, no filter, one segment with a graph.

The answer and the plan are those of :func:`vecdb.query.execute.search`; what is left out is the
arrays of batches and the merge of parts, some 25 us of Python beside a walk of 10 to 100 us.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vecdb.query.plan import PartPlan, Plan
from vecdb.query.planner import choose

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.store import Snapshot

__all__ = ["Single", "search_single"]


class Single(NamedTuple):
    """The answer to one query: (k,) ids and distances, nearest first, and the plan."""

    ids: npt.NDArray[Any]
    distances: npt.NDArray[np.float32]
    plan: Plan


def search_single(snapshot: Snapshot, query: Any, k: Any, ef_search: Any) -> Single | None:
    """The `k` nearest rows, or None where the long way must be taken (or raises an error)."""
    schema = snapshot.schema
    if (
        len(snapshot.parts) != 1
        or type(query) is not np.ndarray
        or query.dtype != np.float32
        or query.shape != (schema.dim,)
        or type(k) is not int
        or not 0 < k <= snapshot.rows
        or not (ef_search is None or (type(ef_search) is int and ef_search > 0))
        or not 0.0 < float(np.dot(query, query)) < np.inf  # NaN and Inf are the long way's errors
    ):
        return None
    part = snapshot.parts[0]
    data = part.segment
    choice = choose(data, part.live_rows, k, ef_search, schema.metric, exact=False)
    if part.live is not None or choice.strategy != "graph":
        return None
    from vecdb.graph import search_one

    assert data.graph is not None
    found = search_one(data.graph, data.vectors, query, k, choice.beam, metric=schema.metric)
    if found.rows[-1] < 0:
        return None
    visited, estimated, computed, _ = found.counters.tolist()
    how = PartPlan("graph", data.rows, data.rows, choice.beam, 0, choice.reason)
    plan = Plan(data.rows, data.rows, 1, visited, estimated, computed, True, True, (how,))
    return Single(data.ids.get(found.rows), found.distances, plan)
