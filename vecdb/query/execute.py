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
from vecdb.query.calibrate import beam_for
from vecdb.query.costs import costs_of
from vecdb.query.plan import PartPlan, Plan
from vecdb.query.planner import ENOUGH, Choice, choose, first_beam, next_beam, walkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from vecdb.filter.masks import Allowed
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
    allowed : list of Allowed or None
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
    allowed: Sequence[Allowed] | None = None
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
    if not isinstance(timeout, (int, float, np.number)) or not 0 <= timeout < 1e9:
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
        choice = choose(
            data,
            passing.count,
            request.k,
            run.beam(data),
            snapshot.schema.metric,
            exact=request.exact,
        )
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
        complete=run.complete,
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

    def beam(self, data: Segment) -> int | None:
        """The wanted beam: as asked, or what the wanted recall takes on this segment."""
        request = self.request
        target = request.target_recall
        if target is None or request.exact or not walkable(data):
            return request.ef_search
        return beam_for(data, self.metric, request.k, target, self.workers)

    def part(
        self, data: Segment, passing: Allowed, choice: Choice
    ) -> tuple[Rows, Distances, int, int]:
        """Rows, distances, the widest beam and the number of scanned queries in one part."""
        queries, k = self.request.queries, self.request.k
        if choice.strategy == "scan":
            return *self._scan(data, passing, queries), 0, len(queries)
        if passing.bits is None:
            found = self._walk(data, passing, queries, k, choice.beam)
            rows, distances = found.rows, found.distances
            ef, left = choice.beam, np.flatnonzero(rows[:, min(k, passing.count) - 1] < 0)
        else:
            rows = np.full((len(queries), k), -1, np.int64)
            distances = np.full((len(queries), k), np.inf, np.float32)
            ef, left = self._walk_filtered(data, passing, choice.beam, rows, distances)
        if not self.complete:  # time is up: what there is
            return rows, distances, ef, 0
        if len(left):
            rows[left], distances[left] = self._scan(data, passing, queries[left])
        return rows, distances, ef, len(left)

    def _walk_filtered(
        self, data: Segment, passing: Allowed, beam: int, rows: Rows, distances: Distances
    ) -> tuple[int, npt.NDArray[np.int64]]:
        """Fill in the queries that met enough matching rows; the widest beam, and who is left.

        The number of matching rows that a walk met is the evidence for its best.
        """
        k = self.request.k
        need = min(max(k, int(ENOUGH * beam)), passing.count)
        left = np.arange(len(rows))
        ef = first_beam(beam, data.rows, passing.count)
        widest = 0
        for second in (False, True):
            widest = max(widest, ef)
            found = self._walk(data, passing, self.request.queries[left], k, ef)
            rows[left] = found.rows
            distances[left] = found.distances
            met = found.met
            short = (met < need) | (found.rows[:, min(k, passing.count) - 1] < 0)
            left = left[short]
            if second or not len(left) or not self.complete:
                break
            costs = costs_of(data, self.metric)
            ef = next_beam(beam, ef, float(met[short].mean()), passing.count, costs)
            if not ef:
                break
        return widest, left

    def _walk(
        self,
        data: Segment,
        passing: Allowed,
        queries: npt.NDArray[np.float32],
        k: int,
        ef: int,
    ) -> Found:
        from vecdb import graph

        index, vectors, deadline_ns = data.graph, data.vectors, self.request.deadline_ns
        assert index is not None
        if len(queries) == 1 and not deadline_ns:  # saves 15 us of 50
            found = graph.search_one(
                index, vectors, queries[0], k, ef, metric=self.metric, allowed=passing.bits
            )
            found = found._replace(rows=found.rows[None], distances=found.distances[None])
        else:
            found = graph.search(
                index,
                vectors,
                queries,
                k,
                ef,
                metric=self.metric,
                allowed=passing.bits,
                workers=self.workers,
                deadline_ns=deadline_ns,
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
