"""The walk under a filter or up to a bound, and the scan of the records of the rows that pass.

A filtered walk keeps two pools: allowed nodes, and stones, the others, that it steps on to get
from one allowed node to the next. The nearest of both is next, but of stones only so many for each
allowed node as there are of them in the graph, and some more for chance: where a filter hides the
neighbourhood of the query the walk would else go through all of it before it saw an allowed node.

A bounded walk ends when the nearest node left is further than `slack` times the k-th best so far;
easy queries end early, hard ones go on: at equal recall 44 hops against 67 (text), 33 against 38
(Fashion), 100 against 128 (GloVe). `slack` depends on the k-th distance itself, see
:mod:`vecdb.graph.calibrate`, and on what the filter does around the query: of rows that pass at
random fewer slack is needed, for more nodes lie between the k-th and the bound. The share that
passes there is that of the k among all that are nearer than the k-th: about that of the whole
graph, or all (a filter that favours the neighbourhood), or the root of it, whichever is nearest in
the logarithm. Where far fewer pass the filter hides what is there, and the walk needs more slack
than without one.

Where a filter passes so few rows that a scan of them costs less than a walk among as many stones as
that share promises, the neighbourhood of the query may still pass as a whole: then a walk takes as
few nodes as without a filter. A walk with a `budget` tries: it gives up after eight nodes if most
of them are stones, and when it has expanded as many as cost a scan.
"""

from __future__ import annotations

import math

import numpy as np

from vecdb.graph.keys import EMPTY, key_distance, key_row, make_key
from vecdb.graph.visited import begin, enter, grown, slot_of
from vecdb.kernels.jit import jit
from vecdb.kernels.leaves import (
    pool_insert,
    pool_next,
    prefetch_bytes,
    trailing_zeros,
)
from vecdb.kernels.memory import address, read_i32
from vecdb.quant.neighbours import BLOCK, block_bytes, score, table_around
from vecdb.quant.record import FLOAT_DIMS, record_bytes, record_distance

__all__ = ["RATIO_UNIT", "scan_records", "walk_selective"]

DENSE, MIDDLE, SCATTERED, HIDDEN = 1, 2, 3, 4  # lines of a table of slacks, below the distances
SPARSER = 1.75  # times fewer rows than elsewhere pass where a filter hides the neighbourhood
RATIO_UNIT = 64  # stones for an allowed node are counted in parts of one
_PROBED = 8  # nodes that tell whether the neighbourhood of the query passes
_FIRST = 16  # stones on the way to the first allowed nodes
# standard deviations of the stones among k allowed nodes that may be chance: with _FIRST alone half
# of the walks under random filters of 10 % (tests/graph/test_search.py) were taken for hidden, and
# their queries scanned as well
_SPREAD = 2
_MOST = 64  # stones for chance, at most
_SEEDS = 128  # allowed rows looked at when the walk comes by too few
_AHEAD = 4  # records asked for before they are needed

_BYTES = "Array(u1, 1, 'C', readonly=True)"
_FLOATS = "Array(f4, 1, 'C', readonly=True)"
_TABLE = "Array(f4, 2, 'C', readonly=True)"
_WHOLE = "Array(i8, 1, 'C', readonly=True)"


@jit("i8(i8, i8)", inline=True)
def room(used, size):
    """Places of a pool that an insertion has to look at, a multiple of 8."""
    return min(size, used + 8 & ~7)


@jit(f"i8({_TABLE}, i8, i8)", inline=True)
def bound_of(slack, line, key):
    """The key beyond which nothing is expanded when `key` is the k-th best."""
    distance = key_distance(key)
    place = 0
    while place + 1 < slack.shape[1] and distance > slack[0, place]:
        place += 1
    return make_key(slack[line, place] * distance, 0)


@jit("i8(i8[::1], i8, i8, i8, i8)", inline=True)
def line_of(stones, few, some, many, key):
    """The line of the table of slacks for the number of stones that are nearer than the k-th."""
    if stones[min(8 + many, len(stones) - 1)] < key:
        return HIDDEN
    if key <= stones[8 + few]:
        return DENSE
    return MIDDLE if key <= stones[8 + some] else SCATTERED


@jit(
    f"UniTuple(i8, 2)(i8, i8, i8, i8, i8, {_BYTES}, {_WHOLE}, i8, i8, i8, b1, i8, i8[::1], i8, i8,"
    " i8)"
)
def seed(
    data, rows, stride, inner, own, allowed, cut, flags, table, slots, hashed, tag, pool, width,
    inside, count,
):  # fmt: skip
    """Offer allowed rows from all over the graph to the pool; its new length, and nodes met.

    A walk that stepped on many stones and came by few allowed nodes is in the midst of what the
    filter hides; the nearest of some rows from all over is a better place to start from. Those that
    are `cut` off from the others it might not come by.
    """
    for i in range(len(cut) + _SEEDS):
        if i < len(cut):
            row = cut[i]
        else:
            row = rows * (i - len(cut)) // _SEEDS
            while row < rows and not allowed[row >> 3] >> (row & 7) & 1:
                row += 8 - (row & 7) if allowed[row >> 3] == 0 else 1
            if row >= rows:
                break
        slot = slot_of(flags, table, slots, hashed, tag, row)
        if slot == 0:
            continue
        enter(slot, hashed, tag, row)
        count += 1
        key = make_key(record_distance(data + row * stride, own, inner), row)
        if key < pool[7 + width]:
            pool_insert(address(pool) + 64, room(inside, len(pool) - 8), key)
            inside = min(inside + 1, len(pool) - 8)
    return inside, count


@jit("b1(i8, i8, i8, i8)")
def linked(links, blocks, size, row):
    """Whether the blocks of neighbours at the address `links` name a row."""
    for b in range(blocks):
        for lane in range(BLOCK):
            if read_i32(links + b * size + 4 * lane) == row:
                return True
    return False


@jit("i8(i8, i8, i8, i8, i8, i8, i8, i8, i8)")
def stand_in(data, rows, stride, record, blocks, size, inner, node, gone):
    """The row that `node` would link to if `gone` were not there: the nearest to it of what `gone`
    links to and `node` does not; -1 when there is none."""
    at = data + node * stride
    nearest, least = np.int64(-1), np.float32(np.inf)
    for b in range(blocks):
        link = data + gone * stride + record + b * size
        for lane in range(BLOCK):
            row = np.int64(read_i32(link + 4 * lane))
            if 0 <= row < rows and row != node and not linked(at + record, blocks, size, row):
                value = record_distance(data + row * stride, at, inner)
                if value < least:
                    nearest, least = row, value
    return nearest


@jit(
    f"i8(i8, i8, i8, i8, {_WHOLE}, {_WHOLE}, {_TABLE}, {_FLOATS}, f4, f4, i8, i8, {_BYTES},"
    f" {_WHOLE}, u1[::1], i8[::1], i8[::1], i8[::1], i8, f4[::1])"
)
def walk_selective(
    data, rows, start, barred, shape, call, slack, units, unit, shift, x, own, allowed, cut,
    visited, pool, stones, best, table, out,
):  # fmt: skip
    """As :func:`vecdb.graph.traverse.walk`; `barred` is a node that is not there, or -1:
    where a link leads to it, its stand-in is met instead. `cut` are rows to look at when the walk
    has to be seeded, see :func:`vecdb.graph.islands.cut_off`.

    Returns minus the number of expanded nodes when the walk had to be seeded; 0 when it went over
    its budget, or most of the first nodes, the nearest to the query, were stones.
    """
    inner, stride, record, blocks, dims, bits = (
        shape[3], shape[4], shape[5], shape[6], shape[7], shape[8]
    )  # fmt: skip
    k, ef, keep, every, ratio = call[0], call[1], call[2], call[3], call[11]
    size = len(stones) - 8
    add_unit, res_unit = units[0], units[1]
    chunks = dims * bits // 16
    size_of_block = block_bytes(dims, bits)
    local = inner <= FLOAT_DIMS
    estimates = address(out)
    keys, spare, nearest = address(pool) + 64, address(stones) + 64, address(best) + 64
    met = visited[: len(visited) & ~7].view(np.int64)
    hashed = call[7] == 1
    tag = begin(visited, met, hashed)
    flags, table_at, slots = address(visited), address(met), len(met) - 1
    pool[8:], stones[8:], best[8:] = EMPTY, EMPTY, EMPTY
    bound = EMPTY
    count = 2  # nodes entered as met
    inside = outside = found = 0  # entries of the three pools
    if barred >= 0:
        enter(slot_of(flags, table_at, slots, hashed, tag, barred), hashed, tag, barred)
    if start != barred:
        enter(slot_of(flags, table_at, slots, hashed, tag, start), hashed, tag, start)
    if start != barred and (every or allowed[start >> 3] >> (start & 7) & 1):
        pool[8] = np.int64(start) << 1
        inside = 1
    else:
        stones[8] = np.int64(start) << 1
        outside = 1
    position = place = hops = stepped = 0
    seeded = every
    width = call[12]
    budget = call[14]
    around = 1 + np.float32(ratio) / np.float32(RATIO_UNIT)  # nodes for an allowed one
    few = min(np.int64(k * (around**0.25 - 1)), size - 1)
    some = min(np.int64(k * (around**0.75 - 1)), size - 1)
    many = np.int64(k * (SPARSER * around - 1))
    first = RATIO_UNIT * _FIRST + min(np.int64(_SPREAD * math.sqrt(k) * ratio), RATIO_UNIT * _MOST)
    while True:
        if budget and (hops >= budget or (hops == _PROBED and 2 * stepped > hops)):
            return 0
        position = pool_next(keys, room(inside, width), position & ~7) if position >= 0 else -1
        place = pool_next(spare, room(outside, size), place & ~7) if place >= 0 else -1
        key = pool[8 + position] if position >= 0 else min(pool[7 + width], bound)
        if position >= 0 and key > bound:
            return -hops if seeded and not every else hops
        wish = place >= 0 and stones[8 + place] < key
        step = wish and RATIO_UNIT * stepped < ratio * (hops - stepped) + first
        if not step and (wish or position < 0) and not seeded and found < k:
            seeded = True
            while hashed and 2 * (count + len(cut) + _SEEDS) > len(met):
                met = grown(met, tag)
                table_at, slots = address(met), len(met) - 1
            inside, count = seed(
                data, rows, stride, inner, own, allowed, cut, flags, table_at, slots, hashed, tag,
                pool, width, inside, count,
            )  # fmt: skip
            position, width = 0, ef
            continue
        if step:
            node = key_row(stones[8 + place])
            stones[8 + place] |= 1
            stepped += 1
            following = pool_next(spare, room(outside, size), place & ~7)
            if following >= 0:
                prefetch_bytes(data + key_row(stones[8 + following]) * stride, stride)
        elif position >= 0:
            node = key_row(key)
            pool[8 + position] |= 1
            following = pool_next(keys, room(inside, ef), position & ~7)
            if following >= 0:
                prefetch_bytes(data + key_row(pool[8 + following]) * stride, stride)
        else:
            return -hops if seeded and not every else hops
        at = data + node * stride
        exact = record_distance(at, own, inner)
        hops += 1
        if not step:
            key = make_key(exact, node)
            if key < best[7 + keep]:
                pool_insert(nearest, room(found, keep), key)
                found = min(found + 1, keep)
            if slack.shape[1] and found >= k:
                line = line_of(stones, few, some, many, best[7 + k]) if ratio else SCATTERED
                bound = bound_of(slack, line, best[7 + k])
                width = ef
        if local and bits:
            unit, shift = table_around(x, at, inner, dims, bits, res_unit, out, table)
        for b in range(blocks):
            link = at + record + b * size_of_block
            limit = min(pool[7 + width], bound) >> 32
            mask = score(
                link, chunks, table, exact, add_unit, unit, shift, limit, estimates, data, rows,
                stride, own, inner,
            )  # fmt: skip
            while mask:
                lane = trailing_zeros(mask)
                mask &= mask - 1
                neighbour = np.int64(read_i32(link + 4 * lane))
                if not 0 <= neighbour < rows:  # a mapped file may hold anything
                    continue
                if neighbour == barred:
                    neighbour = stand_in(
                        data, rows, stride, record, blocks, size_of_block, inner, node, barred
                    )
                    if neighbour < 0:
                        continue
                    out[lane] = record_distance(data + neighbour * stride, own, inner)
                slot = slot_of(flags, table_at, slots, hashed, tag, neighbour)
                if slot == 0:
                    continue
                key = make_key(out[lane], neighbour)
                if every or allowed[neighbour >> 3] >> (neighbour & 7) & 1:
                    if key < pool[7 + width]:
                        enter(slot, hashed, tag, neighbour)
                        count += 1
                        new = pool_insert(keys, room(inside, ef), key)
                        position = min(position, new) if position >= 0 else new
                        inside = min(inside + 1, ef)
                elif key < stones[7 + size]:
                    enter(slot, hashed, tag, neighbour)
                    count += 1
                    new = pool_insert(spare, room(outside, size), key)
                    place = min(place, new) if place >= 0 else new
                    outside = min(outside + 1, size)
                if hashed and 2 * count > len(met):
                    met = grown(met, tag)
                    table_at, slots = address(met), len(met) - 1


@jit(f"i8(i8, i8, i8, i8, i8, b1, {_BYTES}, i8[::1])")
def scan_records(data, rows, stride, inner, own, every, allowed, best):
    """Offer the record of every allowed row to `best`; returns how many there are.

    14 ns a row of 384 dimensions, where the float32 rows take 40 to 75.
    """
    size = len(best) - 8
    nearest = address(best) + 64
    best[8:] = EMPTY
    length = record_bytes(inner)
    listed = np.empty(64, np.int64)
    total = 0
    words = allowed.view(np.int64)
    for first in range(0, rows, 64):
        count = 0
        if every:
            count = min(64, rows - first)
            for i in range(count):
                listed[i] = first + i
        else:
            word = words[first >> 6]
            while word:
                listed[count] = first + trailing_zeros(word)
                word &= word - 1
                count += 1
        for i in range(min(count, _AHEAD)):
            prefetch_bytes(data + listed[i] * stride, length)
        for i in range(count):
            if i + _AHEAD < count:
                prefetch_bytes(data + listed[i + _AHEAD] * stride, length)
            key = make_key(record_distance(data + listed[i] * stride, own, inner), listed[i])
            if key < best[7 + size]:
                pool_insert(nearest, room(total, size), key)
            total += 1
    return total
