"""The search kernel over node rows: estimate from codes, verify on expansion, rescore at the end.

A row is ``[record | blocks of 32 neighbours]``, so one contiguous stream gives the node's own
distance and the estimates of all its neighbours. Only neighbours whose estimate beats the pool
enter it; their own rows are read when, and if, they are expanded. While a row is worked on, the row
that will most likely be next is prefetched whole (+30 % QPS at 1.2 KB a row).
"""

from __future__ import annotations

import numpy as np

from vecdb.graph.keys import EMPTY, LEAST, key_distance, key_row, make_key
from vecdb.graph.levels import descend
from vecdb.graph.selective import scan_records, walk_selective
from vecdb.graph.visited import begin, enter, grown, slot_of
from vecdb.kernels.clock import monotonic_ns
from vecdb.kernels.files import read_rows
from vecdb.kernels.jit import jit
from vecdb.kernels.leaves import (
    distance,
    estimate,
    fill_table,
    pool_insert,
    pool_next,
    prefetch_bytes,
    project,
    trailing_zeros,
)
from vecdb.kernels.memory import address, bytes_at, fetch_add, read_f32, read_i32, write_f32
from vecdb.kernels.scan import pool_key, query_norm
from vecdb.quant.neighbours import BLOCK, block_bytes, table_around
from vecdb.quant.record import FLOAT_DIMS, encode_record, header, record_bytes, record_distance

GROUP = 4  # queries projected at once: the matrix is read from the second cache level for all
SWITCH = 0.65  # share of pruned estimates above which the others are verified lazily
SPARE = 2  # nodes rescored beyond k whatever their distance; 12 for ten hits is as good as 30
DEVIATIONS = 2.5  # of a record's distance within which its float row is looked at too

__all__ = [
    "CALL", "SCAN", "SELECTIVE", "SHAPE", "WALK", "search_bound", "search_held", "settled",
]  # fmt: skip

_BYTES = "Array(u1, 1, 'C', readonly=True)"
_FLOATS = "Array(f4, 1, 'C', readonly=True)"
_WHOLE = "Array(i8, 1, 'C', readonly=True)"

SHAPE = (
    "metric", "half", "dim", "inner", "stride", "record", "blocks", "dims", "bits", "entry",
    "levels", "upper_rows", "upper_links", "upper_records", "descriptor", "offset",
    "flags",
)  # fmt: skip
"""Order of the numbers that describe a graph to the kernel; the upper ones are addresses, the last
three say how the raw rows are read from a file: descriptor -1 when they are touched in memory."""

CALL = (
    "k", "pool", "keep", "every", "prefetch", "pruning", "codes", "hashed", "ef", "mode", "stones",
    "ratio", "width", "lazy", "budget",
)  # fmt: skip
"""Order of the numbers that describe a call; stones, ratio, width and budget are those of a
selective walk, which uses `width` places of its pool to begin with, and gives way to a scan when
the budget, if it is not 0, does not do."""

WALK, SELECTIVE, SCAN = 0, 1, 2
"""Modes of a call."""


@jit(f"void(i8, f4, f4, {_FLOATS}, {_FLOATS}, f4[::1])", entry=True)
def center(metric, radius, norm, query, mean, out):
    """The inner row of a raw query whose norm is given.

    Under ip only the direction of a query matters: it is given the length of the longest row, so
    that distances differ by as much as they can.
    """
    dim = len(query)
    factor = np.float32(1)
    if metric == 1 and norm > 0:
        factor = np.float32(1) / norm
    if metric == 2 and norm > 0:
        factor = radius / norm
    for i in range(dim):
        out[i] = query[i] * factor - mean[i]
    for i in range(dim, len(mean)):
        out[i] = -mean[i]


@jit(f"void(i8, f4, Array(f4, 2, 'C', readonly=True), {_FLOATS}, f4[:, ::1], u1[:, ::1], f4[::1])")
def prepare(metric, radius, queries, mean, x, own, norms):
    """Norms, inner rows and their records of a few queries."""
    for i in range(len(queries)):
        norms[i] = query_norm(address(queries[i]), queries.shape[1])
        center(metric, radius, norms[i], queries[i], mean, x[i])
        encode_record(address(x[i]), len(mean), address(own[i]))


@jit(f"b1(i8, f4, {_FLOATS})")
def usable(metric, norm, query):
    """Whether a query has a place among the rows; one whose square is too large for float32 has."""
    if norm < np.inf:
        return norm > 0 or metric != 1
    finite = True
    for i in range(len(query)):
        finite &= abs(query[i]) < np.inf
    return finite


@jit("void(i8, i8, i8, i8, i8, i8, i8, i8, i8)")
def verify(data, rows, stride, record, link, mask, own, inner, estimates):
    """Put distances in place of a block's estimates, unless more than 65 % of them are pruned.

    This is the switch that the source of asynchronous pruning describes. Verifying survivors only
    when they are expanded is better: Fashion reached recall .98 at 48k QPS against 44k with the
    switch, GloVe .93 at 33k against 27k.
    """
    survivors = 0
    rest = mask
    while rest:
        neighbour = np.int64(read_i32(link + 4 * trailing_zeros(rest)))
        rest &= rest - 1
        survivors += 1
        if 0 <= neighbour < rows:
            prefetch_bytes(data + neighbour * stride, record)
    if BLOCK - survivors > SWITCH * BLOCK:
        return
    while mask:
        lane = trailing_zeros(mask)
        mask &= mask - 1
        neighbour = np.int64(read_i32(link + 4 * lane))
        if 0 <= neighbour < rows:
            value = record_distance(data + neighbour * stride, own, inner)
            write_f32(estimates + 4 * lane, value)


@jit(
    f"i8(i8, i8, i8, {_WHOLE}, {_WHOLE}, {_FLOATS}, f4, f4, i8, i8, {_BYTES}, u1[::1],"
    " i8[::1], i8[::1], i8, f4[::1], i8)"
)
def walk(
    data, rows, start, shape, call, units, unit, shift, x, own, allowed, visited, pool, best, table,
    out, raw,
):  # fmt: skip
    """Expand nodes until the pool holds none that is not; `best` gets the nearest allowed ones.

    `data`, `x` (the centred query), `own` (its record) and `table` are addresses. Returns the
    number of expanded nodes. The raw rows (at address `raw`) of nodes that may be among the k
    nearest are asked for at once.
    """
    inner, stride, record, blocks, dims, bits = (
        shape[3], shape[4], shape[5], shape[6], shape[7], shape[8]
    )  # fmt: skip
    ef, keep, every, ahead, reach, lazy = call[1], call[2], call[3], call[4], call[8], call[13]
    add_unit, res_unit = units[0], units[1]
    final = min(call[0] + SPARE, keep)
    row_bytes = 0 if shape[14] >= 0 else shape[2] * (2 if shape[1] == 1 else 4)
    chunks = dims * bits // 16
    size = block_bytes(dims, bits)
    local = inner <= FLOAT_DIMS
    estimates = address(out)
    keys, nearest = address(pool) + 64, address(best) + 64
    met = visited[: len(visited) & ~7].view(np.int64)
    hashed = call[7] == 1
    tag = begin(visited, met, hashed)
    flags, table_at, slots = address(visited), address(met), len(met) - 1
    pool[8:] = EMPTY
    best[8:] = EMPTY
    enter(slot_of(flags, table_at, slots, hashed, tag, start), hashed, tag, start)
    count = 1
    pool[8] = np.int64(start) << 1
    position = 0
    hops = 0
    while True:
        position = pool_next(keys, ef, position & ~7)
        if not 0 <= position < reach:
            return hops
        node = key_row(pool[8 + position])
        pool[8 + position] |= 1
        at = data + node * stride
        if ahead:
            following = pool_next(keys, ef, position & ~7)
            if following >= 0:
                prefetch_bytes(data + key_row(pool[8 + following]) * stride, stride)
        exact = record_distance(at, own, inner)
        hops += 1
        if every or allowed[node >> 3] >> (node & 7) & 1:
            key = make_key(exact, node)
            if key < best[7 + keep]:
                if ahead and key < best[7 + final]:
                    prefetch_bytes(raw + node * row_bytes, row_bytes)
                pool_insert(nearest, keep, key)
        if local:
            unit, shift = table_around(x, at, inner, dims, bits, res_unit, out, table)
        for b in range(blocks):
            link = at + record + b * size
            limit = pool[7 + ef] >> 32
            mask = estimate(link, chunks, table, exact, add_unit, unit, shift, limit, estimates)
            if not lazy:
                verify(data, rows, stride, record, link, mask, own, inner, estimates)
            while mask:
                lane = trailing_zeros(mask)
                mask &= mask - 1
                neighbour = np.int64(read_i32(link + 4 * lane))
                if not 0 <= neighbour < rows:  # a mapped file may hold anything
                    continue
                slot = slot_of(flags, table_at, slots, hashed, tag, neighbour)
                if slot == 0:
                    continue
                key = make_key(out[lane], neighbour)
                if key < pool[7 + ef]:
                    enter(slot, hashed, tag, neighbour)
                    count += 1
                    if hashed and 2 * count > len(met):
                        met = grown(met, tag)
                        table_at, slots = address(met), len(met) - 1
                    position = min(position, pool_insert(keys, ef, key))


@jit(
    f"UniTuple(i8, 2)(i8, i8, i8, i8, {_WHOLE}, {_WHOLE}, f4, i8, i8, f4, {_BYTES}, u1[::1],"
    " i8[::1], i8[::1])"
)
def walk_plain(
    data, rows, start, raw, shape, call, lift, own, query, norm, allowed, visited, pool, best
):  # fmt: skip
    """The same walk without estimates: every neighbour's own distance, from its record or, with
    codes off as well, from its float row. It is what the engine is measured against.

    `lift` makes the distances of ip positive, as the keys want them.
    """
    metric, half, dim, inner, stride, record, blocks = (
        shape[0], shape[1] == 1, shape[2], shape[3], shape[4], shape[5], shape[6]
    )  # fmt: skip
    ef, keep, every, ahead, coded, reach = call[1], call[2], call[3], call[4], call[6], call[8]
    size = block_bytes(shape[7], shape[8])
    row_bytes = dim * (2 if half else 4)
    keys, nearest = address(pool) + 64, address(best) + 64
    fresh = np.empty(1 + BLOCK * blocks, np.int64)
    met = visited[: len(visited) & ~7].view(np.int64)
    hashed = call[7] == 1
    tag = begin(visited, met, hashed)
    flags, table_at, slots = address(visited), address(met), len(met) - 1
    enter(slot_of(flags, table_at, slots, hashed, tag, start), hashed, tag, start)
    pool[8:] = EMPTY
    best[8:] = EMPTY
    fresh[0] = start
    count = 1
    position = 0
    hops = 0
    computed = 0
    while True:
        for i in range(count):
            node = fresh[i]
            if coded:
                value = record_distance(data + node * stride, own, inner)
            else:
                value = distance(metric, half, raw + node * row_bytes, query, dim, norm) + lift
            key = make_key(max(value, np.float32(0)), node)
            if key < pool[7 + ef]:
                position = min(position, pool_insert(keys, ef, key))
            if key < best[7 + keep] and (every or allowed[node >> 3] >> (node & 7) & 1):
                pool_insert(nearest, keep, key)
        computed += count
        position = pool_next(keys, ef, position & ~7)
        if not 0 <= position < reach:
            return hops, computed
        node = key_row(pool[8 + position])
        pool[8 + position] |= 1
        hops += 1
        if hashed and 2 * (computed + BLOCK * blocks) > len(met):
            met = grown(met, tag)
            table_at, slots = address(met), len(met) - 1
        count = 0
        for b in range(blocks):
            link = data + node * stride + record + b * size
            for lane in range(BLOCK):
                neighbour = np.int64(read_i32(link + 4 * lane))
                if not 0 <= neighbour < rows:
                    continue
                slot = slot_of(flags, table_at, slots, hashed, tag, neighbour)
                if slot == 0:
                    continue
                enter(slot, hashed, tag, neighbour)
                fresh[count] = neighbour
                count += 1
                if ahead and coded:
                    prefetch_bytes(data + neighbour * stride, record)
                elif ahead:
                    prefetch_bytes(raw + neighbour * row_bytes, row_bytes)


@jit("i8(i8, i8, i8, i8)")
def uncertain(key, own, at, inner):
    """Key up to which a node may be nearer than the one of `key`, its record being at `at`.

    A record's coordinate is off by up to half its scale, so a distance d^2 of two records has the
    deviation sqrt(4 d^2 e^2 + 2 inner e^4), where e^2 is the sum of both their squared scales / 12.
    """
    if inner <= FLOAT_DIMS:
        return key
    mine, its = read_f32(header(own, inner) + 4), read_f32(header(at, inner) + 4)
    variance = (mine * mine + its * its) / np.float32(12)
    square = key_distance(key)
    deviation = np.sqrt(np.float32(2) * variance * (2 * square + inner * variance))
    return make_key(square + np.float32(DEVIATIONS) * deviation, 0)


@jit(f"i8(i8, {_WHOLE}, b1, i8, f4, i8[::1], i8, i8[::1], i8, i8[::1], f4[::1])")
def rescore(raw, shape, asked, query, norm, best, limit, final, k, rows, distances):
    """Order the nodes up to the key `limit`, and two more than k, by their true distance.

    `asked` says that the walk has prefetched their rows.
    """
    metric, half, dim = shape[0], shape[1] == 1, shape[2]
    row_bytes = dim * (2 if half else 4)
    apart = shape[14] >= 0
    final[8:] = EMPTY
    count = 0
    while 8 + count < len(best) and best[8 + count] != EMPTY:
        if count >= k + SPARE and best[8 + count] > limit:
            break
        if not apart and not asked:
            prefetch_bytes(raw + key_row(best[8 + count]) * row_bytes, row_bytes)
        count += 1
    copies = np.empty(count * row_bytes if apart else 0, np.uint8)
    if apart:
        nodes = np.empty(count, np.int64)
        for i in range(count):
            nodes[i] = key_row(best[8 + i])
        apart = read_rows(shape[14], shape[15], shape[16], row_bytes, nodes, count, address(copies))
    for i in range(count):
        node = key_row(best[8 + i])
        at = address(copies) + i * row_bytes if apart else raw + node * row_bytes
        value = distance(metric, half, at, query, dim, norm)
        pool_insert(address(final) + 64, len(final) - 8, pool_key(value, node))
    for i in range(min(k, count)):
        key = final[8 + i]
        pattern = key >> 32
        if pattern < 0:
            pattern = np.int64(-2147483649) - pattern
        rows[i] = key & 0xFFFFFFFF
        distances[i] = np.int32(pattern).view(np.float32)
    rows[min(k, count) :] = -1
    distances[min(k, count) :] = np.inf
    return count


@jit(f"i8(i8[::1], b1, {_BYTES})")
def count_allowed(pool, every, allowed):
    """Allowed nodes of a finished pool: all of its nodes have been expanded."""
    count = 0
    for key in pool[8:]:
        if key == EMPTY:
            break
        node = key_row(key)
        count += every or allowed[node >> 3] >> (node & 7) & 1
    return count


@jit(
    f"void({_BYTES}, {_BYTES}, {_BYTES}, {_WHOLE}, {_FLOATS}, Array(f4, 2, 'C', readonly=True),"
    f" {_WHOLE}, {_BYTES}, {_WHOLE}, Array(f4, 2, 'C', readonly=True), {_WHOLE}, u1[::1],"
    " i8[:, ::1], f4[:, ::1], i8[:, ::1])"
)
def search_rows(
    raw, data, fixed, shape, units, queries, call, allowed, cut, slack, barred, visited, rows,
    distances, tally,
):  # fmt: skip
    """Answer a block of queries; see :func:`vecdb.graph.search.search` for what comes out.

    `fixed` holds the graph's mean, scales and matrix one after the other; `units` its add_unit,
    res_unit and radius. `tally` gets what :data:`vecdb.graph.search.TALLY` names, for each query.
    One that is not finite, or zero under cosine, has no answer.
    """
    metric = shape[0]
    inner, blocks, dims, bits = shape[3], shape[6], shape[7], shape[8]
    k, ef, keep, coded = call[0], call[1], call[2], call[5] == 1 and call[6] == 1 and bits > 0
    mode = call[9]
    nodes = len(data) // shape[4]
    padded = dims + 15 & ~15
    mean = fixed[: 4 * inner].view(np.float32)
    scales = address(fixed) + 4 * inner
    matrix = scales + 4 * padded
    pool = np.empty(8 + ef, np.int64)
    best = np.empty(8 + keep, np.int64)
    final = np.empty(8 + (k + 7 & ~7), np.int64)
    stones = np.empty(8 + call[10], np.int64)
    pool[:8], best[:8], final[:8], stones[:8] = LEAST, LEAST, LEAST, LEAST
    x = np.empty((GROUP, inner), np.float32)
    own = np.empty((GROUP, record_bytes(inner)), np.uint8)
    projected = np.empty((GROUP, padded), np.float32)
    norms = np.empty(GROUP, np.float32)
    table = np.empty(4 * bits * dims, np.uint8)
    out = np.empty(BLOCK, np.float32)
    unit = shift = np.float32(0)
    for j in range(len(queries)):
        g = j % GROUP
        if g == 0:
            prepare(metric, units[2], queries[j : j + GROUP], mean, x, own, norms)
            if inner > FLOAT_DIMS and coded and mode != SCAN:
                project(
                    matrix, scales, address(own), own.shape[1], min(GROUP, len(queries) - j),
                    padded >> 4, inner + 3 >> 2, address(projected), 4 * padded,
                )  # fmt: skip
        query, mine, norm = address(queries[j]), address(own[g]), norms[g]
        if not usable(metric, norm, queries[j]):
            rows[j], distances[j], tally[j] = -1, np.inf, 0
            continue
        if inner > FLOAT_DIMS and coded and mode != SCAN:
            unit, shift = fill_table(address(projected[g]), bits, dims * bits // 4, address(table))
            unit *= units[1]
            shift *= units[1]
        start = np.int64(-1)
        if mode != SCAN:
            start = descend(
                shape[13], inner, nodes, mine, shape[9], shape[10], shape[11], shape[12]
            )
        estimates = computed = pruned = 0
        hops = np.int64(0)
        if mode == SELECTIVE:
            hops = walk_selective(
                address(data), nodes, start, barred[j] if len(barred) else -1, shape, call, slack,
                units, unit, shift, address(x[g]), mine, allowed, cut, visited, pool, stones, best,
                address(table), out,
            )  # fmt: skip
        elif mode == WALK and coded:
            hops = walk(
                address(data), nodes, start, shape, call, units, unit, shift, address(x[g]), mine,
                allowed, visited, pool, best, address(table), out, address(raw),
            )  # fmt: skip
        elif mode == WALK:
            hops, computed = walk_plain(
                address(data), nodes, start, address(raw), shape, call, units[2] * norm,
                mine, query, norm, allowed, visited, pool, best,
            )  # fmt: skip
        hidden, scanned = hops < 0, hops == 0
        if scanned:
            hops = scan_records(
                address(data), nodes, shape[4], inner, mine, call[3] == 1, allowed, best
            )
            estimates = pruned = hops
        hops = abs(hops)
        if computed and call[5] and call[6]:  # the compact layout: records are the codes
            estimates, computed = computed, 0
            pruned = estimates
        elif not scanned and not computed:
            estimates = hops * blocks * BLOCK
            pruned = estimates - hops + 1
        kth = best[7 + min(k, keep)]
        limit = EMPTY
        if kth != EMPTY:
            limit = uncertain(kth, mine, address(data) + key_row(kth) * shape[4], inner)
        count = rescore(
            address(raw), shape, mode == WALK and coded, query, norm, best, limit, final, k,
            rows[j], distances[j],
        )  # fmt: skip
        met = hops
        if not scanned:
            lost = hidden and len(cut) == 0
            met = 0 if lost else count_allowed(pool, call[3] == 1, allowed)
        tally[j, 0] = hops
        tally[j, 1] = estimates
        tally[j, 2] = count + computed
        tally[j, 3] = pruned
        tally[j, 4] = met


_BOUND = (
    f"void({_WHOLE}, Array(f4, 2, 'C', readonly=True), {_WHOLE}, i8, i8, i8, u1[::1], i8[:, ::1],"
    " f4[:, ::1], i8[:, ::1])"
)


@jit(_BOUND, entry=True)
def search_bound(
    state, queries, barred, turn, step, deadline, visited, rows, distances, tally
):  # fmt: skip
    """:func:`search_rows` with the arrays that stay the same given as :func:`settled` has them:
    numba takes 100 ns for every array that it is handed.

    `turn` is the address of the number of the next query: the threads that share a batch take
    `step` at a time, until none is left or the clock says `deadline` (0: never). When it is 0,
    this thread answers all.
    """
    first = 0
    while True:
        if turn:
            if deadline and monotonic_ns() > deadline:
                return
            first = fetch_add(turn, step)
            if first >= len(queries):
                return
        mine = slice(first, first + step)
        search_rows(
            bytes_at(state[0], state[1]), bytes_at(state[2], state[3]),
            bytes_at(state[4], state[5]), bytes_at(state[6], state[7]).view(np.int64),
            bytes_at(state[8], state[9]).view(np.float32), queries[mine],
            bytes_at(state[10], state[11]).view(np.int64), bytes_at(state[12], state[13]),
            bytes_at(state[14], state[15]).view(np.int64),
            bytes_at(state[16], state[17]).view(np.float32).reshape(state[18], -1), barred[mine],
            visited, rows[mine], distances[mine], tally[mine],
        )  # fmt: skip
        if not turn:
            return


@jit(_BOUND, nogil=False, entry=True)
def search_held(
    state, queries, barred, turn, step, deadline, visited, rows, distances, tally
):  # fmt: skip
    """:func:`search_bound` for a walk so short that letting go of the interpreter costs more."""
    search_bound(state, queries, barred, turn, step, deadline, visited, rows, distances, tally)


def settled(*arrays: np.ndarray) -> np.ndarray:
    """Addresses and bytes of a search's raw rows, graph rows, fixed arrays, shape, units, call,
    bitmap, cut off rows and slack, and how many rows the last one has; the caller keeps them
    alive."""
    places = [(array.ctypes.data, array.nbytes) for array in arrays]
    return np.array([*sum(places, ()), len(arrays[-1])], np.int64)
