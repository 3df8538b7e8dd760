"""Opens what a manifest names: segments with their indexes and tombstones, then the logs."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from vecdb.errors import CorruptionError, NotFoundError, StorageError, describe
from vecdb.segment import Segment, bitmap
from vecdb.segment.container import Container
from vecdb.segment.format import Kind
from vecdb.store import names, record
from vecdb.store.manifest import Manifest, SegmentEntry, newest_generation, read_manifest
from vecdb.store.snapshot import Part
from vecdb.store.state import State
from vecdb.store.wal import HEADER_SIZE, WalReader

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.segment.fs import Directory

__all__ = [
    "TRIES",
    "LogGapError",
    "apply_records",
    "first_log",
    "load",
    "open_next_log",
    "open_part",
    "replay",
    "too_fast",
]

_log = logging.getLogger("vecdb")
TRIES = 100  # generations that may go by while one is being opened


def load(
    directory: Directory, known: Mapping[int, Segment] | None = None
) -> tuple[Manifest, tuple[Part, ...], list[WalReader]]:
    """The newest manifest, its segments mapped, and its first log opened.

    A writer may replace the manifest and remove files meanwhile: then look again. Once mapped, a
    file stays readable whatever happens to its name.

    Parameters
    ----------
    known : mapping, optional
        Open segments by file number, taken over instead of being opened anew.

    Raises
    ------
    NotFoundError
        There is no store here.
    CorruptionError, VersionError, StorageError
        A file is damaged or missing, newer, or can't be read.
    """
    for _ in range(TRIES):
        generation = newest_generation(directory)
        if generation == 0:
            raise NotFoundError(
                describe(str(directory.path), expected="a vecdb collection",
                         got="a folder without a manifest", fix="create it with vecdb.create(...)")
            )  # fmt: skip
        try:
            manifest = read_manifest(directory, generation)
            parts = tuple(
                open_part(directory, manifest, entry, known or {}) for entry in manifest.segments
            )
            return manifest, parts, [first_log(directory, manifest)]
        except (NotFoundError, StorageError) as error:
            missing = isinstance(error, NotFoundError) or error.errno == errno.ENOENT
            if not missing:
                raise
            if newest_generation(directory) == generation:
                raise CorruptionError(
                    describe(f"generation {generation}", expected="all of its files",
                             got=str(error), fix="restore the file from a backup, or run "
                             "`python -m vecdb repair`")
                ) from None  # fmt: skip
    raise too_fast(directory)


class LogGapError(CorruptionError):
    """A later log needs what neither the logs before it nor the manifest have. A reader whose
    manifest has been replaced looks again; else it is damage."""


def too_fast(directory: Directory) -> StorageError:
    """The error for a store of which no moment could be caught."""
    return StorageError(errno.EAGAIN, f"{directory.path} changes faster than it can be opened")


def replay(directory: Directory, manifest: Manifest, state: State, logs: list[WalReader]) -> None:
    """Apply every record of the logs to the state, opening log after log; `logs` has the first."""
    while True:
        apply_records(state, logs[-1])
        following = open_next_log(directory, manifest, logs[-1])
        if following is None:
            _refuse_gap(state, logs[-1])
            break
        apply_records(state, logs[-1])  # what was written before the writer moved on
        _refuse_gap_between(state, logs[-1], following)
        if following.skipped:  # made for a commit that is on its way, or that never came
            break
        state.start_memtable(following.number)
        logs.append(following)
    state.renew()


def _refuse_gap_between(state: State, log: WalReader, following: WalReader) -> None:
    """Raise when records are missing between two logs, or the manifest to which the second one
    belongs: that is published before the log's first record is written."""
    last = following.first - following.skipped - 1
    if last != state.sequence:
        raise LogGapError(
            describe(str(log.path), expected=f"records up to {last}",
                     got=f"an end after {state.sequence}",
                     fix="restore it from a backup, or run `python -m vecdb repair`")
        )  # fmt: skip
    if following.skipped and following.length() > HEADER_SIZE:
        raise LogGapError(
            describe(str(following.path), expected=f"a manifest with the rows of {last + 1}",
                     got=f"generation {state.generation}",
                     fix="restore it from a backup, or run `python -m vecdb repair`")
        )  # fmt: skip


def _refuse_gap(state: State, log: WalReader) -> None:
    """Raise when damaged bytes hide later records, which a reader would miss in silence."""
    while True:
        try:
            log.torn()
            return
        except CorruptionError:
            if not apply_records(state, log):  # else a writer was in the middle of appending
                raise


def apply_records(state: State, log: WalReader) -> int:
    """Apply the records that are new in a log; returns how many."""
    count = 0
    for entry in log.records():
        try:
            change = record.decode(entry.kind, entry.payload, state.schema)
        except ValueError as error:
            raise CorruptionError(
                describe(f"{log.path}, record {entry.sequence}", expected="a readable record",
                         got=str(error)[:200],
                         fix="restore it from a backup, or run `python -m vecdb repair`")
            ) from None  # fmt: skip
        state.apply(change, entry.sequence)
        count += 1
    return count


def open_next_log(directory: Directory, manifest: Manifest, log: WalReader) -> WalReader | None:
    """The log after this one; None when there is none, or one whose creation was cut short."""
    name = names.wal(log.number + 1)
    size = directory.size(name)
    if size < 0:
        return None
    try:
        return WalReader(directory, log.number + 1, manifest.uuid)
    except StorageError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    except CorruptionError:
        # the header is durable before the first record is written, so nothing is lost here
        if size <= HEADER_SIZE:
            return None
        raise


def first_log(directory: Directory, manifest: Manifest) -> WalReader:
    """The log that goes on where the manifest's segments end."""
    log = WalReader(directory, manifest.wal, manifest.uuid)
    if log.first != manifest.sequence + 1:
        raise CorruptionError(
            describe(str(log.path), expected=f"records from {manifest.sequence + 1}",
                     got=f"records from {log.first}", fix="restore it from a backup, or run "
                     "`python -m vecdb repair`")
        )  # fmt: skip
    return log


def open_part(
    directory: Directory, manifest: Manifest, entry: SegmentEntry, known: Mapping[int, Segment]
) -> Part:
    """A segment and its live rows; `known` as for :func:`load`."""
    segment = known.get(entry.file.id)
    if segment is None or segment.schema != manifest.schema or segment.index != entry.index:
        segment = _open_segment(directory, manifest, entry)
    live = None
    if entry.deletes is not None:
        live = _open_live(directory, manifest, entry)
    elif entry.live != entry.rows:
        path = directory.path / names.manifest(manifest.generation)
        raise CorruptionError(
            describe(str(path), expected=f"a bitmap of the live rows of segment {entry.file.id}",
                     got="none", fix="restore it from a backup, or run `python -m vecdb repair`")
        )  # fmt: skip
    return Part(segment, live, entry.live, entry.ids)


def _open_segment(directory: Directory, manifest: Manifest, entry: SegmentEntry) -> Segment:
    name = names.container(Kind.SEGMENT, entry.file.id)
    container = Container(directory, name, Kind.SEGMENT, manifest.uuid, entry.file)
    index = None
    if entry.index is not None:
        name = names.container(Kind.INDEX, entry.index.id)
        try:
            index = Container(directory, name, Kind.INDEX, manifest.uuid, entry.index)
        except (CorruptionError, StorageError) as error:
            if newest_generation(directory) != manifest.generation:
                raise StorageError(errno.ENOENT, f"{name} was replaced") from None
            _log.warning("exact scan until the index is rebuilt: %s", error)
    return Segment(container, manifest.schema, entry.rows, index)


def _open_live(
    directory: Directory, manifest: Manifest, entry: SegmentEntry
) -> npt.NDArray[np.uint8]:
    """The bitmap of a segment with deleted rows; reads all of it, a bit a row."""
    assert entry.deletes is not None
    name = names.container(Kind.TOMBSTONES, entry.deletes.id)
    container = Container(directory, name, Kind.TOMBSTONES, manifest.uuid, entry.deletes)
    live = container.array("live", np.uint8, (bitmap.nbytes(entry.rows),))
    beyond = np.unpackbits(live[entry.rows // 8 :], bitorder="little")[entry.rows % 8 :].any()
    if container.segment != entry.file.id or bitmap.live_rows(live) != entry.live or beyond:
        raise container.damaged(f"{entry.live} live rows of segment {entry.file.id}", "others")
    return live
