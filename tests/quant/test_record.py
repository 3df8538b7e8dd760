"""Records: what their bytes say, and the distances between them."""

from __future__ import annotations

import numpy as np
import pytest

from vecdb.quant.record import FLOAT_DIMS, encode_records, header, record_bytes, record_distance
from vecdb.quant.space import fit_space


def records(rows: np.ndarray) -> tuple[np.ndarray, int]:
    stride = record_bytes(rows.shape[1])
    data = np.full(len(rows) * stride + 128, 7, np.uint8)
    data = data[-data.ctypes.data % 64 :][: len(rows) * stride]
    encode_records(rows, data, 0, stride)
    return data, stride


@pytest.mark.parametrize("dim", [1, 2, 31, 32, 33, 52, 53, 64, 100, 128, 384, 785])
def test_a_distance_of_records_is_that_of_the_rows_within_their_rounding(dim):
    rng = np.random.default_rng(dim)
    rows = (rng.standard_normal((20, dim)) * rng.choice([1e-3, 1, 1e3], (20, 1))).astype("f4")
    data, stride = records(rows)
    assert stride % 64 == 0
    for i, row in enumerate(rows):
        for j, other in enumerate(rows):
            found = record_distance(
                data.ctypes.data + i * stride, data.ctypes.data + j * stride, dim
            )
            expected = np.square(row - other, dtype=np.float64).sum()
            spread = 2 * np.sqrt(expected) * (np.abs(row).max() + np.abs(other).max()) / 127
            rounding = 0 if dim <= FLOAT_DIMS else spread + (spread**2) * dim
            assert abs(found - expected) <= rounding + 1e-5 * np.square(rows[[i, j]]).sum() + 1e-12


def test_rows_of_very_different_norms_keep_the_same_relative_precision():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((3, 200)).astype(np.float32) * np.array([[1e-6], [1], [1e6]], "f4")
    data, stride = records(rows)
    for i, row in enumerate(rows):
        at = i * stride + header(0, 200)
        norm, scale = data[at : at + 8].view(np.float32)
        codes = data[i * stride : i * stride + 200].astype(np.float64) - 128
        assert norm == pytest.approx(np.square(row).sum(), rel=0.01)
        np.testing.assert_allclose(codes * scale, row, atol=float(scale) * 0.51)


def test_a_zero_row_has_distance_zero_to_itself():
    data, _ = records(np.zeros((1, 70), np.float32))
    assert record_distance(data.ctypes.data, data.ctypes.data, 70) == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_inner_space_orders_rows_as_the_metric_does(dtype):
    rng = np.random.default_rng(1)
    rows = (rng.standard_normal((50, 9)) * np.exp(rng.standard_normal((50, 1)))).astype(dtype)
    query = rng.standard_normal((1, 9)).astype(np.float32)
    wide = rows.astype(np.float64)
    order = {
        "l2": np.square(wide - query).sum(1),
        "cosine": -(wide @ query[0]) / np.linalg.norm(wide, axis=1),
        "ip": -(wide @ query[0]),
    }
    for metric, expected in order.items():
        space = fit_space(rows, metric)
        inner = space.rows(rows) + space.mean
        lifted = query[0] / np.linalg.norm(query) if metric == "cosine" else query[0]
        lifted = np.concatenate([lifted, [0]]) if metric == "ip" else lifted
        found = np.square(inner - lifted).sum(1)
        assert (np.argsort(found)[:10] == np.argsort(expected)[:10]).all()
