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
from vecdb.segment import Segment, take, write_segment
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


@pytest.mark.parametrize("size", [f.BLOCK, 64 << 10])  # the file says it
@pytest.mark.parametrize("megabyte", [0, 9, 25])
def test_a_changed_byte_ends_checked_vectors_before_its_block(
    tmp_path: Path, megabyte: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = Schema(dim=333)
    with monkeypatch.context() as then:
        then.setattr(f, "BLOCK", size)
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
    taken = take([(segment, np.array([3, 0, 2]))], ["text"])
    assert taken[0].to_pylist() == ["grün", "good", None]
    with pytest.raises(CorruptionError, match="UTF8"):
        take([(segment, np.array([0, 1]))], ["text"])
    with pytest.raises(CorruptionError, match="text"):
        segment.column("text")


def test_who_goes_on_taking_a_few_rows_has_the_column_opened_whole(tmp_path: Path) -> None:
    segment, one = crafted(tmp_path, 2_500), np.array([0])
    for _ in range(2):  # a take pays for the look at a thousand rows
        assert take([(segment, one)], ["text"])[0].to_pylist() == ["good"]
    with pytest.raises(CorruptionError, match="UTF8"):
        take([(segment, one)], ["text"])


@pytest.mark.parametrize("scarce", [0, SCARCE])
def test_rows_are_taken_from_segments_together_lists_and_younger_columns_too(
    tmp_path: Path, scarce: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecdb.segment.segment.SCARCE", scarce)  # 0: picked
    kinds = [("n", pa.int64()), ("tags", pa.list_(pa.string())), ("late", pa.string())]
    columns = {"n": pa.array(range(9)), "tags": pa.array([["a"] * (i % 3) for i in range(9)])}
    columns["late"] = pa.array([f"late {i}" for i in range(9)])
    segments = []
    for number, names in enumerate((["n", "tags"], ["n", "tags", "late"])):
        schema = Schema(4, "l2", columns=pa.schema([k for k in kinds if k[0] in names]))
        (tmp_path / f"{number}").mkdir()
        file = write_segment(
            Directory(tmp_path / f"{number}"), NAME, f.Header(f.Kind.SEGMENT, STORE, 1), schema, 9,
            vectors=[np.ones((9, 4), np.float32)], ids=np.arange(9), column=columns.__getitem__,
        )  # fmt: skip
        segments.append(Segment(file, Schema(4, "l2", columns=pa.schema(kinds)), 9))
    wanted = [(segments[0], np.array([5, 0])), (segments[1], np.array([4, 8]))]
    n, tags, late = take(wanted, ["n", "tags", "late"], np.array([1, 3, 0, 2]))
    assert n.to_pylist() == [4, 5, 8, 0]
    assert tags.to_pylist() == [["a"], ["a"] * 2, ["a"] * 2, []]
    assert late.to_pylist() == ["late 4", None, "late 8", None]
