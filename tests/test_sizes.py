"""Row counts, offsets and ids beyond 31, 32 and 63 bits, on sparse files that the writer makes."""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.errors import CorruptionError
from vecdb.segment import write_segment
from vecdb.segment.format import FileInfo, Header, Kind
from vecdb.segment.fs import Directory
from vecdb.segment.sparse import Sparse
from vecdb.store import names
from vecdb.store.manifest import SegmentEntry, newest_generation, publish, read_manifest

DIM = 4


def store_of(path: Path, segments: list[tuple[int, list[int]]], first: int = 0) -> None:
    """A store with segments of (rows, rows that are not zero); row i holds i in each dimension.

    Ids are consecutive over all segments, from `first` on.
    """
    vecdb.create(path, DIM, "l2", sync="os").close()
    directory = Directory(path)
    old = read_manifest(directory, newest_generation(directory))
    entries = []
    for number, (rows, places) in enumerate(segments, old.next_file):
        values = np.repeat(np.array(places, np.float32)[:, None], DIM, axis=1)
        file = write_segment(
            directory,
            names.container(Kind.SEGMENT, number),
            Header(Kind.SEGMENT, old.uuid, number),
            old.schema,
            rows,
            vectors=[Sparse(rows, np.array(places, np.int64), values)],
            ids=range(first, first + rows),
            column=pytest.fail,
        )
        entries.append(SegmentEntry(file.info, rows, rows, (first, first + rows - 1)))
        first += rows
    new = dataclasses.replace(
        old,
        generation=old.generation + 1,
        segments=tuple(entries),
        next_id=first,
        next_file=old.next_file + len(segments),
    )
    publish(directory, new)
    directory.close()


def vectors_of(col: Any, ids: list[int]) -> list[float]:
    """First component of the vector of each id."""
    return [vector[0] for vector in col.get(ids, vectors=True)["vector"].to_pylist()]


@pytest.mark.parametrize("rows", [2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1, 2**32, 2**32 + 1])
def test_a_segment_of_so_many_rows_opens_and_gives_its_last_row(tmp_path: Path, rows: int) -> None:
    places = sorted({0, 2**31 - 2, rows - 1})
    store_of(tmp_path / "store", [(rows, places)])
    with vecdb.open(tmp_path / "store") as col:
        assert len(col) == rows
        assert vectors_of(col, [*places, 1]) == [float(np.float32(p)) for p in places] + [0]
        assert rows - 1 in col
        assert rows not in col
        assert col.vectors[rows - 1][0] == np.float32(rows - 1)
        page = col.query(limit=2, offset=rows - 2)
        assert page["id"].to_pylist() == [rows - 2, rows - 1]
        assert col.stats()["bytes"] > rows * DIM * 4


def test_ids_go_on_over_segments_beyond_32_bits(tmp_path: Path) -> None:
    store_of(tmp_path / "store", [(2**31, [5]), (2**31, [7]), (1000, [9])])
    with vecdb.open(tmp_path / "store") as col:
        assert len(col) == 2**32 + 1000
        assert vectors_of(col, [5, 2**31 + 7, 2**32 + 9]) == [5, 7, 9]
        hits = col.search([9] * DIM, 2, where=vecdb.col("id") >= 2**32)
        assert hits.ids[0] == 2**32 + 9
        assert hits.plan.matching == 1000


def test_rows_are_added_and_deleted_around_the_four_billionth_id(tmp_path: Path) -> None:
    store_of(tmp_path / "store", [(1000, [3])], first=2**32 - 500)
    with vecdb.open(tmp_path / "store", "w") as col:
        assert col.add(np.full((1, DIM), 8, np.float32)).tolist() == [2**32 + 500]
        assert col.delete([2**32, 2**32 - 1]) == 2
        assert len(col) == 999
        assert vectors_of(col, [2**32 + 500, 2**32 - 497]) == [8, 3]
        with pytest.raises(vecdb.NotFoundError):
            col.get(2**32)


@pytest.mark.parametrize(
    ("rows", "length"), [(2**40 + 1, None), (2**63, None), (10, 2**63), (10, 2**64), (2**40, None)]
)
def test_counts_that_no_file_can_hold_are_refused(
    tmp_path: Path, rows: int, length: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_of(tmp_path / "store", [(10, [3])])
    directory = Directory(tmp_path / "store")
    old = read_manifest(directory, newest_generation(directory))
    (entry,) = old.segments
    info = FileInfo(entry.file.id, length or entry.file.length, entry.file.footer)
    crafted = dataclasses.replace(entry, file=info, rows=rows, live=rows)
    publish(
        directory,
        dataclasses.replace(old, generation=old.generation + 1, segments=(crafted,)),
    )
    where = "MANIFEST-" if rows > 2**40 else "seg-"  # before any arithmetic, or by the file itself
    if length is not None and length > 2**63:
        where = "MANIFEST-"
    with pytest.raises(CorruptionError, match=where), vecdb.open(tmp_path / "store") as col:
        col.get(3, vectors=True)


def resized(path: Path, change: int) -> None:
    """Cut bytes off a file, or add some."""
    os.truncate(path, path.stat().st_size + change)


@pytest.mark.parametrize("change", [-4096, -1, 1, 1 << 20])
def test_a_segment_of_another_length_is_named_when_the_store_is_opened(
    tmp_path: Path, change: int
) -> None:
    store_of(tmp_path / "store", [(2**31, [5]), (2**31, [7])])
    file = max((tmp_path / "store").glob("seg-*"))
    resized(file, change)
    with pytest.raises(CorruptionError, match=file.name):
        vecdb.open(tmp_path / "store")


def test_a_missing_segment_is_named_when_the_store_is_opened(tmp_path: Path) -> None:
    store_of(tmp_path / "store", [(2**31, [5]), (2**31, [7])])
    file = max((tmp_path / "store").glob("seg-*"))
    file.unlink()
    with pytest.raises(CorruptionError, match=file.name):
        vecdb.open(tmp_path / "store")


def test_a_hole_where_the_checksums_of_a_large_graph_belong_is_noticed_at_its_first_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The graph is derived: the answer comes from a scan, and the log names the file."""
    vecdb.warmup()
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((20_000, 64), dtype=np.float32)
    with vecdb.create(tmp_path / "store", 64, "l2", sync="os") as made:
        made.add(rows)
        made.optimize()
        assert made.search(rows[77], 1).plan.strategy == "graph"
    (file,) = (tmp_path / "store").glob("idx-*")
    with vecdb.open(tmp_path / "store") as col:
        section = col._store.snapshot.parts[0].segment.files[1].sections["rows"]
        assert section.length > 16 << 20  # else it is hashed as a whole
    with file.open("r+b") as damaged:
        damaged.seek(section.hashes)
        damaged.write(bytes(8 * section.blocks))
    with vecdb.open(tmp_path / "store") as col, caplog.at_level(logging.WARNING, "vecdb"):
        hits = col.search(rows[77], 1)
        assert hits.ids.tolist() == [77]
        assert hits.plan.strategy == "scan"
    assert file.name in caplog.text


def test_a_changed_byte_in_a_large_graph_is_found_by_verify(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((20_000, 64), dtype=np.float32)
    with vecdb.create(tmp_path / "store", 64, "l2", sync="os") as made:
        made.add(rows)
        made.optimize()
    (file,) = (tmp_path / "store").glob("idx-*")
    with file.open("r+b") as damaged:
        damaged.seek(20 << 20)
        damaged.write(b"changed!")
    with vecdb.open(tmp_path / "store") as col:
        assert file.name in str(col.verify()["problems"])


def hole(file: Path, start: int, length: int) -> None:
    """Zeros where something stood, as a lost extent of a sparse file reads."""
    with file.open("r+b") as damaged:
        damaged.seek(start)
        damaged.write(bytes(length))


@pytest.mark.parametrize("place", ["header", "footer", "tail"])
def test_a_hole_where_a_segment_says_what_it_is_is_named_at_open(
    tmp_path: Path, place: str
) -> None:
    store_of(tmp_path / "store", [(2**31, [5]), (2**31, [7])])
    file = max((tmp_path / "store").glob("seg-*"))
    length = file.stat().st_size
    with file.open("rb") as whole:
        whole.seek(length - 64)
        footer = int.from_bytes(whole.read(8), "little")
    hole(file, *{"header": (0, 64), "footer": (footer, 64), "tail": (length - 64, 64)}[place])
    with pytest.raises(CorruptionError, match=file.name):
        vecdb.open(tmp_path / "store")


@pytest.mark.parametrize("damage", ["header", "tail", "shorter", "longer", "missing"])
def test_an_index_that_is_not_as_it_was_written_is_named_and_answers_come_from_a_scan(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = np.random.default_rng(0).standard_normal((3_000, 16), dtype=np.float32)
    with vecdb.create(tmp_path / "store", 16, "l2", sync="os") as made:
        made.add(rows)
        made.optimize()
    (file,) = (tmp_path / "store").glob("idx-*")
    length = file.stat().st_size
    if damage == "missing":
        file.unlink()
    elif damage in ("shorter", "longer"):
        resized(file, -1 if damage == "shorter" else 1)
    else:
        hole(file, 0 if damage == "header" else length - 64, 64)
    with caplog.at_level(logging.WARNING, "vecdb"), vecdb.open(tmp_path / "store") as col:
        hits = col.search(rows[77], 1)
        assert hits.ids.tolist() == [77]
        assert hits.plan.strategy == "scan"
    assert file.name in caplog.text
