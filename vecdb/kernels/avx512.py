"""The leaves of every kernel, for CPUs with AVX-512 (VBMI and VNNI).

:mod:`vecdb.kernels.portable` has the same functions, one for one, in plain numba: it is the path
for other CPUs and the oracle of the tests. All take addresses, for the reason that
:mod:`vecdb.kernels.memory` gives.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.jit import jit
from vecdb.kernels.vector import (
    add_f32,
    add_i32,
    address,
    and_u8,
    below_i32,
    beside_f32,
    beyond_f32,
    bits,
    blend_u8,
    dpbusd,
    even_i64,
    floor_f32,
    fma,
    head_f16,
    head_f32,
    load_f16,
    load_f32,
    load_i64,
    load_u8,
    max_f32,
    max_i64,
    max_of_f32,
    min_i64,
    mul_f32,
    or_u8,
    permute_u8,
    prefetch,
    read_f32,
    read_i32,
    read_i64,
    repeat_flipped,
    shift_u8,
    splat_f32,
    splat_i64,
    splat_u8,
    store_f32,
    store_i64,
    store_u8x16,
    sub_f32,
    sum_f32,
    sum_i32,
    to_f32,
    trailing_zeros,
    xor_u8,
    zero_i32,
)  # fmt: skip

__all__ = [
    "distance", "distance4", "dot_codes", "estimate", "fill_table", "peak", "pool_insert",
    "pool_next", "prefetch_bytes", "project", "quantize", "trailing_zeros",
]  # fmt: skip

_SELECT = ((np.arange(64) % 4) << 4).astype(np.uint8)  # which of a chunk's four tables a byte uses
# the value of digit d of the nibble 0 ... 15, for 1, 2 and 4 bits a digit: rows b >> 1, then d
_LANES = np.array(
    [
        [
            (v >> (b * d) & ((1 << b) - 1)) - ((1 << b) - 1) / 2 if d < 4 // b else 0
            for v in range(16)
        ]
        for b in (1, 2, 4)
        for d in range(4)
    ],
    dtype=np.float32,
)


@jit(inline=True)
def _load(half: bool, at: int) -> Any:
    return load_f16(at) if half else load_f32(at)


@jit(inline=True)
def _head(half: bool, at: int, count: int) -> Any:
    mask = (1 << count) - 1
    return head_f16(at, mask) if half else head_f32(at, mask)


@jit(inline=True)
def _finish(metric, a, b, query_norm):
    """The distance from the sums that one pass over a row gives."""
    if metric == 0:
        return a
    if metric == 1:
        return np.float32(1) - a / (query_norm * np.sqrt(b))
    return -a


@jit(inline=True)
def _step(metric: int, x: Any, q: Any, a: Any, b: Any) -> Any:
    """Add one vector of a row to its sums: (l2, 0), (dot, square) or (dot, 0)."""
    if metric == 0:
        d = sub_f32(x, q)
        return fma(d, d, a), b
    if metric == 1:
        return fma(x, q, a), fma(x, x, b)
    return fma(x, q, a), b


@jit("f4(i8, b1, i8, i8, i8, f4)")
def distance(metric, half, x, q, dim, query_norm):
    """Distance of one row (float32, or float16 if `half`) to a float32 query.

    metric 0: squared Euclid, 1: 1 - cosine (`query_norm` is |q|), 2: -dot.
    """
    width = 2 if half else 4
    zero = splat_f32(np.float32(0))
    a0, a1, b0, b1 = zero, zero, zero, zero
    whole = dim // 32 * 32
    for i in range(0, whole, 32):
        at = x + i * width
        a0, b0 = _step(metric, _load(half, at), load_f32(q + i * 4), a0, b0)
        a1, b1 = _step(metric, _load(half, at + 16 * width), load_f32(q + i * 4 + 64), a1, b1)
    at = x + whole * width
    rest = dim - whole
    if rest >= 16:
        a0, b0 = _step(metric, _load(half, at), load_f32(q + whole * 4), a0, b0)
        at += 16 * width
        whole += 16
        rest -= 16
    if rest:
        a1, b1 = _step(metric, _head(half, at, rest), _head(False, q + whole * 4, rest), a1, b1)
    return _finish(metric, sum_f32(add_f32(a0, a1)), sum_f32(add_f32(b0, b1)), query_norm)


@jit("UniTuple(f4, 4)(i8, b1, i8, i8, i8, i8, i8, i8, f4)")
def distance4(metric, half, x0, x1, x2, x3, q, dim, query_norm):
    """Distances of four rows to one query, which is read once: to the bit what four calls give."""
    width = 2 if half else 4
    zero = splat_f32(np.float32(0))
    a0, a1, a2, a3 = zero, zero, zero, zero
    b0, b1, b2, b3 = zero, zero, zero, zero
    c0, c1, c2, c3 = zero, zero, zero, zero
    d0, d1, d2, d3 = zero, zero, zero, zero
    whole = dim // 32 * 32
    for i in range(0, whole, 32):
        at, on = i * width, (i + 16) * width
        v, w = load_f32(q + i * 4), load_f32(q + i * 4 + 64)
        a0, b0 = _step(metric, _load(half, x0 + at), v, a0, b0)
        a1, b1 = _step(metric, _load(half, x1 + at), v, a1, b1)
        a2, b2 = _step(metric, _load(half, x2 + at), v, a2, b2)
        a3, b3 = _step(metric, _load(half, x3 + at), v, a3, b3)
        c0, d0 = _step(metric, _load(half, x0 + on), w, c0, d0)
        c1, d1 = _step(metric, _load(half, x1 + on), w, c1, d1)
        c2, d2 = _step(metric, _load(half, x2 + on), w, c2, d2)
        c3, d3 = _step(metric, _load(half, x3 + on), w, c3, d3)
    rest = dim - whole
    if rest >= 16:
        at = whole * width
        v = load_f32(q + whole * 4)
        a0, b0 = _step(metric, _load(half, x0 + at), v, a0, b0)
        a1, b1 = _step(metric, _load(half, x1 + at), v, a1, b1)
        a2, b2 = _step(metric, _load(half, x2 + at), v, a2, b2)
        a3, b3 = _step(metric, _load(half, x3 + at), v, a3, b3)
        whole += 16
        rest -= 16
    if rest:
        at = whole * width
        v = _head(False, q + whole * 4, rest)
        c0, d0 = _step(metric, _head(half, x0 + at, rest), v, c0, d0)
        c1, d1 = _step(metric, _head(half, x1 + at, rest), v, c1, d1)
        c2, d2 = _step(metric, _head(half, x2 + at, rest), v, c2, d2)
        c3, d3 = _step(metric, _head(half, x3 + at, rest), v, c3, d3)
    return (
        _finish(metric, sum_f32(add_f32(a0, c0)), sum_f32(add_f32(b0, d0)), query_norm),
        _finish(metric, sum_f32(add_f32(a1, c1)), sum_f32(add_f32(b1, d1)), query_norm),
        _finish(metric, sum_f32(add_f32(a2, c2)), sum_f32(add_f32(b2, d2)), query_norm),
        _finish(metric, sum_f32(add_f32(a3, c3)), sum_f32(add_f32(b3, d3)), query_norm),
    )


@jit("i8(i8, i8, i8)", inline=True)
def dot_codes(u, v, count):
    """Sum of left * (right - 128) over `count` bytes at two addresses."""
    flip = splat_u8(np.uint8(128))
    s0, s1, s2, s3 = zero_i32(), zero_i32(), zero_i32(), zero_i32()
    i = 0
    while i + 256 <= count:
        s0 = dpbusd(s0, load_u8(u), xor_u8(load_u8(v), flip))
        s1 = dpbusd(s1, load_u8(u + 64), xor_u8(load_u8(v + 64), flip))
        s2 = dpbusd(s2, load_u8(u + 128), xor_u8(load_u8(v + 128), flip))
        s3 = dpbusd(s3, load_u8(u + 192), xor_u8(load_u8(v + 192), flip))
        u += 256
        v += 256
        i += 256
    while i + 64 <= count:
        s0 = dpbusd(s0, load_u8(u), xor_u8(load_u8(v), flip))
        u += 64
        v += 64
        i += 64
    if i < count:  # the record ends with a header: reading on is safe, counting it is not
        mask = (1 << (count - i)) - 1
        s1 = dpbusd(s1, load_u8(u), blend_u8(xor_u8(load_u8(v), flip), mask, splat_u8(np.uint8(0))))
    return sum_i32(add_i32(add_i32(s0, s1), add_i32(s2, s3)))


@jit("f4(i8, i8)")
def peak(x, count):
    """The greatest magnitude among floats."""
    zero = splat_f32(np.float32(0))
    most = zero
    whole = count // 16 * 16
    for i in range(0, whole, 16):
        value = load_f32(x + 4 * i)
        most = max_f32(most, max_f32(value, sub_f32(zero, value)))
    if count > whole:
        value = head_f32(x + 4 * whole, (1 << (count - whole)) - 1)
        most = max_f32(most, max_f32(value, sub_f32(zero, value)))
    return max_of_f32(most)


@jit("UniTuple(f4, 2)(i8, i8, f4, i8)")
def quantize(x, count, inverse, out):
    """Write floats times `inverse`, rounded, as bytes + 128, and bytes of 128 up to the next
    multiple of 16; return the sum of the rounded values and of their squares."""
    scale, half = splat_f32(inverse), splat_f32(np.float32(0.5))
    middle = splat_f32(np.float32(128))
    total = squares = splat_f32(np.float32(0))
    for i in range(0, count, 16):
        value = (
            load_f32(x + 4 * i) if i + 16 <= count else head_f32(x + 4 * i, (1 << count - i) - 1)
        )
        code = floor_f32(fma(value, scale, half))
        store_u8x16(out + i, add_f32(code, middle))
        total = add_f32(total, code)
        squares = fma(code, code, squares)
    return sum_f32(total), sum_f32(squares)


@jit(inline=True)
def _store_products(sums, total, unit, scales, at):
    s = fma(to_f32(sums), splat_f32(unit), splat_f32(np.float32(-128 * total) * unit))
    store_f32(at, mul_f32(s, load_f32(scales)))


@jit(inline=True)
def _store_pair(first, second, header, scales, at):
    unit, total = read_f32(header + 4), read_i32(header + 8)
    _store_products(first, total, unit, scales, at)
    _store_products(second, total, unit, scales + 64, at + 64)


@jit("void(i8, i8, i8, i8, i8, i8)")
def _project_one(matrix, scales, codes, blocks, groups, out):
    """One record; takes as long as the matrix takes to come out of the second cache level."""
    unit, total = read_f32(codes + 4 * groups + 4), read_i32(codes + 4 * groups + 8)
    m, q, o, f = matrix, codes, out, scales
    step = groups * 64
    b = 0
    while b + 8 <= blocks:
        s0, s1, s2, s3 = zero_i32(), zero_i32(), zero_i32(), zero_i32()
        s4, s5, s6, s7 = zero_i32(), zero_i32(), zero_i32(), zero_i32()
        at = m + b * step
        for g in range(groups):
            x = repeat_flipped(q + 4 * g)
            s0 = dpbusd(s0, load_u8(at), x)
            s1 = dpbusd(s1, load_u8(at + step), x)
            s2 = dpbusd(s2, load_u8(at + 2 * step), x)
            s3 = dpbusd(s3, load_u8(at + 3 * step), x)
            s4 = dpbusd(s4, load_u8(at + 4 * step), x)
            s5 = dpbusd(s5, load_u8(at + 5 * step), x)
            s6 = dpbusd(s6, load_u8(at + 6 * step), x)
            s7 = dpbusd(s7, load_u8(at + 7 * step), x)
            at += 64
        here, there = f + b * 64, o + b * 64
        _store_products(s0, total, unit, here, there)
        _store_products(s1, total, unit, here + 64, there + 64)
        _store_products(s2, total, unit, here + 128, there + 128)
        _store_products(s3, total, unit, here + 192, there + 192)
        _store_products(s4, total, unit, here + 256, there + 256)
        _store_products(s5, total, unit, here + 320, there + 320)
        _store_products(s6, total, unit, here + 384, there + 384)
        _store_products(s7, total, unit, here + 448, there + 448)
        b += 8
    while b < blocks:
        s0, s1 = zero_i32(), zero_i32()
        at = m + b * step
        for g in range(0, groups - 1, 2):
            s0 = dpbusd(s0, load_u8(at), repeat_flipped(q + 4 * g))
            s1 = dpbusd(s1, load_u8(at + 64), repeat_flipped(q + 4 * g + 4))
            at += 128
        if groups & 1:
            s0 = dpbusd(s0, load_u8(at), repeat_flipped(q + 4 * groups - 4))
        _store_products(add_i32(s0, s1), total, unit, f + b * 64, o + b * 64)
        b += 1


@jit("void(i8, i8, i8, i8, i8, i8, i8)")
def _project_four(matrix, scales, codes, stride, groups, out, width):
    """Two blocks of the matrix for four records at once: a quarter of the cache traffic."""
    a, b, c, d = codes, codes + stride, codes + 2 * stride, codes + 3 * stride
    a0, a1, b0, b1 = zero_i32(), zero_i32(), zero_i32(), zero_i32()
    c0, c1, d0, d1 = zero_i32(), zero_i32(), zero_i32(), zero_i32()
    at, step = matrix, 64 * groups
    for g in range(0, 4 * groups, 4):
        x, y = load_u8(at), load_u8(at + step)
        v = repeat_flipped(a + g)
        a0, a1 = dpbusd(a0, x, v), dpbusd(a1, y, v)
        v = repeat_flipped(b + g)
        b0, b1 = dpbusd(b0, x, v), dpbusd(b1, y, v)
        v = repeat_flipped(c + g)
        c0, c1 = dpbusd(c0, x, v), dpbusd(c1, y, v)
        v = repeat_flipped(d + g)
        d0, d1 = dpbusd(d0, x, v), dpbusd(d1, y, v)
        at += 64
    _store_pair(a0, a1, a + 4 * groups, scales, out)
    _store_pair(b0, b1, b + 4 * groups, scales, out + width)
    _store_pair(c0, c1, c + 4 * groups, scales, out + 2 * width)
    _store_pair(d0, d1, d + 4 * groups, scales, out + 3 * width)


@jit("void(i8, i8, i8, i8, i8, i8, i8, i8, i8)", entry=True)
def project(matrix, scales, codes, stride, count, blocks, groups, out, width):
    """Products of a matrix of bytes with the vectors of `count` records, `stride` bytes apart.

    The matrix stands in blocks of 16 rows: for every group of four columns, four bytes (value +
    128) of each row. A record is its bytes (value + 128), four for each group, then float32 (not
    read here), float32 unit, int32 sum of the values. The results stand `width` bytes apart.
    """
    i = 0
    while i + 4 <= count:
        at, there = codes + i * stride, out + i * width
        for b in range(0, blocks - 1, 2):
            here = matrix + b * groups * 64
            _project_four(here, scales + 64 * b, at, stride, groups, there + 64 * b, width)
        i += 4
        if blocks & 1:
            last = blocks - 1
            for j in range(4):
                _project_one(
                    matrix + last * groups * 64, scales + 64 * last, at + j * stride, 1, groups,
                    there + j * width + 64 * last,
                )  # fmt: skip
    while i < count:
        _project_one(matrix, scales, codes + i * stride, blocks, groups, out + i * width)
        i += 1


@jit("UniTuple(f4, 2)(i8, i8, i8, i8)")
def fill_table(query, bits, subspaces, table):
    """Write 16 bytes for each nibble-subspace of a projected query; return (unit, shift).

    A nibble holds 4 / bits dimensions. Its entry v stands for the sum of o_d q_d over the codes o
    of v, so a sum of entries times `unit` plus `shift` is the dot product with the whole code.
    """
    levels = (1 << bits) - 1
    zero = splat_f32(np.float32(0))
    most = zero
    count = subspaces * 4 // bits
    for i in range(0, count, 16):
        value = head_f32(query + 4 * i, (1 << min(count - i, 16)) - 1)
        width = max_f32(value, sub_f32(zero, value))
        if bits < 4:
            width = add_f32(width, beside_f32(width))
        if bits < 2:
            width = add_f32(width, beyond_f32(width))
        most = max_f32(most, width)
    unit = max(max_of_f32(most) * np.float32(levels / 255), np.float32(1e-30))
    inverse = np.float32(1) / unit
    lane = address(_LANES) + (bits >> 1) * 256
    middle = splat_f32(np.float32(128))
    first, second = load_f32(lane), load_f32(lane + 64)
    third, fourth = load_f32(lane + 128), load_f32(lane + 192)
    for s in range(subspaces):
        at = query + 16 // bits * s
        total = fma(first, splat_f32(read_f32(at) * inverse), middle)
        if bits < 4:
            total = fma(second, splat_f32(read_f32(at + 4) * inverse), total)
        if bits < 2:
            total = fma(third, splat_f32(read_f32(at + 8) * inverse), total)
            total = fma(fourth, splat_f32(read_f32(at + 12) * inverse), total)
        store_u8x16(table + s * 16, total)
    return unit, np.float32(-127.5) * unit * np.float32(subspaces)


@jit("i8(i8, i8, i8, f4, f4, f4, f4, i8, i8)", inline=True)
def estimate(links, chunks, table, base, add_unit, unit, shift, limit, out):
    """Estimated distances of the 32 neighbours in a block of a row; a bit for each below `limit`.

    `links` is the address of the block [ids | fadd | fres | codes]; the estimate is
    max(0, base + add_unit * fadd + fres * (unit * sum + shift)), its float bits are compared with
    `limit`.
    """
    at = links + 128
    code = at + 128
    t = table
    nibble, ones = splat_u8(np.uint8(15)), splat_u8(np.uint8(1))
    select = load_u8(address(_SELECT))
    low0, low1, high0, high1 = zero_i32(), zero_i32(), zero_i32(), zero_i32()
    c = 0
    while c + 2 <= chunks:
        x, y = load_u8(code), load_u8(code + 64)
        v, w = load_u8(t), load_u8(t + 64)
        low0 = dpbusd(low0, permute_u8(v, or_u8(and_u8(x, nibble), select)), ones)
        high0 = dpbusd(high0, permute_u8(v, or_u8(and_u8(shift_u8(x), nibble), select)), ones)
        low1 = dpbusd(low1, permute_u8(w, or_u8(and_u8(y, nibble), select)), ones)
        high1 = dpbusd(high1, permute_u8(w, or_u8(and_u8(shift_u8(y), nibble), select)), ones)
        code += 128
        t += 128
        c += 2
    if c < chunks:
        x, v = load_u8(code), load_u8(t)
        low0 = dpbusd(low0, permute_u8(v, or_u8(and_u8(x, nibble), select)), ones)
        high0 = dpbusd(high0, permute_u8(v, or_u8(and_u8(shift_u8(x), nibble), select)), ones)
    scale, offset = splat_f32(unit), splat_f32(shift)
    start, add = splat_f32(base), splat_f32(add_unit)
    zero = splat_f32(np.float32(0))
    low = fma(to_f32(add_i32(low0, low1)), scale, offset)
    high = fma(to_f32(add_i32(high0, high1)), scale, offset)
    low = max_f32(fma(load_f16(at + 64), low, fma(load_f16(at), add, start)), zero)
    high = max_f32(fma(load_f16(at + 96), high, fma(load_f16(at + 32), add, start)), zero)
    store_f32(out, low)
    store_f32(out + 64, high)
    return below_i32(bits(low), limit) | (below_i32(bits(high), limit) << 16)


@jit("i8(i8, i8)", inline=True)
def below(at, limit):
    """A bit for each of 16 floats whose pattern is below `limit`, as an integer."""
    return below_i32(bits(load_f32(at)), limit)


@jit("i8(i8, i8, i8)", inline=True)
def pool_insert(pool, size, key):
    """Insert `key` into `size` ascending keys at the address `pool`, dropping the last.

    `size` is a multiple of 8, and a sentinel below every key stands before the first. Returns the
    first position (a multiple of 8) that changed.
    """
    block = size - 8
    new = splat_i64(key)
    while True:
        here = pool + block * 8
        before = load_i64(here - 8)
        moved = min_i64(load_i64(here), max_i64(before, new))
        store_i64(here, moved)
        if read_i64(here - 8) <= key:
            return block
        block -= 8


@jit("i8(i8, i8, i8)", inline=True)
def pool_next(pool, size, position):
    """First position from `position` (a multiple of 8) on whose key is even, or -1."""
    while position < size:
        mask = even_i64(load_i64(pool + position * 8))
        if mask:
            return position + trailing_zeros(mask)
        position += 8
    return -1


@jit("void(i8, i8)", inline=True)
def prefetch_bytes(at, count):
    """Ask for `count` bytes, a line at a time."""
    for line in range(0, count, 64):
        prefetch(at + line)
