"""Wanted recall: the beam that the calibration picks keeps what it promises on new queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import graph
from vecdb.store import compaction

ROWS, DIM, K = 12_000, 48, 10
RNG = np.random.default_rng(2)
BASIS = RNG.standard_normal((16, DIM))
ALL = (
    RNG.standard_normal((ROWS + 300, 16)) @ BASIS + RNG.standard_normal((ROWS + 300, DIM))
).astype(np.float32)
VECTORS, QUERIES = ALL[:ROWS], ALL[ROWS:]


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Any:
    vecdb.warmup()
    path: Path = tmp_path_factory.mktemp("calibrate") / "store"
    with vecdb.create(path, DIM) as made:
        made.add(VECTORS, metadata={"dice": RNG.random(ROWS)})
        made.optimize()
        yield made


@pytest.mark.parametrize("where", [None, "dice < 0.6", "dice < 0.02"])
@pytest.mark.parametrize("target", [0.8, 0.95, 0.99])
def test_new_queries_reach_the_wanted_recall(
    collection: Any, target: float, where: str | None
) -> None:
    found = collection.recall(K, queries=QUERIES, where=where, target_recall=target)
    assert found.recall >= target - 0.02


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_a_wanted_recall_holds_for_values_of_any_size(tmp_path: Path, metric: str) -> None:
    small = np.float32(1e-8)
    with vecdb.create(tmp_path / "store", DIM, metric) as made:
        made.add(VECTORS[:4000] * small)
        made.optimize()
        found = made.recall(K, queries=QUERIES * small, target_recall=0.95)
    assert found.recall >= 0.93


def test_more_recall_takes_more_steps(collection: Any) -> None:
    steps = [
        collection.search(QUERIES, target_recall=target).plan.visited
        for target in (0.5, 0.9, 0.99, 0.9999)
    ]
    assert steps == sorted(steps)
    assert steps[0] < steps[-1]


def test_a_recall_beyond_the_calibration_is_had_by_a_scan(
    collection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poor(*given: Any) -> dict[str, Any]:
        curves = {"edges": [], "recall": [[0.5, 0.9]], "hops": [[10.0, 20.0]]}
        return {
            "k": 13, "slacks": [1.0, 1.1], "asked": "rows",
            "shares": [curves] * 4, "hidden": [curves] * 3,
        }  # fmt: skip

    monkeypatch.setattr(graph, "calibrate", poor)
    for where in (None, "dice < 0.6"):
        walked = collection.explain(QUERIES[0], 13, where=where, target_recall=0.8)
        assert "graph" in walked.strategy
        for query in (QUERIES[0], QUERIES[:3]):  # alone and in a batch
            plan = collection.explain(query, 13, where=where, target_recall=0.95)
            assert plan.exact
            assert "beyond what walks of this graph" in plan.parts[0].reason


def test_a_graph_is_calibrated_once_per_k(collection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = collection.search(QUERIES[0], target_recall=0.9).plan.visited
    monkeypatch.setattr(graph, "calibrate", None)
    assert collection.search(QUERIES[0], target_recall=0.9).plan.visited == first
    with pytest.raises(TypeError):
        collection.search(QUERIES[0], k=11, target_recall=0.9)


def test_under_a_timeout_nothing_is_calibrated(
    collection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "calibrate", None)
    plan = collection.search(QUERIES[:5], k=12, target_recall=0.9, timeout=60).plan
    assert plan.exact
    assert "no time to calibrate" in plan.parts[0].reason


def test_a_large_graph_keeps_its_calibration_and_a_damaged_one_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "_CALIBRATED_ROWS", 5_000)
    with vecdb.create(tmp_path / "large", DIM) as made:
        made.add(VECTORS[:5_000])
        made.optimize()
    opened = vecdb.open(tmp_path / "large")
    index = opened._store.snapshot.parts[0].segment.graph
    assert graph.kept(index, K) == index.meta["calibration"]
    assert graph.kept(index, K + 1) is None
    with monkeypatch.context() as patched:
        patched.setattr(graph, "calibrate", None)
        assert len(opened.search(QUERIES[0], K, target_recall=0.9)) == K
    good = index.meta["calibration"]["shares"][0]
    for damage in (
        {"hops": good["hops"][1:]}, {"edges": [np.nan] * 4}, {"recall": "high"}, {"hops": []},
        {"hops": good["hops"][0]},
    ):  # fmt: skip
        shares = [{**good, **damage}, *index.meta["calibration"]["shares"][1:]]
        index.meta["calibration"] = {**index.meta["calibration"], "shares": shares}
        assert graph.kept(index, K) is None
        index.meta["calibration"]["shares"][0] = good
    opened.close()


@pytest.mark.parametrize("target", [0, 1, 1.5, -0.1, "high", True])
def test_a_target_that_is_no_share_is_refused(collection: Any, target: Any) -> None:
    with pytest.raises(vecdb.ArgumentError, match="between 0 and 1"):
        collection.search(QUERIES[0], target_recall=target)


def test_a_beam_and_a_target_exclude_each_other(collection: Any) -> None:
    with pytest.raises(vecdb.ArgumentError, match="no ef_search beside it"):
        collection.search(QUERIES[0], target_recall=0.9, ef_search=50)
