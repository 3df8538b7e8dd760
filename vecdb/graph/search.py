"""Searching a graph: arguments checked once, scratch borrowed, a kernel call per block."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import ArgumentError, describe
from vecdb.graph.layout import Graph
from vecdb.graph.selective import RATIO_UNIT
from vecdb.graph.traverse import (
    CALL,
    SCAN,
    SELECTIVE,
    SHAPE,
    SPARE,
    WALK,
    search_bound,
    search_held,
    settled,
)
from vecdb.graph.visited import HASHED_ROWS, flags, table_bytes, tables
from vecdb.kernels.scan import flat
from vecdb.workers import Workers

__all__ = ["COUNTERS", "TALLY", "Bound", "Found", "Knobs", "search"]

COUNTERS = ("visited", "estimates", "full_distances", "pruned")
"""Names of the counters of a search: nodes expanded, estimates from neighbour codes, distances
computed in full, and estimates that no distance of the neighbour itself had to follow."""

TALLY = (*COUNTERS, "met")
"""What is counted for each query; see :attr:`Found.met`."""

Results = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]
"""Rows, distances and tallies of a block of queries."""

_ALONE = 32  # queries for which no second thread is woken
_STEP = 16  # queries that a thread takes at a time
_BLOCK = 8192  # queries between two moments at which Python sees an interrupt: .1 to .5 s
_TIMED = 256  # nodes that wait in the walks between two looks at the clock: .2 to 1 ms
_BRIEF = 40  # nodes of a walk that keeps the interpreter: up to 25 to 38 us
_LETS_GO = 8  # one in so many of these lets it go, for threads that do something else
_NO_BITMAP = np.zeros(0, np.uint8)
_NO_SLACK = np.zeros((5, 0), np.float32)
_NO_ROWS = np.zeros(0, np.int64)
_KEPT = 32  # nodes beyond k that a selective walk or a scan keeps for the rescoring
_MAX_STONES = 512
_PARTS = 8  # of a doubling of the allowed rows, to which their share is known to a walk
_NARROW = 64  # nodes that may wait in a bounded walk until its bound is known
_WIDER = 4  # times as many may wait once a walk finds itself in what its filter hides


@dataclass(frozen=True)
class Knobs:
    """Parts of the engine that can be turned off, one at a time, to measure what they bring.

    Without `pruning` every neighbour's own distance is computed (from its record of bytes); without
    `codes` also from the float rows; without `prefetch` no line is asked for before it is needed.
    Without `lazy` a node of whose neighbours fewer than 65 % are pruned has the others verified at
    once, not when they are expanded.
    """

    pruning: bool = True
    codes: bool = True
    prefetch: bool = True
    lazy: bool = True


DEFAULT = Knobs()


class Found(NamedTuple):
    """The answer to a batch of queries."""

    rows: NDArray[np.int64]
    """(nq, k), nearest first, ties by row number; -1 where there are fewer."""
    distances: NDArray[np.float32]
    """(nq, k), of the metric, exact in float32; infinity beside -1."""
    counters: NDArray[np.int64]
    """(len(COUNTERS),), summed over the queries."""
    hops: NDArray[np.int64]
    """(nq,), nodes that each walk expanded."""
    met: NDArray[np.int64]
    """(nq,), allowed rows among those that each search weighed to the end: what its answer rests on
    when a filter hides most of what the walk came by; 0 after a walk that found itself in the midst
    of what the filter hides, with no rows that it cuts off to go on from; all of them after a
    scan."""
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
    matching: int | None = None,
    cut: NDArray[np.int64] | None = None,
    slack: NDArray[np.float32] | None = None,
    barred: NDArray[np.int64] | None = None,
    scan: bool = False,
    budget: int = 0,
    workers: Workers | None = None,
    deadline_ns: int = 0,
    knobs: Knobs = DEFAULT,
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
        not returned, and `ef` counts the others.
    matching : int, optional
        Number of allowed rows; counted when not given.
    cut : int64 array, optional
        Rows that `allowed` cuts off, as :func:`vecdb.graph.cut_off` tells: a walk that finds itself
        in the midst of what the filter hides looks at all of them.
    slack : (5, n) float32 array, optional
        Bounds the walk: while the k-th best squared distance of the inner space is at most
        ``slack[0, i]`` (the last i: whatever it is), nodes within ``slack[1, i]`` times it are
        expanded, `ef` of them at most are waiting; ``slack[3, i]`` times where of the rows around
        the query about the same share passes as of all, ``slack[2, i]`` half-way, and
        ``slack[4, i]`` where far fewer pass there.
    barred : (nq,) int64 array, optional
        For each query a row that the walk behaves as if it were not there, -1 for none.
    scan : bool
        Look at the record of every allowed row instead of walking.
    budget : int
        Nodes after which a walk under a filter gives way to such a scan, 0 for none; it does so at
        once when the first nodes show that the neighbourhood of the query does not pass.
    workers : Workers, optional
        Threads to use; the calling thread alone when not given.
    deadline_ns : int
        Value of ``time.monotonic_ns()`` after which no further query is begun; 0 for none.
    knobs : Knobs
        What to turn off.

    Returns
    -------
    Found

    Raises
    ------
    ArgumentError
        The metric is not the graph's, the vectors are not the rows it was built of (by number and
        dimension), or `k` is less than 1.
    """
    nq = len(queries)
    queries = np.ascontiguousarray(queries, np.float32)
    if queries.ndim != 2 or queries.shape[1] != graph.dim:
        raise ArgumentError(
            describe("queries", expected=f"shape (nq, {graph.dim})", got=queries.shape,
                     fix="use as many dimensions as the rows have")
        )  # fmt: skip
    bound = Bound(
        graph, vectors, k, ef, metric=metric, allowed=allowed, matching=matching, cut=cut,
        slack=slack, scan=scan, budget=budget, knobs=knobs,
    )  # fmt: skip
    rows, distances, tally = _results(nq, k)
    step = _STEP
    if deadline_ns:
        rows[:], distances[:], tally[:] = -1, np.inf, 0
        step = 1 if scan or allowed is not None else max(1, _TIMED // ef)
    complete = True
    for at in range(0, nq, _BLOCK):
        mine = slice(at, min(nq, at + _BLOCK))
        turn = np.zeros(1, np.int64)
        share = partial(
            bound.into, rows[mine], distances[mine], tally[mine], queries[mine],
            None if barred is None else barred[mine], turn, step, deadline_ns,
        )  # fmt: skip
        if workers is None:
            share()
        else:
            threads = min(workers.threads, -(-(mine.stop - at) // _ALONE))
            workers.each(lambda call: call(), [share] * threads)
        complete &= bool(turn[0] >= mine.stop - at)
    return Found(rows, distances, tally[:, :-1].sum(axis=0), tally[:, 0], tally[:, -1], complete)


class Bound:
    """A search of a graph in which everything but the queries is settled.

    Parameters and errors are those of :func:`search`. Calling it with (n, dim) float32 C-contiguous
    queries gives rows (n, k), distances (n, k) and a tally (n, len(TALLY)), on the calling thread,
    with 1 us of Python around the kernel. A query that is not finite, or zero under cosine, has no
    answer: its rows are -1.

    A brief walk for one query keeps the interpreter. Threads that let it go for 20 us and queue up
    for it again lose more than a second core gains: eight of them answered 15.8k queries a second,
    and 24.3k since they keep it (``python -m bench.latency``). One walk in eight lets it go all the
    same, for threads that do something else.
    """

    __slots__ = ("_alive", "_asked", "_brief", "_call", "_graph", "_k", "_state")

    def __init__(
        self,
        graph: Graph,
        vectors: NDArray[Any],
        k: int,
        ef: int,
        *,
        metric: str,
        allowed: NDArray[np.uint8] | None = None,
        matching: int | None = None,
        cut: NDArray[np.int64] | None = None,
        slack: NDArray[np.float32] | None = None,
        scan: bool = False,
        budget: int = 0,
        knobs: Knobs = DEFAULT,
    ) -> None:
        raw, shape = _raw(graph, vectors, metric)
        self._graph = graph
        self._k = k
        self._call = _call_of(
            graph, k, ef, allowed, matching, knobs, slack is not None, scan, budget
        )  # fmt: skip
        bitmap = _NO_BITMAP if allowed is None else allowed
        slack = _NO_SLACK if slack is None else slack
        self._alive = (
            raw, graph.data, graph.fixed, shape, graph.units, self._call,
            np.ascontiguousarray(bitmap), _NO_ROWS if cut is None else cut,
            np.ascontiguousarray(slack, np.float32),
        )  # fmt: skip
        self._state = settled(*self._alive)
        plain = allowed is None and int(self._call[9]) == WALK
        near = graph.rows < HASHED_ROWS and int(shape[14]) < 0  # a row from a file takes its time
        self._brief = plain and near and max(k, ef) <= _BRIEF
        self._asked = count()

    def __call__(self, queries: NDArray[np.float32]) -> Results:
        out = _results(len(queries), self._k)
        held = self._brief and len(queries) == 1 and next(self._asked) % _LETS_GO
        self.into(*out, queries, held=bool(held))
        return out

    def into(
        self,
        rows: NDArray[np.int64],
        distances: NDArray[np.float32],
        tally: NDArray[np.int64],
        queries: NDArray[np.float32],
        barred: NDArray[np.int64] | None = None,
        turn: NDArray[np.int64] | None = None,
        step: int = 0,
        deadline_ns: int = 0,
        held: bool = False,
    ) -> None:
        """The same, written into arrays of the caller; with `turn`, the (1,) number of the next
        query, those that are this thread's, see :func:`vecdb.graph.traverse.search_bound`; `held`
        keeps the interpreter."""
        graph, call = self._graph, self._call
        if graph.rows == 0:
            rows[:], distances[:], tally[:] = -1, np.inf, 0
            return
        visited = _borrow(graph, call)
        kernel = search_held if held else search_bound
        kernel(
            self._state, queries, _NO_ROWS if barred is None else barred,
            0 if turn is None else turn.ctypes.data, step or len(queries), deadline_ns, visited,
            rows, distances, tally,
        )  # fmt: skip
        _give_back(call, visited)


def _results(count: int, k: int) -> Results:
    """Room for the answers to so many queries."""
    return (
        np.empty((count, k), np.int64),
        np.empty((count, k), np.float32),
        np.empty((count, len(TALLY)), np.int64),
    )


def _borrow(graph: Graph, call: NDArray[np.int64]) -> NDArray[np.uint8]:
    """What a searcher needs to know where it has been, from a free list; deque.pop is atomic."""
    hashed = call[7]
    free = tables if hashed else flags
    size = table_bytes(int(call[1])) if hashed else graph.rows + 1
    try:
        visited = free.pop()
    except IndexError:
        return np.zeros(size, np.uint8)
    return visited if len(visited) >= size else np.zeros(size, np.uint8)


def _give_back(call: NDArray[np.int64], visited: NDArray[np.uint8]) -> None:
    (tables if call[7] else flags).append(visited)


def _raw(
    graph: Graph, vectors: NDArray[Any], metric: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of the rows and the graph's numbers as the kernel takes them; kept with the graph
    once made."""
    if graph.bound is None or graph.bound[0] is not vectors:
        if vectors.shape != (graph.rows, graph.dim) or metric != graph.meta["metric"]:
            raise ArgumentError(
                describe("vectors", expected=f"the graph's {(graph.rows, graph.dim)} rows under "
                         f"{graph.meta['metric']}", got=f"{vectors.shape} under {metric}",
                         fix="search a graph with the rows it was built of")
            )  # fmt: skip
        graph.bound = vectors, flat(np.asarray(vectors)), graph.shape(vectors.dtype == np.float16)
    elif metric != graph.meta["metric"]:
        raise ArgumentError(
            describe("metric", expected=graph.meta["metric"], got=metric, fix="use the graph's")
        )
    return graph.bound[1:]


def _call_of(
    graph: Graph,
    k: int,
    ef: int,
    allowed: NDArray[np.uint8] | None,
    matching: int | None,
    knobs: Knobs,
    bounded: bool,
    scan: bool,
    budget: int,
) -> NDArray[np.int64]:
    """The numbers of a call, kept with the graph once made."""
    mode, octaves = WALK, 0
    if scan:
        mode = SCAN
    elif (bounded or allowed is not None) and knobs is DEFAULT:
        mode = SELECTIVE
        if allowed is not None:
            if matching is None:
                matching = int(np.bitwise_count(allowed).sum())
            octaves = round(_PARTS * math.log2(graph.rows / max(matching, 1)))
    wanted = (k, ef, allowed is None, knobs, mode, octaves, bounded, budget)
    call = graph.calls.get(wanted)
    if call is None:
        call = graph.calls[wanted] = _call(graph.rows, *wanted)
    return call


def _call(
    rows: int,
    k: int,
    ef: int,
    every: bool,
    knobs: Knobs,
    mode: int,
    octaves: int,
    bounded: bool,
    budget: int,
) -> NDArray[np.int64]:
    """The numbers that :data:`vecdb.graph.traverse.CALL` names.

    `octaves` says how often the allowed rows have to be doubled to make all, in parts of
    :data:`_PARTS`: there are ``2 ** (octaves / _PARTS) - 1`` stones for each.
    """
    if k < 1:
        raise ArgumentError(describe("k", expected="an integer >= 1", got=k, fix="ask for a hit"))
    ef = max(ef, k)
    pool = max(min(ef, rows), min(k + SPARE, rows)) + 7 & ~7
    stones = 0.0 if every else 2 ** (octaves / _PARTS) - 1
    places = min(max(64, int(pool * stones)), _MAX_STONES) + 7 & ~7
    keep = width = pool
    if mode != WALK:
        keep = min(k + _KEPT, rows) + 7 & ~7
    if bounded:
        width = min(pool, max(_NARROW, k + SPARE + 7 & ~7))
    elif mode == SELECTIVE:
        pool *= _WIDER
    hashed = rows >= HASHED_ROWS and mode != SCAN
    return np.array(
        [k, pool, keep, every, knobs.prefetch, knobs.pruning, knobs.codes, hashed, ef, mode, places,
         int(RATIO_UNIT * stones), width, knobs.lazy, budget], np.int64,
    )  # fmt: skip


def _rehearse() -> None:
    """A search for nothing, at import: numba settles with the first call how arrays of such types
    are handed over, half a millisecond that the first query would wait for."""
    few = np.ones(max(len(SHAPE), len(CALL)), np.int64)
    none, units = _NO_BITMAP, np.ones(3, np.float32)
    state = settled(none, none, none, few, units, few, none, _NO_ROWS, _NO_SLACK)
    for kernel in (search_bound, search_held):
        kernel(state, np.empty((0, 1), np.float32), _NO_ROWS, 0, 1, 0, none, *_results(0, 1))


_rehearse()
