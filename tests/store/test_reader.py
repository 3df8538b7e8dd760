"""Readers follow a writer without a lock, a written byte, or a step back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vecdb.errors import CorruptionError, NotFoundError
from vecdb.store import Store, memtable


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


def test_descriptors_and_mappings_do_not_grow(lab: Any) -> None:
    store = lab.create(sync="os")
    reader = lab.open()

    def used() -> tuple[int, int]:
        maps = Path("/proc/self/maps").read_text().count(str(lab.folder))
        return len(list(Path("/proc/self/fd").iterdir())), maps

    for i in range(40):
        store.append(lab.batch(range(i * 10, i * 10 + 10)))
        store.optimize()
        reader.refresh()
        lab.open().close()
        if i == 5:
            early = used()
    assert used() == early
    assert len(lab.files()) == 4
    store.close()
    reader.close()
