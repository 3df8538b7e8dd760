"""Searching a graph: arguments checked once, scratch borrowed, one kernel call per block of queries."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import ArgumentError, describe
from vecdb.graph.layout import Graph
from vecdb.graph.traverse import search_rows
from vecdb.kernels.scan import flat
from vecdb.workers import Workers

__all__ = ["COUNTERS", "Found", "Knobs", "search"]

COUNTERS = ("visited", "estimates", "full_distances", "pruned")
"""Names of the counters of a search: nodes expanded, neighbours estimated from codes, distances
computed in float32, and estimated neighbours whose own distance was never computed."""

_TASK = 32  # queries of a task; the deadline is looked at between tasks
_LAZY_ROWS = 4 << 20  # tags of more rows are not cleared but asked for anew: untouched pages of
# zeros cost no memory, so a search of 64 million rows holds what it visits
_NO_BITMAP = np.zeros(0, np.uint8)


@dataclass(frozen=True)
class Knobs:
    """Parts of the engine that can be turned off, one at a time, to measure what they bring."""

    prefetch: bool = True


class Found(NamedTuple):
    """The answer to a batch of queries."""

    rows: NDArray[np.int64]
    """(nq, k), nearest first, ties by row number; -1 where there are fewer."""
    distances: NDArray[np.float32]
    """(nq, k), of the metric, exact in float32; infinity beside -1."""
    counters: NDArray[np.int64]
    """(len(COUNTERS),), summed over the queries."""
    complete: bool
    """False when the deadline came first."""


def search(
    graph: Graph,
    vectors: NDArray[Any],
    queries: NDArray[np.float32],
    k: int,
    ef: int,
    *,
    metric: str,
    allowed: NDArray[np.uint8] | None = None,
    workers: Workers | None = None,
    deadline_ns: int = 0,
    knobs: Knobs = Knobs(),  # noqa: B008  frozen
) -> Found:
    """The approximate k nearest rows of every query.

    Parameters
    ----------
    graph : Graph
    vectors : (n, dim) float32 or float16 array
        The raw rows that the graph was built of; read only to rescore the best of each query.
    queries : (nq, dim) float32 array
    k : int
        Hits wanted per query.
    ef : int
        Length of the search pool, raised to `k` when less; more is slower and finds more.
    metric : {"cosine", "l2", "ip"}
        The graph's.
    allowed : uint8 array, optional
        Arrow bitmap, padded to a multiple of 8 bytes: a row whose bit is 0 is walked through but
        not returned.
    workers : Workers, optional
        Threads to use; the calling thread alone when not given.
    deadline_ns : int
        Value of ``time.monotonic_ns()`` after which no further query is begun; 0 for none.

    Returns
    -------
    Found
    """
    if metric != graph.meta["metric"]:
        raise ArgumentError(
            describe("metric", expected=graph.meta["metric"], got=metric, fix="use the graph's")
        )
    nq = len(queries)
    rows = np.full((nq, k), -1, np.int64)
    distances = np.full((nq, k), np.inf, np.float32)
    counters = np.zeros(len(COUNTERS), np.int64)
    if graph.rows == 0 or nq == 0:
        return Found(rows, distances, counters, True)
    queries = np.ascontiguousarray(queries, np.float32)
    keep = min(graph.rows, k + max(2, k // 4)) + 7 & ~7
    pool = max(min(ef, graph.rows), keep) + 7 & ~7
    call = np.array([k, pool, keep, allowed is None, knobs.prefetch], np.int64)
    shape = graph.shape(vectors.dtype == np.float16)
    raw = flat(np.asarray(vectors))
    bitmap = _NO_BITMAP if allowed is None else allowed
    parts = [slice(at, min(nq, at + _TASK)) for at in range(0, nq, _TASK)]
    counts = np.zeros((len(parts), len(COUNTERS)), np.int64)
    done = np.ones(len(parts), bool)

    def task(i: int) -> None:
        if deadline_ns and time.monotonic_ns() > deadline_ns:
            done[i] = False
            return
        try:
            visited = graph.scratch.pop()
        except IndexError:
            visited = np.zeros(graph.rows + 1, np.uint8)
        if graph.rows > _LAZY_ROWS and visited[0] > 255 - _TASK:
            visited = np.zeros(graph.rows + 1, np.uint8)
        mine = parts[i]
        search_rows(
            raw, graph.data, graph.fixed, shape, graph.units, queries[mine], call, bitmap, visited,
            rows[mine], distances[mine], counts[i],
        )  # fmt: skip
        graph.scratch.append(visited)

    if workers is None or len(parts) == 1:
        for i in range(len(parts)):
            task(i)
    else:
        workers.run(task, len(parts))
    return Found(rows, distances, counts.sum(axis=0), bool(done.all()))
