"""Opening after a crash: torn tails are kept aside, orphans go, damage is an error."""

from __future__ import annotations

import errno
import os
from typing import Any

import numpy as np
import pytest

from vecdb.errors import CorruptionError, ExistsError, StorageError
from vecdb.segment import fs
from vecdb.store import memtable, verify
from vecdb.store import store as store_module
from vecdb.store.background import Background
from vecdb.store.lock import WriterLock
from vecdb.store.wal import HEADER_SIZE


def test_a_torn_tail_loses_only_the_torn_record(lab: Any) -> None:
    store = lab.create()
    store.append(lab.batch(range(10)))
    store.append(lab.batch(range(10, 20)))
    lab.crash(store)
    log = lab.file("wal")
    log.write_bytes(log.read_bytes()[:-7])
    reader = lab.open()
    assert set(lab.contents(reader)) == set(range(10))
    reader.close()
    store = lab.open("w")
    assert set(lab.contents(store)) == set(range(10))
    torn = store.stats()["recovered_torn_bytes"]
    assert store.stats()["recovered_records"] == 1
    kept = lab.file("torn")
    assert kept.stat().st_size == torn > 0
    store.append(lab.batch(range(10, 20)))
    lab.crash(store)
    store = lab.open("w")
    assert set(lab.contents(store)) == set(range(20))
    assert store.stats()["recovered_torn_bytes"] == 0
    store.close()


def test_it_is_told_how_many_records_only_the_log_holds(lab: Any) -> None:
    store = lab.create()
    log = lab.file("wal")
    ends = []
    for start in range(0, 30, 10):
        store.append(lab.batch(range(start, start + 10)))
        ends.append(log.stat().st_size)
    assert verify(lab.folder)["log_records"] == 3
    lab.crash(store)
    whole = log.read_bytes()
    log.write_bytes(whole[: ends[1]])  # between two records: nothing else can tell
    report = verify(lab.folder)
    assert (report["ok"], report["torn_bytes"], report["log_records"]) == (True, 0, 2)
    store = lab.open("w")
    assert store.stats()["recovered_records"] == 2
    assert set(lab.contents(store)) == set(range(20))
    store.close()
    assert verify(lab.folder)["log_records"] == 0


def test_damage_before_later_records_is_an_error_and_changes_nothing(lab: Any) -> None:
    store = lab.create()
    store.append(lab.batch(range(10)))
    store.append(lab.batch(range(10, 20)))
    lab.crash(store)
    log = lab.file("wal")
    data = bytearray(log.read_bytes())
    data[200] ^= 1
    log.write_bytes(data)
    before = {path.name: path.read_bytes() for path in lab.folder.iterdir() if path.name != "LOCK"}
    for _ in range(2):
        with pytest.raises(CorruptionError, match=log.name):
            lab.open("w")
    after = {path.name: path.read_bytes() for path in lab.folder.iterdir() if path.name != "LOCK"}
    assert after == before


def test_what_an_unfinished_commit_left_is_removed_and_nothing_else(lab: Any) -> None:
    store = lab.create()
    store.append(lab.batch(range(10)))
    store.close()
    needed = set(lab.files())
    orphans = {"seg-00000090.vdb", "idx-00000091.vdb", "del-00000092.vdb", "wal-00000093.log",
               "MANIFEST-00000094.tmp", "MANIFEST-00000001"}  # fmt: skip
    others = {"notes.txt", "seg-1.vdb", "seg-00000001.vdb.bak", "torn-00000001.log"}
    for name in orphans | others:
        (lab.folder / name).write_bytes(b"x")
    store = lab.open("w")
    assert set(lab.files()) == needed | others
    assert len(lab.contents(store)) == 10
    store.close()


def test_a_log_whose_creation_was_cut_short_is_passed_over(lab: Any) -> None:
    store = lab.create()
    store.append(lab.batch(range(10)))
    lab.crash(store)
    log = lab.file("wal")
    following = lab.folder / "wal-00000002.log"
    for content in (b"", b"vecdbwal", bytes(64)):
        following.write_bytes(content)
        reader = lab.open()
        assert len(lab.contents(reader)) == 10
        reader.close()
    store = lab.open("w")
    assert len(lab.contents(store)) == 10
    assert not log.exists()
    store.close()


def test_a_gap_between_logs_is_an_error(lab: Any) -> None:
    store = lab.segments()  # the first log is not retired
    writer: Any = store._core
    store.append(lab.batch(range(10)))
    with writer.lock:
        writer._rotate()
    store.append(lab.batch(range(10, 20)))
    lab.crash(store)
    first = lab.folder / "wal-00000001.log"
    first.write_bytes(first.read_bytes()[:-5])
    for mode in ("r", "w"):
        with pytest.raises(CorruptionError, match=first.name):
            lab.open(mode)


def test_a_damaged_head_of_a_later_log_with_records_is_an_error(lab: Any) -> None:
    """Were that log passed over, as an empty one may be, its rows would be lost in silence."""
    store = lab.segments()
    store.append(lab.batch(range(10)))
    store._writer()._rotate()
    store.append(lab.batch(range(10, 20)))
    lab.crash(store)
    log = lab.folder / "wal-00000002.log"
    damaged = bytearray(log.read_bytes())
    damaged[20] ^= 1
    log.write_bytes(damaged)
    for mode in ("r", "w"):
        with pytest.raises(CorruptionError, match=log.name):
            lab.open(mode)
    assert any(log.name in problem for problem in verify(lab.folder)["problems"])


def test_a_lost_last_record_is_an_error_when_an_empty_log_follows(lab: Any) -> None:
    store = lab.segments()
    writer: Any = store._core
    store.append(lab.batch(range(10)))
    first = lab.folder / "wal-00000001.log"
    one_record = first.read_bytes()
    store.append(lab.batch(range(10, 20)))
    with writer.lock:
        writer._rotate()
    lab.crash(store)
    for rest in (one_record, one_record[:64]):
        first.write_bytes(rest)
        for mode in ("r", "w"):
            with pytest.raises(CorruptionError, match=first.name):
                lab.open(mode)


def test_a_large_commit_that_never_came_leaves_no_trace_and_a_lost_one_is_an_error(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memtable, "MAX_ROWS", 64)
    store = lab.create()
    kept = {file: (lab.folder / file).read_bytes() for file in lab.files()}
    store.append(lab.batch(range(100)))  # straight to a segment
    log = lab.folder / "wal-00000002.log"
    empty = log.read_bytes()
    store.append(lab.batch([100]))
    full = log.read_bytes()
    lab.crash(store)
    for file in lab.files():
        (lab.folder / file).unlink()
    for file, content in kept.items():  # as before the commit's manifest was published
        (lab.folder / file).write_bytes(content)
    log.write_bytes(full)
    for mode in ("r", "w"):
        with pytest.raises(CorruptionError, match=log.name):
            lab.open(mode)
    log.write_bytes(empty)
    for mode in ("r", "w", "r"):
        assert verify(lab.folder)["ok"]
        store = lab.open(mode)
        assert store.snapshot.rows == 0
        store.close()


def test_an_interrupted_creation_can_be_repeated(lab: Any) -> None:
    lab.folder.mkdir()
    for name in ("LOCK", "wal-00000001.log", "MANIFEST-00000001.tmp"):
        (lab.folder / name).write_bytes(b"half")
    store = lab.create()
    assert store.snapshot.rows == 0
    store.close()


def test_a_recovery_that_fails_has_removed_nothing_that_the_next_one_needs(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = lab.segments(sync="os")
    for first in (0, 10, 20):  # three logs
        store._writer()._rotate()
        store.append(lab.batch(range(first, first + 10)))
    lab.crash(store)

    def full(name: Any, flags: int, *args: Any, **options: Any) -> int:
        if flags & os.O_CREAT and str(name).startswith("wal-"):
            raise OSError(errno.ENOSPC, "full")
        return os.open(name, flags, *args, **options)

    monkeypatch.setattr(fs.calls, "open", full, raising=False)
    with pytest.raises(StorageError):
        lab.open("w")
    monkeypatch.undo()
    store = lab.open("w")
    assert set(lab.contents(store)) == set(range(30))
    store.close()


def test_two_creations_at_once_make_one_store(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slower one has seen an empty folder, and has got the lock when the other is done."""

    def late(directory: Any) -> WriterLock:
        monkeypatch.undo()
        first = lab.create()
        first.append(lab.batch(range(10)))
        first.close()
        return WriterLock(directory)

    monkeypatch.setattr(store_module, "WriterLock", late)
    with pytest.raises(ExistsError):
        lab.create()
    store = lab.open()
    assert len(lab.contents(store)) == 10
    store.close()


def test_replay_is_right_when_tombstones_are_newer_than_the_log(lab: Any) -> None:
    store = lab.create()
    store.append(lab.batch(range(100)))
    store.flush()
    store.append(lab.batch([200]))
    store.delete(np.array([5, 6]))
    store.append(lab.batch([5], shift=0.5))
    store.append(lab.batch([7], shift=0.5), replace=True)
    compactor = store._compactor
    assert compactor is not None
    compactor.optimize()  # the bitmap is committed while the log still holds all of it
    store.delete(np.array([8, 200]))
    expected = lab.contents(store)
    assert expected[5] == (5.5, "5 0.5")
    lab.crash(store)
    for _ in range(2):
        store = lab.open("w")
        assert lab.contents(store) == expected
        lab.crash(store)


def test_a_full_disk_stops_writers_and_no_reader_and_costs_no_row(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = lab.create()
    store.append(lab.batch(range(30)))
    expected = lab.contents(store)
    lab.crash(store)

    class Full(fs.Calls):
        @staticmethod
        def writev(*_: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fs, "calls", Full())
    with pytest.raises(StorageError, match="free some space"):
        lab.open("w")
    reader = lab.open()
    assert lab.contents(reader) == expected
    reader.close()
    monkeypatch.undo()
    store = lab.open("w")
    assert lab.contents(store) == expected
    store.close()


def test_the_rows_of_a_log_are_in_a_segment_when_a_writer_opens(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not left to a thread, which would tell nobody that the disk is full."""
    store = lab.create()
    store.append(lab.batch(range(10)))
    lab.crash(store)
    monkeypatch.setattr(Background, "_run", lambda self, work: None)
    store = lab.open("w")
    assert lab.file("wal").stat().st_size == HEADER_SIZE
    assert lab.file("seg")
    assert set(lab.contents(store)) == set(range(10))
    store.close()
