"""Vectors of another model are noticed; sorted and clustered ones of the same model are not."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb

DIM = 192
RNG = np.random.default_rng(0)
SCALES = np.exp(RNG.normal(0, 0.5, DIM))
CENTRES = RNG.standard_normal((8, DIM)) * SCALES


def embedded(rows: int, cluster: int | None = None) -> np.ndarray:
    """Vectors of one model: all have its scales, each lies in a cluster."""
    which = RNG.integers(0, 8, rows) if cluster is None else np.full(rows, cluster)
    return (CENTRES[which] + RNG.standard_normal((rows, DIM)) * SCALES).astype(np.float32)


@pytest.fixture
def col(tmp_path: Path) -> Iterator[vecdb.Collection]:
    with vecdb.create(tmp_path / "a", DIM, model="small-192") as made:
        made.add(embedded(1000))
        yield made


def test_more_of_the_same_model_is_taken_in_silence(col: vecdb.Collection) -> None:
    col.add(embedded(500), model="small-192")
    for cluster in range(8):
        col.add(embedded(100, cluster))
    col.add(embedded(20) * 100)  # too few to judge
    assert len(col) == 1000 + 500 + 800 + 20


@pytest.mark.parametrize("dim", [128, 384])
@pytest.mark.parametrize("make", [RNG.standard_normal, RNG.random])
def test_random_numbers_are_taken_in_silence(tmp_path: Path, dim: int, make: Any) -> None:
    """They have no profile that a batch could differ from."""
    with vecdb.create(tmp_path / "a", dim) as col:
        for _ in range(8):
            col.add(make((400, dim)).astype(np.float32))
        with pytest.warns(vecdb.ModelWarning, match="vectors of length"):
            col.add(make((400, dim)).astype(np.float32) * 50)


def test_another_models_name_is_noticed_however_few_rows_it_has(col: vecdb.Collection) -> None:
    with pytest.warns(vecdb.ModelWarning, match="'small-192', got of 'large-192'"):
        col.add(embedded(1), model="large-192")
    with pytest.warns(vecdb.ModelWarning, match="'large-192'"):
        col.upsert(embedded(1), [5], model="large-192")


def test_vectors_of_another_length_are_noticed(col: vecdb.Collection) -> None:
    with pytest.warns(vecdb.ModelWarning, match="vectors of length"):
        col.add(embedded(100) / 50)


def test_vectors_spread_over_other_dimensions_are_noticed_by_the_models_name(
    col: vecdb.Collection,
) -> None:
    turned = np.linalg.qr(RNG.standard_normal((DIM, DIM)))[0].astype(np.float32)
    with pytest.warns(vecdb.ModelWarning, match="model 'small-192', got vectors spread"):
        col.add(embedded(300) @ turned)


def test_a_warning_made_an_error_leaves_nothing_written(col: vecdb.Collection) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(vecdb.ModelWarning):
            col.add(embedded(100) / 50)
    assert len(col) == 1000


def test_the_name_is_kept_with_the_collection(tmp_path: Path) -> None:
    vecdb.create(tmp_path / "a", DIM, model="small-192").close()
    with vecdb.open(tmp_path / "a", "w") as col, pytest.warns(vecdb.ModelWarning):
        col.add(embedded(1), model="large-192")
    vecdb.create(tmp_path / "a", DIM, exist_ok=True).close()
    with pytest.raises(vecdb.SchemaError, match="large-192"):
        vecdb.create(tmp_path / "a", DIM, exist_ok=True, model="large-192")


@pytest.mark.parametrize("name", ["", 7, "a\0b", "x" * 300])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: object) -> None:
    with pytest.raises(vecdb.ArgumentError, match="model: expected printable text"):
        vecdb.create(tmp_path / "a", DIM, model=name)  # type: ignore[arg-type]


@pytest.mark.skipif("VECDB_DATA" not in os.environ, reason="real data sets are in VECDB_DATA")
def test_real_vectors_sorted_around_one_of_them_are_taken_in_silence(tmp_path: Path) -> None:
    with np.load(Path(os.environ["VECDB_DATA"]) / "text-384-angular.npz") as arrays:
        rows = arrays["train"][:12_000].astype(np.float32)
    rows = rows[np.argsort(-(rows @ rows[77]))]
    with vecdb.create(tmp_path / "a", 384) as col:
        for start in range(0, 12_000, 1_000):
            col.add(rows[start : start + 1_000])
        turned = np.linalg.qr(RNG.standard_normal((384, 384)))[0].astype(np.float32)
        with pytest.warns(vecdb.ModelWarning, match="spread over other dimensions"):
            col.add(rows[:1_000] @ turned)
