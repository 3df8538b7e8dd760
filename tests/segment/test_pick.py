"""Picked rows are those of the whole columns; only their blocks are hashed, and all that changed in
these is noticed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vecdb import kernels
from vecdb.errors import CorruptionError
from vecdb.segment import format as f
from vecdb.segment import pick as module
from vecdb.segment.columns import write_column
from vecdb.segment.container import Container
from vecdb.segment.fs import Directory
from vecdb.segment.pick import Reach, pick, reach_column, reach_texts, touch
from vecdb.segment.writer import ContainerWriter
from vecdb.workers import Workers

STORE = bytes(16)
KINDS = {
    "bool": pa.bool_(), "int8": pa.int8(), "uint16": pa.uint16(), "float32": pa.float32(),
    "int64": pa.int64(), "time": pa.timestamp("ms"), "string": pa.string(), "binary": pa.binary(),
}  # fmt: skip


@pytest.fixture(params=["compiled", "NumPy"], autouse=True)
def _either_way(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "ready", lambda: request.param == "compiled")


def container(folder: Path, number: int, sections: dict[str, Any]) -> Container:
    name = f"seg-{number:08}.vdb"
    writer = ContainerWriter(Directory(folder), name, f.Header(f.Kind.SEGMENT, STORE, number))
    for section, data in sections.items():
        writer.add(section, data)
    writer.finish({})
    return Container(Directory(folder), name, f.Kind.SEGMENT, STORE)


def damage(file: Container, name: str, place: int) -> Container:
    """The file opened anew, with one byte of a section changed."""
    path = file.path
    raw = bytearray(path.read_bytes())
    raw[file.sections[name].offset + place] ^= 1
    path.unlink()
    path.write_bytes(raw)
    return Container(Directory(path.parent), path.name, f.Kind.SEGMENT, STORE)


def words(file: Container, name: str = "words") -> Reach:
    return Reach(file, None, (name, file.reach(name, 4, 4)), None)


def column(name: str, rows: int, *, nulls: bool) -> pa.Array:
    kind, rng = KINDS[name], np.random.default_rng(rows)
    numbers = rng.integers(0, 2 if name == "bool" else 100, rows)
    plain: list[Any] = (numbers > 0 if name == "bool" else numbers).tolist()
    if name in ("string", "binary"):
        plain = ["grüße" * (n % 3) + str(n) if n % 7 else "" for n in plain]
        plain = plain if name == "string" else [text.encode() for text in plain]
    return pa.array([None if nulls and n % 5 == 2 else v for n, v in enumerate(plain)], kind)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_some_files_are_those_of_the_whole_columns_each_at_its_place(
    tmp_path: Path, kind: str
) -> None:
    """One file without nulls, one with, and one that is older than the column."""
    whole = [
        column(kind, 700, nulls=False),
        column(kind, 333, nulls=True),
        pa.nulls(50, KINDS[kind]),
    ]
    reaches: list[Reach | None] = []
    for number, values in enumerate(whole[:2]):
        name = f"seg-{number:08}.vdb"
        writer = ContainerWriter(Directory(tmp_path), name, f.Header(f.Kind.SEGMENT, STORE, number))
        write_column(writer, 0, values)
        writer.finish({})
        file = Container(Directory(tmp_path), name, f.Kind.SEGMENT, STORE)
        reaches.append(reach_column(file, "c0", KINDS[kind]))
    reaches.append(None)
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, len(values), 40) for values in whole]
    rows[1] = np.array([331, 0, 332, 0])
    for files in ([0], [1], [2], [0, 1], [1, 0, 2]):
        wanted = [([reaches[i], reaches[i]], rows[i]) for i in files]
        places = rng.permutation(sum(len(rows[i]) for i in files))
        expected = pa.concat_arrays([whole[i].take(pa.array(rows[i])) for i in files])
        for found in pick(wanted, [KINDS[kind]] * 2, places):
            assert found.take(pa.array(places)).equals(expected)
    for found in pick([([reaches[0]], rows[0][:0])], [KINDS[kind]], rows[0][:0]):
        assert len(found) == 0


@pytest.mark.parametrize("part", ["c0.0", "c0.1", "c0.2"])
def test_a_changed_byte_is_found_before_a_row_of_its_block_is_picked(
    tmp_path: Path, part: str
) -> None:
    values = column("string", 300_000, nulls=True)
    writer = ContainerWriter(Directory(tmp_path), "seg-00000001.vdb",
                             f.Header(f.Kind.SEGMENT, STORE, 1))  # fmt: skip
    write_column(writer, 0, values)
    writer.finish({})
    sound = Container(Directory(tmp_path), "seg-00000001.vdb", f.Kind.SEGMENT, STORE)
    file = damage(sound, part, sound.sections[part].length - 1)
    reach = reach_column(file, "c0", pa.string())
    some, places = np.array([5, 70_000]), np.array([1, 0])
    if file.sections[part].blocks > 1:  # the last alone has changed
        found = pick([([reach], some)], [pa.string()], places)[0]
        assert found.equals(values.take(pa.array(some[::-1])))
    for _ in range(2):  # it stays so
        with pytest.raises(CorruptionError, match=rf"{file.name}.*'{part}'.* changed bytes in 1 "):
            pick([([reach], np.array([5, 299_999]))], [pa.string()], places)


def test_only_the_blocks_that_rows_lie_in_are_hashed(tmp_path: Path) -> None:
    per_block = f.ROWS_BLOCK // 4
    data = np.random.default_rng(3).integers(0, 2**32, 40 * per_block).astype("<u4")
    sound = container(tmp_path, 7, {"other": np.arange(99, dtype="<u4"), "words": data})
    file = damage(sound, "words", 2 * f.ROWS_BLOCK + 5)
    places = np.array([0, 7, 2 * per_block - 1, 3 * per_block, len(data) - 1])
    touch([([words(file)], places)])
    for place in (2 * per_block, 3 * per_block - 1):
        for _ in range(2):
            with pytest.raises(CorruptionError, match=r"'words'.* changed bytes in 1 of 40 blocks"):
                touch([([words(file, "other"), words(file)], np.array([0, 9])),
                       ([words(file)], np.array([0, place]))])  # fmt: skip
    with pytest.raises(CorruptionError, match="changed bytes in 1 of 40 blocks"):
        file.verify("words")
    touch([([words(file)], places)])
    sound.verify("words")
    assert sound.verified("words")
    assert not file.verified("words")


def test_what_is_known_is_not_hashed_again_until_it_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[int] = []
    changed = module.changed
    monkeypatch.setattr(module, "changed", lambda b: (hashed.append(len(b)), changed(b))[1])
    file = container(tmp_path, 7, {"words": np.arange(10 * f.ROWS_BLOCK // 4, dtype="<u4")})
    reach = words(file)
    rows = np.array([0, 1, 2 * f.ROWS_BLOCK // 4, 9 * f.ROWS_BLOCK // 4])
    for wanted in (rows, rows[:2], np.append(rows, rows[-1] + 5)):
        touch([([reach], wanted)])
    assert sum(hashed) == 3
    assert file.problems() == []
    touch([([reach], np.arange(0, rows[-1], 1000))])
    assert sum(hashed) == 3  # problems() has hashed all of it


def test_texts_have_the_blocks_hashed_that_they_reach_into(tmp_path: Path) -> None:
    size = f.ROWS_BLOCK
    text = np.random.default_rng(5).integers(97, 123, 8 * size).astype("u1")
    offsets = np.array([0, 3, 3, size - 2, size + 2, 4 * size + 1, len(text), len(text)], "<i4")
    sound = container(tmp_path, 7, {"c0.1": offsets, "c0.2": text})
    file = damage(sound, "c0.2", 2 * size)
    for rows in ([0, 1, 2, 3], [5, 6], [1]):
        touch([([reach_texts(file, "c0.1", "c0.2")], np.array(rows))])
    for rows in ([4], [0, 4], [3, 4, 6]):
        with pytest.raises(CorruptionError, match=r"'c0.2'.* changed bytes in 1 of 8 blocks"):
            touch([([reach_texts(file, "c0.1", "c0.2")], np.array(rows))])


def test_many_rows_may_have_few_bytes_of_text(tmp_path: Path) -> None:
    values = pa.array([*[""] * 5_000, "a", *[""] * 5_000])
    name = "seg-00000001.vdb"
    writer = ContainerWriter(Directory(tmp_path), name, f.Header(f.Kind.SEGMENT, STORE, 1))
    write_column(writer, 0, values)
    writer.finish({})
    file = Container(Directory(tmp_path), name, f.Kind.SEGMENT, STORE)
    rows = np.array([7, 5_000, 10_000])
    found = pick([([reach_column(file, "c0", pa.string())], rows)], [pa.string()], np.arange(3))
    assert found[0].to_pylist() == ["", "a", ""]


def test_blocks_that_the_page_cache_lacks_are_read_and_hashed(tmp_path: Path) -> None:
    data = np.random.default_rng(4).integers(0, 2**32, 3 << 20).astype("<u4")
    file = container(tmp_path, 7, {"words": data})
    with file.path.open("rb") as raw:
        os.fsync(raw.fileno())
        os.posix_fadvise(raw.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    rows = np.arange(5, len(data), 40_000)
    found = pick([([words(file)], rows)], [pa.uint32()], np.arange(len(rows)))[0]
    assert found.to_pylist() == data[rows].tolist()


@pytest.mark.parametrize("row", [-1, 9, 2**62, -(2**62)])
def test_rows_outside_a_section_are_refused(tmp_path: Path, row: int) -> None:
    file = container(tmp_path, 7, {"words": np.arange(9, dtype="<u4")})
    with pytest.raises(CorruptionError, match="rows inside the 36 bytes of 'words'"):
        touch([([words(file)], np.array([row]))])


@pytest.mark.parametrize("ends", [[-1, 3], [5, 4], [0, 37], [2, 4, 3, 5], [4, 5, 2, 5]])
def test_crafted_offsets_are_refused_before_they_are_followed(
    tmp_path: Path, ends: list[int]
) -> None:
    file = container(tmp_path, 7, {"ends": np.array(ends, "<i4"), "text": np.full(36, 97, "u1")})
    rows = np.arange(len(ends) - 1)
    with pytest.raises(CorruptionError, match="rows inside the 36 bytes of 'text'"):
        touch([([reach_texts(file, "ends", "text")], rows)])


def test_offsets_that_have_changed_are_named_and_not_what_they_lead_to(tmp_path: Path) -> None:
    sound = container(
        tmp_path, 7, {"ends": np.arange(4, dtype="<i4"), "text": np.full(3, 97, "u1")}
    )
    file = damage(sound, "ends", 4 + 3)
    with pytest.raises(CorruptionError, match="section 'ends' as it was written"):
        touch([([reach_texts(file, "ends", "text")], np.arange(3))])


def test_text_that_is_not_utf8_is_laid_to_the_file_that_has_it(tmp_path: Path) -> None:
    good, bad = (
        container(tmp_path, number, {"ends": np.array([0, 1], "<i4"), "text": text})
        for number, text in enumerate((b"a", b"\xff"))
    )
    wanted = [([reach_texts(file, "ends", "text")], np.array([0])) for file in (good, bad)]
    with pytest.raises(CorruptionError, match=rf"{bad.name}.*UTF8"):
        pick(wanted, [pa.string()], np.array([1, 0]))
    assert pick(wanted, [pa.binary()], np.array([1, 0]))[0].to_pylist() == [b"\xff", b"a"]


def test_more_text_than_an_array_may_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_TEXT", 10)
    file = container(tmp_path, 7, {"ends": np.array([0, 6], "<i4"), "text": b"sixsix"})
    reach, one = reach_texts(file, "ends", "text"), np.array([0])
    assert pick([([reach], one)], [pa.string()], one)[0].to_pylist() == ["sixsix"]
    with pytest.raises(pa.ArrowInvalid, match="12 bytes"):
        pick([([reach], np.array([0, 0]))], [pa.string()], np.array([0, 1]))


@pytest.mark.parametrize("block", [None, 0, 1500, 4095])
def test_threads_share_what_is_to_be_hashed_and_miss_nothing(
    tmp_path: Path, block: int | None
) -> None:
    """Offsets that lie in blocks of several shares lead to the text."""
    count = 4096 * f.ROWS_BLOCK // 4
    offsets = np.arange(count, dtype="<i4")
    text = np.full(int(offsets[-1]), 97, np.uint8)
    file = container(tmp_path, 7, {"c0.1": offsets, "c0.2": text})
    if block is not None:
        file = damage(file, "c0.1", block * f.ROWS_BLOCK)
    wanted = [([reach_texts(file, "c0.1", "c0.2")], np.arange(0, count - 1, 100))]
    with contextlib.closing(Workers(2)) as workers:
        for _ in range(2):
            if block is None:
                touch(wanted, workers)
            else:
                with pytest.raises(CorruptionError, match=r"'c0.1'.* in 1 of 4096 blocks"):
                    touch(wanted, workers)
    assert file.verified("c0.1") == (block is None)
    assert file.verified("c0.2")
