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
from vecdb.kernels.leaves import distance, dot_codes

__all__ = ["FLOAT_DIMS", "encode_record", "encode_records", "payload_bytes", "record_bytes"]

FLOAT_DIMS = 32
_BYTES = "Array(u1, 1, 'C', readonly=True)"
_WORDS = "Array(f4, 1, 'C', readonly=True)"
_INTS = "Array(i4, 1, 'C', readonly=True)"


def payload_bytes(inner: int) -> int:
    """Bytes of a record before its header, a multiple of four."""
    return 4 * inner if inner <= FLOAT_DIMS else inner + 3 & ~3


def record_bytes(inner: int) -> int:
    """Bytes of a whole record, a multiple of 64."""
    return payload_bytes(inner) + 12 + 63 & ~63


@jit("void(f4[::1], u1[::1], f4[::1], i4[::1], i8)")
def encode_record(x, data, words, ints, offset):
    """Write the record of one centred row at a byte offset; the three arrays are one memory."""
    inner = len(x)
    if inner <= FLOAT_DIMS:
        norm = np.float32(0)
        for i in range(inner):
            words[(offset >> 2) + i] = x[i]
            norm += x[i] * x[i]
        header = (offset >> 2) + inner
        words[header] = norm
        words[header + 1] = np.float32(1)
        ints[header + 2] = 0
        return
    largest = np.float32(0)
    for i in range(inner):
        largest = max(largest, abs(x[i]))
    scale = largest / np.float32(127)
    inverse = np.float32(1) / scale if scale > 0 else np.float32(0)
    total = np.float32(0)  # exact: whole numbers below 2^24; numba would widen integers to 64 bits
    squares = np.float32(0)
    for i in range(inner):
        code = np.int32(x[i] * inverse + np.float32(128.5))
        data[offset + i] = np.uint8(code)
        value = np.float32(code) - np.float32(128)
        total += value
        squares += value * value
    header = (offset + inner + 3) >> 2
    words[header] = scale * scale * squares
    words[header + 1] = scale
    ints[header + 2] = np.int32(total)


@jit("void(f4[:, ::1], u1[::1], f4[::1], i4[::1], i8, i8)")
def encode_records(rows, data, words, ints, offset, stride):
    """Records of consecutive rows, `stride` bytes apart from `offset` on."""
    for i in range(len(rows)):
        encode_record(rows[i], data, words, ints, offset + i * stride)


@jit(f"void({_BYTES}, {_WORDS}, i8, f4[::1])")
def decode_record(data, words, offset, out):
    """The centred row that a record stands for."""
    inner = len(out)
    if inner <= FLOAT_DIMS:
        for i in range(inner):
            out[i] = words[(offset >> 2) + i]
        return
    scale = words[((offset + inner + 3) >> 2) + 1]
    for i in range(inner):
        out[i] = scale * (np.float32(data[offset + i]) - np.float32(128))


@jit(f"f4({_BYTES}, {_WORDS}, i8, {_BYTES}, {_WORDS}, {_INTS}, i8, i8)", inline=True)
def record_distance(data, words, offset, other, other_words, other_ints, other_offset, inner):
    """Squared Euclidean distance of two records."""
    if inner <= FLOAT_DIMS:
        return distance(0, False, data, offset, other, other_offset, inner, np.float32(1))
    a = (offset + inner + 3) >> 2
    b = (other_offset + inner + 3) >> 2
    dot = dot_codes(data, offset, other, other_offset, inner) - 128 * np.int64(other_ints[b + 2])
    scale = words[a + 1] * other_words[b + 1]
    value = words[a] + other_words[b] - np.float32(2) * scale * np.float32(dot)
    return max(value, np.float32(0))
