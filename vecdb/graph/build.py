"""Building a graph: batches of rows inserted into a frozen graph, then the neighbour codes.

Rows come in a random order (of `seed`), beginning with the one nearest the mean, which is where
every search enters the topmost level. A batch is at most a tenth of the graph that it is inserted
into (after ParlayANN, PPoPP 2024): its rows search that graph in parallel, and no row's links are
written by two tasks, so the result is the same for any number of threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.graph.insert import insert_rows, link_back, thin_rows
from vecdb.graph.layout import MAX_ROWS, VERSION, Cancelled, Graph
from vecdb.graph.levels import WIDTH, level_sizes, levels_of
from vecdb.graph.repair import bridge, connect
from vecdb.quant.neighbours import (
    BLOCK,
    Projection,
    block_bytes,
    choose_codes,
    encode_neighbours,
    fit_projection,
    principal,
)
from vecdb.quant.record import FLOAT_DIMS, encode_records, header, record_bytes
from vecdb.quant.space import Space, blocks, fit_space
from vecdb.workers import Workers

__all__ = ["build"]

BATCH = 4096  # rows inserted at once, at most
TASK = 128  # rows of a task
ALPHA = 1.2  # on squared distance; 1.44 lost recall at equal work
SAMPLE = 16384  # links that the projection and its codes are fitted to
SPARE = 1.5  # slots of a row during the build, as a multiple of the degree
_BEYOND = 100.0  # unit of float16 factors, at most, as a multiple of the usual factor
CODES = {
    "auto": (0, 1, 2, 4),
    "int8": (0,),
    "1bit": (1,),
    "2bit": (2,),
    "4bit": (4,),
}


@dataclass
class _Plan:
    """What all steps of a build need."""

    space: Space
    workers: Workers | None
    progress: Callable[[int, int], None]
    cancel: Callable[[], bool]
    degree: int
    beam: int
    rows: int

    def each(self, task: Callable[[int, int], None], count: int, step: int = TASK) -> None:
        """Run `task` over the parts of range(count), in parallel when there are workers."""
        if self.cancel():
            raise Cancelled("the build of the graph was cancelled")
        edges = [*range(0, count, step), count]

        def run(i: int) -> None:
            task(edges[i], edges[i + 1])

        if self.workers is None:
            for i in range(len(edges) - 1):
                run(i)
        else:
            self.workers.run(run, len(edges) - 1)


class _Records:
    """The records of all rows, as the kernels take them."""

    def __init__(self, vectors: NDArray[Any], plan: _Plan) -> None:
        self.space = plan.space
        self.inner = plan.space.inner
        self.stride = record_bytes(self.inner)
        self.data = np.zeros(len(vectors) * self.stride, np.uint8)
        at = 0
        for block in blocks(vectors):
            if plan.cancel():
                raise Cancelled("the build of the graph was cancelled")
            rows = np.ascontiguousarray(plan.space.rows(block))
            encode_records(rows, self.data, at, self.stride)
            at += len(block)

    @property
    def args(self) -> tuple[int, int, int]:
        """Address, stride and dimensions of the records, as the kernels take them."""
        return self.data.ctypes.data, self.stride, self.inner

    def norms(self) -> NDArray[np.float32]:
        """Squared norms of the rows."""
        return self.data.view(np.float32)[header(0, self.inner) // 4 :: self.stride // 4]

    def decode(self, rows: NDArray[Any] | slice) -> NDArray[np.float32]:
        """Centred rows as the records tell them."""
        table = self.data.reshape(-1, self.stride)[rows]
        payload = header(0, self.inner)
        if payload == 4 * self.inner:
            return np.ascontiguousarray(table[:, :payload]).view(np.float32)
        scales = np.ascontiguousarray(table[:, payload + 4 : payload + 8]).view(np.float32)
        return (table[:, : self.inner].astype(np.float32) - np.float32(128)) * scales

    def asks(self, rows: NDArray[Any]) -> NDArray[np.uint8]:
        """Records (m, stride) by which rows are searched for when they are inserted: under ip those
        of queries in their directions.

        The neighbours of a row in the inner space of ip are no answers to a query like the row;
        with links to the answers 4,000 rows of log-normal lengths went from recall .68 at ef 64 to
        .89, and 15,000 others from .947 at ef 56 to .998.
        """
        if self.space.metric != "ip":
            return np.asarray(self.data.reshape(-1, self.stride)[rows])
        out = np.zeros(len(rows) * self.stride, np.uint8)
        encode_records(self.space.asked(self.decode(rows)), out, 0, self.stride)
        return out.reshape(-1, self.stride)


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
        through lost rows are bridged, and all other rows are inserted.

    Returns
    -------
    Graph

    Raises
    ------
    Cancelled
        `cancel` said so.

    Notes
    -----
    Memory beyond the graph itself: a record (about dim bytes), 1.5 times the links, and the
    projected rows (4 bytes per coded dimension), all per row; never a float32 copy of the rows.
    """
    n = len(vectors)
    if n > MAX_ROWS:
        raise ValueError(f"a graph holds at most {MAX_ROWS} rows, got {n}")
    plan = _Plan(
        fit_space(vectors, metric), workers, progress or (lambda _done, _all: None),
        cancel or (lambda: False), -(-2 * M // BLOCK) * BLOCK, ef_construction + 7 & ~7, n,
    )  # fmt: skip
    records = _Records(vectors, plan)
    ground = _Links(n, plan.degree)
    kept = _keep(plan, records, ground, seeds)
    candidates = np.flatnonzero(kept) if kept.any() else np.arange(n)
    entry = int(candidates[records.norms()[candidates].argmin()]) if n else 0
    order = np.random.default_rng(seed).permutation(n)
    order = np.concatenate([[entry], order[order != entry]])[:n]
    upper = _Upper(order, records)
    done = 1
    if kept.any():
        _sample(plan, records, ground, kept, order[: len(upper.sample)], upper)
        order = np.concatenate([candidates, order[~kept[order]]])
        done = len(candidates)
    _insert(plan, records, ground, order, done, upper)
    _trim(plan, records, ground, upper.entry)
    return _finish(plan, records, ground, upper, codes, seed)


class _Links:
    """Links of a level under construction, with spare slots that only a full row gives up."""

    def __init__(self, rows: int, degree: int) -> None:
        self.links = np.empty((rows, int(degree * SPARE)), np.int32)  # valid up to the degree
        self.degrees = np.zeros(rows, np.int32)


class _Upper:
    """The upper levels, finished one by one as the graph grows past their sizes."""

    def __init__(self, order: NDArray[np.int64], records: _Records) -> None:
        self.entry = int(order[0]) if len(order) else 0
        self.sizes = level_sizes(levels_of(len(order)))
        self.sample = order[: self.sizes.max(initial=0)].astype(np.int32)
        self.records = records.data.reshape(len(order), records.stride)[self.sample]
        self.links = np.full((int(self.sizes.sum()), WIDTH), -1, np.int32)
        self.done = 0

    def room(self, done: int) -> int:
        """Rows that may be inserted before the next level must be taken."""
        return int(self.sizes[self.done]) - done if self.done < len(self.sizes) else MAX_ROWS

    def take(self, plan: _Plan, records: _Records, ground: _Links, order: NDArray[Any]) -> None:
        """Make the graph of the rows `order` the next level, thinned."""
        size = len(order)
        chosen = np.full((size, plan.degree), -1, np.int32)
        counts = np.zeros(size, np.int32)

        def thin(first: int, last: int) -> None:
            thin_rows(
                *records.args, ground.links, ground.degrees, order[first:last], WIDTH,
                np.float32(ALPHA), chosen[first:last], counts[first:last],
            )  # fmt: skip

        plan.each(thin, size, 1024)
        places = np.empty(plan.rows, np.int32)
        places[order] = np.arange(size, dtype=np.int32)
        there = np.arange(WIDTH) < counts[:, None]
        start = int(self.sizes[: self.done].sum())
        level = self.links[start : start + size]
        level[there] = places[chosen[:, :WIDTH][there]]
        self.done += 1


def _keep(
    plan: _Plan,
    records: _Records,
    ground: _Links,
    seeds: Sequence[tuple[Graph, NDArray[np.int64]]],
) -> NDArray[np.bool_]:
    """Take over the links of the seed with the most rows left; true for the rows that it had."""
    kept = np.zeros(plan.rows, bool)
    if not seeds:
        return kept
    graph, moved = max(seeds, key=lambda seed: int((seed[1] >= 0).sum()))
    if len(moved) != graph.rows or (graph.rows and moved.max() >= plan.rows):
        raise ValueError(f"a seed of {graph.rows} rows came with {len(moved)} new numbers")
    if graph.meta["degree"] > plan.degree:
        return kept
    rows = np.flatnonzero(moved >= 0)
    old_links = graph.links()

    def carry(first: int, last: int) -> None:
        bridge(
            *records.args, old_links, moved, rows, first, last, ground.links, ground.degrees,
            plan.degree, np.float32(ALPHA),
        )  # fmt: skip

    plan.each(carry, len(rows), 1024)
    kept[moved[rows]] = True
    return kept


def _sample(
    plan: _Plan,
    records: _Records,
    ground: _Links,
    kept: NDArray[np.bool_],
    rows: NDArray[np.int64],
    upper: _Upper,
) -> None:
    """Make the upper levels of a graph that was kept, which has no young state to take them from.

    The sampled rows get a graph of their own. Those that are not in the kept one yet borrow their
    links from it, so that a descent that ends there has a way on, until they are inserted.
    """
    young = _Links(plan.rows, plan.degree)
    _insert(replace(plan, progress=lambda _done, _all: None), records, young, rows, 1, upper)
    fresh = rows[~kept[rows]]
    ground.links[fresh], ground.degrees[fresh] = young.links[fresh], young.degrees[fresh]


def _insert(
    plan: _Plan,
    records: _Records,
    ground: _Links,
    order: NDArray[np.int64],
    done: int,
    upper: _Upper,
) -> None:
    """Insert order[done:] into a graph that has the rows before; levels are taken on the way."""
    links, degrees, scratch = ground.links, ground.degrees, _Scratch(plan.rows)
    while done < len(order):
        count = min(BATCH, max(1, done // 10), len(order) - done, upper.room(done))
        batch = order[done:][:count]

        def search(first: int, last: int, batch: NDArray[np.int64] = batch) -> None:
            with scratch.borrowed() as visited:
                insert_rows(
                    *records.args, links, degrees, upper.entry, upper.done, upper.sample,
                    upper.records, upper.links, batch[first:last], records.asks(batch[first:last]),
                    plan.beam, plan.degree, np.float32(ALPHA), visited,
                )  # fmt: skip

        plan.each(search, count, 32)
        _link_back(plan, records, ground, batch)
        done += count
        if upper.room(done) == 0:
            upper.take(plan, records, ground, order[:done])
        plan.progress(done, plan.rows)


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


def _link_back(plan: _Plan, records: _Records, ground: _Links, batch: NDArray[np.int64]) -> None:
    """Link the neighbours of a batch's rows back to them, each neighbour in one task."""
    links, degrees = ground.links, ground.degrees
    there = np.arange(plan.degree) < degrees[batch, None]
    flat = links[batch, : plan.degree][there].astype(np.int64)
    ranks = np.argsort(flat, kind="stable")
    sources = np.repeat(batch, degrees[batch])[ranks]
    heads, starts = np.unique(flat[ranks], return_index=True)
    starts = np.append(starts, len(flat))

    def back(first: int, last: int) -> None:
        link_back(
            *records.args, links, degrees, heads[first:last], starts[first : last + 1], sources,
            plan.degree, np.float32(ALPHA),
        )  # fmt: skip

    plan.each(back, len(heads), 1024)


def _trim(plan: _Plan, records: _Records, ground: _Links, entry: int) -> None:
    """Leave each row its `degree` links, and every row a way from the entry."""
    links, degrees, rows = ground.links, ground.degrees, np.arange(plan.rows)

    def trim(first: int, last: int) -> None:
        thin_rows(
            *records.args, links, degrees, rows[first:last], plan.degree, np.float32(ALPHA),
            links[first:last], degrees[first:last],
        )  # fmt: skip

    plan.each(trim, plan.rows, 1024)
    links[:, : plan.degree][np.arange(plan.degree) >= degrees[:, None]] = -1
    if plan.rows:
        connect(records.args, links, degrees, plan.degree, entry, plan.beam)


def _finish(
    plan: _Plan,
    records: _Records,
    ground: _Links,
    upper: _Upper,
    codes: str,
    seed: int,
) -> Graph:
    """Code the neighbours of every node and lay out the rows."""
    n, inner, links, degrees = plan.rows, records.inner, ground.links, ground.degrees
    residuals, queries = _residuals(records, links, degrees, seed)
    basis = principal(residuals) if inner > FLOAT_DIMS else np.eye(inner, dtype=np.float32)
    # queries of ip lie far from all rows: the 4,000 rows of _Records.asks got .89 with two bits,
    # .986 with four, .99 without codes
    options = (0, 4) if plan.space.metric == "ip" and codes == "auto" else CODES[codes]
    dims, bits = choose_codes(residuals, queries, basis, records.stride, options)
    projection = fit_projection(basis, dims, seed)
    block = block_bytes(dims, bits)
    rows = np.zeros((n, records.stride + plan.degree // BLOCK * block), np.uint8)
    rows[:, : records.stride] = records.data.reshape(n, records.stride)
    for b in range(plan.degree // BLOCK):
        at = records.stride + b * block
        rows[:, at : at + 4 * BLOCK].view(np.int32)[:] = links[:, b * BLOCK : (b + 1) * BLOCK]
    add_unit = res_unit = 0.0
    if bits:
        add_unit, res_unit = _encode(plan, records, ground, projection, bits, rows)
    meta = {
        "version": VERSION, "metric": plan.space.metric, "entry": upper.entry,
        "levels": len(upper.sizes), "degree": plan.degree, "dims": dims, "bits": bits,
        "radius": float(plan.space.radius), "add_unit": add_unit, "res_unit": res_unit,
    }  # fmt: skip
    arrays = {
        "rows": rows, "mean": plan.space.mean, "matrix": projection.matrix,
        "scales": projection.scales, "upper_rows": upper.sample, "upper_records": upper.records,
        "upper_links": upper.links,
    }  # fmt: skip
    return Graph(arrays, meta, inner - (plan.space.metric == "ip"))


def _encode(
    plan: _Plan,
    records: _Records,
    ground: _Links,
    projection: Projection,
    bits: int,
    rows: NDArray[np.uint8],
) -> tuple[float, float]:
    """Write the codes of every node's neighbours, and their factors; return the factors' units."""
    n, inner, dims = plan.rows, records.inner, projection.dims
    matrix = projection.floats(inner).T
    places = np.empty((n, dims), np.float32)

    def project(first: int, last: int) -> None:
        decoded = records.decode(slice(first, last))
        if inner <= FLOAT_DIMS:  # the search refines such codes around the node, unprojected
            places[first:last, :inner] = decoded
            places[first:last, inner:] = 0
        else:
            places[first:last] = decoded @ matrix

    plan.each(project, n, 4096)
    add = np.full((n, plan.degree), np.inf, np.float32)
    res = np.zeros((n, plan.degree), np.float32)

    def encode(first: int, last: int) -> None:
        encode_neighbours(
            *records.args, places, inner <= FLOAT_DIMS, ground.links, ground.degrees, bits, first,
            last, rows.ctypes.data + records.stride, rows.shape[1], add, res,
        )  # fmt: skip

    plan.each(encode, n, 256)
    add_unit, res_unit = _fit(add), _fit(res)
    for b in range(plan.degree // BLOCK):
        at = records.stride + b * block_bytes(dims, bits) + 4 * BLOCK
        slots = slice(b * BLOCK, (b + 1) * BLOCK)
        rows[:, at : at + 64].view(np.float16)[:] = add[:, slots] / add_unit
        rows[:, at + 64 : at + 128].view(np.float16)[:] = res[:, slots] / res_unit
    return add_unit, res_unit


def _fit(factors: NDArray[np.float32]) -> float:
    """Unit in which factors fit into float16; those far beyond the usual are cut to what does.

    One row a million times as long as 3,000 others left these no bits: recall .76, .99 with a cut.
    """
    finite = np.isfinite(factors)
    top = max(
        float(factors.max(where=finite, initial=0)), -float(factors.min(where=finite, initial=0))
    )
    some = np.abs(factors[:: len(factors) // SAMPLE + 1])
    usual = some[np.isfinite(some) & (some > 0)]
    unit = max(top / 60000, 1e-30)
    if len(usual) and unit > (most := max(_BEYOND * float(np.median(usual)), 1e-30)):
        unit = most
        np.clip(factors, -60000 * unit, 60000 * unit, out=factors, where=finite)
    return unit


def _residuals(
    records: _Records, links: NDArray[np.int32], degrees: NDArray[np.int32], seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Neighbour - node for a sample of links, and (row two links away) - node beside each.

    Of two links the nearer is taken: codes must tell near neighbours apart, not far clusters.
    """
    nodes = np.flatnonzero(degrees)
    if len(nodes) == 0:
        return (np.zeros((1, records.inner), np.float32),) * 2
    rng = np.random.default_rng(seed)
    nodes = rng.choice(nodes, SAMPLE)

    def step(rows: NDArray[Any]) -> NDArray[Any]:
        counts = np.maximum(degrees[rows], 1)
        return np.where(degrees[rows] > 0, links[rows, rng.integers(0, counts)], rows)

    def nearer(rows: NDArray[Any]) -> NDArray[Any]:
        here, one, two = records.decode(rows), step(rows), step(rows)
        first = np.linalg.norm(records.decode(one) - here, axis=1)
        return np.where(np.linalg.norm(records.decode(two) - here, axis=1) < first, two, one)

    center = records.decode(nodes)
    near, far = nearer(nodes), nearer(nearer(nodes))
    return records.decode(near) - center, records.decode(far) - center
