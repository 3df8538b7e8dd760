"""What a scanned row and a step on the graph cost on this machine, measured once per segment.

Both change with the processor, the dimensions and the load by more than a table could hold.
They are measured at the first search that has a choice.
"""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vecdb.segment import bitmap

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from vecdb.segment import Segment

__all__ = ["Costs", "costs_of"]

_ROWS = 1024  # of one measured scan, in a run: rows from all over would all have to be mapped in
_CACHED_BYTES = 8 << 20  # rows that take no more stay in the cache from search to search
_MEMORY = 3.0  # times as long as a record from the cache takes one from memory
_RUNS = 5
_BEAM = 64
_POOL = 1500.0  # nodes at which keeping the pool in order costs as much as a step itself


class Costs(NamedTuple):
    """Nanoseconds on one segment.

    Attributes
    ----------
    row_ns : float
        A scanned record that lies in the cache.
    step_ns : float
        An expanded node of the graph.
    row_bytes : int
        Of a record.
    """

    row_ns: float
    step_ns: float
    row_bytes: int

    def scan_ns(self, rows: int) -> float:
        """Scanning so many rows."""
        cached = min(1.0, _CACHED_BYTES / max(1, rows * self.row_bytes))
        return rows * self.row_ns * (cached + (1 - cached) * _MEMORY)

    def walk_ns(self, hops: float) -> float:
        """Walking the graph from node to node."""
        return hops * self.step_ns * (1 + hops / _POOL)


def costs_of(data: Segment, metric: str) -> Costs:
    """The costs on a segment that has a graph; measured at the first call."""
    found = _MEASURED.get(data)
    if found is None:
        found = _MEASURED[data] = _measure(data, metric)
    return found


_MEASURED: weakref.WeakKeyDictionary[Any, Costs] = weakref.WeakKeyDictionary()


def _measure(data: Segment, metric: str) -> Costs:
    from vecdb import graph

    index = data.graph
    assert index is not None
    some = min(_ROWS, data.rows)
    first = (data.rows - some) // 2
    flags = np.zeros(bitmap.nbytes(data.rows) * 8, np.uint8)
    flags[first : first + some] = 1
    picks = np.packbits(flags, bitorder="little")
    rng = np.random.default_rng(0)
    queries = data.vectors[np.sort(rng.integers(0, data.rows, _RUNS))].astype(np.float32)

    scanning = graph.Bound(
        index, data.vectors, 10, 10, metric=metric, allowed=picks, scan=True
    )  # fmt: skip

    def scan(i: int) -> None:
        scanning(queries[i : i + 1])

    steps: list[int] = []

    def walk(i: int) -> None:
        one: npt.NDArray[np.float32] = queries[i : i + 1]
        found = graph.search(index, data.vectors, one, 10, _BEAM, metric=metric)
        steps.append(int(found.counters[0]))

    for i in range(_RUNS):  # the pages that these touch are mapped in now, rescored rows too
        scan(i)
        walk(i)
    scanned, walked = _fastest(scan), _fastest(walk)
    return Costs(scanned / some, walked / max(1, min(steps)), index.record)


def _fastest(run: Callable[[int], object]) -> float:
    """Nanoseconds of the fastest run: the others were disturbed."""
    times = []
    for i in range(_RUNS):
        started = time.perf_counter_ns()
        run(i)
        times.append(time.perf_counter_ns() - started)
    return float(min(times))
