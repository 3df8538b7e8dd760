"""Copies what can be kept of a damaged store into a new one; the damaged one is only read.

What is kept, in the order in which it is tried:

- without a readable manifest, every segment file that is whole enough to say what it holds; rows
  that stand in two of them are taken from the younger one, and rows may come back whose deletion
  stood in the lost manifest alone;
- of a segment with damaged vectors or ids, the rows outside the damaged blocks;
- of a segment with damage in a metadata column, the rows with null in place of the damaged values;
- of a damaged log, every record that is whole, also behind the damage.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.batch import Batch
from vecdb.errors import (
    CorruptionError,
    ExistsError,
    NotFoundError,
    StorageError,
    VecdbError,
    describe,
)
from vecdb.schema import Schema
from vecdb.segment import Segment, bitmap
from vecdb.segment.container import Container
from vecdb.segment.format import Kind
from vecdb.segment.fs import Directory
from vecdb.store import names, record
from vecdb.store.founding import what_is_at
from vecdb.store.manifest import Manifest, read_manifest
from vecdb.store.record import Delete, NewSchema
from vecdb.store.salvage import Source
from vecdb.store.store import Store
from vecdb.store.wal import WalReader
from vecdb.workers import Workers

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["repair"]


class _Repair:
    """One run; collects what is lost."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.directory = Directory(path)
        self.problems: list[str] = []

    def lose(self, error: object, what: str) -> None:
        """Note a loss."""
        self.problems.append(f"{error} (lost: {what})")

    # -- finding ---------------------------------------------------------------------------------

    def manifest(self) -> Manifest | None:
        """The newest manifest that can be read."""
        numbers = self._numbers("MANIFEST")
        for generation in reversed(numbers):
            try:
                return read_manifest(self.directory, generation)
            except CorruptionError as error:
                self.lose(error, "what this generation changed")
        if not numbers:
            self.lose(f"{self.directory.path}: there is no manifest", "deletions it alone knew of")
        return None

    def named_sources(self, manifest: Manifest) -> Iterator[Source]:
        """The segments that the manifest names."""
        for entry in manifest.segments:
            name = names.container(Kind.SEGMENT, entry.file.id)
            try:
                container = Container(self.directory, name, Kind.SEGMENT, manifest.uuid, entry.file)
            except (CorruptionError, StorageError) as error:
                self.lose(error, f"{entry.live} rows")
                continue
            live = None
            if entry.deletes is not None:
                live = self.live(manifest.uuid, entry.deletes.id, entry.file.id, entry.rows)
            yield Source(Segment(container, manifest.schema, entry.rows), live, self.lose)

    def loose_sources(self) -> Iterator[Source]:
        """Every segment file of the folder, oldest first, without a manifest to go by."""
        deletes: dict[int, int] = {}
        for number in self._numbers("del"):
            try:
                found = self._open(Kind.TOMBSTONES, number)
                deletes[found.segment] = number
            except (CorruptionError, StorageError) as error:
                self.lose(error, "which rows of a segment are deleted")
        for number in self._numbers("seg"):
            name = names.container(Kind.SEGMENT, number)
            try:
                container = self._open(Kind.SEGMENT, number)
                schema = Schema.from_json(container.meta["schema"])
                rows = container.meta["rows"]
                if not isinstance(rows, int) or rows < 0:
                    raise container.damaged("a number of rows", rows)
            except (VecdbError, KeyError, TypeError) as error:
                self.lose(error, f"the rows of {name}")
                continue
            live = None
            if number in deletes:
                live = self.live(_uuid(self.directory, name), deletes[number], number, rows)
            yield Source(Segment(container, schema, rows), live, self.lose)

    def live(
        self, store: bytes, number: int, segment: int, rows: int
    ) -> npt.NDArray[np.uint8] | None:
        """The bitmap of a segment's live rows; None, all of them, when it is damaged."""
        name = names.container(Kind.TOMBSTONES, number)
        try:
            container = Container(self.directory, name, Kind.TOMBSTONES, store)
            live = container.array("live", np.uint8, (bitmap.nbytes(rows),))
            if container.segment != segment:
                raise container.damaged(f"segment {segment}", container.segment)
            return live & bitmap.all_live(rows)
        except (CorruptionError, StorageError) as error:
            self.lose(error, f"which rows of segment {segment} are deleted: they are back")
            return None

    # -- copying ---------------------------------------------------------------------------------

    def replay(self, store: Store, manifest: Manifest | None) -> None:
        """Apply every whole record of the logs."""
        first = 0 if manifest is None else manifest.wal
        logs = self._numbers("wal")
        if manifest is not None and first not in logs:
            path = self.directory.path / names.wal(first)
            self.lose(f"{path}: the file is missing", f"every write after {manifest.sequence}")
        for number in logs:
            if number < first:
                continue
            try:
                log = WalReader(self.directory, number, _log_uuid(self.directory, number))
            except (CorruptionError, StorageError) as error:
                self.lose(error, "every write in this log")
                continue
            try:
                self._replay_log(store, log)
            except CorruptionError as error:
                self.lose(error, "the rest of this log")

    def _replay_log(self, store: Store, log: WalReader) -> None:
        last = log.first - 1
        for entry in log.salvage():
            if entry.sequence != last + 1:
                self.lose(f"{log.path}: damaged records", f"{last + 1} to {entry.sequence - 1}")
            last = entry.sequence
            try:
                _apply(store, record.decode(entry.kind, entry.payload, store.schema))
            except (ValueError, VecdbError) as error:
                self.lose(f"{log.path}: record {last}: {error}", "this write")

    def _numbers(self, kind: str) -> list[int]:
        found = (names.number_of(name, kind) for name in self.directory.names())
        return sorted(number for number in found if number is not None)

    def _open(self, kind: Kind, number: int) -> Container:
        name = names.container(kind, number)
        return Container(self.directory, name, kind, _uuid(self.directory, name))


def repair(path: str | os.PathLike[str], target: str | os.PathLike[str]) -> dict[str, Any]:
    """Copy what can be kept of the store at `path` into a new store at `target`.

    It is made in ``<target>.partial`` and gets its name when all of it is checked, so that a repair
    which was interrupted leaves nothing at `target`.

    Returns
    -------
    dict
        ``ok``: the new store opens, every byte of it is right and its rows are found by id (else
        it keeps the name ``<target>.partial``); ``rows`` in it; ``problems``: one sentence for each
        loss, naming the file.

    Raises
    ------
    NotFoundError
        Nothing at `path` says what the collection holds.
    ExistsError
        There is something at `target` already, or at ``<target>.partial``.
    """
    target = Path(target)
    partial = target.with_name(f"{target.name}.partial")
    for place in (target, partial):
        _refuse_taken(place)
    run = _Repair(path)
    manifest = run.manifest()
    sources = list(run.loose_sources() if manifest is None else run.named_sources(manifest))
    if manifest is None and not sources:
        raise NotFoundError(
            describe(str(path), expected="a manifest or a segment that can be read", got="neither",
                     fix="restore the collection from a backup")
        )  # fmt: skip
    if manifest is None:  # columns are only ever added
        found = [source.segment.schema for source in sources]
        schema = max(found, key=lambda one: len(one.columns or ()))
    else:
        schema = manifest.schema
    workers = Workers(1)
    try:
        store = Store.create(partial, schema, workers=workers)
        try:
            for source in sources:
                if not schema.extends(source.segment.schema):
                    run.lose(
                        f"{source.segment.files[0].path}: of another collection",
                        f"{source.segment.rows} rows",
                    )
                    continue
                for batch in source.batches():
                    store.append(batch, replace=True)
            run.replay(store, manifest)
        finally:
            store.close()
        report = {**_checked(partial, workers, run), "problems": run.problems}
    finally:
        workers.close()
    if report["ok"]:
        parent = Directory(target.parent)
        parent.rename(partial.name, target.name)
        parent.sync()
        parent.close()
    return report


def _refuse_taken(path: Path) -> None:
    found = what_is_at(path)
    if found != "nothing":
        raise ExistsError(
            errno.EEXIST,
            describe(str(path), expected="nothing there", got=found,
                     fix="choose another target, or remove what an interrupted repair left"),
        )  # fmt: skip


def _apply(store: Store, change: record.Put | Delete | NewSchema) -> None:
    if isinstance(change, NewSchema):
        known = set() if store.schema.columns is None else set(store.schema.columns.names)
        added = [field for field in change.schema.columns or [] if field.name not in known]
        if added:
            import pyarrow as pa

            store.add_columns(pa.schema(added))
    elif isinstance(change, Delete):
        store.delete(change.ids)
    elif len(change.ids):
        store.append(Batch(change.ids, change.vectors, change.metadata), replace=True)


def _uuid(directory: Directory, name: str) -> bytes:
    """The store that a container file says it belongs to."""
    return directory.read(name, 16, 16)


def _log_uuid(directory: Directory, number: int) -> bytes:
    return directory.read(names.wal(number), 16, 16)


def _checked(target: str | os.PathLike[str], workers: Workers, run: _Repair) -> dict[str, Any]:
    """Whether the new store opens, is whole, and finds its own rows; and how many they are."""
    try:
        store = Store.open(target, workers=workers, verify="full")
    except VecdbError as error:
        run.lose(error, "the copy, which must not be used")
        return {"ok": False, "rows": 0}
    try:
        found_again = True
        for number, part in enumerate(store.snapshot.parts):
            rows = np.arange(part.data.rows) if part.live is None else bitmap.rows_of(part.live)
            rows = rows[:1000]
            parts, found = store.snapshot.find(part.data.ids.get(rows))
            found_again &= bool(((parts == number) & (found == rows)).all())
        return {"ok": found_again, "rows": store.snapshot.rows}
    finally:
        store.close()
