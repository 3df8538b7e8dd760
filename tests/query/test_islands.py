"""Searches for a wanted recall in the midst of what their filter hides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.filter import masks
from vecdb.query import islands

ROWS, DIM, K = 20_000, 24, 10
RNG = np.random.default_rng(5)
CENTRES = RNG.standard_normal((10, DIM)) * 2
CLUSTER = RNG.integers(0, 10, ROWS)
VECTORS = (CENTRES[CLUSTER] + RNG.standard_normal((ROWS, DIM))).astype(np.float32)
LONELY = (CLUSTER == 0) & (RNG.random(ROWS) < 0.02)
ELSEWHERE = "cluster <> 0 OR lonely"
QUERIES = (CENTRES[0] + RNG.standard_normal((60, DIM))).astype(np.float32)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One indexed segment; a filter hides the cluster of the queries but for a few rows of it."""
    vecdb.warmup()
    path: Path = tmp_path_factory.mktemp("islands") / "store"
    with vecdb.create(path, DIM, "l2") as made:
        made.add(VECTORS, metadata={"cluster": CLUSTER, "lonely": LONELY})
        made.optimize()
        yield made


def recall(collection: Any, found: list[Any], where: str) -> float:
    truth = collection.search(QUERIES, K, where=where, exact=True).distances[:, -1]
    hits = [
        (hits.distances <= kth * (1 + 1e-5)).sum() for hits, kth in zip(found, truth, strict=True)
    ]
    return float(np.mean(hits)) / K


@pytest.mark.parametrize("batch", [False, True])
def test_rows_that_lie_alone_among_hidden_ones_are_found(collection: Any, batch: bool) -> None:
    where = f"({ELSEWHERE}) AND cluster <> {20 + batch}"
    asked: dict[str, Any] = {"where": where, "target_recall": 0.9}
    if batch:
        hits = collection.search(QUERIES, K, **asked)
        found = [hits[i] for i in range(len(QUERIES))]
        plan = hits.plan
    else:
        found = [collection.search(query, K, **asked) for query in QUERIES]
        plan = found[-1].plan
    assert recall(collection, found, where) >= 0.9
    assert plan.strategy == "graph"
    assert plan.visited < plan.queries * plan.matching / 5


def test_the_first_walk_that_is_lost_is_followed_by_a_scan_and_later_ones_are_not(
    collection: Any,
) -> None:
    where = f"({ELSEWHERE}) AND cluster <> 22"
    scanned = [
        sum(
            part.scanned
            for part in collection.search(query, K, where=where, target_recall=0.9).plan.parts
        )
        for query in QUERIES[:5]
    ]
    assert scanned == [1, 0, 0, 0, 0]
    passing = masks.allowed(where, collection._store.snapshot)[0]
    cut = passing.memo["cut"]
    assert np.isin(np.flatnonzero(LONELY), cut).mean() > 0.9
    assert len(cut) < passing.count / 8


def test_deleted_rows_are_a_filter_of_which_as_much_is_learned(tmp_path: Path) -> None:
    with vecdb.create(tmp_path / "store", DIM, "l2") as made:
        made.add(VECTORS, metadata={"cluster": CLUSTER})
        made.optimize()
        made.delete(np.flatnonzero((CLUSTER == 0) & ~LONELY))
        scanned = []
        for query in QUERIES[:5]:
            hits = made.search(query, K, target_recall=0.9)
            scanned.append(sum(part.scanned for part in hits.plan.parts))
        assert scanned == [1, 0, 0, 0, 0]


def test_a_beam_is_not_believed_where_a_walk_is_lost(collection: Any) -> None:
    where = f"({ELSEWHERE}) AND cluster <> 23"
    found = [collection.search(query, K, where=where, ef_search=16) for query in QUERIES]
    assert recall(collection, found, where) == 1
    assert all(hits.plan.parts[0].scanned == 1 for hits in found)


def test_walks_that_find_their_way_look_for_no_islands(
    collection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(islands, "learned", lambda *_: pytest.fail("a walk was lost"))
    for query in QUERIES:
        collection.search(query, K, where="cluster < 8", target_recall=0.9)
