"""Compaction: fewer files, no dead rows, the same answers; deletions during it are not lost."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from vecdb.errors import CorruptionError
from vecdb.schema import Schema
from vecdb.segment import fs, memory
from vecdb.store import commit, compaction
from vecdb.store.commit import new_segment as real_new_segment


def test_fifty_sessions_of_one_row_leave_a_handful_of_files(lab: Any) -> None:
    lab.create(sync="os").close()
    for i in range(50):
        store = lab.open("w")
        store.append(lab.batch([i]))
        store.close()
    assert len(lab.files()) <= 8
    reader = lab.open()
    assert set(lab.contents(reader)) == set(range(50))
    reader.close()


def test_optimize_leaves_one_segment_and_gives_deleted_bytes_back(lab: Any) -> None:
    store = lab.segments(*[300] * 5)
    store.optimize()
    assert len(lab.files("seg")) == 1
    full = store.stats()["bytes"]
    store.delete(np.arange(0, 1500, 2))
    expected = lab.contents(store)
    store.optimize()
    assert lab.contents(store) == expected
    assert store.stats()["bytes"] < 0.6 * full
    assert store.stats()["tombstones"] == 0
    assert store.snapshot.parts[0].live is None
    generation = store.snapshot.generation
    store.optimize()  # nothing left to do
    assert store.snapshot.generation == generation
    store.delete(np.arange(1500))
    store.optimize()
    assert lab.files("seg") == []
    assert store.snapshot.rows == 0
    store.close()


@pytest.mark.parametrize("ids", ["int64", "string"])
def test_rows_deleted_or_replaced_during_a_merge_stay_so(
    lab: Any, monkeypatch: pytest.MonkeyPatch, ids: Any
) -> None:
    name = (lambda i: i) if ids == "int64" else (lambda i: f"t{i}")
    store = lab.create(Schema(dim=16, ids=ids, metric="l2", columns=lab.schema.columns))
    store._background.stop()  # merges run when this test says so
    store.append(lab.batch(map(name, range(100))))
    store.flush()
    store.append(lab.batch(map(name, range(100, 200))))
    store.delete(np.array([name(150)], object if ids == "string" else np.int64))
    store.flush()
    reading, go_on = threading.Event(), threading.Event()

    def slow(writer: Any, sources: Any) -> Any:
        added = real_new_segment(writer, sources)
        reading.set()
        assert go_on.wait(10)
        return added

    monkeypatch.setattr(compaction, "new_segment", slow)
    merge = threading.Thread(target=store._compactor.optimize)
    merge.start()
    assert reading.wait(10)
    kind = object if ids == "string" else np.int64
    store.delete(np.array([name(5), name(170)], kind))
    store.append(lab.batch([name(6)], shift=0.5), replace=True)
    store.append(lab.batch([name(5)], shift=0.25))
    expected = lab.contents(store)
    go_on.set()
    merge.join()
    assert lab.contents(store) == expected
    assert expected[name(5)][0] == 5.25
    assert lab.recovered(store) == expected


def test_what_happens_while_a_manifest_is_written_is_kept_and_durable_before_it_is_shown(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread has logged a deletion and a row, and waits for their sync."""
    store = lab.segments(100)
    store.append(lab.batch(range(100, 200)))
    writer = store._writer()
    real_publish = commit.publish

    def publish(directory: Any, manifest: Any) -> None:
        real_publish(directory, manifest)
        monkeypatch.setattr(writer, "_acknowledge", lambda *_: None)
        store.delete(np.array([5]))
        store.append(lab.batch([500]))

    monkeypatch.setattr(commit, "publish", publish)
    store.flush()
    expected = set(range(200)) - {5} | {500}
    assert set(lab.contents(store)) == expected
    assert writer.wal._synced == writer.wal.length
    monkeypatch.undo()
    assert set(lab.recovered(store)) == expected


@pytest.mark.parametrize("at", ["before", "after"])
def test_an_interrupt_around_a_commit_leaves_the_files_that_are_needed_and_no_others(
    at: str, lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = lab.segments(100, 100)
    real_commit = compaction.commit

    def interrupted(writer: Any, edit: Any) -> None:
        if at == "after":
            real_commit(writer, edit)
        raise KeyboardInterrupt

    monkeypatch.setattr(compaction, "commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.optimize()
    assert len(lab.files("seg")) == (1 if at == "after" else 2)
    assert set(lab.recovered(store)) == set(range(200))


@pytest.mark.parametrize("gone", [range(100), range(200)])
def test_segments_that_vanish_during_their_merge_stay_gone(
    lab: Any, monkeypatch: pytest.MonkeyPatch, gone: range
) -> None:
    store = lab.segments(100, 100)

    def interrupted(writer: Any, sources: Any) -> Any:
        added = real_new_segment(writer, sources)
        store.delete(np.array(gone))
        store.append(lab.batch([500]))
        store.flush()  # this commit drops the segments that have become empty
        return added

    monkeypatch.setattr(compaction, "new_segment", interrupted)
    store._compactor._merge(list(store.snapshot.parts))
    expected = set(range(200)) - set(gone) | {500}
    assert set(lab.contents(store)) == expected
    assert len(lab.files("seg")) == len(store.snapshot.parts)
    assert set(lab.recovered(store)) == expected


def test_a_segment_that_loses_a_fifth_of_its_rows_is_rewritten_in_the_background(lab: Any) -> None:
    store = lab.create()
    store.append(lab.batch(range(1000)))
    store.flush()
    store.delete(np.arange(100, 400))
    expected = lab.contents(store)
    deadline = time.monotonic() + 20
    while store.stats()["tombstones"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert store.stats()["tombstones"] == 0
    assert lab.contents(store) == expected
    store.close()


def test_replacing_every_row_is_one_commit_which_drops_what_was_replaced(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "_SOON", 60.0)
    store = lab.create()
    store.append(lab.batch(range(200)))
    store.flush()
    before = store.snapshot.generation
    for version in range(1, 21):
        store.append(lab.batch(range(200), shift=version), replace=True)
        time.sleep(0.03)  # the background looks at the segments and leaves them alone
        store.flush()
        assert store.snapshot.generation == before + version
        assert len(lab.files("seg-")) == 1
    assert lab.contents(store)[7] == (27.0, "7 20")
    store.close()


def test_a_segment_without_a_live_row_goes_in_the_background_when_no_commit_comes(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "_SOON", 0.1)
    store = lab.create()
    store.append(lab.batch(range(compaction.INDEX_ROWS)))  # would get a graph, were it not dead
    store.flush()
    store.delete(np.arange(compaction.INDEX_ROWS))
    deadline = time.monotonic() + 20
    while lab.files("seg-") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert lab.files("seg-") == lab.files("idx-") == []
    assert len(store.snapshot.parts) == 0
    store.close()


def test_a_damaged_segment_is_never_copied_under_fresh_checksums(
    lab: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = lab.create()
    store.append(lab.batch(range(100)))
    store.flush()
    path = lab.file("seg")
    store.close()
    data = bytearray(path.read_bytes())
    data[4096] ^= 1
    path.write_bytes(data)
    store = lab.open("w")
    store.append(lab.batch(range(100, 200)))
    with pytest.raises(CorruptionError, match=path.name):
        store.optimize()
    assert path.exists()
    for i in range(300, 308):
        store.append(lab.batch([i]))  # writing goes on, and so does compaction of the others
        store.flush()
    store.close()
    assert path.exists()
    assert len(lab.files("seg")) <= 1 + 2 + 3
    store = lab.open()
    assert store.snapshot.rows == 208
    store.close()


def test_a_full_disk_puts_compaction_off_and_does_not_end_it(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = lab.segments(1, 1, 1, 1)

    class Full(fs.Calls):
        @staticmethod
        def writev(fd: int, buffers: Any) -> int:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(fs, "calls", Full())
        assert store._compactor.step() == 60
    assert store.state == "running"
    assert len(lab.files("seg")) == 4
    store.append(lab.batch([4]))
    store.close()
    assert len(lab.files("seg")) == 1


def test_running_out_of_memory_in_a_merge_leaves_the_store_whole(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = lab.segments(1, 1, 1, 1)
    expected = lab.contents(store)

    def no_memory(*_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(compaction, "new_segment", no_memory)
        assert store._compactor.step() == 60
    assert lab.contents(store) == expected
    store.append(lab.batch([4]))
    assert store._compactor.step() == 0
    assert len(lab.files("seg")) == 1
    assert set(lab.contents(store)) == {0, 1, 2, 3, 4}
    store.close()


def test_swaps_under_searching_threads_show_one_version_at_a_time(lab: Any) -> None:
    store = lab.create(sync="os")
    store.append(lab.batch(range(50)))
    stop = threading.Event()
    errors: list[BaseException] = []

    def search() -> None:
        try:
            while not stop.is_set():
                snapshot = store.snapshot
                parts, rows = snapshot.find(np.arange(50))
                shifts = {
                    float(snapshot.parts[p].data.vectors[r, 0]) - i
                    for i, (p, r) in enumerate(zip(parts.tolist(), rows.tolist(), strict=True))
                }
                assert len(shifts) == 1, shifts
                assert (parts >= 0).all()
                assert snapshot.rows == 50
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(60):
        store.append(lab.batch(range(50), shift=i / 64), replace=True)
        if i % 10 == 5:
            store.optimize()
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    store.close()


def test_segments_are_not_merged_beyond_what_memory_can_index(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    enough = 2 * 1_000 * memory.build_bytes(16, 16)
    monkeypatch.setattr(memory, "usable_memory", lambda: enough)
    store = lab.segments(*[300] * 7, sync="os")
    store.optimize()
    assert sorted(part.data.rows for part in store.snapshot.parts) == [300, 900, 900]
    monkeypatch.undo()
    store.optimize()
    assert [part.data.rows for part in store.snapshot.parts] == [2_100]
    store.close()
