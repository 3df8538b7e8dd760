"""The leaves, AVX-512 and portable, against NumPy."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from vecdb.kernels import portable, reference
from vecdb.kernels.jit import AVX512

LENGTHS = (1, 2, 3, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 257, 784)
METRICS = {0: "l2", 1: "cosine", 2: "ip"}


def modules() -> list[ModuleType]:
    if not AVX512:
        return [portable]
    from vecdb.kernels import avx512

    return [portable, avx512]


@pytest.fixture(params=modules(), ids=lambda module: module.__name__.split(".")[-1])
def leaves(request):
    return request.param


def unaligned(array: np.ndarray, shift: int = 2) -> np.ndarray:
    """A copy that begins `shift` bytes after a multiple of 64."""
    room = np.zeros(array.nbytes + 128, np.uint8)
    start = -room.ctypes.data % 64 + shift
    part = room[start : start + array.nbytes]
    part[:] = array.reshape(-1).view(np.uint8)
    return part


@pytest.mark.parametrize("dim", LENGTHS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("half", [False, True])
def test_a_distance_is_numpys_on_unaligned_rows_of_any_length(leaves, dim, metric, half):
    rng = np.random.default_rng(dim)
    query = rng.standard_normal(dim).astype(np.float32)
    rows = rng.standard_normal((4, dim)).astype(np.float16 if half else np.float32)
    expected = reference.distances(query[None], rows, METRICS[metric])[0]
    data = unaligned(rows)
    at = [data.ctypes.data + i * rows.strides[0] for i in range(4)]
    norm = np.float32(np.linalg.norm(query))
    one = [leaves.distance(metric, half, a, query.ctypes.data, dim, norm) for a in at]
    four = leaves.distance4(metric, half, *at, query.ctypes.data, dim, norm)
    np.testing.assert_allclose(one, expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(four, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("size", [1e-42, 1e-18, 1e18])
def test_denormal_tiny_and_huge_rows_keep_their_l2_distance(leaves, size):
    row = np.full(33, size, np.float32)
    query = np.zeros(33, np.float32)
    found = leaves.distance(0, False, row.ctypes.data, query.ctypes.data, 33, np.float32(1))
    expected = np.square(row).sum(dtype=np.float32)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-38)


@pytest.mark.parametrize("metric", METRICS)
def test_a_nan_in_a_row_makes_its_distance_nan(leaves, metric):
    for dim in (5, 70):
        row = np.ones(dim, np.float32)
        row[dim // 2] = np.nan
        query = np.ones(dim, np.float32)
        found = leaves.distance(
            metric, False, row.ctypes.data, query.ctypes.data, dim, np.float32(2)
        )
        assert np.isnan(found)


@pytest.mark.parametrize("values", [[0, 1, -1, 65504, 6e-8, 6.1e-5, -2.5], [np.inf, -np.inf]])
def test_every_kind_of_half_float_is_widened(leaves, values):
    row = np.array(values, np.float16)
    for i in range(len(row)):
        query = np.zeros(len(row), np.float32)
        query[i] = 1
        single = row.copy()
        single[np.arange(len(row)) != i] = 0
        found = leaves.distance(
            2, True, single.ctypes.data, query.ctypes.data, len(row), np.float32(1)
        )
        assert found == -np.float32(row[i])


@pytest.mark.parametrize("count", LENGTHS)
def test_a_dot_of_codes_leaves_out_the_bytes_after_its_end(leaves, count):
    rng = np.random.default_rng(count)
    left, right = rng.integers(0, 256, (2, count + 64), dtype=np.uint8)
    expected = int((left[:count].astype(int) * (right[:count].astype(int) - 128)).sum())
    assert leaves.dot_codes(left.ctypes.data, right.ctypes.data, count) == expected


@pytest.mark.parametrize("count", LENGTHS)
def test_floats_become_bytes_with_their_sum_and_squares(leaves, count):
    rng = np.random.default_rng(count)
    floats = rng.standard_normal(count).astype(np.float32)
    floats[rng.integers(count)] = -5
    part = unaligned(floats)
    assert leaves.peak(part.ctypes.data, count) == 5
    out = np.full(count + 32, 7, np.uint8)
    total, squares = leaves.quantize(part.ctypes.data, count, np.float32(127 / 5), out.ctypes.data)
    expected = np.floor(floats * np.float32(127 / 5) + np.float32(0.5))
    codes = out[:count].astype(float) - 128
    assert np.abs(codes - expected).max() <= 1  # a fused multiply-add may round the other way
    assert (codes != expected).mean() < 0.02
    assert codes.min() == -127
    assert total == codes.sum()
    assert squares == pytest.approx((codes**2).sum())
    padded = -(-count // 16) * 16
    assert (out[count:padded] == 128).all()
    assert (out[padded:] == 7).all()


@pytest.mark.parametrize("count", [1, 3, 4, 6])
@pytest.mark.parametrize(("blocks", "groups"), [(1, 1), (2, 3), (8, 5), (9, 26)])
def test_a_projection_is_a_matrix_product(leaves, blocks, groups, count):
    rng = np.random.default_rng(groups)
    codes = rng.integers(0, 256, (16 * blocks, 4 * groups), dtype=np.uint8)
    matrix = np.ascontiguousarray(codes.reshape(blocks, 16, groups, 4).transpose(0, 2, 1, 3))
    scales = rng.random(16 * blocks, np.float32)
    queries = rng.integers(1, 256, (count, 4 * groups), dtype=np.uint8)
    values = queries.astype(int) - 128
    units = rng.random(count).astype(np.float32)
    records = np.zeros((count, 4 * groups + 12), np.uint8)
    records[:, : 4 * groups] = queries
    records[:, -8:-4] = units[:, None].view(np.uint8)
    records[:, -4:] = values.sum(axis=1).astype(np.int32)[:, None].view(np.uint8)
    out = np.zeros((count, 16 * blocks + 3), np.float32)
    leaves.project(
        matrix.ctypes.data, scales.ctypes.data, records.ctypes.data, 4 * groups + 12, count,
        blocks, groups, out.ctypes.data, 4 * (16 * blocks + 3),
    )  # fmt: skip
    exact = (codes.astype(int) - 128) @ values.T * scales[:, None] * units
    np.testing.assert_allclose(out[:, :-3].T, exact, rtol=1e-5, atol=2e-2)
    assert not out[:, -3:].any()


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("chunks", [1, 2, 5])
def test_an_estimate_is_the_dot_with_the_codes_within_the_tables_step(leaves, bits, chunks):
    dims = 16 // bits * chunks
    rng = np.random.default_rng(chunks)
    query = rng.standard_normal(dims).astype(np.float32)
    codes = rng.integers(0, 1 << bits, (32, dims))
    block = np.zeros(256 + 64 * chunks, np.uint8)
    add, res = rng.random(32).astype(np.float16), -rng.random(32).astype(np.float16)
    block[128:192], block[192:256] = add.view(np.uint8), res.view(np.uint8)
    per = 4 // bits
    for lane in range(32):
        for s in range(dims // per):
            nibble = sum(int(codes[lane, s * per + d]) << bits * d for d in range(per))
            byte = 256 + s // 4 * 64 + lane % 16 * 4 + s % 4
            block[byte] |= nibble << (4 if lane >= 16 else 0)
    table = np.zeros(64 * chunks, np.uint8)
    unit, shift = leaves.fill_table(query.ctypes.data, bits, dims // per, table.ctypes.data)
    out = np.zeros(32, np.float32)
    limit = int(np.float32(20).view(np.int32))
    mask = leaves.estimate(
        block.ctypes.data, chunks, table.ctypes.data, np.float32(20), np.float32(2), unit, shift,
        limit, out.ctypes.data,
    )  # fmt: skip
    dots = (codes - ((1 << bits) - 1) / 2) @ query
    expected = np.maximum(20 + 2 * add.astype(float) + res.astype(float) * dots, 0)
    np.testing.assert_allclose(out, expected, atol=0.51 * unit * (dims // per) + 1e-3)
    assert [mask >> i & 1 for i in range(32)] == [int(value < 20) for value in out]


def test_an_empty_slot_is_never_below_the_limit(leaves):
    block = np.zeros(320, np.uint8)
    block[128:192] = np.full(32, np.inf, np.float16).view(np.uint8)
    out = np.zeros(32, np.float32)
    table = np.zeros(64, np.uint8)
    limit = int(np.float32(np.inf).view(np.int32))
    one = np.float32(1)
    assert not leaves.estimate(
        block.ctypes.data, 1, table.ctypes.data, one, one, one, one, limit, out.ctypes.data
    )


@pytest.mark.parametrize("size", [8, 16, 40])
def test_a_pool_holds_the_least_keys_in_order(leaves, size):
    rng = np.random.default_rng(size)
    pool = np.full(8 + size, np.iinfo(np.int64).max)
    pool[:8] = np.iinfo(np.int64).min
    start = pool.ctypes.data + 64
    keys = rng.integers(-(1 << 60), 1 << 60, 200)
    for count, key in enumerate(keys, 1):
        before = pool[8:].copy()
        changed = leaves.pool_insert(start, size, int(key))
        least = np.sort(keys[:count])[:size]
        assert (pool[8 : 8 + len(least)] == least).all()
        assert (pool[8 : 8 + changed] == before[:changed]).all()
        even = [i for i in range(len(least)) if least[i] % 2 == 0]
        assert leaves.pool_next(start, size, 0) == (even[0] if even else -1)
        late = [i for i in even if i >= 8]
        assert leaves.pool_next(start, size, 8) == (late[0] if late else -1)


@pytest.mark.parametrize("limit", [0.0, 0.5, 1.0, np.inf])
def test_below_marks_the_floats_under_a_limit(leaves, limit):
    values = np.random.default_rng(3).uniform(-1, 1, 16).astype(np.float32)
    values[5], values[9], values[15] = limit, np.inf, np.nan
    mask = leaves.below(values.ctypes.data, int(np.float32(limit).view(np.int32)))
    assert [bool(mask >> i & 1) for i in range(16)] == (values < limit).tolist()


def test_trailing_zeros_finds_the_lowest_bit():
    assert [portable.trailing_zeros(1 << i | 1 << 40) for i in (0, 1, 31)] == [0, 1, 31]
