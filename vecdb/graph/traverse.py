"""The search kernel over node rows: estimate from codes, verify on expansion, rescore at the end.

A row is ``[record | blocks of 32 neighbours]``, so one contiguous stream gives the node's own
distance and the estimates of all its neighbours. Only neighbours whose estimate beats the pool
enter it; their own rows are read when, and if, they are expanded.
"""

from __future__ import annotations

import numpy as np

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
from vecdb.kernels.scan import pool_key
from vecdb.graph.insert import key_row, make_key, next_tag
from vecdb.quant.neighbours import BLOCK, HEAD
from vecdb.quant.record import encode_record, record_distance

__all__ = ["search_rows"]

_BYTES = "Array(u1, 1, 'C', readonly=True)"
_WORDS = "Array(f4, 1, 'C', readonly=True)"
_INTS = "Array(i4, 1, 'C', readonly=True)"
_EMPTY = np.iinfo(np.int64).max


@jit(f"f4(i8, {_WORDS}, {_WORDS}, f4[::1])")
def center(metric, query, mean, out):
    """The inner row of a raw query; returns its norm, which the cosine needs again."""
    dim = len(query)
    squares = np.float32(0)
    for i in range(dim):
        squares += query[i] * query[i]
    norm = np.sqrt(squares)
    factor = np.float32(1) / norm if metric == 1 and norm > 0 else np.float32(1)
    for i in range(dim):
        out[i] = query[i] * factor - mean[i]
    for i in range(dim, len(mean)):
        out[i] = -mean[i]
    return norm


@jit("UniTuple(i8, 2)(f4[::1], f4, u1[::1])")
def split_planes(x, inverse, planes):
    """Write x * inverse as 256 * high + low, both + 128; return the two sums of codes."""
    width = len(planes) // 2
    high_sum = 0
    low_sum = 0
    for i in range(len(x)):
        whole = np.int32(np.floor(x[i] * inverse + np.float32(0.5)))
        high = (whole + 128) >> 8
        low = whole - (high << 8)
        planes[i] = np.uint8(high + 128)
        planes[width + i] = np.uint8(low + 128)
        high_sum += high
        low_sum += low
    for i in range(len(x), width):
        planes[i] = 128
        planes[width + i] = 128
    return high_sum, low_sum


@jit(f"UniTuple(f4, 2)(f4[::1], {_BYTES}, {_WORDS}, i8, u1[::1], f4[::1], u1[::1])")
def prepare(x, matrix, scales, bits, planes, projected, table):
    """Project a centred query and write its table; return (unit, shift) of the table."""
    largest = np.float32(0)
    for i in range(len(x)):
        largest = max(largest, abs(x[i]))
    unit = max(largest / np.float32(32000), np.float32(1e-30))
    high, low = split_planes(x, np.float32(1) / unit, planes)
    project(matrix, scales, planes, unit, high, low, projected)
    return fill_table(projected, bits, len(projected) * bits // 4, table)


@jit(
    f"void(i8, b1, {_BYTES}, {_BYTES}, {_WORDS}, {_INTS}, i8, i8, i8, i8, f4, f4, i8, {_WORDS}, {_BYTES}, {_WORDS}, i8,"
    f"Array(f4, 2, 'C', readonly=True), i8, i8, i8, b1, {_BYTES}, u1[::1], i8, i8[:, ::1], f4[:, ::1], i8[::1])"
)
def search_rows(
    metric, half, raw, data, words, ints, stride, record, blocks, chunks, add_unit, res_unit, entry,
    mean, matrix, scales, bits, queries, ef, keep, k, every, allowed, visited, knobs, out_rows, out_dists, counters,
):  # fmt: skip
    inner = len(mean)
    dim = queries.shape[1]
    row_bytes = dim * (2 if half else 4)
    raw_queries = queries
    pool = np.empty(8 + ef, np.int64)
    best = np.empty(8 + keep, np.int64)
    final = np.empty(8 + (k + 7 & ~7), np.int64)
    x = np.empty(inner, np.float32)
    own = np.empty(len(matrix) // len(scales) + 128 if inner > 32 else 256, np.uint8)
    own_words = own.view(np.float32)
    own_ints = own.view(np.int32)
    planes = np.empty(2 * (len(matrix) // len(scales)), np.uint8)
    projected = np.empty(len(scales), np.float32)
    table = np.empty(chunks * 64, np.uint8)
    out = np.empty(BLOCK, np.float32)
    out_bits = out.view(np.int32)
    block_bytes = HEAD + chunks * 64
    minus = np.iinfo(np.int64).min
    for j in range(len(queries)):
        tag = next_tag(visited)
        norm = center(metric, queries[j], mean, x)
        encode_record(x, own, own_words, own_ints, 0)
        unit, shift = prepare(x, matrix, scales, bits, planes, projected, table)
        unit *= res_unit
        shift *= res_unit
        pool[:8] = minus
        pool[8:] = _EMPTY
        best[:8] = minus
        best[8:] = _EMPTY
        if not knobs & 2:
            visited[1 + entry] = tag
        pool_insert(pool, 8, ef, np.int64(entry) << 1)
        position = 0
        hops = 0
        passed = 0
        while True:
            position = pool_next(pool, 8, ef, position & ~7)
            if position < 0:
                break
            key = pool[8 + position]
            pool[8 + position] = key | 1
            node = key_row(key)
            at = node * stride
            if knobs & 1:
                nxt = pool_next(pool, 8, ef, position & ~7)
                if nxt >= 0:
                    prefetch_bytes(data, key_row(pool[8 + nxt]) * stride, stride)
            exact = record_distance(data, words, at, own, own_words, own_ints, 0, inner)
            hops += 1
            if knobs & 2:
                if visited[1 + node] == tag:
                    continue
                visited[1 + node] = tag
            if every or allowed[node >> 3] >> (node & 7) & 1:
                key = make_key(exact, node)
                if key < best[7 + keep]:
                    pool_insert(best, 8, keep, key)
            for b in range(blocks):
                link = at + record + b * block_bytes
                mask = estimate(
                    data, link, chunks, table, exact, add_unit, unit, shift,
                    pool[7 + ef] >> 32, out,
                )  # fmt: skip
                while mask:
                    lane = trailing_zeros(mask)
                    mask &= mask - 1
                    neighbour = np.int64(ints[(link >> 2) + lane])
                    if visited[1 + neighbour] == tag:
                        continue
                    key = (np.int64(out_bits[lane]) << 32) | (neighbour << 1)
                    if key < pool[7 + ef]:
                        if not knobs & 2:
                            visited[1 + neighbour] = tag
                        position = min(position, pool_insert(pool, 8, ef, key))
                        passed += 1
        final[:8] = minus
        final[8:] = _EMPTY
        count = 0
        for i in range(keep):
            if best[8 + i] == _EMPTY:
                break
            prefetch_bytes(raw, key_row(best[8 + i]) * row_bytes, row_bytes)
            count += 1
        for i in range(count):
            node = key_row(best[8 + i])
            value = distance(
                metric,
                half,
                raw,
                node * row_bytes,
                queries.view(np.uint8).reshape(-1),
                j * dim * 4,
                dim,
                norm,
            )
            pool_insert(final, 8, len(final) - 8, pool_key(value, node))
        for i in range(k):
            key = final[8 + i]
            if key == _EMPTY:
                out_rows[j, i] = -1
                out_dists[j, i] = np.inf
            else:
                pattern = key >> 32
                if pattern < 0:
                    pattern = np.int64(-2147483649) - pattern
                out_rows[j, i] = key & 0xFFFFFFFF
                out_dists[j, i] = np.int32(pattern).view(np.float32)
        counters[0] += hops
        counters[1] += hops * blocks * BLOCK
        counters[2] += count
        counters[3] += passed
