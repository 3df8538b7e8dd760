"""Search over a snapshot: every part on its own, then one merge.

What runs on a part, exact scan or graph, is the planner's choice. Whatever it chose, a query whose
answer is shorter than the rows that match is answered again by a scan: at least k rows match, k
rows come back.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import numpy as np

from vecdb import kernels
from vecdb.errors import ArgumentError, describe
from vecdb.filter.masks import live
from vecdb.query import islands
from vecdb.query.calibrate import effort_of
from vecdb.query.plan import PartPlan, Plan
from vecdb.query.planner import Choice, choose, walkable

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.filter.masks import Allowed, Passing
    from vecdb.graph import Found
    from vecdb.segment import Segment
    from vecdb.store import Snapshot
    from vecdb.workers import Workers

    Rows = npt.NDArray[np.int64]
    Distances = npt.NDArray[np.float32]

__all__ = ["Answer", "Request", "deadline", "search"]


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What is asked.

    Attributes
    ----------
    queries : ndarray
        (n, dim) float32.
    k : int
        Rows wanted for each.
    ef_search : int or None
        Beam width, None for the default.
    target_recall : float or None
        Wanted recall; the beam is then chosen from the segment's calibration.
    exact : bool
        Scan whatever the cost.
    allowed : Passing or None
        For each part the rows that may be returned; None for all live rows.
    radius : float
        Greatest distance of a hit.
    deadline_ns : int
        A time of `time.monotonic_ns`; 0 for none.
    """

    queries: npt.NDArray[np.float32]
    k: int
    ef_search: int | None = None
    exact: bool = False
    allowed: Passing | None = None
    radius: float = np.inf
    deadline_ns: int = 0
    target_recall: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """Rows as (part, row), best first, padded with -1 and inf; all arrays are (n, k)."""

    parts: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float32]
    plan: Plan


def deadline(timeout: float | None) -> int:
    """The monotonic clock in ns at which a search of `timeout` seconds must end; 0 for never."""
    if timeout is None:
        return 0
    number = isinstance(timeout, (int, float, np.number)) and not isinstance(timeout, bool)
    if not number or not 0 <= timeout < 1e9:
        raise ArgumentError(
            describe(
                "timeout",
                expected="seconds, 0 or more",
                got=repr(timeout),
                fix="pass timeout=0.05, or leave it out",
            )
        )
    return time.monotonic_ns() + int(timeout * 1e9)


def search(snapshot: Snapshot, request: Request, workers: Workers) -> Answer:
    """The `k` nearest of the allowed rows for every query."""
    run = _Run(snapshot.schema.metric, request, workers)
    allowed = live(snapshot) if request.allowed is None else request.allowed
    found: list[tuple[int, Rows, Distances]] = []
    plans = []
    for number, (part, passing) in enumerate(zip(snapshot.parts, allowed, strict=True)):
        if not passing.count:
            continue
        data = part.segment
        choice = run.choice(data, passing.count)
        rows, distances, ef, scanned = run.part(data, passing, choice)
        found.append((number, rows, distances))
        plans.append(
            PartPlan(choice.strategy, data.rows, passing.count, ef, scanned, choice.reason)
        )
    parts, rows, distances = _merge(found, len(request.queries), request.k)
    if request.radius < np.inf:
        near = distances <= request.radius
        parts, rows = np.where(near, parts, -1), np.where(near, rows, -1)
        distances = np.where(near, distances, np.float32(np.inf))
    plan = Plan(
        rows=snapshot.rows,
        matching=sum(part.matching for part in plans),
        queries=len(request.queries),
        visited=run.visited,
        estimated=run.estimated,
        computed=run.computed,
        complete=run.complete and allowed.complete,
        compiled=kernels.ready(),
        parts=tuple(plans),
    )
    return Answer(parts, rows, distances, plan)


class _Run:
    """One request on its way through the parts, and the work done so far."""

    def __init__(self, metric: str, request: Request, workers: Workers) -> None:
        self.metric = metric
        self.request = request
        self.workers = workers
        self.visited = self.estimated = self.computed = 0
        self.complete = True

    def choice(self, data: Segment, matching: int) -> Choice:
        """What to run on a part of which so many rows match."""
        request, timed = self.request, self.request.deadline_ns > 0
        effort = None
        if request.target_recall is not None and not request.exact and walkable(data):
            effort = effort_of(
                data, request.k, request.target_recall, matching, self.workers, timed=timed
            )
        return choose(
            data, matching, request.k, request.ef_search, self.metric, exact=request.exact,
            effort=effort, timed=timed,
        )  # fmt: skip

    def part(
        self, data: Segment, passing: Allowed, choice: Choice
    ) -> tuple[Rows, Distances, int, int]:
        """Rows, distances, the beam and the number of exactly scanned queries in one part."""
        queries, k = self.request.queries, self.request.k
        if choice.strategy == "scan" and choice.exact:
            return *self._scan(data, passing, queries), 0, len(queries)
        found = self._graph(data, passing, queries, choice)
        rows, distances = found.rows, found.distances
        if choice.strategy == "scan" or not self.complete:
            return rows, distances, choice.beam, 0
        lost = self._lost(data, passing, choice, found)
        scanned = int((found.met >= passing.count).sum()) if choice.budget else 0
        short = lost | (rows[:, min(k, passing.count) - 1] < 0)
        if passing.bits is not None:
            short |= found.met < choice.need
        left = np.flatnonzero(short)
        if len(left):
            if choice.exact:
                rows[left], distances[left] = self._scan(data, passing, queries[left])
            else:
                scan = choice._replace(strategy="scan", budget=0)
                rows[left], distances[left], *_ = self._graph(data, passing, queries[left], scan)
        return rows, distances, choice.beam, scanned + len(left)

    def _lost(
        self, data: Segment, passing: Allowed, choice: Choice, found: Found
    ) -> npt.NDArray[np.bool_]:
        """The queries whose walk was lost in what the filter hides; those that find their way once
        the rows that it cuts off are known have walked again."""
        lost: npt.NDArray[np.bool_] = (found.met == 0) & (found.hops > 0)
        if not islands.matter(passing, choice) or self.request.deadline_ns:
            return np.zeros(len(lost), np.bool_)
        if lost.any() and islands.learned(data, passing, int(lost.sum())):
            again = self._graph(data, passing, self.request.queries[lost], choice)
            found.rows[lost], found.distances[lost] = again.rows, again.distances
            found.met[lost] = again.met
            lost[:] = False
        return lost

    def _graph(
        self,
        data: Segment,
        passing: Allowed,
        queries: npt.NDArray[np.float32],
        choice: Choice,
    ) -> Found:
        """A walk, or a scan of the records."""
        from vecdb import graph

        index = data.graph
        assert index is not None
        found = graph.search(
            index,
            data.vectors,
            queries,
            self.request.k,
            choice.beam,
            metric=self.metric,
            allowed=passing.bits,
            matching=passing.count,
            cut=islands.known(passing, choice),
            slack=choice.slack,
            scan=choice.strategy == "scan",
            budget=choice.budget,
            workers=self.workers,
            deadline_ns=self.request.deadline_ns,
        )
        visited, estimated, computed = found.counters[:3].tolist()
        self.visited += visited
        self.estimated += estimated
        self.computed += computed
        self.complete &= found.complete
        return found

    def _scan(
        self, data: Segment, passing: Allowed, queries: npt.NDArray[np.float32]
    ) -> tuple[Rows, Distances]:
        if kernels.ready():
            from vecdb.kernels.scan import scan
        else:
            from vecdb.kernels.reference import scan
        with data.streaming():
            rows, distances, complete = scan(
                data.vectors,
                queries,
                self.request.k,
                self.metric,
                allowed=passing.bits,
                workers=self.workers,
                deadline_ns=self.request.deadline_ns,
                codes=data.codes,
            )
        self.visited += passing.count * len(queries)
        self.computed += passing.count * len(queries)
        self.complete &= complete
        return rows, distances


def _merge(
    found: list[tuple[int, Rows, Distances]], queries: int, k: int
) -> tuple[npt.NDArray[np.int32], Rows, Distances]:
    if not found:
        shape = (queries, k)
        return (
            np.full(shape, -1, np.int32),
            np.full(shape, -1, np.int64),
            np.full(shape, np.inf, np.float32),
        )
    if len(found) == 1:
        number, rows, distances = found[0]
        parts = np.full(rows.shape, number, np.int32)
        if rows[:, -1].min(initial=0) < 0:
            parts[rows < 0] = -1
        return parts, rows, distances
    distances = np.concatenate([d for _, _, d in found], axis=1)
    rows = np.concatenate([r for _, r, _ in found], axis=1)
    parts = np.concatenate(
        [np.where(r >= 0, np.int32(n), np.int32(-1)) for n, r, _ in found], axis=1
    )
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return (
        np.take_along_axis(parts, order, axis=1),
        np.take_along_axis(rows, order, axis=1),
        np.take_along_axis(distances, order, axis=1),
    )
