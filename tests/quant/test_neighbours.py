"""Neighbour codes: the projection, the estimate's error, and the choice of bits."""

from __future__ import annotations

import numpy as np
import pytest

from vecdb import graph
from vecdb.kernels.jit import INTERPRETED
from vecdb.quant.neighbours import choose_codes, fit_projection, principal

ROWS = 60 if INTERPRETED else 800


def test_the_bytes_of_a_projection_stand_for_an_orthonormal_matrix():
    residuals = np.random.default_rng(0).standard_normal((500, 70)).astype(np.float32)
    for dims in (32, 64, 80):
        matrix = fit_projection(principal(residuals), dims, 0).floats(70)
        product = matrix @ matrix.T if dims <= 70 else matrix.T @ matrix
        np.testing.assert_allclose(product, np.eye(len(product)), atol=0.03)


def test_a_projection_keeps_the_directions_of_the_greatest_spread():
    rng = np.random.default_rng(1)
    residuals = rng.standard_normal((2000, 64)).astype(np.float32)
    residuals[:, 40:] *= 0.01
    matrix = fit_projection(principal(residuals), 48, 0).floats(64)
    kept = np.square(residuals @ matrix.T).sum() / np.square(residuals).sum()
    assert kept > 0.99


def spread_rows(rng, count: int, dims: int, used: int) -> np.ndarray:
    rows = rng.standard_normal((count, dims)).astype(np.float32)
    rows[:, used:] *= 1e-3
    return rows


def test_rows_that_vary_in_few_directions_get_few_coded_dimensions():
    rng = np.random.default_rng(2)
    narrow, wide = spread_rows(rng, 4000, 512, 40), spread_rows(rng, 4000, 512, 512)
    few = choose_codes(narrow[::2], narrow[1::2], principal(narrow), 576)
    many = choose_codes(wide[::2], wide[1::2], principal(wide), 576)
    assert few[0] <= 64
    assert few[0] * few[1] < many[0] * many[1]


def test_chosen_codes_are_whole_chunks_for_any_dimension():
    rng = np.random.default_rng(3)
    for inner in (1, 2, 5, 33, 100, 1537, 3072):
        rows = rng.standard_normal((256, inner)).astype(np.float32)
        basis = np.eye(inner, dtype=np.float32)
        for some in (rows, rows[:2]):
            for bits in ((1,), (2,), (4,), (1, 2, 4)):
                dims, chosen = choose_codes(some, some[::-1], basis, 64, bits)
                assert chosen in bits
                assert dims > 0
                assert dims * chosen % 16 == 0
                assert dims * inner <= (1 << 20) + 16 * inner


@pytest.mark.parametrize(("bits", "error"), [(1, 0.13), (2, 0.07), (4, 0.025)])
def test_an_estimate_of_the_stored_codes_is_near_the_distance(bits, error):
    """Reads the rows as the layout says: |q - c|^2 + fadd + fres <o, q>, in NumPy."""
    rng = np.random.default_rng(4)
    vectors = rng.standard_normal((ROWS, 96)).astype(np.float32)
    built = graph.build(vectors, "l2", ef_construction=48, codes=f"{bits}bit")
    dims, at = built.meta["dims"], built.record
    rows = built.arrays["rows"]
    links = built.links()
    add = rows[:, at + 128 : at + 192].view(np.float16).astype(float) * built.meta["add_unit"]
    res = rows[:, at + 192 : at + 256].view(np.float16).astype(float) * built.meta["res_unit"]
    codes = rows[:, at + 256 :].reshape(ROWS, -1, 16, 4)
    table = built.arrays["matrix"]
    wide = table.reshape(*table.shape[:2], 16, 4).transpose(0, 2, 1, 3).reshape(-1, 96)
    matrix = (wide.astype(float) - 128) * built.arrays["scales"][:, None]
    per = 4 // bits
    errors = []
    for node in range(0, ROWS, ROWS // 20):
        query = vectors[(node + 1) % ROWS] - built.arrays["mean"]
        projected = (matrix @ query)[:dims]
        for slot in np.flatnonzero(links[node] >= 0):
            byte = codes[node, :, slot % 16]
            nibbles = (byte >> 4 if slot >= 16 else byte & 15).reshape(-1)
            digits = np.stack([nibbles >> bits * d & (1 << bits) - 1 for d in range(per)], axis=1)
            o = digits.reshape(-1)[:dims] - ((1 << bits) - 1) / 2
            center = vectors[node] - built.arrays["mean"]
            guess = (
                np.square(query - center).sum()
                + add[node, slot]
                + res[node, slot] * (o @ projected)
            )
            other = vectors[links[node, slot]] - built.arrays["mean"]
            truth = np.square(query - other).sum()
            reach = np.linalg.norm(query - center) * np.linalg.norm(other - center)
            errors.append((guess - truth) / (2 * reach))
    assert np.std(errors) < error
    assert abs(np.mean(errors)) < error / 3
