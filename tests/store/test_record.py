"""Records: encoded and decoded they are the same; anything else is refused, never trusted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.batch import Batch
from vecdb.schema import Schema
from vecdb.store import record
from vecdb.store.record import Delete, Kind, NewSchema, Put, decode

COLUMNS = pa.schema([("n", pa.int64()), ("tags", pa.list_(pa.string()))])


def payload(pieces: list[Any]) -> memoryview:
    return memoryview(b"".join(bytes(piece) for piece in pieces))


@pytest.mark.parametrize("ids", ["int64", "string"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("metadata", [False, True])
def test_a_put_comes_back(ids: Any, dtype: Any, metadata: bool) -> None:
    schema = Schema(dim=3, ids=ids, dtype=dtype, columns=COLUMNS if metadata else None)
    keys = np.array([7, 2**62, 0])
    stored = keys if ids == "int64" else np.array(["a", "über", "\0"], object)
    batch = pa.record_batch([[1, None, 3], [["x"], [], None]], schema=COLUMNS)
    rows = Batch(stored, np.arange(9).reshape(3, 3).astype(dtype), batch if metadata else None)
    read = decode(Kind.REPLACE, payload(record.encode_put(rows)), schema)
    assert isinstance(read, Put)
    assert read.replace
    assert read.ids.tolist() == stored.tolist()
    np.testing.assert_array_equal(read.vectors, rows.vectors)
    assert read.metadata == rows.metadata


def test_deletions_and_schemas_come_back() -> None:
    schema = Schema(dim=3, ids="string", columns=COLUMNS)
    read = decode(Kind.DELETE, payload(record.encode_delete(np.array(["x", "yz"], object))), schema)
    assert isinstance(read, Delete)
    assert read.ids.tolist() == ["x", "yz"]
    read = decode(Kind.SCHEMA, payload(record.encode_schema(schema)), Schema(dim=3, ids="string"))
    assert isinstance(read, NewSchema)
    assert read.schema == schema


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_bytes_do_worse_than_a_value_error(data: st.DataObject) -> None:
    schema = Schema(dim=2, ids=data.draw(st.sampled_from(["int64", "string"])), columns=COLUMNS)
    keys: Any = np.array([1, 2]) if schema.ids == "int64" else np.array(["a", "b"], object)
    rows = Batch(
        keys,
        np.zeros((2, 2), np.float32),
        pa.record_batch([[1, 2], [["x"], ["yy", None]]], schema=COLUMNS),
    )
    whole = bytearray(payload(record.encode_put(rows)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    try:
        read = decode(data.draw(st.integers(0, 6)), memoryview(bytes(whole[:cut])), schema)
    except ValueError:
        return
    if isinstance(read, Put) and read.metadata is not None:
        read.metadata.to_pylist()  # validated: touching it is safe


@pytest.mark.parametrize("rows", [0, 3, 2**32 - 1])
def test_a_crafted_row_count_is_refused_before_anything_is_allocated(rows: int) -> None:
    import struct

    head = struct.pack("<III4x", rows, 16, 0)
    with pytest.raises(ValueError, match="fit"):
        decode(Kind.PUT, memoryview(head + bytes(16 + 24)), Schema(dim=3))
