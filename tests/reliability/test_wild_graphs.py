"""Graphs that a large file may hold are searched unchecked: no read outside, no endless walk.

Run long: ``pytest -m long tests/reliability/test_wild_graphs.py``, 100 times as many, minutes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from breaking import damage, inject, model, probe, wild
from breaking.farm import Farm
from breaking.parts import parts

import vecdb


def search_wild_graphs(farm: Farm, start: int, stop: int) -> None:
    ended = farm.run(wild.search, start, stop)
    last = [line for line in ended.said if line.startswith("at ")][-1:]
    assert (ended.signal, ended.code) == (0, 0), f"{last}, signal {ended.signal}\n{ended.stderr}"
    assert last == [f"at {stop - 1}"]
    took = [float(line.split()[1]) for line in ended.said if line.startswith("took ")]
    assert max(took) < 2, "a walk that hardly ends"


def test_a_graph_that_says_anything_answers_with_rows_and_their_distances(farm: Farm) -> None:
    search_wild_graphs(farm, 0, 200)


@pytest.mark.long
@parts(10)
def test_many_graphs_that_say_anything(part: int, farm: Farm) -> None:
    """2,000 graphs in each part."""
    search_wild_graphs(farm, 1_000 + 2_000 * part, 3_000 + 2_000 * part)


@pytest.mark.parametrize("name", ["rows", "upper_rows", "upper_records", "upper_links"])
def test_a_hostile_section_of_a_large_index_changes_no_distance(name: str, tmp_path: Path) -> None:
    """Its checksums are right and nobody looks at its links beforehand; a merge does."""
    store = tmp_path / "store"
    probe.build(store, rows=260)
    container = damage.Container(next(store.glob("idx-*")))
    assert container.meta["graph"]["levels"] == 1
    container.sections[name] = b"\x7f\x7f\x7f\x7f\xfe\xff\xff\xff" * (
        len(container.sections[name]) // 8
    )
    container.save(store)
    report = vecdb.store.verify(store)
    assert report["ok"] == (name == "upper_records")  # numbers that a record may have
    at_once = {"segment_index__HASHED_BYTES": 0, "segment_index___AT_ONCE": 0}
    with inject.sizes(**at_once), vecdb.open(store) as col:
        state = model.content(col)
        asked = model.vectors_of([1, 2, 3], [6, 7, 8])
        ids, distances = col.search(asked, 5)
        assert col._store.snapshot.parts[0].data.graph is not None
        for query, found, away in zip(asked, ids, distances, strict=True):
            rows = [i for i in found.tolist() if i >= 0]
            right = model.vectors_of(rows, [state[i] for i in rows]).reshape(-1, model.DIM)
            assert abs(((right - query) ** 2).sum(axis=1) - away[: len(rows)]).max(initial=0) < 1e-4
    with inject.sizes(**model.SMALL, **at_once), vecdb.open(store, "w") as col:
        col.optimize()
        model.check(col, [state])
        assert col.recall(5, sample=40, ef_search=64).recall > 0.95
