"""Search over a snapshot: every part on its own, then one merge."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import TYPE_CHECKING

import numpy as np

from vecdb import kernels
from vecdb.errors import ArgumentError, describe
from vecdb.query.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from vecdb.store import Part, Snapshot
    from vecdb.workers import Workers

__all__ = ["Answer", "Request", "search"]

DEFAULT_EF = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What is asked: `queries` is (n, dim) float32; `allowed` holds one bitmap per part, None
    where every row passes; `deadline_ns` is a time of `time.monotonic_ns`, 0 for none."""

    queries: npt.NDArray[np.float32]
    k: int
    ef_search: int | None = None
    exact: bool = False
    allowed: Sequence[npt.NDArray[np.uint8] | None] | None = None
    deadline_ns: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """Rows as (part, row), best first, padded with -1 and inf; all arrays are (n, k)."""

    parts: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float32]
    plan: Plan


@dataclasses.dataclass(slots=True)
class _Work:
    """Counts of the work done so far."""

    visited: int = 0
    estimated: int = 0
    computed: int = 0
    complete: bool = True
    graph: bool = False
    scan: bool = False


def deadline(timeout: float | None) -> int:
    """The monotonic clock in ns at which a search of `timeout` seconds must end; 0 for never."""
    if timeout is None:
        return 0
    if not isinstance(timeout, (int, float, np.number)) or not 0 <= timeout < 1e9:
        raise ArgumentError(
            describe("timeout", expected="seconds, 0 or more", got=repr(timeout),
                     fix="pass timeout=0.05, or leave it out")
        )  # fmt: skip
    return time.monotonic_ns() + int(timeout * 1e9)


def search(snapshot: Snapshot, request: Request, workers: Workers) -> Answer:
    """The `k` nearest live rows of every query."""
    ef = max(request.k, request.ef_search or DEFAULT_EF)
    work = _Work()
    found: list[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.float32]]] = []
    passing = 0
    for number, part in enumerate(snapshot.parts):
        allowed = part.live if request.allowed is None else request.allowed[number]
        count = part.live_rows if request.allowed is None else _popcount(allowed, part.data.rows)
        passing += count
        if count:
            rows, distances = _search_part(snapshot, part, allowed, count, ef, request, workers, work)
            found.append((number, rows, distances))
    parts, rows, distances = _merge(found, len(request.queries), request.k)
    plan = Plan(
        strategy="+".join(n for n, used in (("graph", work.graph), ("scan", work.scan)) if used)
        or "scan",
        rows=snapshot.rows,
        visited=work.visited,
        estimated=work.estimated,
        computed=work.computed,
        selectivity=passing / snapshot.rows if snapshot.rows else 1.0,
        ef_search=ef if work.graph else 0,
        complete=work.complete,
        compiled=kernels.ready(),
    )
    return Answer(parts, rows, distances, plan)


def _search_part(
    snapshot: Snapshot,
    part: Part,
    allowed: npt.NDArray[np.uint8] | None,
    count: int,
    ef: int,
    request: Request,
    workers: Workers,
    work: _Work,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    data, metric = part.data, snapshot.schema.metric
    if kernels.ready() and not request.exact and data.graph is not None and not _scan_is_cheaper(
        count, data.rows, request.k
    ):
        from vecdb import graph

        found = graph.search(
            data.graph, data.vectors, request.queries, request.k, ef, allowed=allowed,
            metric=metric, workers=workers, deadline_ns=request.deadline_ns,
        )  # fmt: skip
        visited, estimated, computed, _ = (int(c) for c in found.counters[:4])
        work.graph = True
        work.visited += visited
        work.estimated += estimated
        work.computed += computed
        work.complete &= found.complete
        return found.rows, found.distances
    if kernels.ready():
        from vecdb.kernels.scan import scan
    else:
        from vecdb.kernels.reference import scan
    rows, distances, complete = scan(
        data.vectors, request.queries, request.k, metric, allowed=allowed, workers=workers,
        deadline_ns=request.deadline_ns,
    )  # fmt: skip
    work.scan = True
    work.visited += count * len(request.queries)
    work.computed += count * len(request.queries)
    work.complete &= complete
    return rows, distances


def _scan_is_cheaper(passing: int, rows: int, k: int) -> bool:
    """Whether so few rows pass that reading them all costs less than walking the graph."""
    return passing < rows and passing <= max(1000.0, 2 * k * math.log(rows + 1))


def _popcount(bitmap: npt.NDArray[np.uint8] | None, rows: int) -> int:
    return rows if bitmap is None else int(np.bitwise_count(bitmap).sum())


def _merge(
    found: list[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.float32]]], queries: int, k: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    if not found:
        shape = (queries, k)
        return (
            np.full(shape, -1, np.int32), np.full(shape, -1, np.int64),
            np.full(shape, np.inf, np.float32),
        )  # fmt: skip
    if len(found) == 1:
        number, rows, distances = found[0]
        return np.where(rows >= 0, np.int32(number), np.int32(-1)), rows, distances
    distances = np.concatenate([d for _, _, d in found], axis=1)
    rows = np.concatenate([r for _, r, _ in found], axis=1)
    parts = np.concatenate(
        [np.where(r >= 0, np.int32(n), np.int32(-1)) for n, r, _ in found], axis=1
    )
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return tuple(np.take_along_axis(a, order, axis=1) for a in (parts, rows, distances))  # type: ignore[return-value]
