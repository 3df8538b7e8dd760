"""Neighbour codes: the 32 neighbours of a node, estimated from a few bytes each in the node's row.

For a query q, a node c and its neighbour x = c + r,
``|q - x|^2 = |q - c|^2 + |r|^2 - 2 <q - c, r>``.
The first term is exact when the node is expanded; of the last, r is coded after RaBitQ (Gao & Long,
SIGMOD 2024) and SymphonyQG (SIGMOD 2025): r is projected to the dimensions in which neighbours
differ most, rotated there, and each coordinate is rounded to 1, 2 or 4 bits, a code o. With
``f = |r|^2 / <o, r>``, ``<q - c, r>`` is about ``f <q - c, o>``, so a row keeps for each neighbour
``fadd = |r|^2 + 2 f <o, c>`` and ``fres = -2 f``, and the estimate is
``|q - c|^2 + fadd + fres <o, q>``.

A block holds 32 neighbours:

| bytes | content |
|---|---|
| 128 | int32 row numbers, -1 for an empty slot |
| 64 | float16 fadd / add_unit, infinity for an empty slot |
| 64 | float16 fres / res_unit |
| 64 x chunks | codes |

Without codes (0 bits, the compact layout) a block is the row numbers alone, and a neighbour's
distance comes from its own record.

A nibble holds the codes of 4 / bits dimensions. Byte j of a chunk holds nibble j % 4 of the chunk's
four for neighbour j // 4 in its low half and for neighbour 16 + j // 4 in its high half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels import blas
from vecdb.kernels.jit import jit
from vecdb.kernels.leaves import estimate, fill_table, prefetch_bytes
from vecdb.kernels.memory import address, read_f32, read_i32, read_u8, write_f32, write_u8
from vecdb.quant.record import FLOAT_DIMS, record_bytes, record_distance

__all__ = ["BLOCK", "Projection", "block_bytes", "choose_codes", "encode_neighbours",
           "fit_projection", "principal", "score", "table_around"]  # fmt: skip

BLOCK = 32  # neighbours in a block
HEAD = 256  # bytes of a block before its codes
STEP_2, STEP_4 = 0.9957, 0.3352  # best uniform steps for a Gaussian, in standard deviations
ROUNDING = {1: 0.571, 2: 0.133, 4: 0.0116}  # squared error of a rounded Gaussian, 1 / rho^2 - 1
PAIRS = 4000  # of residuals that the codes are chosen by
MATRIX_BYTES = 1 << 20  # of the projection at most: it must stay in the second cache level
FRESH = 8  # records read at a hop without codes; fitted to QPS on five sets
SCALES = (0.8, 0.9, 1.0, 1.1, 1.2)  # tried around it for each residual


@jit("i8(i8, i8)", inline=True, entry=True)
def block_bytes(dims, bits):
    """Bytes of a block of neighbours."""
    return HEAD + dims * bits // 16 * 64 if bits else 4 * BLOCK


@jit("i8(i8, i8, i8, f4, f4, f4, f4, i8, i8, i8, i8, i8, i8, i8)", inline=True)
def score(
    link, chunks, table, exact, add_unit, unit, shift, limit, out, data, rows, stride, own, inner
):  # fmt: skip
    """As :func:`vecdb.kernels.leaves.estimate`; without codes, from the neighbours' records."""
    if chunks:
        return estimate(link, chunks, table, exact, add_unit, unit, shift, limit, out)
    mask = 0
    for lane in range(BLOCK):
        neighbour = np.int64(read_i32(link + 4 * lane))
        if 0 <= neighbour < rows:
            prefetch_bytes(data + neighbour * stride, record_bytes(inner))
    for lane in range(BLOCK):
        neighbour = np.int64(read_i32(link + 4 * lane))
        if 0 <= neighbour < rows:
            value = record_distance(data + neighbour * stride, own, inner)
            write_f32(out + 4 * lane, value)
            if np.float32(value).view(np.int32) < limit:
                mask |= 1 << lane
    return mask


@jit("UniTuple(f4, 2)(i8, i8, i8, i8, i8, f4, f4[::1], i8)")
def table_around(x, at, inner, dims, bits, res_unit, out, table):
    """The table that codes of a few dimensions are read by, made around the node at address `at`.

    Returns its unit and shift in units of the blocks' fres; `out` is scratch.
    """
    for i in range(inner):
        out[i] = read_f32(x + 4 * i) - read_f32(at + 4 * i)
    out[inner:] = 0
    unit, shift = fill_table(address(out), bits, dims * bits // 4, table)
    return unit * res_unit, shift * res_unit


@dataclass(frozen=True)
class Projection:
    """The matrix that takes an inner row to its coded dimensions, as bytes.

    Attributes
    ----------
    matrix : (dims16 / 16, groups, 64) uint8 array
        Row 16 b + i, column 4 g + j stands at [b, g, 4 i + j] as code + 128: the order in which
        the kernel reads it. Rows are padded to whole blocks, columns to whole groups, with 0.
    scales : (dims16,) float32 array
        Row i stands for ``scales[i] * (codes - 128)``; 0 for a padding row.
    dims : int
        Rows that are no padding.
    """

    matrix: NDArray[np.uint8]
    scales: NDArray[np.float32]
    dims: int

    def floats(self, inner: int) -> NDArray[np.float32]:
        """The matrix as (dims, inner) float32."""
        blocks, groups, _ = self.matrix.shape
        table = self.matrix.reshape(blocks, groups, 16, 4).transpose(0, 2, 1, 3)
        codes = table.reshape(blocks * 16, groups * 4)[: self.dims, :inner].astype(np.float32)
        return (codes - np.float32(128)) * self.scales[: self.dims, None]


def principal(residuals: NDArray[np.float32]) -> NDArray[np.float32]:
    """Directions of (m, inner) residuals as columns, those of the greatest spread first."""
    blas.room()
    vectors: NDArray[np.float32] = np.linalg.eigh(residuals.T @ residuals)[1]
    return vectors[:, ::-1].astype(np.float32)


def choose_codes(
    residuals: NDArray[np.float32],
    queries: NDArray[np.float32],
    basis: NDArray[np.float32],
    fixed: int,
    allowed_bits: tuple[int, ...] = (1, 2, 4),
) -> tuple[int, int]:
    """Coded dimensions and bits of each that should make the search of these rows fastest.

    `residuals` are those of neighbours, `queries` those of rows two links away, which play queries:
    what codes must tell apart is the spread of the cosine between the two; their error is the part
    of it in the dimensions left out, and the rounding of the others. A row costs its bytes
    (`fixed` ones beside the codes, and the time of a hop as 1,000 more), and more hops are needed
    as the square of error / spread. The weight 8 was fitted to QPS at recall .95 and .99 on 784,
    384 and 100 dimensions, where about 384 x 1, 256 x 2 and 100 x 4 bits were best.

    0 bits stand for no codes at all, where a hop reads the records of the neighbours not yet met:
    right where codes can't tell rows apart, as on 6,000 isotropic rows of 1,536 dimensions (recall
    .25 at ef 64 with one bit, .94 without codes).
    """
    inner = residuals.shape[1]
    if inner <= FLOAT_DIMS or len(residuals) < 128 or allowed_bits == (0,):
        most = max(allowed_bits)
        if most == 0:
            return 0, 0
        whole = 16 // most
        return -(-min(inner, MATRIX_BYTES // inner) // whole) * whole, most
    blas.room()
    a, b = _units(queries[:PAIRS] @ basis), _units(residuals[:PAIRS] @ basis)
    products = np.cumsum(a * b, axis=1, dtype=np.float64)
    low, high = np.quantile(products[:, -1], (0.16, 0.84))  # rows met twice would swell a variance
    spread = max((high - low) ** 2 / 4, 1e-12)
    left_out = (products[:, -1:] - products).var(axis=0)
    coded = (np.cumsum(a * a, axis=1) * np.cumsum(b * b, axis=1)).mean(axis=0)
    best = (np.inf, 0, 0)
    if 0 in allowed_bits:
        hop = fixed + block_bytes(0, 0) + 1000 + FRESH * (fixed + 250)
        best = (float(hop), 0, 0)
    for bits in filter(None, allowed_bits):
        whole = max(16, 16 // bits)
        for dims in range(whole, -(-min(inner, MATRIX_BYTES // inner) // whole) * whole + 1, whole):
            last = min(dims, inner) - 1
            error = left_out[last] + ROUNDING[bits] * coded[last] / dims
            row = fixed + block_bytes(dims, bits)
            best = min(best, ((row + 1000) * (1 + 8 * error / spread), dims, bits))
    return best[1], best[2]


def _units(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    units: NDArray[np.float32] = rows / np.maximum(
        np.linalg.norm(rows, axis=1, keepdims=True), 1e-30
    )
    return units


def fit_projection(basis: NDArray[np.float32], dims: int, seed: int) -> Projection:
    """The first `dims` directions of a basis, rotated at random among themselves.

    `dims` may exceed the inner dimension (chunks are whole): the rotation then spreads the inner
    space over more coordinates.
    """
    inner = len(basis)
    keep = min(dims, inner)
    rng = np.random.default_rng(seed)
    blas.room()
    rotation = np.linalg.qr(rng.standard_normal((dims, dims)))[0][:, :keep]
    matrix = rotation @ basis[:, :keep].T
    scales = np.maximum(np.abs(matrix).max(axis=1, initial=0), 1e-30) / 127
    blocks, groups = -(-dims // 16), -(-inner // 4)
    codes = np.zeros((blocks * 16, groups * 4), np.uint8)
    codes[:dims, :inner] = np.rint(matrix / scales[:, None] + 128)
    table = codes.reshape(blocks, 16, groups, 4).transpose(0, 2, 1, 3)
    padded = np.zeros(blocks * 16, np.float32)
    padded[:dims] = scales
    return Projection(np.ascontiguousarray(table).reshape(blocks, groups, 64), padded, dims)


@jit("f4(f4[::1], f4, f4, f4[::1])")
def _round_code(residual, top, step, code):
    """Round to the levels 0 ... top; return <o, r> / |o|, which the best step maximises."""
    inverse = np.float32(1) / step
    middle = np.float32(0.5) * top
    dot = np.float32(0)
    squares = np.float32(0)
    for i in range(len(residual)):
        level = np.floor(residual[i] * inverse + (middle + np.float32(0.5)))
        level = min(max(level, np.float32(0)), top)
        code[i] = level
        dot += (level - middle) * residual[i]
        squares += (level - middle) * (level - middle)
    return dot / np.sqrt(squares)


@jit("f4(f4[::1], i8, f4[::1])")
def _best_code(residual, bits, code):
    """Code of a residual at the best of five steps; return <o, r>."""
    squares = np.float32(0)
    for i in range(len(residual)):
        squares += residual[i] * residual[i]
    spread = np.sqrt(squares / np.float32(len(residual)))
    top = np.float32((1 << bits) - 1)
    step = spread
    if bits > 1:
        best = np.float32(-1)
        for trial in SCALES:
            width = spread * np.float32((STEP_2 if bits == 2 else STEP_4) * trial)
            fit = _round_code(residual, top, width, code)
            if fit > best:
                best = fit
                step = width
    _round_code(residual, top, step, code)
    dot = np.float32(0)
    for i in range(len(residual)):
        dot += (code[i] - np.float32(0.5) * top) * residual[i]
    return dot


@jit("void(f4[::1], i8, i8, i8)")
def _pack_code(code, bits, lane, at):
    """Put the nibbles of a neighbour into the chunks at address `at`, which were zero."""
    per = 4 // bits
    base = at + (lane & 15) * 4
    shift = 4 if lane >= 16 else 0
    for s in range(len(code) // per):
        nibble = 0
        for d in range(per):
            nibble |= np.int64(code[s * per + d]) << (bits * d)
        byte = base + (s >> 2) * 64 + (s & 3)
        write_u8(byte, np.uint8(read_u8(byte) | nibble << shift))


@jit(
    "void(i8, i8, i8, Array(f4, 2, 'C', readonly=True), b1, i4[:, ::1], i4[::1], i8, i8, i8, i8,"
    "i8, f4[:, ::1], f4[:, ::1])",
    entry=True,
)
def encode_neighbours(
    data, stride, inner, places, local, links, degrees, bits, first, last, blocks, row_bytes, add,
    res,
):  # fmt: skip
    """Write the codes of the neighbours of the nodes in [first, last).

    `places` are the projected rows; `local` codes are read by a table made around the node, so
    <o, c> is left out. The blocks of a node stand `row_bytes` apart from address `blocks` on. The
    factors go to `add` and `res`, (nodes, slots) each: only when all are known is their unit.
    """
    dims = places.shape[1]
    size = block_bytes(dims, bits)
    middle = np.float32(0.5 * ((1 << bits) - 1))
    residual = np.empty(dims, np.float32)
    code = np.empty(dims, np.float32)
    for node in range(first, last):
        for slot in range(degrees[node]):
            prefetch_bytes(data + np.int64(links[node, slot]) * stride, stride)
        for slot in range(degrees[node]):
            if slot + 2 < degrees[node]:
                prefetch_bytes(address(places[np.int64(links[node, slot + 2])]), 4 * dims)
            other = np.int64(links[node, slot])
            spread = np.float32(0)
            for i in range(dims):
                residual[i] = places[other, i] - places[node, i]
                spread += residual[i] * residual[i]
            square = record_distance(data + other * stride, data + node * stride, inner)
            add[node, slot] = square
            res[node, slot] = 0
            if spread > 0:
                factor = square / _best_code(residual, bits, code)
                dot = np.float32(0)
                for i in range(0 if local else dims):
                    dot += (code[i] - middle) * places[node, i]
                add[node, slot] = square + np.float32(2) * factor * dot
                res[node, slot] = np.float32(-2) * factor
                block = blocks + node * row_bytes + slot // BLOCK * size
                _pack_code(code, bits, slot % BLOCK, block + HEAD)
