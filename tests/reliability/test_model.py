"""A Hypothesis state machine: the public API against a dict and NumPy.

200 runs of up to 50 steps in CI; ``pytest -m long tests/reliability/test_model.py`` makes 20,000,
three quarters of an hour of one core.
"""

from __future__ import annotations

import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from breaking import inject, model
from breaking.parts import parts
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import vecdb

IDS = st.sets(st.integers(0, 40), min_size=1, max_size=12)


class Store(RuleBasedStateMachine):
    """A writer, a reader that follows when told, and snapshots that must never change."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "store"
        self.columns = 0
        self.version = 0
        self.state: model.State = {}
        self.history: list[model.State] = [{}]  # after each change
        self._sizes = inject.sizes(**model.SMALL | {"store_memtable__MAX_ROWS": 16})
        self._sizes.__enter__()
        self._calls = inject.calls(inject.NoSync())
        self._calls.__enter__()
        self.col = model.make(self.path, threads=1)
        self.reader = vecdb.open(self.path, threads=1)
        self.seen = 0  # place of the reader in the history
        self.snapshots: list[tuple[vecdb.Collection, model.State]] = []

    def teardown(self) -> None:
        self.look_at_older_handles()
        for col in (self.col, self.reader, *(taken for taken, _ in self.snapshots)):
            col.close()
        self._calls.__exit__(None, None, None)
        self._sizes.__exit__(None, None, None)
        shutil.rmtree(self.folder)

    def change(self, op: model.Op) -> None:
        model.apply(self.col, op)
        self.state = model.after(self.state, op)
        self.history.append(self.state)

    @rule(ids=IDS)
    def add(self, ids: set[int]) -> None:
        self.version += 1
        op = model.Op("add", dict.fromkeys(ids, self.version))
        if ids & self.state.keys():
            with pytest.raises(vecdb.DuplicateIdError):
                model.apply(self.col, op)
        else:
            self.change(op)

    @rule(count=st.integers(1, 30))
    def add_without_ids(self, count: int) -> None:
        """Ids that the store gives are new; they must be foreseen for the vectors to fit."""
        self.version += 1
        first = self.col._store.next_id(0)
        ids = list(range(first, first + count))
        versions = [self.version] * count
        given = self.col.add(
            model.vectors_of(ids, versions), metadata=model.metadata_of(ids, versions)
        )
        assert given.tolist() == ids
        assert not set(ids) & self.state.keys()
        self.state = self.state | dict.fromkeys(ids, self.version)
        self.history.append(self.state)

    @rule(ids=IDS)
    def upsert(self, ids: set[int]) -> None:
        self.version += 1
        self.change(model.Op("upsert", dict.fromkeys(ids, self.version)))

    @rule(ids=IDS)
    def delete(self, ids: set[int]) -> None:
        before = len(self.state)
        present = len(ids & self.state.keys())
        assert self.col.delete(sorted(ids)) == present
        self.state = model.after(self.state, model.Op("delete", dict.fromkeys(ids, 0)))
        self.history.append(self.state)
        assert len(self.col) == before - present

    @rule(data=st.data())
    @precondition(lambda self: self.state)
    def delete_by_filter(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(sorted(set(self.state.values()))))
        self.change(model.Op("delete where", version=version))

    @rule(data=st.data(), low=st.integers(0, 60))
    def query_by_filter(self, data: st.DataObject, low: int) -> None:
        tag = data.draw(st.integers(0, 4))
        rows = model.metadata_of(list(self.state), list(self.state.values()))
        wanted = {
            i
            for i, version, text in zip(self.state, rows["version"], rows["tag"], strict=True)
            if version > low or (text is not None and text.startswith(f"tag {tag}"))
        }
        where = f"version > {low} OR tag LIKE 'tag {tag}%'"
        assert set(self.col.query(where=where).column("id").to_pylist()) == wanted
        hits = self.col.search(model.vectors_of([1], [1])[0], 5, where=where, exact=True)
        assert set(hits.ids.tolist()) <= wanted
        assert len(hits) == min(5, len(wanted))

    @rule(ids=IDS)
    def get(self, ids: set[int]) -> None:
        wanted = sorted(ids)
        if ids <= self.state.keys():
            table = self.col.get(wanted, vectors=True)
            assert table.column("id").to_pylist() == wanted
            flat = table.column("vector").combine_chunks().flatten().to_numpy()
            versions = [self.state[i] for i in wanted]
            assert np.array_equal(flat.reshape(-1, model.DIM), model.vectors_of(wanted, versions))
        else:
            with pytest.raises(vecdb.NotFoundError):
                self.col.get(wanted)

    @rule()
    def search(self) -> None:
        model.check_search(self.col, self.state)

    @rule()
    def flush(self) -> None:
        self.col.flush()

    @rule()
    def optimize(self) -> None:
        self.col.optimize()
        assert self.col.stats()["tombstones"] == 0

    @rule()
    @precondition(lambda self: self.columns < 3)
    def add_column(self) -> None:
        self.col.add_columns({f"extra_{self.columns}": "string"})
        self.columns += 1
        self.history.append(self.state)

    @rule()
    def refresh(self) -> None:
        """A reader that is told to follow is where the writer is: nothing is still on its way."""
        self.reader.refresh()
        self.seen = len(self.history) - 1
        model.check(self.reader, [self.state])

    @rule()
    def take_snapshot(self) -> None:
        self.snapshots.append((self.col.snapshot(), self.state))

    @rule()
    def pickle_the_reader(self) -> None:
        copy: Any = pickle.loads(pickle.dumps(self.reader))
        with copy:
            assert model.content(copy) in self.history[self.seen :]

    @rule()
    def close_and_open(self) -> None:
        self.col.close()
        self.col = vecdb.open(self.path, "w", threads=1)

    @rule()
    def crash_and_open(self) -> None:
        """Another process opens what is on the disk at this moment, as after a kill."""
        copy = self.folder / "crashed"
        while True:
            try:
                shutil.copytree(self.path, copy)
                break
            except shutil.Error:  # a file went while it was being copied: not one moment
                shutil.rmtree(copy)
        with vecdb.open(copy, "w", threads=1) as col:
            model.check(col, [self.state])
        shutil.rmtree(copy)

    @rule()
    def look_at_older_handles(self) -> None:
        assert model.content(self.reader) == self.history[self.seen]
        for taken, state in self.snapshots[-3:]:
            assert model.content(taken) == state

    @invariant()
    def the_writer_holds_what_the_model_holds(self) -> None:
        assert model.content(self.col) == self.state


def run(examples: int, number: int | None = None) -> None:
    """So many histories, those that a number stands for or the same each time."""
    from hypothesis.stateful import run_state_machine_as_test

    vecdb.warmup()
    run_state_machine_as_test(
        Store if number is None else seed(number)(type("Store", (Store,), {})),
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            database=None,
            derandomize=number is None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_200_histories_agree_with_a_dict() -> None:
    run(200)


@pytest.mark.long
@parts(40)
def test_20_000_histories_agree_with_a_dict(part: int) -> None:
    """500 histories in each part, 70 s."""
    run(500, part)
