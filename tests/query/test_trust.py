"""Recall, why, neighbour graphs and duplicates: what they claim, checked by brute force."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.query import execute
from vecdb.query.execute import Answer
from vecdb.query.plan import Plan
from vecdb.query.recall import hits_per_query, sample_rows, wilson

ROWS, DIM = 600, 6
RNG = np.random.default_rng(3)
VECTORS = RNG.standard_normal((ROWS, DIM)).astype(np.float32)
VECTORS[50] = VECTORS[5]
VECTORS[51] = VECTORS[5] + np.float32(1e-3)
COLOURS = np.array(["red", "green", "blue"])[np.arange(ROWS) % 3]
QUERY = VECTORS[5] + np.float32(0.01)
PLAN = Plan(0, 0, 0, 0, 0, 0, True, True, ())


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path: Path = tmp_path_factory.mktemp("trust") / "store"
    with vecdb.create(path, DIM, "l2") as made:
        made.add(VECTORS[:400], metadata={"colour": COLOURS[:400], "n": np.arange(400)})
        made.flush()
        made.add(VECTORS[400:], metadata={"colour": COLOURS[400:], "n": np.arange(400, ROWS)})
        made.delete([4, 444])
        yield made


def distances_to(query: Any) -> Any:
    return ((VECTORS.astype(float) - query) ** 2).sum(axis=1)


def answer(distances: Any) -> Answer:
    found = np.asarray(distances, np.float32)
    rows = np.where(np.isfinite(found), 1, -1).astype(np.int64)
    return Answer(rows.astype(np.int32), rows, found, PLAN)


# -- recall ----------------------------------------------------------------------------------------


def test_hits_count_by_distance_so_that_ties_cost_nothing() -> None:
    truth = answer([[1, 2, 2], [1, 2, 3], [1, np.inf, np.inf], [np.inf] * 3])
    found = answer([[1, 2, 2], [1, 3, 4], [1, np.inf, np.inf], [np.inf] * 3])
    assert hits_per_query(found, truth).tolist() == [1, 2 / 3, 1, 1]


def test_the_interval_holds_the_true_mean_nineteen_times_of_twenty() -> None:
    rng = np.random.default_rng(0)
    caught = 0
    for _ in range(400):
        easy = rng.random(100) < 0.6  # queries differ: half of them find everything
        shares = np.where(easy, 1.0, rng.binomial(10, 0.8, 100) / 10)
        low, high = wilson(shares, 10)
        caught += low <= 0.92 <= high
    assert 0.92 <= caught / 400 <= 0.99


def test_a_perfect_sample_does_not_claim_certainty() -> None:
    low, high = wilson(np.ones(200), 10)
    assert high == 1
    assert 0.97 < low < 0.99
    assert wilson(np.zeros(20), 10)[0] == 0


def test_samples_are_live_rows_that_pass_drawn_once(collection: Any) -> None:
    snapshot = collection._store.snapshot
    parts, rows = sample_rows(snapshot, None, 10_000, seed=1)
    ids = rows + np.where(parts == 1, 400, 0)
    assert len(set(ids.tolist())) == len(ids) == ROWS - 2
    assert not {4, 444} & set(ids.tolist())


def test_an_exact_search_has_full_recall_and_a_broken_one_has_not(
    collection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = collection.recall(k=5, sample=40)
    assert (found.recall, found.worst, found.queries, found.k) == (1, 1, 40, 5)
    assert found.low < 1 == found.high
    assert found.selectivity == 1
    assert "recall@5 = 1.000" in str(found)
    assert collection.recall(where="colour = 'red'", sample=10).selectivity == pytest.approx(
        1 / 3, abs=0.01
    )

    whole = execute._Run.part

    def half(self: Any, data: Any, passing: Any, choice: Any) -> Any:
        rows, distances, ef, scanned = whole(self, data, passing, choice)
        if not self.request.exact:
            rows[:, ::2], distances[:, ::2] = -1, np.inf
        return rows, distances, ef, scanned

    monkeypatch.setattr(execute._Run, "part", half)
    broken = collection.recall(k=5, queries=VECTORS[:50])
    assert broken.recall < 0.8
    assert broken.low < broken.recall < broken.high < 1


# -- why -------------------------------------------------------------------------------------------


def test_why_tells_rank_and_position(collection: Any) -> None:
    order = np.argsort(distances_to(QUERY), kind="stable")
    order = order[~np.isin(order, [4, 444])]
    for place in (0, 3, 9):
        told = collection.why(QUERY, int(order[place]))
        assert (told.found, told.position, told.reason) == (True, place + 1, "found")
        assert told.rank == place + 1 or place == 1  # rows 5 and 50 share a rank
        assert told.distance == pytest.approx(distances_to(QUERY)[order[place]], rel=1e-4)
    told = collection.why(QUERY, int(order[100]))
    assert (told.found, told.rank, told.reason) == (False, 101, "beyond k")
    assert "true rank 101" in str(told)


def test_why_tells_deleted_absent_and_filtered_rows_apart(collection: Any) -> None:
    assert collection.why(QUERY, 4).reason == "deleted"
    assert collection.why(QUERY, 10_000).reason == "absent"
    told = collection.why(QUERY, 5, where="colour = 'red' AND n >= 5 AND n > 100")
    assert told.reason == "filtered out"
    assert told.failed == ("col('colour') == 'red'", "col('n') > 100")
    assert collection.why(QUERY, 5, radius=1e-9).reason == "beyond k"
    with pytest.raises(vecdb.ArgumentError, match="one query and one id"):
        collection.why(VECTORS[:2], 5)


def test_nothing_tells_of_a_deleted_row_once_it_is_compacted_away(tmp_path: Path) -> None:
    with vecdb.create(tmp_path / "store", DIM, "l2") as made:
        made.add(VECTORS[:100])
        made.flush()
        made.delete(np.arange(60))
        assert made.why(QUERY, 4).reason == "deleted"
        made.optimize()
        assert made.why(QUERY, 4).reason == "absent"


def test_why_finds_the_beam_that_finds_the_row(
    collection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = execute._Run.part

    def narrow(self: Any, data: Any, passing: Any, choice: Any) -> Any:
        rows, distances, ef, scanned = whole(self, data, passing, choice)
        if (self.request.ef_search or 64) < 200:
            rows[:, 1:], distances[:, 1:] = -1, np.inf
        return rows, distances, ef, scanned

    monkeypatch.setattr(execute._Run, "part", narrow)
    order = np.argsort(distances_to(QUERY), kind="stable")
    place = next(i for i in range(3, 10) if (order[i] < 400) in (order[:i] < 400))
    told = collection.why(QUERY, int(order[place]))
    assert (told.reason, told.rank, told.ef_needed) == ("missed by the graph", place + 1, 256)
    assert "ef_search=256" in str(told)


# -- neighbours ------------------------------------------------------------------------------------


def test_the_neighbour_graph_is_that_of_brute_force(collection: Any) -> None:
    graph = collection.knn_graph(4, where="colour = 'green'")
    ids = [i for i in range(1, ROWS, 3) if i not in (4, 444)]
    assert graph.ids.tolist() == ids
    assert graph.indptr.tolist() == list(range(0, 4 * len(ids) + 1, 4))
    chosen = VECTORS[ids].astype(float)
    for i in range(0, len(ids), 17):
        away = ((chosen - chosen[i]) ** 2).sum(axis=1)
        away[i] = np.inf
        assert graph.indices[4 * i : 4 * i + 4].tolist() == np.argsort(away)[:4].tolist()
    table = graph.to_arrow()
    assert table.column_names == ["id", "neighbour", "distance"]
    assert table.num_rows == 4 * len(ids)
    assert graph.recall.recall == 1
    assert "recall@4" in repr(graph)


def test_a_graph_of_fewer_rows_than_k_is_short(collection: Any) -> None:
    graph = collection.knn_graph(10, where="n < 4")
    assert np.diff(graph.indptr).tolist() == [3, 3, 3, 3]


def test_near_duplicates_are_pairs_found_once(collection: Any) -> None:
    found = collection.near_duplicates(1e-4)
    assert [(r["id"], r["neighbour"]) for r in found.pairs.to_pylist()] == [
        (5, 50), (5, 51), (50, 51),
    ]  # fmt: skip
    assert found.pairs["distance"].to_numpy()[0] == 0
    assert len(found) == 3
    many = collection.near_duplicates(0.5)
    apart = ((VECTORS[:, None].astype(float) - VECTORS[None]) ** 2).sum(axis=2)
    live = ~np.isin(np.arange(ROWS), [4, 444])
    close = np.triu((apart <= 0.5) & live[:, None] & live[None], 1)
    assert len(many) == close.sum()
    assert len(collection.near_duplicates(-1.0)) == 0


def test_where_no_row_passes_nothing_is_measured_and_nothing_raised(collection: Any) -> None:
    none = {"where": "colour = ?", "params": ["mauve"]}
    found = collection.recall(**none)
    assert np.isnan(found.recall)
    assert (found.low, found.high, found.queries) == (0, 1, 0)
    own = collection.recall(queries=VECTORS[:3], **none)
    assert np.isnan(own.recall)
    graph = collection.knn_graph(3, **none)
    assert (len(graph.ids), graph.indptr.tolist(), len(graph.indices)) == (0, [0], 0)
    assert len(collection.near_duplicates(9.0, **none)) == 0


def test_parameters_reach_every_call_that_takes_a_filter(collection: Any, tmp_path: Path) -> None:
    red = {"where": "colour = :c", "params": {"c": "red"}}
    rows = collection.query("colour = 'red'").num_rows
    assert collection.query(**red).num_rows == rows > 0
    assert len(collection.knn_graph(2, **red).ids) == rows
    assert collection.near_duplicates(-1.0, **red).recall.queries == min(rows, 100)
    assert collection.recall(sample=5, **red).selectivity == pytest.approx(rows / len(collection))
    with vecdb.create(tmp_path / "other", 2) as other:
        other.add(np.eye(2, dtype=np.float32), metadata={"colour": ["red", "blue"]})
        assert other.delete(**red) == 1
        assert other.query()["colour"].to_pylist() == ["blue"]
    with pytest.raises(vecdb.FilterError, match="params"):
        collection.recall(params=[1])
