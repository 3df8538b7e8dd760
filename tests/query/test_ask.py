"""Everything that can be asked of a search, against brute force over one mixed store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import ArgumentError, NotFoundError, SchemaError, col

ROWS, DIM = 3000, 8
RNG = np.random.default_rng(11)
VECTORS = RNG.standard_normal((ROWS, DIM)).astype(np.float32)
VECTORS[70] = VECTORS[7]  # twins
YEARS = RNG.integers(2000, 2030, ROWS)
DEAD = np.arange(0, ROWS, 9)
QUERY = RNG.standard_normal(DIM).astype(np.float32)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A segment, a memtable, deleted rows, and a column with nulls."""
    path: Path = tmp_path_factory.mktemp("ask") / "store"
    years: list[int | None] = YEARS.tolist()
    years[5] = None
    with vecdb.create(path, DIM, "l2") as made:
        made.add(VECTORS[:2000], metadata={"year": years[:2000]})
        made.flush()
        made.add(VECTORS[2000:], metadata={"year": years[2000:]})
        made.delete(DEAD)
        yield made


def nearest(query: Any = QUERY, allowed: Any = None) -> tuple[list[int], Any]:
    """Ids of all live rows by distance, and the distances."""
    distances = ((VECTORS.astype(float) - query) ** 2).sum(axis=1)
    order = np.argsort(distances, kind="stable")
    order = order[~np.isin(order, DEAD)]
    if allowed is not None:
        order = order[allowed[order]]
    return order.tolist(), distances


def test_a_radius_cuts_the_answer_and_k_none_gives_all_within(collection: Any) -> None:
    order, distances = nearest()
    radius = float(distances[order[200]] + distances[order[201]]) / 2
    assert collection.search(QUERY, k=10, radius=radius).ids.tolist() == order[:10]
    assert collection.search(QUERY, k=None, radius=radius).ids.tolist() == order[:201]
    assert len(collection.search(QUERY, k=500, radius=radius)) == 201
    assert len(collection.search(QUERY, k=None, radius=-1.0)) == 0
    assert len(collection.search(QUERY, k=None, radius=1e9)) == len(collection)
    batch = collection.search(np.stack([QUERY, QUERY + 100]), k=None, radius=radius)
    assert batch.counts.tolist() == [201, 0]
    assert batch.ids.shape == (2, 201)
    assert (batch.ids[1] == -1).all()


def test_groups_give_the_best_row_of_each(collection: Any) -> None:
    best = best_of_groups()
    hits = collection.search(QUERY, k=12, group_by="year", select="year")
    assert hits.ids.tolist() == list(best.values())[:12]
    every = collection.search(QUERY, k=100, group_by="year")
    assert sorted(every.ids.tolist()) == sorted(best.values())
    batch = collection.search(np.stack([QUERY, -QUERY]), k=12, group_by="year")
    assert batch.ids[0].tolist() == hits.ids.tolist()
    assert every.plan.computed > len(collection)  # all rounds are in the account


def best_of_groups(query: Any = QUERY) -> dict[Any, int]:
    """The nearest live row of each year, nearest first."""
    best: dict[Any, int] = {}
    for row in nearest(query)[0]:
        best.setdefault(None if row == 5 else YEARS[row], row)
    return best


def test_all_groups_within_a_radius_are_found(collection: Any) -> None:
    best, (_, distances) = list(best_of_groups().values()), nearest()
    radius = float(distances[best[8]] + distances[best[9]]) / 2
    assert collection.search(QUERY, k=None, radius=radius, group_by="year").ids.tolist() == best[:9]
    both = np.stack([QUERY, QUERY + 100])
    batch = collection.search(both, k=None, radius=radius, group_by="year")
    assert batch.counts.tolist() == [9, 0]
    assert batch.ids[0].tolist() == best[:9]
    none = collection.search(both, k=None, radius=-1.0, group_by="year")
    assert none.counts.tolist() == [0, 0]


def test_pages_of_groups_neither_repeat_nor_skip_a_group(collection: Any) -> None:
    best = list(best_of_groups().values())
    page, seen = collection.search(QUERY, k=7, group_by="year"), []
    while len(page):
        seen += page.ids.tolist()
        page = collection.search(QUERY, k=7, group_by="year", after=page)
    assert seen == best


def test_pages_neither_repeat_nor_skip(collection: Any) -> None:
    where = col("year") > 2010
    order, _ = nearest(allowed=np.where(np.arange(ROWS) == 5, False, YEARS > 2010))
    page = collection.search(QUERY, k=7, where=where)
    seen = page.ids.tolist()
    for _ in range(5):
        page = collection.search(QUERY, k=7, where=where, after=page)
        seen += page.ids.tolist()
    assert seen == order[:42]
    assert page.seen.tolist() == seen
    assert collection.search(QUERY, k=3, where=where, after=seen).ids.tolist() == order[42:45]
    last = collection.search(QUERY, k=10, after=np.arange(ROWS))
    assert len(last) == 0


def test_a_row_can_be_the_query_and_is_no_hit_itself(collection: Any) -> None:
    order, _ = nearest(VECTORS[7])
    assert order[:2] == [7, 70]
    assert collection.search(query_id=7, k=5).ids.tolist() == order[1:6]
    assert collection.search(query_id=2500, k=1).ids.tolist() == nearest(VECTORS[2500])[0][1:2]


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"k": None}, ArgumentError, "within a radius"),
        ({"k": 0}, ArgumentError, "k"),
        ({"radius": "near"}, ArgumentError, "a distance"),
        ({"radius": float("nan")}, ArgumentError, "a distance"),
        ({"group_by": "yeer"}, SchemaError, "year"),
        ({"query_id": 7}, ArgumentError, "no query beside it"),
        ({"query": None, "query_id": [7, 8]}, ArgumentError, "one id"),
        ({"query": None, "query_id": 9}, NotFoundError, "an id of this collection, got 9"),
        ({"query": QUERY[None], "after": [1]}, ArgumentError, "one query"),
        ({"ef_search": 0}, ArgumentError, "ef_search"),
        ({"timeout": -1}, ArgumentError, "timeout"),
        ({"timeout": True}, ArgumentError, "timeout"),
        ({"where": "yeer > 3"}, vecdb.FilterError, "did you mean 'year'"),
        ({"params": [3]}, vecdb.FilterError, "SQL text"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(
    collection: Any, asked: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match="Fix: ") as caught:
        collection.search(**({"query": QUERY} | asked))
    assert said in str(caught.value)


def test_parameters_reach_the_filter(collection: Any) -> None:
    by_text = collection.search(QUERY, where="year IN ?", params=[[2001, 2002]])
    assert (
        by_text.ids.tolist()
        == collection.search(QUERY, where=col("year").isin([2001, 2002])).ids.tolist()
    )


def test_explain_tells_each_part_and_why(collection: Any) -> None:
    plan = collection.explain(QUERY, where="year > 2010")
    assert len(plan.parts) == 2
    assert plan.exact
    assert plan.matching == sum(part.matching for part in plan.parts)
    assert plan.to_dict()["parts"][0]["reason"] == "no graph yet"
    assert "no graph yet" in str(plan)
    assert "part 1: scan" in str(plan)
    nothing = collection.explain(QUERY, where="FALSE")
    assert nothing.parts == ()
    assert nothing.strategy == "scan"
    assert nothing.selectivity == 0
