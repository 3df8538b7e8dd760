"""The leaves of :mod:`vecdb.kernels.avx512` in plain numba, one for one.

They run on every CPU (LLVM turns the loops into AVX2 or NEON code) and, under
``NUMBA_DISABLE_JIT=1``, as plain Python. Same arguments, same results up to float rounding.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.jit import jit

__all__ = [
    "distance", "distance4", "dot_codes", "estimate", "fill_table", "pool_insert", "pool_next",
    "prefetch_bytes", "project", "trailing_zeros",
]  # fmt: skip

_BYTES = "Array(u1, 1, 'C', readonly=True)"
_FLOATS = "Array(f4, 1, 'C', readonly=True)"


@jit(f"f4[::1]({_BYTES}, i8, i8)")
def _halves(data, offset, count):
    """`count` float16 numbers as float32: exponent and mantissa shifted, then rescaled."""
    raw = data[offset : offset + 2 * count].view(np.uint16).astype(np.uint32)
    wide = ((raw & 0x7FFF) << 13) | ((raw & 0x8000) << 16)
    special = (raw & 0x7C00) == 0x7C00  # infinities and NaN keep an exponent of all ones
    values = wide.view(np.float32) * np.float32(2.0**112)
    wide |= np.uint32(0x7F800000)
    return np.where(special, wide.view(np.float32), values)


@jit(f"f4(i8, b1, {_BYTES}, i8, {_BYTES}, i8, i8, f4)")
def distance(metric, half, data, offset, query, query_offset, dim, query_norm):
    """Distance of one row (float32, or float16 if `half`) to a float32 query.

    metric 0: squared Euclid, 1: 1 - cosine (`query_norm` is |q|), 2: -dot.
    """
    q = query[query_offset : query_offset + 4 * dim].view(np.float32)
    x = _halves(data, offset, dim) if half else data[offset : offset + 4 * dim].view(np.float32)
    a = np.float32(0)
    b = np.float32(0)
    if metric == 0:
        for i in range(dim):
            d = x[i] - q[i]
            a += d * d
        return a
    for i in range(dim):
        a += x[i] * q[i]
        b += x[i] * x[i]
    if metric == 1:
        return np.float32(1) - a / (query_norm * np.sqrt(b))
    return -a


@jit(f"void(i8, b1, {_BYTES}, i8, i8, i8, i8, {_BYTES}, i8, i8, f4, f4[::1])")
def distance4(metric, half, data, o0, o1, o2, o3, query, query_offset, dim, query_norm, out):
    """Distances of four rows to one query: out[0 ... 3]."""
    out[0] = distance(metric, half, data, o0, query, query_offset, dim, query_norm)
    out[1] = distance(metric, half, data, o1, query, query_offset, dim, query_norm)
    out[2] = distance(metric, half, data, o2, query, query_offset, dim, query_norm)
    out[3] = distance(metric, half, data, o3, query, query_offset, dim, query_norm)


@jit(f"i8({_BYTES}, i8, {_BYTES}, i8, i8)")
def dot_codes(left, left_offset, right, right_offset, count):
    """Sum of u * (v - 128) over `count` bytes u of the left and v of the right."""
    total = np.int32(0)
    for i in range(count):
        total += np.int32(left[left_offset + i]) * (
            np.int32(right[right_offset + i]) - np.int32(128)
        )
    return total


@jit(f"void({_BYTES}, {_FLOATS}, {_BYTES}, i8, f4, i8, f4[::1])")
def project(matrix, scales, codes, groups, unit, total, out):
    """out = matrix @ query, from bytes (value + 128) of both.

    The matrix stands in blocks of 16 rows: for every group of four columns, four bytes of each
    row. `codes` are the query's columns, a multiple of four, whose codes sum to `total`.
    """
    sums = np.zeros(16, np.int32)
    for b in range(len(scales) // 16):
        sums[:] = 0
        for g in range(groups):
            at = (b * groups + g) * 64
            for lane in range(16):
                for i in range(4):
                    code = np.int32(codes[4 * g + i]) - np.int32(128)
                    sums[lane] += np.int32(matrix[at + 4 * lane + i]) * code
        for lane in range(16):
            i = b * 16 + lane
            out[i] = (np.float32(sums[lane]) - np.float32(128 * total)) * unit * scales[i]


@jit("UniTuple(f4, 2)(f4[::1], i8, i8, u1[::1])")
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
            width += abs(query[s * per + d])
        widest = max(widest, width)
    unit = max(widest * np.float32(levels / 255), np.float32(1e-30))
    inverse = np.float32(1) / unit
    shift = np.float32(0)
    for s in range(subspaces):
        least = np.float32(0)
        for d in range(per):
            least -= abs(query[s * per + d]) * np.float32(0.5 * levels)
        for v in range(16):
            total = np.float32(0.5) - least * inverse
            for d in range(per):
                digit = np.float32((v >> (bits * d)) & levels) - np.float32(0.5 * levels)
                total += digit * (query[s * per + d] * inverse)
            table[s * 16 + v] = np.uint8(total)
        shift += least
    return unit, shift


@jit(f"i8({_BYTES}, i8, i8, u1[::1], f4, f4, f4, f4, i8, f4[::1])")
def estimate(rows, links, chunks, table, base, add_unit, unit, shift, limit, out):
    """Estimated distances of the 32 neighbours in a block of a row; a bit for each below `limit`.

    `links` is the offset of the block [ids | fadd | fres | codes]; the estimate is
    max(0, base + add_unit * fadd + fres * (unit * sum + shift)), its float bits are compared with
    `limit`.
    """
    factors = _halves(rows, links + 128, 64)
    sums = np.zeros(32, np.int32)
    for c in range(chunks):
        code = links + 256 + c * 64
        for j in range(64):
            byte = rows[code + j]
            t = c * 64 + (j % 4) * 16
            sums[j // 4] += table[t + (byte & 15)]
            sums[16 + j // 4] += table[t + (byte >> 4)]
    for i in range(32):
        dot = np.float32(sums[i]) * unit + shift
        value = base + add_unit * factors[i] + factors[32 + i] * dot
        out[i] = np.float32(0) if value < 0 else value
    patterns = out[:32].view(np.int32)
    mask = 0
    for i in range(32):
        if patterns[i] < limit:
            mask |= 1 << i
    return mask


@jit("i8(i8[::1], i8, i8, i8)")
def pool_insert(pool, start, size, key):
    """Insert `key` into the ascending pool[start : start + size], dropping its last.

    `size` is a multiple of 8 and pool[start - 1] a sentinel below every key. Returns the first
    position (a multiple of 8, from `start`) that changed.
    """
    i = start + size - 1
    if pool[i] <= key:
        return size - 8
    while pool[i - 1] > key:
        pool[i] = pool[i - 1]
        i -= 1
    pool[i] = key
    return (i - start) & ~7


@jit("i8(i8[::1], i8, i8, i8)")
def pool_next(pool, start, size, position):
    """First position from `position` (a multiple of 8) on whose key is even, or -1."""
    for i in range(start + position, start + size):
        if pool[i] & 1 == 0:
            return i - start
    return -1


@jit("i8(i8)")
def trailing_zeros(mask):
    """Index of the lowest set bit of a mask that is not zero."""
    count = 0
    while not mask & 1:
        mask >>= 1
        count += 1
    return count


@jit(f"void({_BYTES}, i8, i8)")
def prefetch_bytes(data, offset, count):
    """Nothing: only a hint, and plain numba can't give it."""
