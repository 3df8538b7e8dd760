"""Input that users bring by mistake: an error of vecdb's own, never one from below, and no harm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import vecdb

ROWS = np.random.default_rng(0).standard_normal((3, 4), dtype=np.float32)


@pytest.fixture
def col(tmp_path: Path) -> vecdb.Collection:
    """An empty collection of 4 dimensions."""
    return vecdb.create(tmp_path / "store", 4)


@pytest.mark.parametrize("path", [None, 3, b"store", "", "a\0b"])
def test_a_path_that_is_none_is_refused_by_name(path: Any) -> None:
    with pytest.raises(vecdb.ArgumentError, match="path: expected the path of a folder"):
        vecdb.create(path, 4)
    with pytest.raises(vecdb.ArgumentError, match="path: expected the path of a folder"):
        vecdb.open(path)


def test_a_closed_collection_is_not_entered_again(col: vecdb.Collection) -> None:
    col.close()
    with pytest.raises(vecdb.ClosedError), col:
        pass


def test_a_column_name_with_a_slash_is_refused(col: vecdb.Collection) -> None:
    with pytest.raises(vecdb.SchemaError, match="without a slash, got 'a/b'"):
        col.add(ROWS, metadata={"a/b": [1, 2, 3]})
    with pytest.raises(vecdb.SchemaError, match="without a slash"):
        col.add_columns({"a/b": "int64"})
    assert len(col) == 0


def test_masked_vectors_are_refused_because_numpy_would_drop_the_mask(
    col: vecdb.Collection,
) -> None:
    with pytest.raises(vecdb.SchemaError, match="a masked array with gaps"):
        col.add(np.ma.masked_array(ROWS, mask=ROWS > 0))
    assert len(col.add(np.ma.masked_array(ROWS))) == len(ROWS)


def test_a_column_of_arrays_is_refused_with_the_call_that_makes_one_array_of_it(
    col: vecdb.Collection,
) -> None:
    column = np.empty(3, object)
    column[:] = list(ROWS)
    with pytest.raises(vecdb.SchemaError, match=r"np\.stack\(vectors\)"):
        col.add(column)
    assert len(col.add(np.stack(column).astype("float32"))) == len(ROWS)


def test_a_number_where_text_ids_belong_is_refused(tmp_path: Path) -> None:
    with vecdb.create(tmp_path / "text", 4, ids="string") as col:
        with pytest.raises(vecdb.SchemaError, match="got 5 at position 0"):
            col.add(ROWS[:1], ids=5)
        with pytest.raises(vecdb.SchemaError, match="got None at position 0"):
            col.get(None)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"select": 5}, "select: expected columns out of vector, got 5"),
        ({"select": [["a"]]}, r"select: expected columns out of vector, got \['a'\]"),
        ({"radius": "near"}, "radius: expected a distance, got 'near'"),
    ],
)
def test_a_search_says_what_came(
    col: vecdb.Collection, asked: dict[str, Any], message: str
) -> None:
    col.add(ROWS)
    with pytest.raises(vecdb.VecdbError, match=message):
        col.search(ROWS[0], **asked)


@pytest.mark.parametrize(
    "ask",
    [
        lambda col: bool(np.isnan(col.recall().recall)),
        lambda col: col.recall().queries == 0,
        lambda col: len(col.knn_graph(3).indices) == 0,
        lambda col: len(col.near_duplicates(0.1)) == 0,
        lambda col: [batch.num_rows for batch in col.batches()] == [0],
        lambda col: col.search(ROWS, 3).counts.tolist() == [0, 0, 0],
        lambda col: col.query().num_rows == 0,
    ],
)
def test_an_empty_collection_answers_everything(
    col: vecdb.Collection, ask: Callable[[vecdb.Collection], bool]
) -> None:
    col.add_columns({"n": "int64"})
    assert ask(col)


def test_recall_of_a_filter_that_nothing_passes_claims_nothing(col: vecdb.Collection) -> None:
    col.add(ROWS, metadata={"n": [1, 2, 3]})
    found = col.recall(where="n > 5")
    assert (found.queries, found.low, found.high) == (0, 0.0, 1.0)


def test_a_polars_categorical_is_taken_as_text(col: vecdb.Collection) -> None:
    ids = col.add(
        ROWS, metadata=pl.DataFrame({"lang": pl.Series(["x", "y", None]).cast(pl.Categorical)})
    )
    assert col.get(ids)["lang"].to_pylist() == ["x", "y", None]


@pytest.mark.parametrize(
    "key",
    [
        3,
        -1,
        np.int32(2),
        slice(1, 8),
        slice(None, None, -2),
        [0, -1, 4],
        [],
        np.arange(11) % 3 == 0,
        (3, 1),
        (-2, slice(1, 3)),
        (slice(2, 9), 0),
        (slice(2, 9), [3, 1]),
        (slice(None), slice(None, 2)),
        ([5, 1, 0], slice(1, 3)),
        ([5, 1, 0], [3, 0, 3]),
        ([5, 1, 0], 2),
        (slice(0, 4),),
    ],
)
def test_col_vectors_is_indexed_like_an_array(col: vecdb.Collection, key: Any) -> None:
    rows = np.random.default_rng(1).standard_normal((12, 4), dtype=np.float32)
    col.add(rows[:6])
    col.flush()
    col.add(rows[6:])
    col.delete([8])
    kept = np.delete(rows, 8, axis=0)
    np.testing.assert_array_equal(col.vectors[key], kept[key])


@pytest.mark.parametrize(
    "key", [3, -4, [3], [True, False], [0.5], [[0, 1]], "a", None, 1.5, (0, 0, 0), (0, 9), {0}]
)
def test_an_index_that_fits_no_row_is_an_index_error(col: vecdb.Collection, key: Any) -> None:
    col.add(ROWS)
    with pytest.raises(IndexError):
        col.vectors[key]


def test_a_folder_that_may_not_be_written_is_refused_at_open(
    tmp_path: Path, col: vecdb.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    col.add(ROWS)
    col.close()
    with monkeypatch.context() as patched:
        patched.setattr("os.access", lambda *args, **options: False)
        with pytest.raises(vecdb.StorageError, match=r"writing to .*Permission denied"):
            vecdb.open(tmp_path / "store", "w")
        with vecdb.open(tmp_path / "store") as reader:
            assert len(reader) == 3
    vecdb.open(tmp_path / "store", "w").close()  # no lock was left
