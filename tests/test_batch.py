"""Every kind of bad input, and that good input of every kind comes out the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from vecdb.batch import (
    as_ids,
    as_queries,
    as_vectors,
    refuse_duplicates,
    refuse_unmatched,
)
from vecdb.errors import DimensionError, DuplicateIdError, SchemaError
from vecdb.schema import Schema

PLAIN = Schema(dim=3)
L2 = Schema(dim=3, metric="l2")
TEXT_IDS = Schema(dim=3, ids="string")
ROWS = np.arange(1, 7, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize(
    "data",
    [
        ROWS,
        ROWS.astype(np.float64),
        ROWS.astype(np.float16),
        np.asfortranarray(ROWS),
        ROWS.tolist(),
        [[1, 2, 3], [4, 5, 6]],
        pa.FixedSizeListArray.from_arrays(pa.array(ROWS.ravel()), 3),
        pa.chunked_array([pa.FixedSizeListArray.from_arrays(pa.array(ROWS.ravel()), 3)]),
    ],
    ids=["f32", "f64", "f16", "fortran", "lists", "ints in lists", "arrow", "chunked"],
)
def test_vectors_of_every_kind_come_out_as_contiguous_float32(data: Any) -> None:
    rows = as_vectors(data, PLAIN)
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    np.testing.assert_array_equal(rows, ROWS)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (1, 2, 3), (0, 5), (2, 0), ()])
def test_vectors_of_the_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DimensionError, match="vectors: expected"):
        as_vectors(np.ones(shape, np.float32), PLAIN)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.complex64, np.bool_, object, "U3"])
def test_vectors_of_another_dtype_are_refused(dtype: Any) -> None:
    with pytest.raises(SchemaError, match=r"Fix: .*float32"):
        as_vectors(np.ones((2, 3)).astype(dtype), PLAIN)


def test_ragged_rows_are_refused() -> None:
    with pytest.raises(DimensionError, match="equal length"):
        as_vectors([[1.0, 2.0, 3.0], [1.0]], PLAIN)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_are_refused_with_their_row_numbers(bad: float) -> None:
    rows = np.ones((9, 3), np.float32)
    rows[[4, 7], 1] = bad
    with pytest.raises(SchemaError, match="row 4, 7"):
        as_vectors(rows, L2)


def test_a_float64_too_large_for_float32_is_refused() -> None:
    with pytest.raises(SchemaError, match="row 1"):
        as_vectors(np.array([[1.0, 1, 1], [1e200, 1, 1]]), L2)


def test_huge_and_denormal_rows_are_not_mistaken_for_inf_or_zero() -> None:
    rows = np.array([[3e38, 3e38, 0], [1e-42, 0, 0]], np.float32)
    np.testing.assert_array_equal(as_vectors(rows, L2), rows)


@pytest.mark.parametrize("length", [1e-42, 1e-25, 1e-19, 1e20, 3e38])
def test_a_row_whose_square_float32_does_not_hold_is_refused_under_cosine(length: float) -> None:
    rows = np.array([[1, 2, 2], [length, 0, 0], [1e-18, 0, 0], [0, 1e18, 0]], np.float32)
    for some in (rows.tolist(), rows[1:2].tolist()):
        with pytest.raises(SchemaError, match=f"row {len(some) // 3}"):
            as_vectors(some, PLAIN)
    assert len(as_vectors(rows[[0, 2, 3]], PLAIN)) == 3
    queries, _ = as_queries(rows, PLAIN)
    np.testing.assert_allclose(queries[:2], [[1, 2, 2], [1, 0, 0]])
    np.testing.assert_allclose(as_queries(rows[1].tolist(), PLAIN)[0], [[1, 0, 0]])


def test_zero_rows_are_refused_under_cosine_alone() -> None:
    rows = np.ones((8, 3), np.float32)
    rows[5] = 0
    with pytest.raises(SchemaError, match="row 5"):
        as_vectors(rows, PLAIN)
    assert len(as_vectors(rows, L2)) == 8


def test_an_empty_batch_is_fine() -> None:
    assert as_vectors([], PLAIN).shape == (0, 3)
    assert as_vectors(np.empty((0, 3)), PLAIN).shape == (0, 3)


def test_one_and_two_dimensional_queries_are_told_apart() -> None:
    assert as_queries(ROWS[0], PLAIN)[1] is True
    assert as_queries(ROWS[:1], PLAIN)[1] is False
    assert as_queries(ROWS[0].astype(np.float64), PLAIN)[1] is True
    for wrong in (np.ones(6, np.float32), np.ones((3, 2), np.float32), np.ones((1, 2, 3))):
        with pytest.raises(DimensionError, match="query"):
            as_queries(wrong, PLAIN)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_query_without_a_direction_is_refused(value: float, dtype: Any) -> None:
    with pytest.raises(SchemaError, match="row 0"):
        as_queries(np.full(3, value, dtype), PLAIN)


@pytest.mark.parametrize(
    "data",
    [
        [3, 1, 2],
        np.array([3, 1, 2], np.uint8),
        pa.array([3, 1, 2]),
        pd.Series([3, 1, 2]),
        pl.Series([3, 1, 2]),
        (3, 1, 2),
    ],
)
def test_integer_ids_of_every_kind_come_out_as_int64(data: Any) -> None:
    ids = as_ids(data, PLAIN)
    assert ids.dtype == np.int64
    assert ids.tolist() == [3, 1, 2]


@pytest.mark.parametrize("kind", [int, np.int64, np.int32, np.uint64])
def test_one_integer_is_an_array_of_one_id(kind: Any) -> None:
    ids = as_ids(kind(7), PLAIN)
    assert (ids.dtype, ids.tolist()) == (np.int64, [7])
    if kind is not np.int32:
        assert as_ids(kind(2**63 - 1), PLAIN).tolist() == [2**63 - 1]


@pytest.mark.parametrize(
    "data",
    [
        [1.0],
        ["a"],
        [-1],
        [[1]],
        [None],
        [True],
        np.array([2**63], np.uint64),
        [2**70],
        "a",
        -1,
        True,
        1.0,
        2**63,
        2**70,
        np.int64(-1),
        np.float64(1),
    ],
)
def test_ids_that_are_no_row_numbers_are_refused(data: Any) -> None:
    with pytest.raises(SchemaError, match="ids: expected"):
        as_ids(data, PLAIN)


@pytest.mark.parametrize("data", [[1], [""], [None], ["x" * 70_000], [b"x"], ["\ud800"]])
def test_text_ids_must_be_storable_text(data: Any) -> None:
    with pytest.raises(SchemaError, match="ids: expected text"):
        as_ids(data, TEXT_IDS)


def test_text_ids_of_every_kind_come_out_as_str() -> None:
    for data in (["b", "ä"], np.array(["b", "ä"]), pa.array(["b", "ä"]), pl.Series(["b", "ä"])):
        assert as_ids(data, TEXT_IDS).tolist() == ["b", "ä"]
    assert as_ids("one", TEXT_IDS).tolist() == ["one"]


def test_an_id_twice_in_a_batch_is_refused_by_name() -> None:
    with pytest.raises(DuplicateIdError, match="got 7"):
        refuse_duplicates(np.array([7, 1, 7]))
    with pytest.raises(DuplicateIdError, match="got x"):
        refuse_duplicates(np.array(["x", "y", "x"], object))
    refuse_duplicates(np.array([5, 1, 3]))


def test_there_is_one_id_for_each_row() -> None:
    with pytest.raises(SchemaError, match="expected 3 ids"):
        refuse_unmatched(np.array([1, 2]), 3)
