"""The short way of a single search gives what the long way gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.query import single
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
        short = search_single(col._store.snapshot, query, k, col._workers, ef_search=ef)
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
        (QUERIES[0] * np.inf, 10, None), (QUERIES[0], 0, None), (QUERIES[0], 3001, None),
        (QUERIES[0], True, None), (QUERIES[0], 10, 0), (QUERIES[0], 10, 1.5), (None, 10, None),
    ],
)  # fmt: skip
def test_anything_out_of_the_common_takes_the_long_way(
    col: vecdb.Collection, query: Any, k: Any, ef: Any
) -> None:
    assert search_single(col._store.snapshot, query, k, col._workers, ef_search=ef) is None


def test_a_query_of_zeros_is_refused_under_cosine_and_answered_otherwise(
    col: vecdb.Collection,
) -> None:
    zeros = np.zeros(24, np.float32)
    short = search_single(col._store.snapshot, zeros, 10, col._workers)
    if col._store.schema.metric == "cosine":
        assert short is None
    else:
        assert short is not None
        np.testing.assert_array_equal(short.ids, col.search(zeros[None], 10).ids[0])


def test_fresh_rows_are_scanned_on_the_short_way_and_deleted_ones_stay_away(tmp_path: Path) -> None:
    def short(query: Any, k: int = 10) -> Any:
        return search_single(col._store.snapshot, query, k, col._workers)

    def same_both_ways() -> None:
        for query in QUERIES:
            long = col.search(query[None], 10)
            np.testing.assert_array_equal(short(query).ids, long.ids[0])
            np.testing.assert_array_equal(short(query).distances, long.distances[0])
            assert short(query).plan == long.plan

    with vecdb.create(tmp_path / "a.vdb", dim=24) as col:
        assert short(QUERIES[0]) is None
        col.add(ROWS)
        same_both_ways()
        col.optimize()
        col.add(-ROWS[:1000])
        col.flush()
        col.add(2 * ROWS[:5])
        assert len(col._store.snapshot.parts) == 3
        same_both_ways()
        nearest = col.search(QUERIES[0], 1).ids
        col.delete(nearest)
        same_both_ways()
        assert not np.isin(nearest, short(QUERIES[0]).ids).any()
        assert col.search(QUERIES[0], 1).ids != nearest


def test_a_filtered_search_is_prepared_once_for_each_state_of_the_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with vecdb.create(tmp_path / "a.vdb", dim=24) as col:
        col.add(ROWS, ids=np.arange(3000), metadata={"n": np.arange(3000)})
        col.optimize()

        def same_both_ways(where: str) -> np.ndarray:
            short = search_single(col._store.snapshot, QUERIES[0], 10, col._workers, where=where)
            long = col.search(QUERIES[:1], where=where)
            assert short is not None
            np.testing.assert_array_equal(short.ids, long.ids[0, : long.counts[0]])
            assert short.plan == long.plan
            return short.ids

        first = same_both_ways("n < 2900")
        with monkeypatch.context() as patched:
            patched.setattr(single, "_prepare", None)
            np.testing.assert_array_equal(same_both_ways("n < 2900"), first)
            with pytest.raises(TypeError):
                col.search(QUERIES[0], where="n < 2901")
        assert same_both_ways("n < 2000").max() < 2000
        assert sorted(same_both_ways("n < 7").tolist()) == list(range(7))  # fewer than k
        assert len(col.search(QUERIES[0], where="n < 7")) == 7
        assert len(col.search(QUERIES[0], where="n < 0")) == 0
        col.delete(first[:3])
        assert not np.isin(first[:3], same_both_ways("n < 2900")).any()
        with col.snapshot() as frozen:
            assert len(frozen.search(QUERIES[0], where="n < 2900")) == 10


def test_a_graph_that_proves_damaged_is_asked_no_more(tmp_path: Path) -> None:
    with vecdb.create(tmp_path / "a.vdb", dim=24, sync="os") as col:
        col.add(ROWS)
        col.optimize()
        assert col.search(QUERIES[0]).plan.strategy == "graph"
        index = col._store.snapshot.parts[0].segment._index
        assert index is not None
        index.on_damage = None  # the writer would build it anew
        index.give_up(vecdb.CorruptionError("a flipped byte"))
        hits = col.search(QUERIES[0])
        assert hits.plan.strategy == "scan"
        np.testing.assert_array_equal(hits.ids, col.search(QUERIES[0], exact=True).ids)


def test_what_is_prepared_goes_with_the_handle_and_is_bounded(tmp_path: Path) -> None:
    with vecdb.create(tmp_path / "a.vdb", dim=24, sync="os") as col:
        col.add(ROWS)
        for k in range(1, 200):
            assert len(col.search(QUERIES[0], k)) == k
        assert len(col._store.snapshot.memo) <= 64
        with col.snapshot() as frozen:
            first = frozen.search(QUERIES[0]).ids
        np.testing.assert_array_equal(col.search(QUERIES[0]).ids, first)


def test_a_handle_that_is_closing_refuses_searches(tmp_path: Path) -> None:
    col = vecdb.create(tmp_path / "a.vdb", dim=24, sync="os")
    col.add(ROWS)
    refused = []

    def look(state: str) -> None:
        if state == "closing":
            with pytest.raises(vecdb.ClosedError):
                col.search(QUERIES[0])
            refused.append(state)

    col.subscribe(look)
    col.close()
    assert refused == ["closing"]
