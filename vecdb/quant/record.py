"""Records: a row of the inner space in a form whose distances are cheap.

| bytes | content |
|---|---|
| ``payload`` | one byte a dimension (code + 128), or float32 when there are at most 32 dimensions |
| 4 | float32 squared norm of what the codes say |
| 4 | float32 scale: value = scale * code |
| 4 | int32 sum of the codes |
| pad | up to a multiple of 64 |

Every row has its own scale, so rows of very different norms keep the same relative precision (the
error of a coordinate is at most scale / 2, about 1 % of a typical coordinate). With few dimensions
bytes would collapse near neighbours into one point, and float32 costs no more lines of cache.
The inner space is centred on the mean, where a distance is
``norm_a + norm_b - 2 scale_a scale_b <code_a, code_b>``.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.jit import jit
from vecdb.kernels.leaves import distance, dot_codes, peak, quantize
from vecdb.kernels.memory import address, read_f32, read_i32, write_f32, write_i32

__all__ = ["FLOAT_DIMS", "encode_record", "encode_records", "header", "record_bytes",
           "record_distance"]  # fmt: skip

FLOAT_DIMS = 32


@jit("i8(i8, i8)", inline=True, entry=True)
def header(at, inner):
    """Address of a record's header."""
    return at + 4 * inner if inner <= FLOAT_DIMS else at + (inner + 3 & ~3)


@jit("i8(i8)", inline=True, entry=True)
def record_bytes(inner):
    """Bytes of a whole record, a multiple of 64."""
    return header(0, inner) + 12 + 63 & ~63


@jit("void(i8, i8, i8)")
def encode_record(x, inner, at):
    """Write the record of the centred float32 row at address `x` to address `at`."""
    end = header(at, inner)
    if inner <= FLOAT_DIMS:
        norm = np.float32(0)
        for i in range(inner):
            value = read_f32(x + 4 * i)
            write_f32(at + 4 * i, value)
            norm += value * value
        write_f32(end, norm)
        write_f32(end + 4, np.float32(1))
        write_i32(end + 8, np.int32(0))
        return
    scale = peak(x, inner) / np.float32(127)
    inverse = np.float32(1) / scale if scale > 0 else np.float32(0)
    total, squares = quantize(x, inner, inverse, at)
    write_f32(end, scale * scale * squares)
    write_f32(end + 4, scale)
    write_i32(end + 8, np.int32(total))


@jit("void(f4[:, ::1], u1[::1], i8, i8)", entry=True)
def encode_records(rows, data, first, stride):
    """Records of consecutive rows, the first one being row `first` of `data`."""
    x, at = address(rows), address(data) + first * stride
    inner = rows.shape[1]
    for i in range(len(rows)):
        encode_record(x + 4 * inner * i, inner, at + i * stride)


@jit("f4(i8, i8, i8)", inline=True)
def record_distance(a, b, inner):
    """Squared Euclidean distance of the records at two addresses."""
    if inner <= FLOAT_DIMS:
        return distance(0, False, a, b, inner, np.float32(1))
    end, other = header(a, inner), header(b, inner)
    dot = dot_codes(a, b, inner) - 128 * np.int64(read_i32(other + 8))
    scale = np.float32(-2) * read_f32(end + 4) * read_f32(other + 4)
    return max(read_f32(end) + read_f32(other) + scale * np.float32(dot), np.float32(0))
