"""The commit: a new manifest that takes segments in and out, while rows go on being deleted.

1. New files are written with names that never existed, and synced one by one.
2. Under the state's lock: the segments of the next generation are settled. Rows that were deleted
   since the new segment's sources were read are looked up by id and deleted in it, too.
3. Without the lock: tombstones that changed are written, the log is synced, and the manifest is
   published: temporary file, sync, rename, sync of the folder. The rename is the commit point.
4. Under the lock again: deletions that came during 3 are carried over (they are in the log), the
   state is swapped, the snapshot published.
5. Only now are files that no generation needs unlinked, the old manifest first and before another
   commit may begin: readers tell by two names whether there is a newer one.

Carrying over twice is harmless: replaying a deletion of a row that is gone deletes nothing.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.errors import StorageError
from vecdb.forking import load
from vecdb.segment import Segment, bitmap, write_segment
from vecdb.segment.format import FileInfo, Header, Kind
from vecdb.segment.ids import row_hashes
from vecdb.segment.writer import ContainerWriter
from vecdb.store import names
from vecdb.store.manifest import Manifest, SegmentEntry, publish
from vecdb.store.snapshot import Part

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.progress import Report
    from vecdb.store.memtable import Memtable
    from vecdb.store.writer import Writer

__all__ = ["Edit", "commit", "new_segment"]

_log = logging.getLogger("vecdb")


@dataclasses.dataclass(frozen=True, slots=True)
class Edit:
    """What one commit changes.

    Attributes
    ----------
    flushed : Memtable or None
        The oldest one; its log is retired.
    removed : frozenset of int
        Numbers of segments that go.
    added : Part or None
        A new segment with every row live. Takes the place of the first one that goes, else the
        last place.
    sources : tuple of Part
        What `added` was made of, as it was read.
    indexed : Segment or None
        A segment with its new index, in place of the one of the same number.
    """

    flushed: Memtable | None = None
    removed: frozenset[int] = frozenset()
    added: Part | None = None
    sources: tuple[Part, ...] = ()
    indexed: Segment | None = None


def new_segment(writer: Writer, sources: Sequence[Part], progress: Report | None = None) -> Part:
    """Write the live rows of the sources, in order, as one segment file and map it.

    Raises CorruptionError, and leaves no file, when a source's vectors, ids or columns have
    changed: what is damaged is never copied under fresh checksums.

    Memory: 8 MiB of vectors, the ids with 16 bytes a row for sorting them, and one metadata
    column of the new segment at a time.
    """
    load("pyarrow")
    import pyarrow as pa

    schema = writer.state.schema
    number = writer.take_file_number()
    name = names.container(Kind.SEGMENT, number)
    rows = sum(part.live_rows for part in sources)
    picks = [None if part.live is None else bitmap.rows_of(part.live) for part in sources]

    def vectors() -> Iterator[npt.NDArray[Any]]:
        done = 0
        for part, pick in zip(sources, picks, strict=True):
            for start, block in part.data.checked_vectors():
                if pick is None:
                    picked = block
                else:
                    low, high = np.searchsorted(pick, (start, start + len(block)))
                    picked = block[pick[low:high] - start]
                yield picked
                done += len(picked)
                if progress is not None:
                    progress(done, rows)

    def column(wanted: str) -> pa.Array[Any]:
        arrays = [
            part.data.column(wanted) if pick is None else part.data.column(wanted).take(pick)
            for part, pick in zip(sources, picks, strict=True)
        ]
        return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)

    hashes = None
    if schema.ids == "string" and all(part.data.files for part in sources):
        known = [row_hashes(part.segment.ids) for part in sources]
        hashes = _gather_ids(known, picks)
    ids = _gather_ids([part.data.ids.all() for part in sources], picks)
    header = Header(Kind.SEGMENT, writer.manifest.uuid, number)
    container = write_segment(
        writer.directory,
        name,
        header,
        schema,
        rows,
        vectors=vectors(),
        ids=ids,
        hashes=hashes,
        column=column,
    )
    bounds = None
    if schema.ids == "int64":
        bounds = (int(ids.min()), int(ids.max()))
    return Part(Segment(container, schema, rows), None, rows, bounds)


def commit(writer: Writer, edit: Edit) -> None:
    """Publish the next generation; see the module's docstring for the order of steps."""
    with writer.commit_lock, writer.poisoning():
        with writer.lock:
            writer.check_writable()
            parts = _edited(writer, edit)
            deletes = _files_of_tombstones(writer, parts)
            manifest = _next_manifest(writer, edit, parts)
            wal = writer.wal
        entries = tuple(
            dataclasses.replace(entry, deletes=_write_tombstones(writer, part, file))
            for entry, part, file in zip(manifest.segments, parts, deletes, strict=True)
        )
        wal.sync()
        old = writer.manifest
        manifest = dataclasses.replace(manifest, segments=entries, next_file=writer.next_file)
        publish(writer.directory, manifest)
        with writer.lock:
            kept = {part.segment.id for part in parts}
            edited = _edited(writer, edit)
            writer.state.replace_segments(tuple(p for p in edited if p.segment.id in kept))
            if edit.flushed is not None:
                writer.state.memtables.remove(edit.flushed)
            writer.state.generation = manifest.generation
            writer.manifest = manifest
            wal = writer.wal
            wal.sync()  # a snapshot is shown only when its last record is durable
            writer.publish(writer.state.renew())
            writer.room.notify_all()
            writer.changed.notify()
        _unlink(writer, [names.manifest(old.generation)])
    _unlink(writer, _unused(old, manifest, edit))


def _edited(writer: Writer, edit: Edit) -> tuple[Part, ...]:
    """The segments after the edit with what is live in them now; without those that are empty."""
    parts: list[Part] = []
    added = None if edit.added is None else _added_part(writer, edit, edit.added)
    for part in writer.state.segments:
        if part.segment.id in edit.removed:
            if added is not None:
                parts.append(added)
                added = None
        elif edit.indexed is not None and part.segment.id == edit.indexed.id:
            segment = edit.indexed.with_schema(writer.state.schema)
            parts.append(Part(segment, part.live, part.live_rows, part.bounds))
        else:
            parts.append(part)
    if added is not None:
        parts.append(added)
    return tuple(part for part in parts if part.live_rows)


def _added_part(writer: Writer, edit: Edit, added: Part) -> Part:
    """The new segment as a part, less the rows that were deleted since its sources were read."""
    state = writer.state
    now = {part.segment.id: part for part in state.segments}
    segment = added.segment.with_schema(state.schema)
    part = Part(segment, None, added.live_rows, added.bounds)
    for source in edit.sources:
        if source.data.files:
            current = now.get(source.segment.id)  # another commit drops one that has become empty
        else:
            assert edit.flushed is not None
            current = edit.flushed.part(state.schema)
        gone = bitmap.all_live(source.data.rows) if source.live is None else source.live
        if current is not None:
            if current.live is None or current.live_rows == source.live_rows:
                continue
            gone = gone & ~current.live
        dead = bitmap.rows_of(gone)
        part = part.without(segment.ids.find(source.data.ids.get(dead)))
    return part


def _next_manifest(writer: Writer, edit: Edit, parts: tuple[Part, ...]) -> Manifest:
    """The manifest to come; tombstones are filled in when their files are written."""
    state = writer.state
    first = state.memtables[1] if edit.flushed is not None else state.memtables[0]
    return Manifest(
        uuid=writer.manifest.uuid,
        generation=writer.manifest.generation + 1,
        sync=writer.manifest.sync,
        schema=first.schema,  # what the log's first record was written under
        sequence=first.first - 1,
        wal=first.wal,
        next_id=state.next_id,
        segments=tuple(
            SegmentEntry(
                part.segment.info, part.data.rows, part.live_rows, part.bounds, part.segment.index
            )
            for part in parts
        ),
    )


def _files_of_tombstones(writer: Writer, parts: tuple[Part, ...]) -> list[FileInfo | None]:
    """For each part the file that holds its bitmap already, None where one is to be written."""
    stored = {entry.file.id: entry for entry in writer.manifest.segments}
    found: list[FileInfo | None] = []
    for part in parts:
        entry = stored.get(part.segment.id)
        # rows of a segment only ever die, so an equal count is an equal bitmap
        same = entry is not None and entry.live == part.live_rows
        found.append(entry.deletes if entry is not None and same else None)
    return found


def _write_tombstones(writer: Writer, part: Part, file: FileInfo | None) -> FileInfo | None:
    if file is not None or part.live is None:
        return file
    number = writer.take_file_number()
    header = Header(Kind.TOMBSTONES, writer.manifest.uuid, number, part.segment.id)
    name = names.container(Kind.TOMBSTONES, number)
    container = ContainerWriter(writer.directory, name, header)
    try:
        container.add("live", part.live)
        return container.finish({"rows": part.data.rows, "live": part.live_rows}).info
    except BaseException:
        container.abandon()
        raise


def _gather_ids(columns: list[Any], picks: list[npt.NDArray[np.int64] | None]) -> Any:
    if isinstance(columns[0], np.ndarray):
        chosen = [c if p is None else c[p] for c, p in zip(columns, picks, strict=True)]
        return chosen[0] if len(chosen) == 1 else np.concatenate(chosen)
    import pyarrow as pa

    texts = [c if p is None else c.take(p) for c, p in zip(columns, picks, strict=True)]
    return texts[0] if len(texts) == 1 else pa.concat_arrays(texts)


def files_of(manifest: Manifest) -> set[str]:
    """Names of the container files that a generation needs."""
    found = set()
    for entry in manifest.segments:
        for kind, info in (
            (Kind.SEGMENT, entry.file),
            (Kind.INDEX, entry.index),
            (Kind.TOMBSTONES, entry.deletes),
        ):
            if info is not None:
                found.add(names.container(kind, info.id))
    return found


def _unused(old: Manifest, new: Manifest, edit: Edit) -> list[str]:
    """Names of what only the old generation needed, and of new files whose rows have all been
    deleted meanwhile."""
    made = [segment for segment in (edit.indexed, edit.added and edit.added.segment) if segment]
    files = files_of(old) | {file.name for segment in made for file in segment.files}
    unused = sorted(files - files_of(new))
    return unused + [names.wal(number) for number in range(old.wal, new.wal)]


def _unlink(writer: Writer, unused: list[str]) -> None:
    """Remove names; readers that mapped a file keep it."""
    for name in unused:
        try:
            writer.directory.unlink(name)
        except StorageError as error:  # the next writer to open the store removes it
            _log.warning("%s", error)
