"""The leaves of :mod:`vecdb.kernels.avx512` in plain numba, one for one.

They run on every CPU (LLVM turns the loops into AVX2 or NEON code) and, under
``NUMBA_DISABLE_JIT=1``, as plain Python. Same arguments, same results up to float rounding.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.jit import jit
from vecdb.kernels.memory import (
    read_f32,
    read_i32,
    read_i64,
    read_u8,
    read_u16,
    write_f32,
    write_i64,
    write_u8,
)

__all__ = [
    "distance", "distance4", "dot_codes", "estimate", "fill_table", "peak", "pool_insert",
    "pool_next", "prefetch_bytes", "project", "quantize", "trailing_zeros",
]  # fmt: skip


@jit("f4(i8)", inline=True)
def _read_f16(at):
    """A float16 as float32: exponent and mantissa shifted, then rescaled."""
    raw = np.uint32(read_u16(at))
    sign = np.float32(-1) if raw & 0x8000 else np.float32(1)
    exponent = np.int32(raw >> 10 & 31)
    mantissa = np.float32(raw & 1023)
    if exponent == 31:
        return sign * (np.float32(np.inf) if mantissa == 0 else np.float32(np.nan))
    if exponent == 0:
        return sign * mantissa * np.float32(2.0**-24)
    scaled = np.uint32((exponent + 112) << 23 | np.int32(raw & 1023) << 13)
    return sign * np.uint32(scaled).view(np.float32)


@jit("f4(i8, b1, i8, i8, i8, f4)")
def distance(metric, half, x, q, dim, query_norm):
    """Distance of one row (float32, or float16 if `half`) to a float32 query.

    metric 0: squared Euclid, 1: 1 - cosine (`query_norm` is |q|), 2: -dot.
    """
    a = np.float32(0)
    b = np.float32(0)
    for i in range(dim):
        v = _read_f16(x + 2 * i) if half else read_f32(x + 4 * i)
        w = read_f32(q + 4 * i)
        if metric == 0:
            d = v - w
            a += d * d
        else:
            a += v * w
            b += v * v
    if metric == 0:
        return a
    if metric == 1:
        return np.float32(1) - a / (query_norm * np.sqrt(b))
    return -a


@jit("UniTuple(f4, 4)(i8, b1, i8, i8, i8, i8, i8, i8, f4)")
def distance4(metric, half, x0, x1, x2, x3, q, dim, query_norm):
    """Distances of four rows to one query."""
    return (
        distance(metric, half, x0, q, dim, query_norm),
        distance(metric, half, x1, q, dim, query_norm),
        distance(metric, half, x2, q, dim, query_norm),
        distance(metric, half, x3, q, dim, query_norm),
    )


@jit("i8(i8, i8, i8)")
def dot_codes(u, v, count):
    """Sum of left * (right - 128) over `count` bytes at two addresses."""
    total = np.int32(0)
    for i in range(count):
        total += np.int32(read_u8(u + i)) * (np.int32(read_u8(v + i)) - np.int32(128))
    return total


@jit("f4(i8, i8)")
def peak(x, count):
    """The greatest magnitude among floats."""
    most = np.float32(0)
    for i in range(count):
        most = max(most, abs(read_f32(x + 4 * i)))
    return most


@jit("UniTuple(f4, 2)(i8, i8, f4, i8)")
def quantize(x, count, inverse, out):
    """Write floats times `inverse`, rounded, as bytes + 128, and bytes of 128 up to the next
    multiple of 16; return the sum of the rounded values and of their squares."""
    total = np.float32(0)
    squares = np.float32(0)
    for i in range(count):
        code = np.floor(read_f32(x + 4 * i) * inverse + np.float32(0.5))
        write_u8(out + i, np.uint8(code + np.float32(128)))
        total += code
        squares += code * code
    for i in range(count, count + 15 & ~15):
        write_u8(out + i, np.uint8(128))
    return total, squares


@jit("void(i8, i8, i8, i8, i8, i8, i8, i8, i8)", entry=True)
def project(matrix, scales, codes, stride, count, blocks, groups, out, width):
    """Products of a matrix of bytes with the vectors of `count` records, `stride` bytes apart.

    The matrix stands in blocks of 16 rows: for every group of four columns, four bytes (value +
    128) of each row. A record is its bytes (value + 128), four for each group, then float32 (not
    read here), float32 unit, int32 sum of the values. The results stand `width` bytes apart.
    """
    for i in range(count):
        own = codes + i * stride
        unit, total = read_f32(own + 4 * groups + 4), read_i32(own + 4 * groups + 8)
        for row in range(16 * blocks):
            at = matrix + (row >> 4) * groups * 64 + (row & 15) * 4
            sums = np.int32(0)
            for g in range(groups):
                for j in range(4):
                    code = np.int32(read_u8(own + 4 * g + j)) - np.int32(128)
                    sums += np.int32(read_u8(at + g * 64 + j)) * code
            value = (np.float32(sums) - np.float32(128 * total)) * unit
            write_f32(out + i * width + 4 * row, value * read_f32(scales + 4 * row))


@jit("UniTuple(f4, 2)(i8, i8, i8, i8)")
def fill_table(query, bits, subspaces, table):
    """Write 16 bytes for each nibble-subspace of a projected query; return (unit, shift).

    A nibble holds 4 / bits dimensions. Its entry v stands for the sum of o_d q_d over the codes o
    of v, so a sum of entries times `unit` plus `shift` is the dot product with the whole code.
    """
    levels = (1 << bits) - 1
    per = 4 // bits
    widest = np.float32(0)
    for s in range(subspaces):
        width = np.float32(0)
        for d in range(per):
            width += abs(read_f32(query + 4 * (s * per + d)))
        widest = max(widest, width)
    unit = max(widest * np.float32(levels / 255), np.float32(1e-30))
    inverse = np.float32(1) / unit
    for s in range(subspaces):
        for v in range(16):
            total = np.float32(128)
            for d in range(per):
                digit = np.float32((v >> (bits * d)) & levels) - np.float32(0.5 * levels)
                total += digit * (read_f32(query + 4 * (s * per + d)) * inverse)
            write_u8(table + s * 16 + v, np.uint8(total))
    return unit, np.float32(-127.5) * unit * np.float32(subspaces)


@jit("i8(i8, i8, i8, f4, f4, f4, f4, i8, i8)")
def estimate(links, chunks, table, base, add_unit, unit, shift, limit, out):
    """Estimated distances of the 32 neighbours in a block of a row; a bit for each below `limit`.

    `links` is the address of the block [ids | fadd | fres | codes]; the estimate is
    max(0, base + add_unit * fadd + fres * (unit * sum + shift)), its float bits are compared with
    `limit`.
    """
    mask = 0
    for i in range(32):
        total = np.int32(0)
        for c in range(chunks):
            for s in range(4):
                byte = read_u8(links + 256 + c * 64 + (i & 15) * 4 + s)
                nibble = byte >> 4 if i >= 16 else byte & 15
                total += np.int32(read_u8(table + c * 64 + s * 16 + nibble))
        add = _read_f16(links + 128 + 2 * i)
        res = _read_f16(links + 192 + 2 * i)
        value = base + add_unit * add + res * (np.float32(total) * unit + shift)
        value = np.float32(0) if value < 0 else np.float32(value)
        write_f32(out + 4 * i, value)
        if np.float32(value).view(np.int32) < limit:
            mask |= 1 << i
    return mask


@jit("i8(i8, i8)")
def below(at, limit):
    """A bit for each of 16 floats whose pattern is below `limit`, as an integer."""
    mask = np.int64(0)
    for i in range(16):
        if read_i32(at + 4 * i) < limit:
            mask |= np.int64(1) << i
    return mask


@jit("i8(i8, i8, i8)")
def pool_insert(pool, size, key):
    """Insert `key` into `size` ascending keys at the address `pool`, dropping the last.

    `size` is a multiple of 8, and a sentinel below every key stands before the first. Returns the
    first position (a multiple of 8) that changed.
    """
    i = size - 1
    if read_i64(pool + 8 * i) <= key:
        return size - 8
    while read_i64(pool + 8 * i - 8) > key:
        write_i64(pool + 8 * i, read_i64(pool + 8 * i - 8))
        i -= 1
    write_i64(pool + 8 * i, key)
    return i & ~7


@jit("i8(i8, i8, i8)")
def pool_next(pool, size, position):
    """First position from `position` (a multiple of 8) on whose key is even, or -1."""
    for i in range(position, size):
        if read_i64(pool + 8 * i) & 1 == 0:
            return i
    return -1


@jit("i8(i8)")
def trailing_zeros(mask):
    """Index of the lowest set bit of a mask that is not zero."""
    count = 0
    while not mask & 1:
        mask >>= 1
        count += 1
    return count


@jit("void(i8, i8)")
def prefetch_bytes(at, count):
    """Nothing: only a hint, and plain numba can't give it."""
