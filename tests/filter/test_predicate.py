"""Predicates of the user's own: what a NumPy twin says, typed errors, no GIL."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import vecdb

ROWS = 70_000
RNG = np.random.default_rng(0)
YEAR = RNG.integers(1990, 2030, ROWS).astype(np.int32)
PRICE = RNG.random(ROWS) * 100
NULL = RNG.random(ROWS) < 0.1
VECTORS = RNG.standard_normal((ROWS, 4), dtype=np.float32)


@pytest.fixture(scope="module")
def col(tmp_path_factory: pytest.TempPathFactory) -> Iterator[vecdb.Collection]:
    vecdb.warmup()
    metadata = pa.table({
        "year": YEAR, "price": pa.array(PRICE, mask=NULL), "new": YEAR > 2020,
        "at": pa.array(YEAR.astype(np.int64), pa.timestamp("s")), "tags": [["a"]] * ROWS,
        "lang": ["en", "fr"] * (ROWS // 2),
    })  # fmt: skip
    with vecdb.create(tmp_path_factory.mktemp("predicate") / "store", 4) as made:
        made.add(VECTORS, metadata=metadata)
        yield made


def passing(col: vecdb.Collection, where: Any) -> list[int]:
    return sorted(col.query(where, select=[])["id"].to_pylist())


def cheap(year: Any, price: Any) -> Any:
    return math.sqrt(price) < (year - 1990) / 4


CHEAP = np.sqrt(PRICE) < (YEAR - 1990) / 4


def test_rows_for_which_the_function_is_true_pass_and_nulls_never_do(col: vecdb.Collection) -> None:
    own = vecdb.predicate(cheap, "year", "price")
    assert passing(col, own) == np.flatnonzero(CHEAP & ~NULL).tolist()
    assert passing(col, ~own) == np.flatnonzero(~CHEAP & ~NULL).tolist()


def test_predicates_combine_with_other_conditions_and_searches(col: vecdb.Collection) -> None:
    own = vecdb.predicate(cheap, "year", "price") & (vecdb.col("lang") == "en")
    wanted = np.flatnonzero(CHEAP & ~NULL & (np.arange(ROWS) % 2 == 0))
    assert passing(col, own) == wanted.tolist()
    hits = col.search(VECTORS[0], 20, where=own)
    assert len(hits) == 20
    assert np.isin(hits.ids, wanted).all()


def test_bools_timestamps_ids_and_compiled_functions_are_taken(col: vecdb.Collection) -> None:
    import numba

    odd = numba.njit(lambda new, at, row: new and at % 2 == 1 and row > 100)
    where = vecdb.predicate(odd, "new", "at", "id")
    wanted = (YEAR > 2020) & (YEAR % 2 == 1) & (np.arange(ROWS) > 100)
    assert passing(col, where) == np.flatnonzero(wanted).tolist()


@pytest.mark.parametrize("name", ["lang", "tags"])
def test_a_column_that_is_not_numeric_is_refused(col: vecdb.Collection, name: str) -> None:
    with pytest.raises(vecdb.FilterError, match=f"column '{name}'"):
        col.search(VECTORS[0], where=vecdb.predicate(lambda x: x > 1, name))


def test_an_unknown_column_suggests_the_nearest(col: vecdb.Collection) -> None:
    with pytest.raises(vecdb.FilterError, match="did you mean 'year'"):
        col.search(VECTORS[0], where=vecdb.predicate(lambda x: x > 1, "yaer"))


@pytest.mark.parametrize("function", [open, lambda x: x.lower() == "a", lambda x, y: x > y])
def test_a_function_that_does_not_compile_is_refused(col: vecdb.Collection, function: Any) -> None:
    with pytest.raises(vecdb.FilterError, match="a function that numba compiles for int32"):
        col.search(VECTORS[0], where=vecdb.predicate(function, "year"))


@pytest.mark.parametrize(("function", "columns"), [("year > 1", ("year",)), (abs, ()), (abs, (1,))])
def test_what_is_no_function_of_columns_is_refused(function: Any, columns: Any) -> None:
    with pytest.raises(vecdb.FilterError, match="a function and the names of its columns"):
        vecdb.predicate(function, *columns)


def test_other_threads_run_while_a_predicate_does(tmp_path: Path) -> None:
    def slow(x: Any) -> Any:
        total = 0.0
        for i in range(20_000):
            total += math.sqrt(x + i)
        return total > 0

    own = vecdb.predicate(slow, "x")
    with vecdb.create(tmp_path / "a", 4) as col:
        col.add(VECTORS[:10_000], metadata={"x": np.arange(10_000)})
        col.query(vecdb.predicate(slow, "x"), limit=0)  # compiled, and remembered
        col.add(VECTORS[:10_000], metadata={"x": np.arange(10_000)})
        done = threading.Event()
        turns = [0]

        def count() -> None:
            while not done.wait(0.001):
                turns[0] += 1

        counter = threading.Thread(target=count)
        counter.start()
        assert len(col.query(own)) == 20_000
        done.set()
        counter.join()
        assert turns[0] > 20  # with the GIL held it would be one or two
