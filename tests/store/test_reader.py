"""Readers follow a writer without a lock, a written byte, or a step back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vecdb.errors import CorruptionError, NotFoundError
from vecdb.schema import Schema
from vecdb.store import Store, memtable
from vecdb.workers import Workers


def test_refresh_follows_every_kind_of_change(
    folder: Path, schema: Schema, workers: Workers, batch: Any, contents: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(memtable, "MAX_ROWS", 64)
    store = Store.create(folder, schema, workers=workers)
    reader = Store.open(folder, workers=workers)
    steps = [
        lambda: store.append(batch(range(60))),
        lambda: store.append(batch(range(60, 80))),  # rotates the log
        lambda: store.delete(np.arange(0, 30)),
        store.flush,
        lambda: store.append(batch(range(100, 110))),
        lambda: store.append(batch(range(200, 400))),  # straight to a segment
        store.optimize,
        lambda: store.append(batch([300], shift=0.5), replace=True),
    ]
    sequence = 0
    for step in steps:
        step()
        reader.refresh()
        assert contents(reader.snapshot) == contents(store.snapshot)
        assert reader.snapshot.sequence == store.snapshot.sequence >= sequence
        sequence = reader.snapshot.sequence
    store.close()
    reader.refresh()
    assert not reader.refresh()
    reader.close()


def test_an_unchanged_segment_is_not_opened_again(
    folder: Path, schema: Schema, workers: Workers, batch: Any
) -> None:
    store = Store.create(folder, schema, workers=workers)
    store.append(batch(range(10)))
    store.flush()
    reader = Store.open(folder, workers=workers)
    segment = reader.snapshot.parts[0].data
    store.append(batch(range(10, 20)))
    store.flush()
    assert reader.refresh()
    assert reader.snapshot.parts[0].data is segment
    store.close()
    reader.close()


def test_a_reader_writes_nothing_and_needs_no_permission_to(
    folder: Path, schema: Schema, workers: Workers, batch: Any, contents: Any, crash: Any
) -> None:
    store = Store.create(folder, schema, workers=workers)
    store.append(batch(range(10)))
    crash(store)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.chmod(0o400)
    folder.chmod(0o500)
    reader = Store.open(folder, workers=workers)
    assert len(contents(reader.snapshot)) == 10
    reader.refresh()
    reader.close()
    folder.chmod(0o700)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_missing_segment_is_named(
    folder: Path, schema: Schema, workers: Workers, batch: Any
) -> None:
    store = Store.create(folder, schema, workers=workers)
    store.append(batch(range(10)))
    store.close()
    (path,) = folder.glob("seg-*")
    path.unlink()
    for mode in ("r", "w"):
        with pytest.raises(CorruptionError, match=path.name):
            Store.open(folder, mode, workers=workers)


def test_a_missing_log_is_named(folder: Path, schema: Schema, workers: Workers) -> None:
    Store.create(folder, schema, workers=workers).close()
    (path,) = folder.glob("wal-*")
    path.unlink()
    with pytest.raises(CorruptionError, match=path.name):
        Store.open(folder, workers=workers)


def test_a_damaged_newest_manifest_is_an_error_and_not_an_older_state(
    folder: Path, schema: Schema, workers: Workers, batch: Any
) -> None:
    store = Store.create(folder, schema, workers=workers)
    older = folder / "MANIFEST-00000001"
    kept = older.read_bytes()
    store.append(batch(range(10)))
    store.close()
    older.write_bytes(kept)  # as if its removal had been lost
    newest = max(folder.glob("MANIFEST-*"))
    data = bytearray(newest.read_bytes())
    data[50] ^= 1
    newest.write_bytes(data)
    with pytest.raises(CorruptionError, match=newest.name):
        Store.open(folder, workers=workers)


def test_a_version_can_be_opened_again_or_is_refused(
    folder: Path, schema: Schema, workers: Workers, batch: Any
) -> None:
    store = Store.create(folder, schema, workers=workers)
    store.append(batch(range(10)))
    version, pinned = store.version, store.pinned().version
    Store.reopen(folder, version, workers=workers).close()
    Store.reopen(folder, pinned, workers=workers).close()
    store.append(batch(range(10, 20)))
    later = Store.reopen(folder, version, workers=workers)
    assert later.snapshot.rows == 20
    later.close()
    with pytest.raises(NotFoundError):
        Store.reopen(folder, pinned, workers=workers)
    with pytest.raises(NotFoundError):
        Store.reopen(folder, (99, False), workers=workers)
    store.close()


def test_descriptors_and_mappings_do_not_grow(
    folder: Path, schema: Schema, workers: Workers, batch: Any
) -> None:
    store = Store.create(folder, schema, workers=workers, sync="os")
    reader = Store.open(folder, workers=workers)

    def used() -> tuple[int, int]:
        maps = Path("/proc/self/maps").read_text().count(str(folder))
        return len(os.listdir("/proc/self/fd")), maps

    for i in range(40):
        store.append(batch(range(i * 10, i * 10 + 10)))
        store.optimize()
        reader.refresh()
        Store.open(folder, workers=workers).close()
        if i == 5:
            early = used()
    assert used() == early
    assert len(os.listdir(folder)) == 4
    store.close()
    reader.close()
