"""Kernels of the build: search the frozen graph, choose neighbours, take in the edges back.

A batch of rows is inserted in three steps, each parallel over rows that only their own task
writes, so the graph does not depend on the number of threads:
:func:`insert_rows` searches the graph as it was before the batch and writes the links of the new
rows; the caller sorts the new edges by target; :func:`link_back` adds them to the targets.
"""

from __future__ import annotations

import numpy as np

from vecdb.graph.keys import EMPTY, LEAST, key_distance, key_row, make_key, next_tag
from vecdb.graph.levels import descend
from vecdb.kernels.jit import jit
from vecdb.kernels.leaves import pool_insert, pool_next, prefetch_bytes
from vecdb.kernels.memory import address, read_f32
from vecdb.quant.record import header, record_distance

__all__ = ["beam", "insert_rows", "link_back", "thin_rows", "turn_round"]

SAME = np.float32(2e-7)  # of a record's squared norm: distances of copies are rounded to that
_RECORDS = "i8, i8, i8"


@jit(f"i8({_RECORDS}, i8, i8[::1], i8, i4[::1], i8, f4)")
def select(data, stride, inner, row, keys, count, chosen, degree, alpha):
    """Choose up to `degree` diverse neighbours among candidates in ascending order.

    A candidate is kept if no kept one is nearer to it than the row is (HNSW's heuristic), then if
    none is nearer by the factor `alpha` on squared distance (Vamana's); what is left is filled with
    the nearest of the refused ("keepPrunedConnections"), since a row of the layout is read whole.
    With `alpha` alone the members of a tight cluster, all equally far apart, took every place of a
    row: asking for strict diversity first took 50 clusters from recall .93 to .95 at ef 64 and from
    .94 to 1.0 at 200, and GloVe from .903 to .927 at equal work.

    Copies of the row itself are all as near to each other as to it, so one of them is enough: with
    40 copies of each row they took every place, and .2 to .5 was found of what 1.0 is now.
    """
    kept = 0
    same = SAME * read_f32(header(data + row * stride, inner))
    nearest = np.empty(count, np.float32)  # of the first `upto` that were kept, to each candidate
    upto = np.zeros(count, np.int64)
    nearest[:] = np.inf
    factor = np.float32(1)
    for _tier in range(2):
        for c in range(count):
            if kept == degree:
                break
            key = keys[c]
            if key == EMPTY:
                continue
            candidate = key_row(key)
            if candidate == row:
                keys[c] = EMPTY
                continue
            reach = key_distance(key)
            if kept and reach <= same:
                continue
            at = data + candidate * stride
            while upto[c] < kept and factor * nearest[c] >= reach:
                other = data + np.int64(chosen[upto[c]]) * stride
                nearest[c] = min(nearest[c], record_distance(at, other, inner))
                upto[c] += 1
            if factor * nearest[c] >= reach:
                chosen[kept] = candidate
                kept += 1
                keys[c] = EMPTY
        factor = alpha
    for c in range(count):
        if kept == degree:
            break
        if keys[c] != EMPTY:
            chosen[kept] = key_row(keys[c])
            kept += 1
    return kept


@jit(f"i8({_RECORDS}, i4[:, ::1], i4[::1], i8, i8, i8[::1], i8, u1[::1])")
def beam(data, stride, inner, links, degrees, entry, own, pool, size, visited):
    """Search the graph for the neighbours of the record at address `own`: their number; the keys
    stand from pool[8] on.

    Most of it is waiting for memory: whole records are asked for ahead, and the links of the node
    that will most likely be next.
    """
    tag = next_tag(visited)
    pool[:8] = LEAST
    pool[8 : 8 + size] = EMPTY
    keys = address(pool) + 64
    table, width = address(links), 4 * links.shape[1]
    fresh = np.empty(links.shape[1], np.int64)
    visited[1 + entry] = tag
    value = record_distance(data + entry * stride, own, inner)
    pool_insert(keys, size, make_key(value, entry))
    position = 0
    while True:
        position = pool_next(keys, size, position & ~7)
        if position < 0:
            break
        pool[8 + position] |= 1
        node = key_row(pool[8 + position])
        following = pool_next(keys, size, position & ~7)
        if following >= 0:
            prefetch_bytes(table + key_row(pool[8 + following]) * width, width)
        count = 0
        for i in range(degrees[node]):
            neighbour = np.int64(links[node, i])
            if visited[1 + neighbour] != tag:
                visited[1 + neighbour] = tag
                fresh[count] = neighbour
                count += 1
                prefetch_bytes(data + neighbour * stride, stride)
        for i in range(count):
            value = record_distance(data + fresh[i] * stride, own, inner)
            key = make_key(value, fresh[i])
            if key < pool[7 + size]:
                position = min(position, pool_insert(keys, size, key))
    count = 0
    while count < size and pool[8 + count] != EMPTY:
        count += 1
    return count


@jit(
    f"void({_RECORDS}, i4[:, ::1], i4[::1], i8, i8, Array(i4, 1, 'C', readonly=True),"
    " u1[:, ::1], Array(i4, 2, 'C', readonly=True), Array(i8, 1, 'C', readonly=True), u1[:, ::1],"
    " i8, i8, f4, u1[::1])",
    entry=True,
)
def insert_rows(
    data, stride, inner, links, degrees, entry, levels, sample, sampled, upper, rows, asks, size,
    degree, alpha, visited,
):  # fmt: skip
    """Find and write the links of new rows, which nothing links to yet.

    `sample` and `sampled` are the rows of the upper levels and their records, `upper` the links of
    the first `levels` ones, `asks` the records that are searched for in place of the rows.
    """
    pool = np.empty(8 + size, np.int64)
    for i in range(len(rows)):
        row, own = rows[i], address(asks[i])
        start = descend(
            address(sampled), inner, len(links), own, entry, levels, address(sample), address(upper)
        )
        count = beam(data, stride, inner, links, degrees, start, own, pool, size, visited)
        degrees[row] = select(data, stride, inner, row, pool[8:], count, links[row], degree, alpha)


@jit("void(i4[:, ::1], i4[::1], Array(i8, 1, 'C', readonly=True), i8[::1], i4[::1])", entry=True)
def turn_round(links, degrees, rows, ends, sources):
    """Sort the links of `rows` by target: those of target t come from sources[ends[t - 1] :
    ends[t]], in the order of `rows`. `ends` is given as zeros, one more than there are targets."""
    for row in rows:
        for i in range(degrees[row]):
            ends[links[row, i] + 1] += 1
    for t in range(1, len(ends)):
        ends[t] += ends[t - 1]
    for row in rows:
        for i in range(degrees[row]):
            target = links[row, i]
            sources[ends[target]] = row
            ends[target] += 1


@jit(
    f"void({_RECORDS}, i4[:, ::1], i4[::1], Array(i8, 1, 'C', readonly=True),"
    " Array(i8, 1, 'C', readonly=True), Array(i4, 1, 'C', readonly=True), i8, f4)",
    entry=True,
)
def link_back(data, stride, inner, links, degrees, targets, ends, sources, degree, alpha):
    """Add its sources, as :func:`turn_round` has them, to the links of every target; choose anew
    when a row is full."""
    slots = links.shape[1]
    for t in range(len(targets)):
        row = targets[t]
        first = ends[row - 1] if row else 0
        count = total = degrees[row]
        others = np.empty(count + ends[row] - first, np.int64)
        others[:count] = links[row, :count]
        for i in range(first, ends[row]):
            known = False  # a row may have been linked to before it was inserted
            for j in range(count):
                known |= others[j] == sources[i]
            if not known:
                others[total] = sources[i]
                total += 1
        if total <= slots:
            links[row, :total] = others[:total]
            degrees[row] = total
            continue
        keys = np.empty(total, np.int64)
        for i in range(total):
            prefetch_bytes(data + others[i] * stride, stride)
        for i in range(total):
            value = record_distance(data + others[i] * stride, data + row * stride, inner)
            keys[i] = make_key(value, others[i])
        keys.sort()
        degrees[row] = select(data, stride, inner, row, keys, total, links[row], degree, alpha)


@jit(
    f"void({_RECORDS}, i4[:, ::1], i4[::1], Array(i8, 1, 'C', readonly=True), i8, f4, i4[:, ::1],"
    " i4[::1])",
    entry=True,
)
def thin_rows(data, stride, inner, links, degrees, rows, degree, alpha, chosen, counts):
    """Choose at most `degree` links for each of `rows`: chosen[i], counts[i] for rows[i].

    `chosen` and `counts` may be the very arrays of the links, where the i-th row is row i.
    """
    for i in range(len(rows)):
        row = rows[i]
        count = degrees[row]
        if count <= degree:
            chosen[i, :count] = links[row, :count]
            counts[i] = count
            continue
        keys = np.empty(count, np.int64)
        for j in range(count):
            prefetch_bytes(data + np.int64(links[row, j]) * stride, stride)
        for j in range(count):
            other = np.int64(links[row, j])
            value = record_distance(data + other * stride, data + row * stride, inner)
            keys[j] = make_key(value, other)
        keys.sort()
        counts[i] = select(data, stride, inner, row, keys, count, chosen[i], degree, alpha)
