"""The short way for the commonest search: one query, with or without a filter.

What a search needs beside its query is prepared once for a snapshot and filter: what each part is
asked, and what the plan says. The answer and the plan are those of
:func:`vecdb.query.execute.search`; what is left out is the arrays of batches, whose Python would
cost about as much as the walk (``python -m bench.overhead`` prints what remains). Queries of
several threads are not gathered into one kernel call: a thread that waits in a queue changes hands
with the interpreter once more.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vecdb import kernels
from vecdb.filter import masks
from vecdb.query import islands
from vecdb.query.calibrate import check_target, effort_of
from vecdb.query.plan import PartPlan, Plan
from vecdb.query.planner import Choice, choose, walkable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from vecdb.filter.masks import Allowed
    from vecdb.filter.sql import Params
    from vecdb.segment import Segment
    from vecdb.store import Snapshot
    from vecdb.workers import Workers

    Block = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int64]]

__all__ = ["Single", "search_single"]

_REMEMBERED = 64  # kinds of searches that a snapshot, or a filter of it, keeps prepared
_F32 = np.dtype(np.float32)


class Single(NamedTuple):
    """The answer to one query: (k,) ids and distances, nearest first, and the plan."""

    ids: npt.NDArray[Any]
    distances: npt.NDArray[np.float32]
    plan: Plan


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
    if (
        type(query) is not np.ndarray
        or query.dtype != _F32
        or query.shape != (snapshot.schema.dim,)
        or not query.flags.c_contiguous
        or type(k) is not int
        or not 0 < k <= snapshot.rows
        or not (ef_search is None or (type(ef_search) is int and ef_search > 0))
        or not (ef_search is None or target_recall is None)
        or not kernels.ready()
    ):
        return None
    allowed, memo = None, snapshot.memo
    if where is not None or params is not None:
        allowed = masks.allowed(where, snapshot, params)
        memo = allowed.memo
    kind = k, ef_search, target_recall
    prepared: _Prepared | None = memo.get(kind)
    if prepared is None or not prepared.usable(workers):
        passing = masks.live(snapshot) if allowed is None else allowed
        prepared = _prepare(snapshot, passing, *kind, workers)
        if len(memo) >= _REMEMBERED:
            memo.clear()
        memo[kind] = prepared
    return prepared.answer(query) if prepared.matching else None


def _prepare(
    snapshot: Snapshot,
    allowed: Sequence[Allowed],
    k: int,
    ef_search: int | None,
    target_recall: Any,
    workers: Workers,
) -> _Prepared:
    target = check_target(target_recall)
    metric = snapshot.schema.metric
    matching = sum([passing.count for passing in allowed])
    parts = []
    for part, passing in zip(snapshot.parts, allowed, strict=True):
        if not passing.count:
            continue
        data = part.segment
        effort = None
        if target is not None and walkable(data):
            effort = effort_of(data, k, target, passing.count, workers, timed=False)
        choice = choose(
            data, passing.count, k, ef_search, metric, exact=False, effort=effort
        )  # fmt: skip
        make = _scan if choice.exact else _graph
        parts.append(make(data, min(k, passing.count), passing, choice, metric, workers))
    return _Prepared(parts, k, snapshot.rows, matching, workers)


class _Part(NamedTuple):
    """What is asked of a part.

    Attributes
    ----------
    ask : callable
        (1, dim) query -> rows (1, k), distances (1, k), tally (1, 5); as many rows as wanted, or
        all that match.
    need : int
        Rows that a walk must have met to be believed.
    indexed : bool
        Whether there was a graph then.
    all_met : int
        Rows met where a walk gave way to a scan.
    may_be_lost : bool
        Whether a walk that has met nothing is to walk again, see :mod:`vecdb.query.islands`.
    """

    data: Segment
    indexed: bool
    ask: Callable[[npt.NDArray[np.float32]], Block]
    need: int
    plan: PartPlan
    all_met: int = sys.maxsize
    may_be_lost: bool = False


class _Prepared:
    """A kind of search of a snapshot, which remembers it and to which it holds no reference."""

    __slots__ = ("_k", "_lost", "_parts", "_plans", "_rows", "_workers", "matching")

    def __init__(
        self, parts: list[_Part], k: int, rows: int, matching: int, workers: Workers
    ) -> None:
        self._parts = parts
        self._plans = tuple([part.plan for part in parts])
        self._k = k
        self._rows = rows
        self._workers = workers
        self._lost = False
        self.matching = matching

    def usable(self, workers: Workers) -> bool:
        """Whether this is of the handle with these workers, no graph has proved damaged, and no
        walk was lost, of which something was learned since."""
        for part in self._parts:
            if part.indexed is not part.data.indexed:
                return False
        return self._workers is workers and not self._lost

    def answer(self, query: npt.NDArray[np.float32]) -> Single | None:
        """The answer to a query, or None where it would not be the whole answer."""
        whole = []
        visited = estimated = computed = 0
        block, plans = query[None], self._plans
        for number, part in enumerate(self._parts):
            rows, distances, tally = part.ask(block)
            hops, estimates, full, _, met = tally[0].tolist()
            mine = rows[0]
            if part.may_be_lost and hops and not met:
                self._lost = True
                return None
            if mine[-1] < 0 or met < part.need:
                return None
            if met >= part.all_met:
                after = part.plan._replace(scanned=1)
                plans = (*plans[:number], after, *plans[number + 1 :])
            visited += hops
            estimated += estimates
            computed += full
            whole.append((part.data.ids.get(mine), distances[0]))
        ids, nearest = whole[0] if len(whole) == 1 else _merged(whole, self._k)
        plan = Plan(
            self._rows, self.matching, 1, visited, estimated, computed, True, True, plans
        )  # fmt: skip
        return Single(ids, nearest, plan)


def _merged(
    found: list[tuple[npt.NDArray[Any], npt.NDArray[np.float32]]], k: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """The nearest rows of several parts."""
    distances = np.concatenate([each[1] for each in found])
    order = np.argsort(distances, kind="stable")[:k]
    return np.concatenate([each[0] for each in found])[order], distances[order]


def _graph(
    data: Segment, k: int, passing: Allowed, choice: Choice, metric: str, _: Workers
) -> _Part:
    """A walk, or a scan of the records."""
    from vecdb import graph

    assert data.graph is not None
    walked = choice.strategy == "graph"
    ask = graph.Bound(
        data.graph, data.vectors, k, choice.beam, metric=metric, allowed=passing.bits,
        matching=passing.count, cut=islands.known(passing, choice), slack=choice.slack,
        scan=not walked, budget=choice.budget,
    )  # fmt: skip
    need = choice.need if walked and passing.bits is not None else 0
    plan = PartPlan(choice.strategy, data.rows, passing.count, choice.beam, 0, choice.reason)
    return _Part(
        data, True, ask, need, plan, all_met=passing.count if choice.budget else sys.maxsize,
        may_be_lost=islands.matter(passing, choice),
    )  # fmt: skip


def _scan(
    data: Segment, k: int, passing: Allowed, choice: Choice, metric: str, workers: Workers
) -> _Part:
    """An exact scan of the rows."""
    from vecdb.kernels.scan import scan

    def ask(query: npt.NDArray[np.float32]) -> Block:
        with data.streaming():
            rows, distances, _ = scan(
                data.vectors, query, k, metric, allowed=passing.bits, workers=workers,
                codes=data.codes,
            )  # fmt: skip
        square = float(np.dot(query[0], query[0]))
        if not (square < np.inf and (square > 0 or metric != "cosine")):
            rows[:] = -1  # the long way says what is wrong, if it is
        return rows, distances, np.array([[passing.count, 0, passing.count, 0, 0]], np.int64)

    plan = PartPlan("scan", data.rows, passing.count, 0, 1, choice.reason)
    return _Part(data, data.indexed, ask, 0, plan)
