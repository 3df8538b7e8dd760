"""Metadata columns: what goes in comes back, zero-copy, with zone maps that tell the truth."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vecdb.errors import CorruptionError
from vecdb.schema import columns_from
from vecdb.segment import format as f
from vecdb.segment.columns import ZONE_ROWS, open_column, open_stats, write_column
from vecdb.segment.container import Container
from vecdb.segment.fs import Directory
from vecdb.segment.pick import pick, reach_column
from vecdb.segment.writer import ContainerWriter

STORE = bytes(16)
NAME = "seg-00000001.vdb"
SCALARS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
           "float32", "float64", "timestamp[s]", "timestamp[us]")  # fmt: skip
KINDS = (*SCALARS, "string", "binary", "list<string>", "list<int64>", "list<bool>", "list<binary>")


def arrow_type(name: str) -> pa.DataType:
    kind: pa.DataType = columns_from({"x": name}).field(0).type
    return kind


def values(kind: str, rows: int, *, nulls: bool) -> list[Any]:
    rng = np.random.default_rng(rows)

    def one(i: int) -> Any:
        if nulls and i % 5 == 2:
            return None
        if kind.startswith("list"):
            inner = kind[5:-1]
            return [plain(inner, i + j) for j in range(i % 4)]
        return plain(kind, i)

    def plain(name: str, i: int) -> Any:
        if name == "bool":
            return bool(rng.integers(2))
        if name == "string":
            return "grüße" * (i % 3) + str(i)
        if name == "binary":
            return bytes([i % 256]) * (i % 7)
        if name.startswith("timestamp"):
            return dt.datetime(2020, 1, 1) + dt.timedelta(seconds=i * 977)
        if name.startswith("float"):
            return float(np.float32(rng.normal()))
        return int(rng.integers(0, 100))

    return [one(i) for i in range(rows)]


def stored(folder: Path, column: pa.Array) -> Container:
    writer = ContainerWriter(Directory(folder), NAME, f.Header(f.Kind.SEGMENT, STORE, 1))
    entry = ["x", *write_column(writer, 0, column)]
    writer.finish({"columns": [entry]})
    return Container(Directory(folder), NAME, f.Kind.SEGMENT, STORE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nulls", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 100])
def test_every_type_comes_back_equal(tmp_path: Path, kind: str, nulls: bool, rows: int) -> None:
    column = pa.array(values(kind, rows, nulls=nulls), arrow_type(kind))
    read = open_column(stored(tmp_path, column), 0, column.type, rows)
    assert read.equals(column)


def test_all_null_text_has_no_bytes_to_pick(tmp_path: Path) -> None:
    reach = reach_column(stored(tmp_path, pa.nulls(50, pa.string())), "c0", pa.string())
    found = pick([([reach], np.array([3, 49]))], [pa.string()], np.array([0, 1]))
    assert found[0].to_pylist() == [None, None]


@pytest.mark.parametrize("place", [0, 7, 8, 50])  # the first offset, around row 7, the last
def test_crafted_offsets_are_refused_before_a_row_is_picked(tmp_path: Path, place: int) -> None:
    column = pa.array(["text"] * 50)
    offsets = np.frombuffer(column.buffers()[1], "<i4")[:51].copy()
    offsets[place] = 1 << 30
    writer = ContainerWriter(Directory(tmp_path), NAME, f.Header(f.Kind.SEGMENT, STORE, 1))
    writer.add("c0.1", offsets)
    writer.add("c0.2", column.buffers()[2])
    writer.finish({"columns": [["x", "string", 0]]})
    container = Container(Directory(tmp_path), NAME, f.Kind.SEGMENT, STORE)

    rows = np.array([0, 7, 49])
    with pytest.raises(CorruptionError, match="rows inside"):
        pick([([reach_column(container, "c0", pa.string())], rows)], [pa.string()], rows)


@pytest.mark.parametrize("kind", KINDS)
def test_a_slice_is_written_without_the_rows_around_it(tmp_path: Path, kind: str) -> None:
    column = pa.array(values(kind, 100, nulls=True), arrow_type(kind))[13:77]
    container = stored(tmp_path, column)
    assert open_column(container, 0, column.type, 64).equals(column)


def test_reading_copies_nothing(tmp_path: Path) -> None:
    column = pa.array(np.arange(100_000))
    container = stored(tmp_path, column)
    before = pa.total_allocated_bytes()
    read = open_column(container, 0, column.type, 100_000)
    assert pa.total_allocated_bytes() == before
    data = read.buffers()[1]
    start = container.mapping.address
    assert start <= data.address < start + container.length


@pytest.mark.parametrize("kind", SCALARS)
def test_zone_maps_are_the_naive_minimum_and_maximum(tmp_path: Path, kind: str) -> None:
    rows = 2 * ZONE_ROWS + 100
    column = pa.array(values(kind, rows, nulls=True), arrow_type(kind))
    container = stored(tmp_path, column)
    stats = open_stats(container, 0, column.type, rows)
    assert stats is not None
    for block in range(3):
        piece = column[block * ZONE_ROWS : (block + 1) * ZONE_ROWS]
        plain = piece.cast(pa.int64()) if kind.startswith("timestamp") else piece
        known = [value for value in plain.to_pylist() if value is not None]
        assert stats.minimum[block] == min(known)
        assert stats.maximum[block] == max(known)
        assert stats.null_count[block] == piece.null_count


def test_zone_maps_leave_nan_aside_and_show_empty_blocks_as_such(tmp_path: Path) -> None:
    data = np.full(2 * ZONE_ROWS, np.nan)
    data[5] = 2.5
    column = pa.array(data)
    stats = open_stats(stored(tmp_path, column), 0, column.type, len(data))
    assert stats is not None
    assert (stats.minimum[0], stats.maximum[0]) == (2.5, 2.5)
    assert stats.minimum[1] > stats.maximum[1]


def test_crafted_offsets_are_refused_before_arrow_follows_them(tmp_path: Path) -> None:
    writer = ContainerWriter(Directory(tmp_path), NAME, f.Header(f.Kind.SEGMENT, STORE, 1))
    writer.add("c0.1", np.array([0, 2**31 - 1, 4], "<i4"))
    writer.add("c0.2", np.zeros(4, "u1"))
    writer.finish({"columns": [["x", "string", 0]]})
    container = Container(Directory(tmp_path), NAME, f.Kind.SEGMENT, STORE)
    with pytest.raises(CorruptionError, match="column 'x'"):
        open_column(container, 0, pa.string(), 2)


def test_a_column_that_is_too_short_or_of_another_type_is_refused(tmp_path: Path) -> None:
    container = stored(tmp_path, pa.array(np.arange(10)))
    with pytest.raises(CorruptionError, match="bytes where"):
        open_column(container, 0, pa.int64(), 11)
    with pytest.raises(CorruptionError, match="type"):
        open_column(container, 0, pa.string(), 10)
