"""verify and repair: they name what is lost, keep the rest, and never touch the damaged store."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vecdb.batch import Batch
from vecdb.errors import CorruptionError, ExistsError, NotFoundError
from vecdb.schema import Schema
from vecdb.store import Store, memtable, repair, verify, verifying


def damage(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def mended(lab: Any, target: Path) -> tuple[dict[str, Any], dict[Any, Any]]:
    """The report of a repair, and what the new store holds; the old one must not change."""
    before = {path.name: path.read_bytes() for path in lab.folder.iterdir()}
    report = repair(lab.folder, target)
    assert {path.name: path.read_bytes() for path in lab.folder.iterdir()} == before
    store = Store.open(target, workers=lab.workers, verify="full")
    contents = lab.contents(store)
    store.close()
    assert report["ok"]
    assert report["rows"] == len(contents)
    return report, contents


@pytest.fixture
def expected(lab: Any) -> dict[Any, Any]:
    """A store of two segments, one with deleted rows, and a log with three records."""
    store = lab.segments(100)
    store.append(lab.batch(range(100, 200)))
    store.delete(np.arange(50, 60))
    store.flush()
    store.append(lab.batch(range(200, 210)))
    store.append(lab.batch([5], shift=0.5), replace=True)
    store.delete(np.array([205]))
    contents: dict[Any, Any] = lab.contents(store)
    lab.crash(store)
    return contents


def test_a_whole_store_passes_and_is_copied_as_it_is(
    lab: Any, tmp_path: Path, expected: dict[Any, Any]
) -> None:
    report = verify(lab.folder)
    assert report["ok"]
    assert report["problems"] == []
    assert report["rows"] == 190
    report, contents = mended(lab, tmp_path / "new")
    assert contents == expected
    assert report["problems"] == []


def test_a_copy_whose_segments_hold_replaced_rows_is_sound(
    lab: Any, tmp_path: Path, expected: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memtable, "MAX_ROWS", 64)  # so a row of the log replaces one of a segment
    report, contents = mended(lab, tmp_path / "new")
    assert contents == expected
    assert report["problems"] == []


def test_every_file_that_is_damaged_is_named(
    lab: Any, tmp_path: Path, expected: dict[Any, Any]
) -> None:
    for path in sorted(lab.folder.iterdir()):
        if path.name == "LOCK":
            continue
        whole = path.read_bytes()
        for content in (whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:], whole[: len(whole) // 2]):
            path.write_bytes(content)
            report = verify(lab.folder)
            if path.name.startswith("wal"):  # the end of a log may be torn
                assert report["torn_bytes"]
            else:
                assert not report["ok"]
                assert any(path.name in problem for problem in report["problems"])
        path.write_bytes(whole)
    assert verify(lab.folder)["ok"]


def test_a_column_that_was_added_while_rows_were_flushed_is_sound(lab: Any, tmp_path: Path) -> None:
    """Their segment has it, the manifest doesn't: a record of the log, which follows, does."""
    store = lab.create()
    store._background.stop()
    store.append(lab.batch(range(10)))
    writer = store._writer()
    with writer.lock:
        writer._rotate()
    store.add_columns(pa.schema([("extra", pa.int32())]))
    assert writer.flush_oldest()
    lab.crash(store)
    assert "extra" not in writer.manifest.schema.columns.names
    report = verify(lab.folder)
    assert (report["ok"], report["problems"], report["log_records"]) == (True, [], 1)
    assert mended(lab, tmp_path / "new")[0]["problems"] == []


def test_a_store_that_changes_while_it_is_verified_is_sound(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = lab.segments(100)
    read_manifest = verifying.read_manifest

    def overtaken(*args: Any) -> Any:
        manifest = read_manifest(*args)
        monkeypatch.undo()
        store.append(lab.batch(range(100, 200)))
        store.optimize()  # the files that this manifest names are gone
        return manifest

    monkeypatch.setattr(verifying, "read_manifest", overtaken)
    report = verify(lab.folder)
    assert (report["ok"], report["rows"], report["problems"]) == (True, 200, [])
    store.close()


def test_damaged_vectors_cost_their_block_and_nothing_else(lab: Any, tmp_path: Path) -> None:
    rows = 3 * 2**20 // 64  # three blocks of 1 MiB
    store = lab.create()
    store.append(lab.batch(range(rows)))
    store.close()
    damage(lab.file("seg"), 4096 + 2**20 + 77)
    report, contents = mended(lab, tmp_path / "new")
    third = rows // 3
    assert set(contents) == set(range(third)) | set(range(2 * third, rows))
    assert f"{third} rows" in report["problems"][0]


ROWS = 3 * 2**16 // 8  # three blocks of 64 KiB of numbers


@pytest.mark.parametrize("texts", [False, True])
@pytest.mark.parametrize("manifest", [True, False])
def test_damaged_ids_cost_their_block_and_nothing_else(
    lab: Any, tmp_path: Path, texts: bool, manifest: bool
) -> None:
    ids: Any = range(0, 2 * ROWS, 2)
    if texts:
        ids = [f"t{number}" for number in ids]
    store = lab.create(dataclasses.replace(lab.schema, ids="string" if texts else "int64"))
    store.append(lab.batch(ids))
    store.flush()
    section = store.snapshot.parts[0].segment.files[0].sections["ids.text" if texts else "ids"]
    store.close()
    path = lab.file("seg")
    damage(path, section.offset + section.length // 2)
    if not manifest:
        lab.file("MANIFEST").unlink()
    report, contents = mended(lab, tmp_path / "new")
    lost = set(ids) - set(contents)
    assert 0 < len(lost) <= 2**16 // (5 if texts else 8) + 2  # a text has 5 bytes or more, but few
    assert any(path.name in problem and "ids" in problem for problem in report["problems"])


@pytest.mark.parametrize("section", ["ids.hashes", "ids.order"])
def test_what_ids_are_found_by_is_made_anew(lab: Any, tmp_path: Path, section: str) -> None:
    ids = [f"t{number}" for number in range(100)]
    store = lab.create(dataclasses.replace(lab.schema, ids="string"))
    store.append(lab.batch(ids))
    store.flush()
    place = store.snapshot.parts[0].segment.files[0].sections[section].offset
    store.close()
    damage(lab.file("seg"), place + 9)
    assert not verify(lab.folder)["ok"]
    _, contents = mended(lab, tmp_path / "new")
    assert set(contents) == set(ids)


def test_a_segment_of_another_collection_is_left_out_where_no_manifest_tells(
    lab: Any, tmp_path: Path, expected: dict[Any, Any]
) -> None:
    other = Store.create(
        tmp_path / "other", Schema(4, "l2", columns=pa.schema([])), workers=lab.workers
    )
    other.append(Batch(np.arange(9), np.ones((9, 4), np.float32), None))
    other.close()
    lab.file("MANIFEST").unlink()
    foreign = lab.folder / "seg-00000077.vdb"
    foreign.write_bytes(min((tmp_path / "other").glob("seg-*")).read_bytes())
    report, contents = mended(lab, tmp_path / "new")
    assert contents == expected
    assert any(foreign.name in problem and "9 rows" in problem for problem in report["problems"])


def test_a_damaged_column_reads_null(lab: Any, tmp_path: Path) -> None:
    store = lab.create()
    store.append(lab.batch(range(100)))
    store.close()
    path = lab.file("seg")
    damage(path, path.read_bytes().index(b"1 0.02 0.0"))
    report, contents = mended(lab, tmp_path / "new")
    assert len(contents) == 100
    assert {text for _, text in contents.values()} == {None}
    assert "'text'" in report["problems"][0]


def test_without_a_manifest_rows_come_from_the_segments(
    lab: Any, tmp_path: Path, expected: dict[Any, Any]
) -> None:
    lab.file("MANIFEST").unlink()
    with pytest.raises(NotFoundError):
        lab.open()
    report = verify(lab.folder)
    assert not report["ok"]
    _, contents = mended(lab, tmp_path / "new")
    assert contents == expected


def test_records_behind_a_damaged_one_are_kept(
    lab: Any, tmp_path: Path, expected: dict[Any, Any]
) -> None:
    path = lab.file("wal")
    damage(path, 150)
    with pytest.raises(CorruptionError):
        lab.open("w")
    assert not verify(lab.folder)["ok"]
    report, contents = mended(lab, tmp_path / "new")
    assert set(contents) == set(expected) - set(range(200, 210))
    assert contents[5] == expected[5]
    assert path.name in report["problems"][0]


def test_a_copy_that_went_wrong_is_not_called_sound(
    lab: Any, tmp_path: Path, expected: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real_close = Store.close

    def close(store: Store) -> None:
        real_close(store)
        monkeypatch.undo()
        damage(min((tmp_path / "new.partial").glob("seg-*")), 4100)

    monkeypatch.setattr(Store, "close", close)
    report = repair(lab.folder, tmp_path / "new")
    assert (report["ok"], report["rows"]) == (False, 0)
    (problem,) = report["problems"]
    assert str(min((tmp_path / "new.partial").glob("seg-*"))) in problem
    assert "must not be used" in problem
    assert not (tmp_path / "new").exists()


def test_a_missing_segment_costs_its_rows(
    lab: Any, tmp_path: Path, expected: dict[Any, Any]
) -> None:
    (lab.folder / lab.files("seg")[1]).unlink()
    report, contents = mended(lab, tmp_path / "new")
    assert set(contents) == set(expected) - set(range(100, 200))
    assert "100 rows" in report["problems"][0]


def test_what_is_no_store_or_no_free_place_is_refused(
    lab: Any, tmp_path: Path, expected: dict[Any, Any]
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError):
        verify(tmp_path / "empty")
    with pytest.raises(NotFoundError):
        repair(tmp_path / "empty", tmp_path / "new")
    (tmp_path / "half.partial").mkdir()
    for taken in (lab.folder, tmp_path / "empty", tmp_path / "half"):
        with pytest.raises(ExistsError, match="remove what an interrupted repair left"):
            repair(lab.folder, taken)
    assert not (tmp_path / "half").exists()
