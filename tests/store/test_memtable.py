"""The memtable against a list of rows: every view stays what it was when it was taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.schema import Schema
from vecdb.store.memtable import Memtable, align
from vecdb.store.snapshot import Part

COLUMNS = pa.schema([("n", pa.int64())])


def put(memtable: Memtable, ids: Any, number: int) -> None:
    rows = len(ids)
    memtable.append(
        ids,
        np.full((rows, 2), number, np.float32),
        pa.record_batch([pa.array([number] * rows)], schema=COLUMNS),
    )


def check(part: Part, model: dict[Any, int], strangers: list[Any], kind: Any) -> None:
    assert part.live_rows == len(model)
    wanted = np.array([*model, *strangers], kind)
    rows = part.find(wanted)
    assert (rows[len(model) :] == -1).all()
    found = rows[: len(model)]
    assert (found >= 0).all()
    numbers = np.array(list(model.values()))
    np.testing.assert_array_equal(part.data.vectors[found, 0], numbers)
    np.testing.assert_array_equal(part.data.column("n").to_numpy()[found], numbers)
    assert part.data.ids.get(found).tolist() == list(model)


@pytest.mark.parametrize("ids", ["int64", "string"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_views_are_true_for_good_whatever_is_added_or_deleted_later(
    ids: Any, data: st.DataObject
) -> None:
    kind = np.int64 if ids == "int64" else object
    schema = Schema(dim=2, ids=ids, columns=COLUMNS)
    memtable = Memtable(schema, 1, 1)
    model: dict[Any, int] = {}
    views: list[tuple[Part, dict[Any, int], list[Any]]] = []
    keys = [i if ids == "int64" else f"t{i}" for i in range(12)]
    for step in range(data.draw(st.integers(1, 12))):
        free = [key for key in keys if key not in model]
        if free and data.draw(st.booleans()):
            chosen = data.draw(st.lists(st.sampled_from(free), unique=True, min_size=1))
            put(memtable, np.array(chosen, kind), step)
            model |= dict.fromkeys(chosen, step)
        elif model:
            chosen = data.draw(st.lists(st.sampled_from(sorted(model)), unique=True, min_size=1))
            memtable.kill(memtable.part(schema).find(np.array(chosen, kind)))
            for key in chosen:
                del model[key]
        views.append((memtable.part(schema), dict(model), [k for k in keys if k not in model]))
    for part, expected, strangers in views:
        check(part, expected, strangers, kind)


def test_many_small_batches_are_joined_into_few_chunks() -> None:
    schema = Schema(dim=2, columns=COLUMNS)
    memtable = Memtable(schema, 1, 1)
    for i in range(1000):
        put(memtable, np.array([i]), i)
        if i % 50 == 0:
            assert len(memtable.part(schema).data.column("n")) == i + 1
    assert memtable.part(schema).data.column("n").to_pylist() == list(range(1000))
    assert len(memtable._chunks) <= 10


def test_reserving_more_room_keeps_rows_and_views() -> None:
    schema = Schema(dim=2, columns=COLUMNS)
    memtable = Memtable(schema, 1, 1)
    put(memtable, np.arange(5), 1)
    view = memtable.part(schema)
    memtable.reserve(10 * memtable.capacity)
    put(memtable, np.arange(5, 9), 2)
    check(view, dict.fromkeys(range(5), 1), [5, 6], np.int64)
    assert memtable.part(schema).live_rows == 9


def test_a_view_can_not_be_written_through() -> None:
    memtable = Memtable(Schema(dim=2), 1, 1)
    memtable.append(np.arange(3), np.ones((3, 2), np.float32), None)
    vectors = memtable.part(Schema(dim=2)).data.vectors
    with pytest.raises(ValueError, match="read-only"):
        vectors[0, 0] = 5


def test_aligning_adds_nulls_and_keeps_what_fits() -> None:
    wider = pa.schema([*COLUMNS, ("late", pa.list_(pa.string()))])
    batch = pa.record_batch([[1, 2]], schema=COLUMNS)
    assert align(batch, COLUMNS) is batch
    assert align(batch, wider).to_pylist() == [{"n": 1, "late": None}, {"n": 2, "late": None}]
