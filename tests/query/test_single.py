"""The short way of a single search gives what the long way gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.query.single import search_single

ROWS = np.random.default_rng(0).standard_normal((3000, 24)).astype(np.float32)
QUERIES = np.random.default_rng(1).standard_normal((20, 24)).astype(np.float32)


@pytest.fixture(params=["cosine", "l2", "ip"], scope="module")
def col(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[vecdb.Collection]:
    vecdb.warmup()
    path = tmp_path_factory.mktemp("single") / "a.vdb"
    with vecdb.create(path, dim=24, metric=request.param) as made:
        made.add(ROWS, ids=np.arange(3000) * 7)
        made.optimize()
        yield made


@pytest.mark.parametrize("ef", [None, 1, 16, 300])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_ids_distances_and_plan_are_those_of_a_batch_of_one(
    col: vecdb.Collection, k: int, ef: int | None
) -> None:
    for query in QUERIES:
        short = search_single(col._store.snapshot, query, k, ef)
        assert short is not None
        long = col.search(query[None], k, ef_search=ef)
        np.testing.assert_array_equal(short.ids, long.ids[0])
        np.testing.assert_array_equal(short.distances, long.distances[0])
        assert short.plan == long.plan
        np.testing.assert_array_equal(col.search(query, k, ef_search=ef).ids, short.ids)


@pytest.mark.parametrize(
    ("query", "k", "ef"),
    [
        (QUERIES[:1], 10, None), (QUERIES[0, :20], 10, None), (QUERIES[0].astype(float), 10, None),
        (QUERIES[0].tolist(), 10, None), (QUERIES[0] * np.nan, 10, None),
        (np.zeros(24, np.float32), 10, None), (QUERIES[0], 0, None), (QUERIES[0], 3001, None),
        (QUERIES[0], True, None), (QUERIES[0], 10, 0), (QUERIES[0], 10, 1.5), (None, 10, None),
    ],
)  # fmt: skip
def test_anything_out_of_the_common_takes_the_long_way(
    col: vecdb.Collection, query: Any, k: Any, ef: Any
) -> None:
    assert search_single(col._store.snapshot, query, k, ef) is None


def test_fresh_and_deleted_rows_take_the_long_way(tmp_path: Path) -> None:
    with vecdb.create(tmp_path / "a.vdb", dim=24) as col:
        col.add(ROWS)
        assert search_single(col._store.snapshot, QUERIES[0], 10, None) is None
        col.optimize()
        assert search_single(col._store.snapshot, QUERIES[0], 10, None) is not None
        nearest = col.search(QUERIES[0], 1).ids
        col.delete(nearest)
        assert search_single(col._store.snapshot, QUERIES[0], 10, None) is None
        assert col.search(QUERIES[0], 1).ids != nearest
