"""Readers follow a writer without a lock, a written byte, or a step back."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vecdb.errors import CorruptionError, NotFoundError
from vecdb.segment import fs
from vecdb.store import Store, loading, memtable, names
from vecdb.store import reader as reader_module


def test_refresh_follows_every_kind_of_change(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memtable, "MAX_ROWS", 64)
    store = lab.create()
    reader = lab.open()
    steps = [
        lambda: store.append(lab.batch(range(60))),
        lambda: store.append(lab.batch(range(60, 80))),  # rotates the log
        lambda: store.delete(np.arange(0, 30)),
        store.flush,
        lambda: store.append(lab.batch(range(100, 110))),
        lambda: store.append(lab.batch(range(200, 400))),  # straight to a segment
        store.optimize,
        lambda: store.append(lab.batch([300], shift=0.5), replace=True),
    ]
    sequence = 0
    for step in steps:
        step()
        reader.refresh()
        assert lab.contents(reader) == lab.contents(store)
        assert reader.snapshot.sequence == store.snapshot.sequence >= sequence
        sequence = reader.snapshot.sequence
    store.close()
    reader.refresh()
    assert not reader.refresh()
    reader.close()


def test_a_refresh_misses_no_row_of_logs_that_go_while_it_follows_them(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memtable, "MAX_ROWS", 16)
    store = lab.segments()
    reader = lab.open()
    for first in range(0, 48, 16):
        store.append(lab.batch(range(first, first + 16)))
    assert len(lab.files("wal")) == 3
    apply = reader_module.apply_records

    def overtaken(*args: Any) -> int:
        count = apply(*args)
        monkeypatch.undo()
        store.flush()
        return count

    monkeypatch.setattr(reader_module, "apply_records", overtaken)
    reader.refresh()
    assert lab.contents(reader) == lab.contents(store)
    assert len(lab.contents(reader)) == 48
    store.close()
    reader.close()


class Watched:
    """The system calls, with a look at the folder after each one that changes it."""

    def __init__(self, look: Callable[[str, Any], None]) -> None:
        self._busy = threading.local()  # what a look does is not looked at
        self._look = look
        for name in [name for name in vars(fs.Calls) if not name.startswith("_")]:
            setattr(self, name, self._wrapped(name, getattr(fs.Calls, name)))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            done = real(*args, **options)
            created = name == "open" and args[1] & os.O_CREAT
            changes = created or name in ("writev", "rename", "unlink")
            if changes and not getattr(self._busy, "looking", False):
                self._busy.looking = True
                try:
                    self._look(name, args)
                finally:
                    self._busy.looking = False
            return done

        return call


def test_readers_at_every_step_of_every_commit_see_one_version(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is opened at each step, one refreshed at each, and some refreshed after a while."""
    monkeypatch.setattr(memtable, "MAX_ROWS", 64)
    store = lab.segments(sync="os")  # one thread: the steps are the same in every run
    wanted: dict[int, dict[Any, Any]] = {}
    latest = 0
    looks = 0
    followers = [(every, lab.open(), [0]) for every in (1, 2, 3, 7, 20)]

    def check(reader: Store, least: int) -> int:
        sequence = reader.snapshot.sequence
        assert least <= sequence <= latest + 1
        content = lab.contents(reader)
        assert wanted.setdefault(sequence, content) == content, "one version, two contents"
        return sequence

    def look(_name: str, _args: Any) -> None:
        nonlocal looks
        looks += 1
        reader = lab.open()
        check(reader, latest)
        reader.close()
        for every, follower, last in followers:
            if looks % every == 0:
                follower.refresh()
                last[0] = check(follower, max(last[0], latest))

    steps = [
        lambda: store.append(lab.batch(range(200))),  # straight to a segment
        lambda: store.append(lab.batch(range(200, 400))),
        lambda: store.append(lab.batch(range(400, 410))),
        lambda: store.append(lab.batch(range(500, 600))),  # after a flush
        lambda: store.append(lab.batch([700])),
        lambda: store.delete(np.arange(10, 20)),
        store.flush,
        lambda: store.append(lab.batch(range(5, 150), shift=0.5), replace=True),
        lambda: store.append(lab.batch([701])),
        store.optimize,
        lambda: store.append(lab.batch(range(800, 1000))),
        lambda: store.append(lab.batch([702])),
    ]
    monkeypatch.setattr(fs, "calls", Watched(look))
    for step in steps:
        step()
        latest = store.snapshot.sequence
        wanted.setdefault(latest, lab.contents(store))
        assert lab.contents(store) == wanted[latest], "readers saw another content"
    assert looks > 90
    monkeypatch.undo()
    for _, follower, _ in followers:
        follower.refresh()
        assert lab.contents(follower) == wanted[latest]
        follower.close()
    lab.crash(store)


def test_manifests_leave_in_order_whoever_commits(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a reader of the oldest sees its name and not the next one's: nothing new, it says."""
    store = lab.segments(10, 10, sync="os")
    assert store._compactor is not None
    other = threading.Thread(target=store._compactor.optimize)
    trouble = []

    class Overtaken(fs.Calls):
        @staticmethod
        def unlink(name: str, **options: Any) -> None:
            if other.ident is None:  # before the first removal of the first commit
                other.start()
                other.join(0.3)
            number = names.number_of(name, "MANIFEST")
            there = [names.number_of(file, "MANIFEST") for file in lab.files("MANIFEST")]
            if number is not None and min(there) < number:
                trouble.append((name, there))
            os.unlink(name, **options)

    monkeypatch.setattr(fs, "calls", Overtaken())
    store.append(lab.batch(range(100, 110)))
    store.flush()
    other.join()
    assert not trouble
    monkeypatch.undo()
    store.close()


Between = Callable[[str, Callable[[], None]], None]


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Between:
    """``between(step, work)``: `work` is done once, when a reader has done that step of loading."""

    def arrange(step: str, work: Callable[[], None]) -> None:
        module, name = step.split(".")
        place = {"reader": reader_module, "loading": loading}[module]
        real = getattr(place, name)

        def interrupted(*args: Any) -> Any:
            done = real(*args)
            monkeypatch.setattr(place, name, real)
            work()
            return done

        monkeypatch.setattr(place, name, interrupted)

    return arrange


def write_two_logs(lab: Any, store: Store, first: int) -> None:
    store.append(lab.batch(range(first, first + 50)))
    store._writer()._rotate()
    store.append(lab.batch(range(first + 50, first + 100)))


@pytest.mark.parametrize(
    "step", ["loading.read_manifest", "loading.first_log", "reader.load", "loading.apply_records"]
)
def test_a_commit_while_a_reader_loads_hides_no_acknowledged_row(
    step: str, lab: Any, between: Between
) -> None:
    """It removes the logs and the segments that the reader's manifest names."""
    store = lab.segments(sync="os")
    store.append(lab.batch(range(100)))
    reader = lab.open()
    for first in (100, 200):
        store.flush()  # the next refresh has to load
        write_two_logs(lab, store, first)
        between(step, store.optimize)
        if first == 100:
            reader.refresh()
        else:
            reader.close()
            reader = lab.open()
        assert lab.contents(reader) == lab.contents(store)
    assert store.snapshot.rows == 300
    reader.close()
    lab.crash(store)


@pytest.mark.parametrize("step", ["loading.apply_records", "reader.apply_records"])
def test_what_is_written_before_a_reader_looks_for_the_next_log_is_seen(
    step: str, lab: Any, between: Between
) -> None:
    store = lab.segments(sync="os")
    reader = lab.open()
    between(step, lambda: write_two_logs(lab, store, 0))
    if step.startswith("reader"):
        reader.refresh()
    else:
        reader.close()
        reader = lab.open()
    assert lab.contents(reader) == lab.contents(store)
    assert store.snapshot.rows == 100
    reader.close()
    lab.crash(store)


def test_a_large_batch_and_a_row_that_come_during_a_refresh_are_seen(
    lab: Any, between: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log of the row says that a manifest came before it, which the reader has not read."""
    monkeypatch.setattr(memtable, "MAX_ROWS", 64)
    store = lab.segments(sync="os")
    reader = lab.open()

    def work() -> None:
        store.append(lab.batch(range(200)))
        store.append(lab.batch([500]))

    between("reader.apply_records", work)
    assert reader.refresh()
    assert set(lab.contents(reader)) == {*range(200), 500}
    reader.close()
    lab.crash(store)


def test_an_unchanged_segment_is_not_opened_again(lab: Any) -> None:
    store = lab.create()
    store.append(lab.batch(range(10)))
    store.flush()
    reader = lab.open()
    segment = reader.snapshot.parts[0].data
    store.append(lab.batch(range(10, 20)))
    store.flush()
    assert reader.refresh()
    assert reader.snapshot.parts[0].data is segment
    store.close()
    reader.close()


def test_a_reader_writes_nothing_and_needs_no_permission_to(lab: Any) -> None:
    store = lab.create()
    store.append(lab.batch(range(10)))
    lab.crash(store)
    before = {path.name: path.read_bytes() for path in lab.folder.iterdir()}
    for path in lab.folder.iterdir():
        path.chmod(0o400)
    lab.folder.chmod(0o500)
    reader = lab.open()
    assert len(lab.contents(reader)) == 10
    reader.refresh()
    reader.close()
    lab.folder.chmod(0o700)
    assert {path.name: path.read_bytes() for path in lab.folder.iterdir()} == before


def test_a_missing_segment_is_named(lab: Any) -> None:
    store = lab.create()
    store.append(lab.batch(range(10)))
    store.close()
    path = lab.file("seg")
    path.unlink()
    for mode in ("r", "w"):
        with pytest.raises(CorruptionError, match=path.name):
            lab.open(mode)


def test_a_missing_log_is_named(lab: Any) -> None:
    lab.create().close()
    path = lab.file("wal")
    path.unlink()
    with pytest.raises(CorruptionError, match=path.name):
        lab.open()


def test_a_damaged_newest_manifest_is_an_error_and_not_an_older_state(lab: Any) -> None:
    store = lab.create()
    older = lab.folder / "MANIFEST-00000001"
    kept = older.read_bytes()
    store.append(lab.batch(range(10)))
    store.close()
    older.write_bytes(kept)  # as if its removal had been lost
    newest = max(lab.folder.glob("MANIFEST-*"))
    data = bytearray(newest.read_bytes())
    data[50] ^= 1
    newest.write_bytes(data)
    with pytest.raises(CorruptionError, match=newest.name):
        lab.open()


def test_a_version_can_be_opened_again_or_is_refused(lab: Any) -> None:
    store = lab.create()
    store.append(lab.batch(range(10)))
    version, pinned = store.version, store.pinned().version
    Store.reopen(lab.folder, version, workers=lab.workers).close()
    Store.reopen(lab.folder, pinned, workers=lab.workers).close()
    store.append(lab.batch(range(10, 20)))
    later = Store.reopen(lab.folder, version, workers=lab.workers)
    assert later.snapshot.rows == 20
    later.close()
    with pytest.raises(NotFoundError):
        Store.reopen(lab.folder, pinned, workers=lab.workers)
    with pytest.raises(NotFoundError):
        Store.reopen(lab.folder, (99, False), workers=lab.workers)
    store.close()


def test_descriptors_and_mappings_do_not_grow(lab: Any, held: Any) -> None:
    store = lab.create(sync="os")
    reader = lab.open()

    for i in range(40):
        store.append(lab.batch(range(i * 10, i * 10 + 10)))
        store.optimize()
        reader.refresh()
        lab.open().close()
        if i == 5:
            early = held(lab.folder)
    assert held(lab.folder) == early
    assert len(lab.files()) == 4
    store.close()
    reader.close()
