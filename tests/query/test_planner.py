"""The planner on a real graph: k rows always, the cheaper way, and an honest account."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.filter import masks
from vecdb.query import planner
from vecdb.query.costs import Costs, costs_of
from vecdb.query.planner import choose

ROWS, DIM, K = 20_000, 24, 10
RNG = np.random.default_rng(1)
CENTRES = RNG.standard_normal((10, DIM)) * 2
CLUSTER = RNG.integers(0, 10, ROWS)
VECTORS = (CENTRES[CLUSTER] + RNG.standard_normal((ROWS, DIM))).astype(np.float32)
QUERIES = (CENTRES[np.arange(40) % 10] + RNG.standard_normal((40, DIM))).astype(np.float32)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One indexed segment with clustered rows; `cluster` follows them, `dice` does not."""
    vecdb.warmup()
    path: Path = tmp_path_factory.mktemp("planner") / "store"
    with vecdb.create(path, DIM, "l2") as made:
        made.add(VECTORS, metadata={"cluster": CLUSTER, "dice": RNG.random(ROWS)})
        made.optimize()
        yield made


def recall(collection: Any, queries: Any, **asked: Any) -> float:
    found = collection.search(queries, K, **asked)
    truth = collection.search(queries, K, exact=True, **asked)
    assert (found.counts == truth.counts).all()
    reach = np.where(np.isfinite(truth.distances), truth.distances, -np.inf).max(axis=1)
    hits = (found.distances <= reach[:, None] * (1 + 1e-5)).sum(axis=1)
    return float(np.minimum(hits, truth.counts).sum() / max(1, truth.counts.sum()))


@pytest.mark.parametrize("share", [0.0001, 0.001, 0.01, 0.05, 0.1, 0.3, 0.6, 0.9, 0.99, 1.0])
def test_recall_and_k_hold_for_filters_independent_of_the_query(
    collection: Any, share: float
) -> None:
    found = collection.query(f"dice < {share}").num_rows
    assert found == 0 or recall(collection, QUERIES, where=f"dice < {share}") >= 0.9


@pytest.mark.parametrize("cluster", [0, 5])
def test_recall_and_k_hold_for_filters_that_favour_or_exclude_the_neighbourhood(
    collection: Any, cluster: int
) -> None:
    mine = QUERIES[np.arange(40) % 10 == cluster]
    assert recall(collection, mine, where=f"cluster = {cluster}") >= 0.9
    assert recall(collection, mine, where=f"cluster <> {cluster}") >= 0.9
    assert recall(collection, mine, where=f"cluster = {(cluster + 3) % 10}") >= 0.9


def test_few_matching_rows_are_scanned_and_many_are_walked(collection: Any) -> None:
    assert collection.explain(QUERIES[0], where="dice < 0.001").parts[0].strategy == "scan"
    walked = collection.explain(QUERIES[0], where="dice < 0.9")
    assert walked.parts[0].strategy == "graph"
    assert walked.matching == (collection.query("dice < 0.9").num_rows)
    assert walked.visited < 1000
    assert not walked.exact
    assert collection.explain(QUERIES[0], exact=True).exact
    assert collection.explain(QUERIES[0]).parts[0].reason == "every row matches"


@pytest.mark.parametrize("asked", [{"ef_search": 63}, {"target_recall": 0.9}])
def test_where_a_scan_is_cheaper_a_walk_is_tried_that_gives_way_to_it(
    collection: Any, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    monkeypatch.setattr(planner, "costs_of", lambda *_: Costs(40.0, 100.0, 64))
    monkeypatch.setattr(planner, "_cheaper", lambda *_: (True, "so it is"))
    mine = QUERIES[np.arange(40) % 10 == 2]
    for query in mine[0], mine[:1]:  # alone and in a batch
        walked = collection.explain(query, where="cluster = 2", **asked)
        assert walked.strategy == "graph"
        assert walked.visited < walked.matching / 2
        given_up = collection.explain(query, where="cluster = 5", **asked)
        assert given_up.strategy == "graph+scan"
        assert [part.scanned for part in given_up.parts] == [1]
        assert given_up.visited == given_up.matching
        assert not given_up.exact
    found = collection.search(mine, where="cluster = 5", **asked)
    assert (
        found.ids.tolist() == collection.search(mine, where="cluster = 5", exact=True).ids.tolist()
    )
    assert collection.explain(mine[0], where="dice < 0.001").strategy == "scan"  # not worth a try


def test_every_matching_row_comes_when_k_reaches_for_all(collection: Any) -> None:
    hits = collection.search(QUERIES[0], k=ROWS)
    assert sorted(hits.ids.tolist()) == list(range(ROWS))
    some = collection.search(QUERIES[0], k=ROWS, where="dice < 0.5")
    assert len(some) == collection.query("dice < 0.5").num_rows


def test_deleted_rows_do_not_shorten_answers(collection: Any, tmp_path: Path) -> None:
    with vecdb.create(tmp_path / "dying", DIM, "l2") as dying:
        dying.add(VECTORS[:4000])
        dying.optimize()
        nearest = dying.search(QUERIES[0], k=3000, exact=True).ids
        dying.delete(nearest)
        snapshot = dying._store.snapshot
        assert snapshot.parts[0].data.rows == 4000, "compaction must not have run yet"
        hits = dying.search(QUERIES[0], k=K)
        assert hits.ids.tolist() == dying.search(QUERIES[0], k=K, exact=True).ids.tolist()


def test_an_expired_deadline_gives_what_there_is(collection: Any) -> None:
    hits = collection.search(QUERIES[0], timeout=0)
    assert not hits.plan.complete
    assert len(hits) <= K
    assert collection.search(QUERIES[0], timeout=60).plan.complete


def test_a_timeout_counts_the_time_that_the_filter_takes(
    collection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = masks.allowed

    def slowly(where: Any, snapshot: Any, params: Any, deadline_ns: int) -> Any:
        time.sleep(0.02)
        return read(where, snapshot, params)

    monkeypatch.setattr(masks, "allowed", slowly)
    late = collection.search(QUERIES[0], where="dice < 0.5", timeout=0.01)
    assert not late.plan.complete


def test_a_long_scan_under_a_deadline_is_one_that_looks_at_the_clock(
    collection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = collection._store.snapshot.parts[0].data
    monkeypatch.setattr(planner, "_LONG", 1000)
    costs = {"matching": 1200, "k": K, "ef_search": 500, "metric": "l2", "exact": False}
    assert choose(data, **costs).strategy == "scan"
    assert not choose(data, **costs).exact
    assert choose(data, **costs, timed=True).exact
    assert not choose(data, **{**costs, "matching": 900}, timed=True).exact
    walked = {**costs, "matching": ROWS - 1, "ef_search": 20}
    assert choose(data, **walked, timed=True)[:2] == ("graph", 20)
    assert choose(data, **walked, timed=True).exact


def test_an_unfiltered_search_for_very_many_rows_is_a_scan(collection: Any) -> None:
    assert collection.explain(QUERIES[0], k=K).parts[0].strategy == "graph"
    assert collection.explain(QUERIES[0], k=ROWS - 1).parts[0].strategy == "scan"


def test_costs_are_measured_once_and_make_sense(collection: Any) -> None:
    data = collection._store.snapshot.parts[0].data
    costs = costs_of(data, "l2")
    assert costs_of(data, "l2") is costs
    assert 0 < costs.row_ns < costs.step_ns
    assert costs.scan_ns(2000) == pytest.approx(2 * costs.scan_ns(1000))
    assert costs.walk_ns(200) > 2 * costs.walk_ns(100)
