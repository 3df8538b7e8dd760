"""A segment: rows in, the same rows out; checked where it says so, mapped while it is used."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vecdb.errors import CorruptionError
from vecdb.schema import Schema
from vecdb.segment import Segment, write_segment
from vecdb.segment import format as f
from vecdb.segment.container import Container
from vecdb.segment.fs import Directory
from vecdb.segment.pick import SCARCE

STORE = bytes(16)
NAME = "seg-00000001.vdb"
COLUMNS = pa.schema([("n", pa.int64())])


def stored(folder: Path, schema: Schema, rows: int) -> tuple[Segment, np.ndarray]:
    vectors = np.random.default_rng(0).normal(size=(rows, schema.dim)).astype(schema.dtype)
    directory = Directory(folder)
    file = write_segment(
        directory, NAME, f.Header(f.Kind.SEGMENT, STORE, 1), schema, rows,
        vectors=(vectors[i : i + 100] for i in range(0, rows, 100)), ids=np.arange(rows) * 2,
        column=lambda name: pa.array(np.arange(rows)),
    )  # fmt: skip
    return Segment(file, schema, rows), vectors


def reopened(folder: Path, schema: Schema, rows: int) -> Segment:
    return Segment(Container(Directory(folder), NAME, f.Kind.SEGMENT, STORE), schema, rows)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("rows", [0, 1, 777])
def test_rows_come_back_on_page_boundaries_and_read_only(
    tmp_path: Path, dtype: Any, rows: int
) -> None:
    segment, vectors = stored(tmp_path, Schema(dim=5, dtype=dtype, columns=COLUMNS), rows)
    np.testing.assert_array_equal(segment.vectors, vectors)
    assert segment.vectors.dtype == dtype
    assert segment.vectors.ctypes.data % 4096 == 0
    assert not segment.vectors.flags.writeable
    assert segment.ids.find(np.arange(rows) * 2).tolist() == list(range(rows))
    assert segment.column("n").to_pylist() == list(range(rows))
    assert segment.verify() == []


def test_checked_vectors_are_all_rows_in_blocks(tmp_path: Path) -> None:
    schema = Schema(dim=333)  # rows that do not divide a block of 1 MiB
    segment, vectors = stored(tmp_path, schema, 20_000)
    seen = 0
    for start, block in segment.checked_vectors():
        assert start == seen
        np.testing.assert_array_equal(block, vectors[start : start + len(block)])
        seen += len(block)
    assert seen == len(vectors)


@pytest.mark.parametrize("megabyte", [0, 9, 25])
def test_a_changed_byte_ends_checked_vectors_before_its_block(
    tmp_path: Path, megabyte: int
) -> None:
    schema = Schema(dim=333)
    stored(tmp_path, schema, 20_000)
    position = 4096 + megabyte * 2**20 + 12_345
    with (tmp_path / NAME).open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1]))
    segment = reopened(tmp_path, schema, 20_000)
    blocks = segment.checked_vectors()
    read: list[int] = []
    with pytest.raises(CorruptionError, match=NAME):
        read.extend((start + len(block)) * 333 * 4 for start, block in blocks)
    assert max(read, default=0) <= position - 4096
    with pytest.raises(CorruptionError, match=NAME):
        segment.check_vectors()


def test_another_number_of_rows_or_dimensions_is_refused_at_first_use(tmp_path: Path) -> None:
    schema = Schema(dim=5, columns=COLUMNS)
    stored(tmp_path, schema, 100)
    for rows, dim in ((101, 5), (100, 6), (2**40, 5)):
        segment = reopened(tmp_path, Schema(dim=dim, columns=COLUMNS), rows)
        for use in (lambda s: s.vectors, lambda s: s.ids, lambda s: s.column("n")):
            with pytest.raises(CorruptionError, match=NAME):
                use(segment)


def test_a_view_outlives_its_segment_and_ends_the_mapping(tmp_path: Path) -> None:
    segment, vectors = stored(tmp_path, Schema(dim=5, columns=COLUMNS), 100)
    view = segment.vectors[50:60]
    column = segment.column("n").slice(50, 10)
    del segment
    gc.collect()
    (tmp_path / NAME).unlink()
    np.testing.assert_array_equal(view, vectors[50:60])
    assert column.to_pylist() == list(range(50, 60))
    del view
    assert str(tmp_path / NAME) in Path("/proc/self/maps").read_text()
    del column
    gc.collect()
    assert str(tmp_path / NAME) not in Path("/proc/self/maps").read_text()


def test_a_column_younger_than_the_file_is_null(tmp_path: Path) -> None:
    segment, _ = stored(tmp_path, Schema(dim=5, columns=COLUMNS), 100)
    later = segment.with_schema(segment.schema.with_columns(pa.schema([("late", pa.string())])))
    assert later.column("late").null_count == 100
    assert later.block_stats("late") is None
    assert later.column("n").equals(segment.column("n"))
    assert "late" not in segment.columns.names


def crafted(folder: Path, rows: int) -> Segment:
    """A segment with a column of text, of which every second row of four is not UTF-8."""
    schema = Schema(dim=4, metric="l2", columns=pa.schema([("text", pa.string())]))
    texts = pa.array([b"good", b"\xff\xfe", None, b"gr\xc3\xbcn"] * (rows // 4), pa.binary())
    column = pa.Array.from_buffers(pa.string(), rows, texts.buffers())
    directory = Directory(folder)
    file = write_segment(
        directory, NAME, f.Header(f.Kind.SEGMENT, STORE, 1), schema, rows,
        vectors=[np.ones((rows, 4), np.float32)], ids=np.arange(rows), column=lambda name: column,
    )  # fmt: skip
    return Segment(file, schema, rows)


def test_taken_text_is_checked_row_by_row_and_whole_columns_as_a_whole(tmp_path: Path) -> None:
    segment = crafted(tmp_path, 64 * SCARCE)
    assert segment.take(["text"], np.array([3, 0, 2]))[0].to_pylist() == ["grün", "good", None]
    with pytest.raises(CorruptionError, match="UTF8"):
        segment.take(["text"], np.array([0, 1]))
    with pytest.raises(CorruptionError, match="text"):
        segment.column("text")


def test_who_goes_on_taking_a_few_rows_has_the_column_opened_whole(tmp_path: Path) -> None:
    segment = crafted(tmp_path, 2_500)
    for _ in range(2):  # a take pays for the look at a thousand rows
        assert segment.take(["text"], np.array([0]))[0].to_pylist() == ["good"]
    with pytest.raises(CorruptionError, match="UTF8"):
        segment.take(["text"], np.array([0]))
