"""Building a graph: the upper levels' rows inserted, all others joined at once, then the codes.

Rows come in a random order (of `seed`), beginning with the one nearest the mean, which is where
every search enters the topmost level. The first ones, whose growing graph leaves the upper levels
behind, are inserted: each searches the graph for its neighbours, in batches of at most a tenth of
the graph (after ParlayANN, PPoPP 2024). All other rows then choose their links among the rows of
the clusters around them (:mod:`vecdb.graph.nearest`), at half the cost, a quarter of them among
earlier rows only: these are few and far apart, so such links are the long ways.
No row's links are written by two tasks, so the result is the same for any number of threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.graph.coding import finish
from vecdb.graph.insert import insert_rows, link_back, thin_rows, turn_round
from vecdb.graph.job import ALPHA, Job, Links, Records
from vecdb.graph.layout import MAX_ROWS, Graph
from vecdb.graph.nearest import Clusters, choose_links
from vecdb.graph.repair import bridge, connect
from vecdb.graph.upper import Upper
from vecdb.quant.neighbours import BLOCK
from vecdb.quant.record import FLOAT_DIMS
from vecdb.quant.space import fit_space
from vecdb.workers import Workers

__all__ = ["build"]

BATCH = 4096  # rows inserted at once, at most
LATE = 4  # rows to one that chooses only among rows before it: 2,000 clusters of 20 rows came from
# recall .97 to 1.0 at ef 64; when all rows do, GloVe falls from .936 to .930
PASS = 16384  # rows that are linked between two looks at `cancel`
LEAST, MOST = 32, 64  # rows that a row is compared with, as multiples of the beam
COMPARED = 24576  # the multiple between them, times the dimensions: more of them cost more


def build(
    vectors: NDArray[Any],
    metric: str,
    *,
    M: int = 16,
    ef_construction: int = 200,
    codes: str = "auto",
    seed: int = 0,
    workers: Workers | None = None,
    progress: Callable[[int, int], None] | None = None,
    cancel: Callable[[], bool] | None = None,
    seeds: Sequence[tuple[Graph, NDArray[np.int64]]] = (),
) -> Graph:
    """Build the graph of a segment's rows.

    Parameters
    ----------
    vectors : (n, dim) float32 or float16 array
        C-contiguous; read once from front to back, so a mapping larger than memory will do.
    metric : {"cosine", "l2", "ip"}
    M : int
        Half the number of links of a node, which is rounded up to a multiple of 32.
    ef_construction : int
        Beam of the search for a new row's neighbours.
    codes : {"auto", "int8", "1bit", "2bit", "4bit"}
        Bits of a coded dimension of a neighbour; int8: none, the records of bytes do.
    seed : int
        Same rows, seed and parameters give the same graph for any number of threads.
    workers : Workers, optional
        Threads to use; the calling thread alone when not given.
    progress : callable, optional
        Called as ``progress(rows done, rows)`` now and then.
    cancel : callable, optional
        Asked now and then; true ends the build.
    seeds : sequence of (Graph, int64 array), optional
        Graphs of segments that are merged into this one, each with the new number of every old row,
        -1 for a row that is gone. The links of the one with the most rows left are kept, ways
        through lost rows are bridged, and all other rows are inserted. With fewer than half of the
        rows left, which costs more than half of a build from nothing, none is kept.

    Returns
    -------
    Graph

    Raises
    ------
    Cancelled
        `cancel` said so.

    Notes
    -----
    Memory beyond the graph itself: two records (about dim bytes each), 2.5 times the links, and the
    projected rows (4 bytes per coded dimension), all per row; never a float32 copy of the rows.
    """
    n = len(vectors)
    if n > MAX_ROWS:
        raise ValueError(f"a graph holds at most {MAX_ROWS} rows, got {n}")
    job = Job(
        fit_space(vectors, metric), workers, progress or (lambda _done, _all: None),
        cancel or (lambda: False), -(-2 * M // BLOCK) * BLOCK, ef_construction + 7 & ~7, n,
    )  # fmt: skip
    records = Records(vectors, job)
    ground = Links(n, job.degree)
    kept = _keep(job, records, ground, seeds)
    candidates = np.flatnonzero(kept) if kept.any() else np.arange(n)
    entry = int(candidates[records.norms()[candidates].argmin()]) if n else 0
    order = np.random.default_rng(seed).permutation(n)
    order = np.concatenate([[entry], order[order != entry]])[:n]
    upper = Upper(order, records)
    if kept.any():
        _sample(job, records, ground, kept, order[: len(upper.sample)], upper)
        order = np.concatenate([candidates, order[~kept[order]]])
        _insert(job, records, ground, order, len(candidates), upper)
    elif n:
        _insert(job, records, ground, order[: len(upper.sample)], 1, upper)
        _join(job, records, ground, order, len(upper.sample), seed)
    _trim(job, records, ground, upper.entry)
    return finish(job, records, ground, upper, codes, seed)


def _keep(
    job: Job,
    records: Records,
    ground: Links,
    seeds: Sequence[tuple[Graph, NDArray[np.int64]]],
) -> NDArray[np.bool_]:
    """Take over the links of the seed with the most rows left; true for the rows that it had."""
    kept = np.zeros(job.rows, bool)
    if not seeds:
        return kept
    graph, moved = max(seeds, key=lambda seed: int((seed[1] >= 0).sum()))
    if len(moved) != graph.rows or (graph.rows and moved.max() >= job.rows):
        raise ValueError(f"a seed of {graph.rows} rows came with {len(moved)} new numbers")
    if graph.meta["degree"] > job.degree:
        return kept
    rows = np.flatnonzero(moved >= 0)
    if 2 * len(rows) < job.rows:
        return kept
    old_links = graph.links()

    def carry(first: int, last: int) -> None:
        bridge(
            *records.args, old_links, moved, rows, first, last, ground.links, ground.degrees,
            job.degree, np.float32(ALPHA),
        )  # fmt: skip

    job.each(carry, len(rows), 1024)
    kept[moved[rows]] = True
    return kept


def _sample(
    job: Job,
    records: Records,
    ground: Links,
    kept: NDArray[np.bool_],
    rows: NDArray[np.int64],
    upper: Upper,
) -> None:
    """Make the upper levels of a graph that was kept, which has no young state to take them from.

    The sampled rows get a graph of their own. Those that are not in the kept one yet borrow their
    links from it, so that a descent that ends there has a way on, until they are inserted.
    """
    young = Links(job.rows, job.degree)
    _insert(replace(job, progress=lambda _done, _all: None), records, young, rows, 1, upper)
    fresh = rows[~kept[rows]]
    ground.links[fresh], ground.degrees[fresh] = young.links[fresh], young.degrees[fresh]


def _join(
    job: Job, records: Records, ground: Links, order: NDArray[np.int64], young: int, seed: int
) -> None:
    """Link order[young:] to the graph of the rows before and among each other, all at once."""
    _link_back(job, records, ground, _choose(job, records, ground, order, young, seed))


def _choose(
    job: Job, records: Records, ground: Links, order: NDArray[np.int64], young: int, seed: int
) -> NDArray[np.int64]:
    """Choose the links of order[young:], which come back in another order."""
    clusters = Clusters(job, records, seed)
    ranks = np.empty(job.rows, np.int32)
    ranks[order] = np.arange(job.rows, dtype=np.int32)
    rows, late = clusters.rows[ranks[clusters.rows] >= young], job.rows // LATE
    size = max(job.beam // 2, 2 * job.degree) + 7 & ~7  # 200 gave no better links than 100
    compared = job.beam * LEAST
    if records.inner > FLOAT_DIMS:  # others are compared one by one, and are near to fewer rows
        compared = job.beam * min(max(COMPARED // records.inner, LEAST), MOST)
    for done in range(0, len(rows), PASS):
        part = rows[done : done + PASS]

        def choose(first: int, last: int, part: NDArray[np.int64] = part) -> None:
            here = part[first:last]
            choose_links(
                *records.args, *clusters.centres.args, *clusters.packed.args, clusters.members,
                clusters.starts, ranks, late, here, records.asks(here), compared, size, job.degree,
                np.float32(ALPHA), ground.links, ground.degrees,
            )  # fmt: skip

        job.each(choose, len(part))
        job.progress(job.rows - len(rows) + done + len(part), job.rows)
    return rows


def _insert(
    job: Job,
    records: Records,
    ground: Links,
    order: NDArray[np.int64],
    done: int,
    upper: Upper,
) -> None:
    """Insert order[done:] into a graph that has the rows before; levels are taken on the way."""
    links, degrees, scratch = ground.links, ground.degrees, _Scratch(job.rows)
    while done < len(order):
        count = min(BATCH, max(1, done // 10), len(order) - done, upper.room(done))
        batch = order[done:][:count]

        def search(first: int, last: int, batch: NDArray[np.int64] = batch) -> None:
            with scratch.borrowed() as visited:
                insert_rows(
                    *records.args, links, degrees, upper.entry, upper.done, upper.sample,
                    upper.records, upper.links, batch[first:last], records.asks(batch[first:last]),
                    job.beam, job.degree, np.float32(ALPHA), visited,
                )  # fmt: skip

        job.each(search, count, 32)
        _link_back(job, records, ground, batch)
        done += count
        if upper.room(done) == 0:
            upper.take(job, records, ground, order[:done])
        job.progress(done, job.rows)


class _Scratch:
    """Visited tags, an array for each thread at work."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.free: deque[NDArray[np.uint8]] = deque()

    @contextmanager
    def borrowed(self) -> Iterator[NDArray[np.uint8]]:
        try:
            visited = self.free.pop()
        except IndexError:
            visited = np.zeros(self.rows + 1, np.uint8)
        yield visited
        self.free.append(visited)


def _link_back(job: Job, records: Records, ground: Links, batch: NDArray[np.int64]) -> None:
    """Link the neighbours of a batch's rows back to them, each neighbour in one task."""
    links, degrees = ground.links, ground.degrees
    ends = np.zeros(job.rows + 1, np.int64)
    sources = np.empty(int(degrees[batch].sum()), np.int32)
    turn_round(links, degrees, batch, ends, sources)
    heads = np.flatnonzero(np.diff(ends, prepend=0)[:-1])

    def back(first: int, last: int) -> None:
        link_back(
            *records.args, links, degrees, heads[first:last], ends, sources, job.degree,
            np.float32(ALPHA),
        )  # fmt: skip

    job.each(back, len(heads), 1024)


def _trim(job: Job, records: Records, ground: Links, entry: int) -> None:
    """Leave each row its `degree` links, and every row a way from the entry."""
    links, degrees, rows = ground.links, ground.degrees, np.arange(job.rows)

    def trim(first: int, last: int) -> None:
        thin_rows(
            *records.args, links, degrees, rows[first:last], job.degree, np.float32(ALPHA),
            links[first:last], degrees[first:last],
        )  # fmt: skip

    job.each(trim, job.rows, 1024)
    links[:, : job.degree][np.arange(job.degree) >= degrees[:, None]] = -1
    if job.rows:
        connect(records.args, links, degrees, job.degree, entry, job.beam)
