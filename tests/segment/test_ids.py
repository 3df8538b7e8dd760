"""Id columns: every kind finds what a dictionary finds, at the bytes that the format promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.errors import CorruptionError
from vecdb.schema import IdType
from vecdb.segment import format as f
from vecdb.segment import ids as ids_module
from vecdb.segment.container import Container
from vecdb.segment.fs import Directory
from vecdb.segment.ids import IdColumn, open_ids, row_hashes, write_ids
from vecdb.segment.pick import SCARCE
from vecdb.segment.writer import ContainerWriter

STORE = bytes(16)
TEXT = st.characters(exclude_categories=["Cs"])  # what UTF-8 can encode


def stored(folder: Path, ids: Any) -> tuple[IdColumn, Container]:
    name = f"seg-{len(list(folder.iterdir())):08d}.vdb"
    writer = ContainerWriter(Directory(folder), name, f.Header(f.Kind.SEGMENT, STORE, 1))
    meta = write_ids(writer, ids if isinstance(ids, np.ndarray) else pa.array(ids, pa.string()))
    writer.finish({"ids": meta})
    container = Container(Directory(folder), name, f.Kind.SEGMENT, STORE)
    kind: IdType = "int64" if isinstance(ids, np.ndarray) else "string"
    return open_ids(container, len(ids), kind), container


def check(column: IdColumn, ids: list[Any], strangers: list[Any]) -> None:
    rows = {key: row for row, key in enumerate(ids)}
    kind = object if any(isinstance(key, str) for key in (*ids, *strangers)) else np.int64
    wanted = np.array([*reversed(ids), *strangers], kind)
    assert column.find(wanted).tolist() == [rows.get(key, -1) for key in wanted.tolist()]
    assert column.get(np.arange(len(ids))).tolist() == ids
    assert len(column) == len(ids)
    assert list(column.all().tolist()) == ids


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 2**63 - 1), unique=True, max_size=60),
    st.lists(st.integers(0, 2**63 - 1), max_size=20),
)
def test_any_int64_ids_are_found_like_in_a_dict(
    tmp_path_factory: pytest.TempPathFactory, ids: list[int], strangers: list[int]
) -> None:
    column, _ = stored(tmp_path_factory.mktemp("ids"), np.array(ids, np.int64))
    check(column, ids, strangers)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(TEXT, min_size=1, max_size=12), unique=True, max_size=60),
    st.lists(st.text(TEXT, min_size=1, max_size=3), max_size=20),
)
def test_any_text_ids_are_found_like_in_a_dict(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str], strangers: list[str]
) -> None:
    column, _ = stored(tmp_path_factory.mktemp("ids"), ids)
    check(column, ids, strangers)


def test_consecutive_ids_cost_no_bytes(tmp_path: Path) -> None:
    column, container = stored(tmp_path, np.arange(10**12, 10**12 + 1000))
    assert not container.sections
    check(column, list(range(10**12, 10**12 + 1000)), [0, 10**12 - 1, 10**12 + 1000])


def test_ascending_ids_need_no_permutation(tmp_path: Path) -> None:
    column, container = stored(tmp_path, np.arange(0, 3000, 3))
    assert set(container.sections) == {"ids"}
    check(column, list(range(0, 3000, 3)), [1, 2999])


def test_texts_of_one_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids_module, "hash_texts", lambda texts: np.full(len(texts), 7, np.uint64))
    ids = [f"text {i}" for i in range(20)]
    column, _ = stored(tmp_path, ids)
    check(column, ids, ["text 99"])


def test_a_few_text_ids_of_many_are_read_alone_and_only_they_are_checked(tmp_path: Path) -> None:
    ids = [f"text {i}" for i in range(3 * SCARCE)]
    column, container = stored(tmp_path, ids)
    raw = bytearray((tmp_path / container.name).read_bytes())
    start = container.sections["ids.text"].offset + sum(map(len, ids[:9]))
    raw[start : start + 1] = b"\xff"  # of the tenth
    (tmp_path / "damaged").mkdir()
    writer = ContainerWriter(
        Directory(tmp_path / "damaged"), container.name, f.Header(f.Kind.SEGMENT, STORE, 1)
    )
    for name, section in container.sections.items():
        writer.add(name, raw[section.offset :][: section.length])
    writer.finish(container.meta)
    crafted = Container(Directory(tmp_path / "damaged"), container.name, f.Kind.SEGMENT, STORE)
    column = open_ids(crafted, len(ids), "string")
    assert column.get(np.array([150, 3, 8])).tolist() == ["text 150", "text 3", "text 8"]
    assert column.find(np.array(["text 4", "nothing"], object)).tolist() == [4, -1]
    for ask in (
        lambda: column.find(np.array(["text 9"], object)),
        lambda: column.get(np.array([9])),
        lambda: column.get(np.arange(9)),
        column.all,
    ):
        with pytest.raises(CorruptionError, match="expected text ids, got Invalid UTF8"):
            ask()


def test_row_hashes_follow_the_rows(tmp_path: Path) -> None:
    ids = [f"text {i * 7919 % 100}" for i in range(100)]
    column, _ = stored(tmp_path, ids)
    expected = ids_module.hash_texts(np.array(ids, object))
    np.testing.assert_array_equal(row_hashes(column), expected)


@pytest.mark.parametrize("first", [-1, 2**63 - 2, "0", None, 1.5])
def test_a_crafted_first_id_is_refused(tmp_path: Path, first: Any) -> None:
    writer = ContainerWriter(
        Directory(tmp_path), "seg-00000001.vdb", f.Header(f.Kind.SEGMENT, STORE, 1)
    )
    writer.finish({"ids": {"kind": "range", "first": first}})
    container = Container(Directory(tmp_path), "seg-00000001.vdb", f.Kind.SEGMENT, STORE)
    with pytest.raises(CorruptionError, match="63 bits"):
        open_ids(container, 5, "int64")


def test_ids_of_another_type_than_the_collections_are_refused(tmp_path: Path) -> None:
    for ids, wanted in ((np.arange(3), "string"), (["a", "b"], "int64")):
        _, container = stored(tmp_path, ids)
        with pytest.raises(CorruptionError, match=f"ids of type {wanted}"):
            open_ids(container, len(ids), wanted)  # type: ignore[arg-type]


def test_a_crafted_permutation_is_refused(tmp_path: Path) -> None:
    writer = ContainerWriter(
        Directory(tmp_path), "seg-00000001.vdb", f.Header(f.Kind.SEGMENT, STORE, 1)
    )
    writer.add("ids", np.array([5, 3], "<i8"))
    writer.add("ids.order", np.array([1, 2], "<u4"))
    writer.finish({"ids": {"kind": "any"}})
    container = Container(Directory(tmp_path), "seg-00000001.vdb", f.Kind.SEGMENT, STORE)
    with pytest.raises(CorruptionError, match="row numbers"):
        open_ids(container, 2, "int64")
