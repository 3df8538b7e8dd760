"""The choice of links against the same rule in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from vecdb.graph.insert import select
from vecdb.graph.keys import make_key
from vecdb.quant.record import encode_records, record_bytes, record_distance

DIM = 20
ALPHA = 1.2


def naive(rows: np.ndarray, row: int, order: list[int], degree: int) -> list[int]:
    """Strictly diverse candidates first, then those diverse by `ALPHA`, then the nearest left; one
    copy of the row itself counts as diverse."""
    far = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    kept: list[int] = []
    for factor in (1.0, ALPHA, None):
        for one in order:
            diverse = factor is None or (
                all(factor * far[one, k] >= far[row, one] for k in kept)
                and (far[row, one] > 0 or not kept)
            )
            if len(kept) < degree and one != row and one not in kept and diverse:
                kept.append(one)
    return kept


@pytest.mark.parametrize("degree", [4, 16, 32, 60])
@pytest.mark.parametrize("spread", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("copies", [1, 12])
def test_strictly_diverse_neighbours_are_chosen_first_then_relaxed_ones_then_the_nearest(
    degree: int, spread: float, copies: int
) -> None:
    rng = np.random.default_rng(degree)
    centers = spread * rng.standard_normal((6, DIM))
    rows = (centers[rng.integers(0, 6, 60)] + rng.standard_normal((60, DIM))).astype(np.float32)
    rows = np.tile(rows[: 60 // copies], (copies, 1))
    stride = record_bytes(DIM)
    data = np.zeros(60 * stride, np.uint8)
    encode_records(rows, data, 0, stride)
    for row in range(0, 60, 7):
        at = data.ctypes.data
        far = [record_distance(at + i * stride, at + row * stride, DIM) for i in range(60)]
        keys = np.sort([make_key(np.float32(value), i) for i, value in enumerate(far)])
        chosen = np.full(degree, -1, np.int32)
        count = select(at, stride, DIM, row, keys, 60, chosen, degree, np.float32(ALPHA))
        order = np.argsort(far, kind="stable").tolist()
        assert chosen[:count].tolist() == naive(rows, row, order, degree)
