"""The store as the layers above use it: write, find, reopen, follow, refuse."""

from __future__ import annotations

import errno
import gc
import os
import threading
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pytest

from vecdb.batch import Batch
from vecdb.errors import (
    ClosedError,
    DuplicateIdError,
    ExistsError,
    LockedError,
    NotFoundError,
    PoisonedError,
    ReadOnlyError,
    SchemaError,
    StorageError,
)
from vecdb.schema import Schema
from vecdb.segment import Segment
from vecdb.store import Store, memtable, writer
from vecdb.store.commit import new_segment


def test_rows_come_back_after_close_and_open(lab: Any) -> None:
    store = lab.create()
    store.append(lab.batch(range(100)))
    assert store.delete(np.array([3, 4, 5, 1000])) == 3
    store.append(lab.batch([7], shift=0.5), replace=True)
    before = lab.contents(store)
    store.close()
    for mode in ("r", "w"):
        with_mode = lab.open(mode)
        assert lab.contents(with_mode) == before
        with_mode.close()
    assert before[7] == (7.5, "7 0.5")
    assert set(before) == set(range(100)) - {3, 4, 5}


def test_a_crash_loses_no_acknowledged_row(lab: Any) -> None:
    store = lab.create()
    expected: dict[Any, Any] = {}
    for start in range(5):
        store.append(lab.batch(range(start * 10, start * 10 + 10)))
        store.delete(np.array([start * 10]))
        expected = lab.contents(store)
        lab.crash(store)
        store = lab.open("w")
        assert lab.contents(store) == expected
        assert store.snapshot.sequence == 2 * (start + 1)
    store.close()


def test_text_ids_work_like_numbers(lab: Any) -> None:
    store = lab.create(Schema(dim=16, ids="string", columns=lab.schema.columns))
    store.append(lab.batch(f"t{i}" for i in range(50)))
    store.flush()
    store.append(lab.batch(f"t{i}" for i in range(50, 80)))
    store.append(lab.batch(["t5", "t60"], shift=0.5), replace=True)
    assert store.delete(np.array(["t6", "t61", "t99"], object)) == 2
    expected = lab.contents(store)
    assert expected["t5"] == (5.5, "5 0.5")
    assert len(expected) == 78
    lab.crash(store)
    again = lab.open("w")
    assert lab.contents(again) == expected
    with pytest.raises(DuplicateIdError, match="t7"):
        again.append(lab.batch(["t7"]))
    again.optimize()
    assert lab.contents(again) == expected
    again.close()


def test_a_duplicate_id_is_refused_and_nothing_is_written(lab: Any) -> None:
    store = lab.create()
    store.append(lab.batch([5, 1, 9]))
    store.flush()
    store.append(lab.batch([2]))
    for known in (1, 2):
        with pytest.raises(DuplicateIdError, match=f"{known}"):
            store.append(lab.batch([100, known]))
    assert set(lab.contents(store)) == {5, 1, 9, 2}
    store.delete(np.array([1]))
    store.append(lab.batch([1]))
    store.close()


def test_a_batch_larger_than_the_memtable_is_one_segment_and_one_step(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memtable, "MAX_ROWS", 64)
    store = lab.create()
    store.append(lab.batch(range(50)))
    sequence = store.snapshot.sequence
    store.append(lab.batch(range(40, 300), shift=0.5), replace=True)
    assert store.snapshot.sequence == sequence + 1
    expected = lab.contents(store)
    assert len(expected) == 300
    assert expected[45][0] == 45.5
    assert lab.recovered(store) == expected


def test_full_memtables_are_flushed_while_writing_goes_on(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memtable, "MAX_ROWS", 64)
    store = lab.create(sync="os")
    for start in range(0, 3000, 30):
        store.append(lab.batch(range(start, start + 30)))
    assert set(lab.contents(store)) == set(range(3000))
    store.close()
    assert len([name for name in lab.files() if name.startswith("wal")]) == 1
    reader = lab.open()
    assert set(lab.contents(reader)) == set(range(3000))
    reader.close()


def test_a_log_of_many_single_rows_is_retired_and_so_is_one_of_deletions(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_LOG_RECORDS", 50)
    store = lab.create(sync="os")
    for i in range(170):
        store.append(lab.batch([i]))
    store.flush()
    (log,) = lab.files("wal")
    for i in range(160):
        store.delete(np.array([i]))
    assert lab.files("wal")[-1] > log
    assert set(lab.contents(store)) == set(range(160, 170))
    lab.crash(store)
    store = lab.open("w")
    assert set(lab.contents(store)) == set(range(160, 170))
    store.close()


def test_ids_are_found_in_whichever_of_many_parts_they_are(lab: Any) -> None:
    store = lab.create()
    for i in range(9):  # enough for bounds to be compared first
        store.append(lab.batch(range(20 * i, 20 * i + 10)))
        store.flush()
    store.append(lab.batch([1000, 3], shift=0.5), replace=True)
    store.delete(np.array([45]))
    snapshot = store.snapshot
    naive = {
        int(number): (i, row)
        for i, part in enumerate(snapshot.parts)
        for row, number in enumerate(part.data.ids.get(np.arange(part.data.rows)).tolist())
        if part.find(np.array([number]))[0] == row
    }
    wanted = np.array([187, 3, 45, 1000, 15, 0, 2000, 64, 3])
    for ids in (wanted, wanted[:0], *wanted.reshape(-1, 1)):
        parts, rows = snapshot.find(ids)
        assert (parts.dtype, rows.dtype) == (np.int32, np.int64)
        found = list(zip(parts.tolist(), rows.tolist(), strict=True))
        assert found == [naive.get(i, (-1, -1)) for i in ids.tolist()]
    assert 45 not in naive
    store.close()


def test_a_snapshot_never_changes(lab: Any) -> None:
    store = lab.create()
    store.append(lab.batch(range(20)))
    store.flush()
    store.append(lab.batch(range(20, 40)))
    snapshot = store.snapshot
    before = lab.contents(snapshot)
    pinned = store.pinned()
    store.append(lab.batch([25, 5, 100], shift=0.5), replace=True)
    store.delete(np.array([1, 21]))
    store.optimize()
    assert lab.contents(snapshot) == before
    assert [part.tolist() for part in snapshot.find(np.array([25, 100]))] == [[1, -1], [5, -1]]
    store.close()
    assert lab.contents(snapshot) == before
    assert lab.contents(pinned) == before
    with pytest.raises(ReadOnlyError):
        pinned.append(lab.batch([7]))


def test_an_older_snapshot_is_never_shown_after_a_later_one(lab: Any) -> None:
    """Two threads that are acknowledged at the same time publish in any order."""
    store = lab.create()
    store.append(lab.batch([1]))
    older = store.snapshot
    store.append(lab.batch([2]))
    store._writer().publish(older)
    assert set(lab.contents(store)) == {1, 2}
    store.close()


def test_closing_puts_on_disk_what_other_threads_wait_for(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that was logged after close() had flushed, by a thread that is in its sync then."""
    store = lab.create()
    writer = store._writer()
    acknowledge, waiting = writer._acknowledge, []

    def append() -> None:
        monkeypatch.setattr(writer, "_acknowledge", lambda *args: waiting.append(args))
        store.append(lab.batch([1]))

    monkeypatch.setattr(store._compactor, "merge_small", append)
    store.close()
    acknowledge(*waiting[0])
    again = lab.open()
    assert set(lab.contents(again)) == {1}
    again.close()


def test_every_write_is_on_the_disk_when_it_returns(lab: Any) -> None:
    store = lab.segments()
    for write in (
        lambda: store.append(lab.batch(range(50))),
        lambda: store.append(lab.batch([7, 99], shift=0.5), replace=True),
        lambda: store.delete(np.array([3])),
        lambda: store.add_columns(pa.schema([("later", pa.float64())])),
    ):
        before = store._writer().wal.length
        write()
        assert store._writer().wal._synced == store._writer().wal.length > before
    store.close()


def test_no_write_is_seen_before_it_is_on_the_disk(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = lab.segments()
    store.append(lab.batch(range(10)))
    log, seen = store._writer().wal, []
    sync = log.sync

    def watched(length: int) -> None:
        seen.append(lab.contents(store))
        sync(length)

    monkeypatch.setattr(log, "sync", watched)
    for write in (lambda: store.append(lab.batch([50])), lambda: store.delete(np.array([3]))):
        before = lab.contents(store)
        write()
        assert seen.pop() == before != lab.contents(store)
    monkeypatch.undo()
    store.close()


def test_a_write_whose_sync_fails_is_not_seen_and_the_last_one(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = lab.segments()
    store.append(lab.batch(range(10)))

    def refused(length: int) -> None:
        raise StorageError(errno.EIO, "sync")

    monkeypatch.setattr(store._writer().wal, "sync", refused)
    with pytest.raises(StorageError):
        store.append(lab.batch([50]))
    monkeypatch.undo()
    for write in (lambda: store.append(lab.batch([51])), lambda: store.delete(np.array([3])),
                  store.flush):  # fmt: skip
        with pytest.raises(PoisonedError):
            write()
    assert set(lab.contents(store)) == set(range(10))
    store.close()


def test_a_row_that_slips_in_before_a_large_batch_stays(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memtable, "MAX_ROWS", 64)
    store = lab.segments()
    flush = store._writer().flush

    def slow() -> None:
        flush()
        monkeypatch.setattr(store._writer(), "flush", flush)
        store.append(lab.batch([999]))

    monkeypatch.setattr(store._writer(), "flush", slow)
    store.append(lab.batch(range(200)))
    assert set(lab.contents(store)) == {*range(200), 999}
    store.close()


def test_rows_deleted_or_replaced_while_they_are_flushed_stay_so(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = lab.segments()
    store.append(lab.batch(range(100)))

    def slow(*args: Any) -> Any:
        added = new_segment(*args)
        store.delete(np.array([5, 70]))
        store.append(lab.batch([6]), replace=True)
        return added

    monkeypatch.setattr(writer, "new_segment", slow)
    store._writer()._rotate()
    store._writer().flush_oldest()
    monkeypatch.undo()
    expected = set(range(100)) - {5, 70}
    assert set(lab.contents(store)) == expected
    assert store.snapshot.rows == 98
    assert set(lab.recovered(store)) == expected


def test_a_column_added_while_rows_from_before_wait_for_their_flush_is_read_back(lab: Any) -> None:
    store = lab.segments()
    store.append(lab.batch(range(10)))
    store._writer()._rotate()
    store.append(lab.batch(range(10, 20)))  # the log has rows of both schemas
    store.add_columns(pa.schema([("later", pa.float64())]))
    store._writer().flush_oldest()
    expected = lab.contents(store)
    lab.crash(store)
    again = lab.open("w")
    assert lab.contents(again) == expected
    assert again.schema.columns.names[-1] == "later"
    again.close()


def test_a_caller_waits_when_three_memtables_are_on_their_way_to_disk(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memtable, "MAX_ROWS", 64)
    store = lab.create(sync="os")
    core = store._writer()
    ended = threading.Event()

    def add() -> None:
        for first in range(0, 400, 50):
            store.append(lab.batch(range(first, first + 50)))
        ended.set()

    with core.flush_lock:  # nobody flushes
        caller = threading.Thread(target=add)
        caller.start()
        while not core.room._waiters:  # type: ignore[attr-defined]
            assert not ended.wait(0.01)
        assert len(core.state.memtables) == 3
        assert store.snapshot.rows == 150
    assert ended.wait(30)
    caller.join()
    assert set(lab.contents(store)) == set(range(400))
    store.close()


def test_views_outlive_close_and_compaction_and_nothing_is_kept_after_them(lab: Any) -> None:
    store = lab.create()
    store.append(lab.batch(range(100)))
    store.flush()
    view = store.snapshot.parts[0].data.vectors[10:20]
    (name,) = lab.files("seg")
    store.delete(np.arange(0, 100, 2))
    store.optimize()
    assert not (lab.folder / name).exists()
    store.close()
    assert view[:, 0].tolist() == list(range(10, 20))
    assert str(lab.folder / name) in Path("/proc/self/maps").read_text()
    del view
    gc.collect()
    assert str(lab.folder) not in Path("/proc/self/maps").read_text()


def test_columns_that_come_later_read_null_in_older_rows(lab: Any) -> None:
    store = lab.create()
    store.append(lab.batch(range(3)))
    store.flush()
    store.append(lab.batch(range(3, 6)))
    store.add_columns(pa.schema([("late", pa.float64())]))
    store.append(lab.batch(range(6, 9)))  # without the new column: null
    for action in (lambda: lab.crash(store), lambda: None):
        action()
        reader = lab.open()
        assert reader.schema.columns is not None
        assert reader.schema.columns.names == ["n", "text", "late"]
        late = [part.data.column("late").null_count for part in reader.snapshot.parts]
        assert sum(late) == 9
        reader.close()
        lab.open("w").close()
    again = lab.open("w")
    with pytest.raises(SchemaError, match="late"):
        again.add_columns(pa.schema([("late", pa.float64())]))
    again.close()


def test_the_first_metadata_brings_the_columns(lab: Any) -> None:
    bare = Schema(dim=16, metric="l2")
    store = lab.create(bare)
    rows = lab.batch(range(3))
    store.append(type(rows)(rows.ids, rows.vectors, None))
    store.append(lab.batch(range(3, 6)), schema=lab.schema)
    lab.crash(store)
    store = lab.open("w")
    assert store.schema.columns == lab.schema.columns
    numbers = pa.concat_arrays([part.data.column("n") for part in store.snapshot.parts])
    assert numbers.to_pylist() == [None, None, None, 3, 4, 5]
    store.close()


def test_automatic_ids_are_never_given_twice(lab: Any) -> None:
    store = lab.create()
    assert store.next_id(3) == 0
    store.append(lab.batch([0, 1, 2]))
    assert store.next_id(5) == 3
    assert store.next_id() == 8
    store.append(lab.batch([50]))
    assert store.next_id() == 51
    store.delete(np.array([50]))
    store.flush()
    lab.crash(store)
    store = lab.open("w")
    assert store.next_id() == 51
    store.close()


def test_the_greatest_id_can_be_stored_and_ends_the_automatic_ones(lab: Any) -> None:
    store = lab.create()
    rows = lab.batch([1])
    store.append(Batch(np.array([2**63 - 1]), rows.vectors, rows.metadata))
    with pytest.raises(SchemaError, match="int64"):
        store.next_id()
    store.close()
    store = lab.open("w")
    parts, _ = store.snapshot.find(np.array([2**63 - 1]))
    assert parts.tolist() == [0]
    store.close()


def test_a_second_writer_is_refused_with_the_holders_pid(lab: Any) -> None:
    store = lab.create()
    with pytest.raises(LockedError, match=str(os.getpid())):
        lab.open("w")
    store.close()
    lab.open("w").close()


def test_what_can_not_be_done_is_refused_by_name(lab: Any, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        lab.open()
    store = lab.create()
    store.close()
    with pytest.raises(ClosedError):
        store.append(lab.batch([1]))
    with pytest.raises(ClosedError):
        _ = store.snapshot
    with pytest.raises(ExistsError):
        lab.create()
    with pytest.raises(SchemaError):
        lab.create(Schema(dim=5), exist_ok=True)
    reader = lab.open()
    with pytest.raises(ReadOnlyError):
        reader.delete(np.array([1]))
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExistsError):
        Store.create(tmp_path / "file", lab.schema, workers=lab.workers)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious.txt").write_text("x")
    with pytest.raises(ExistsError, match=r"precious\.txt"):
        Store.create(tmp_path / "other", lab.schema, workers=lab.workers)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["precious.txt"]
    with pytest.raises(NotFoundError):
        Store.open(tmp_path / "other", "w", workers=lab.workers)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["precious.txt"]


def test_folder_and_files_are_private(lab: Any) -> None:
    store = lab.create()
    assert lab.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in lab.folder.iterdir()} == {0o600}
    store.close()


def test_the_life_of_a_store_can_be_followed(lab: Any) -> None:
    store = lab.create()
    seen: list[str] = [store.state]
    stop = store.subscribe(seen.append)
    store.close()
    stop()
    store.close()
    assert seen == ["running", "closing", "closed"]


def test_concurrent_writers_share_one_handle_and_lose_nothing(lab: Any) -> None:
    store = lab.create()
    errors: list[BaseException] = []

    def write(base: int) -> None:
        try:
            for i in range(30):
                store.append(lab.batch([base + i]))
                if i % 5 == 4:
                    assert store.delete(np.array([base + i - 2])) == 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(base,)) for base in range(0, 8000, 1000)]
    for thread in threads:
        thread.start()
    last = 0
    while any(thread.is_alive() for thread in threads):
        assert store.snapshot.sequence >= last
        last = store.snapshot.sequence
    for thread in threads:
        thread.join()
    assert not errors
    expected = {b + i for b in range(0, 8000, 1000) for i in range(30) if i % 5 != 2}
    assert set(lab.contents(store)) == expected
    assert store.snapshot.sequence == 8 * 36
    store.close()


def test_verify_full_names_the_file_with_a_changed_vector(lab: Any) -> None:
    from vecdb.errors import CorruptionError

    store = lab.create()
    store.append(lab.batch(range(100)))
    store.close()
    path = lab.file("seg")
    data = bytearray(path.read_bytes())
    data[4096 + 5] ^= 1
    path.write_bytes(data)
    reader = lab.open()
    assert path.name in reader.verify()["problems"][0]
    reader.close()
    with pytest.raises(CorruptionError, match=path.name):
        lab.open(verify="full")


def test_a_full_check_that_is_interrupted_leaves_the_store_closed(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.segments(10).close()
    with monkeypatch.context() as patched:
        patched.setattr(Segment, "verify_rows", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            lab.open("w", verify="full")
    lab.open("w").close()  # a handle that is open still would have the lock


def test_a_forked_child_reads_but_never_writes(lab: Any) -> None:
    store = lab.create()
    store.append(lab.batch(range(10)))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            assert len(lab.contents(store)) == 10
            try:
                store.append(lab.batch([99]))
            except ClosedError:
                store.close()
                code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    with pytest.raises(LockedError):  # the child's end did not take the parent's lock away
        lab.open("w")
    store.append(lab.batch([99]))
    store.close()
