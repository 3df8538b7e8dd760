"""Reads and checks every byte of a store, also of one that refuses to open."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from vecdb.errors import CorruptionError, NotFoundError, StorageError, VersionError, describe
from vecdb.segment import Segment
from vecdb.segment.container import Container
from vecdb.segment.format import FileInfo, Kind
from vecdb.segment.fs import Directory
from vecdb.segment.index import open_graph
from vecdb.store import names
from vecdb.store.loading import first_log, open_part, replay
from vecdb.store.manifest import Manifest, SegmentEntry, newest_generation, read_manifest
from vecdb.store.state import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vecdb.schema import Schema
    from vecdb.store.snapshot import Snapshot

__all__ = ["verify", "verify_snapshot"]

_TRIES = 100  # generations that may go by while one is being read


def verify(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Check a store without changing it; a writer may go on meanwhile.

    Returns
    -------
    dict
        ``ok``; ``generation``; ``rows`` that the segments hold by the manifest; ``files`` and
        ``bytes`` that were read; ``problems``: one sentence for each damaged file, naming the
        file and what is lost with it; ``torn_bytes``: the end of a write that was never
        acknowledged, which is no damage; ``log_records``: those that only the logs hold, because
        the store is open for writing or was never closed. Where later ones have gone without a
        trace, this number alone says so; closing a store brings it to 0.

    Raises
    ------
    NotFoundError
        There is no store at `path`.
    VersionError
        The store was written by a newer vecdb.
    """
    directory = Directory(path)
    for _ in range(_TRIES):
        generation = newest_generation(directory)
        if generation == 0 and not any(names.is_own(name) for name in directory.names()):
            raise NotFoundError(
                describe(str(path), expected="a vecdb collection", got="other files or none",
                         fix="check the path")
            )  # fmt: skip
        report = _report(directory, generation)
        if report["ok"] or newest_generation(directory) == generation:
            return report
    raise StorageError(errno.EAGAIN, f"{path} changes faster than it can be read")


def verify_snapshot(snapshot: Snapshot) -> dict[str, Any]:
    """Hash every byte of the files that a snapshot maps; the report of `Store.verify`."""
    problems = [problem for part in snapshot.parts for problem in part.data.verify()]
    files = [file for part in snapshot.parts for file in part.data.files]
    return {
        "ok": not problems,
        "files": len(files),
        "bytes": sum(file.length for file in files),
        "problems": problems,
    }


def _report(directory: Directory, generation: int) -> dict[str, Any]:
    report: dict[str, Any] = {
        "ok": False, "generation": generation, "rows": 0, "files": 1, "bytes": 0,
        "torn_bytes": 0, "log_records": 0, "problems": [],
    }  # fmt: skip
    problems = report["problems"]
    try:
        if generation == 0:
            raise CorruptionError(f"{directory.path}: there is no manifest")
        manifest = read_manifest(directory, generation)
    except (CorruptionError, NotFoundError) as error:
        problems.append(f"{error} (lost: which files belong to the collection)")
        return report
    report["bytes"] = directory.size(names.manifest(generation))
    # a flush writes the columns of its moment, which the log alone may know of
    schema, torn_off = _check_logs(directory, manifest, report)
    for entry in manifest.segments:
        report["rows"] += entry.live
        found = []
        for kind, info in files_of_entry(entry):
            report["files"] += 1
            report["bytes"] += info.length
            found += _file_problems(directory, manifest.uuid, schema, entry, kind, info)
        problems.extend(found or _entry_problems(directory, manifest, entry))
    problems.extend(torn_off)
    report["ok"] = not problems
    return report


def files_of_entry(entry: SegmentEntry) -> Iterator[tuple[Kind, FileInfo]]:
    """The files that a segment's entry of the manifest names."""
    yield Kind.SEGMENT, entry.file
    if entry.index is not None:
        yield Kind.INDEX, entry.index
    if entry.deletes is not None:
        yield Kind.TOMBSTONES, entry.deletes


def _file_problems(
    directory: Directory,
    store: bytes,
    schema: Schema,
    entry: SegmentEntry,
    kind: Kind,
    info: FileInfo,
) -> list[str]:
    lost = {
        Kind.SEGMENT: f"up to {entry.live} rows",
        Kind.INDEX: "nothing: the index is rebuilt by the next writer",
        Kind.TOMBSTONES: f"which {entry.rows - entry.live} rows are deleted",
    }[kind]
    try:
        container = Container(directory, names.container(kind, info.id), kind, store, info)
        if kind is Kind.SEGMENT:
            found = Segment(container, schema, entry.rows).verify()
        else:
            found = container.problems()
            if kind is Kind.INDEX and not found:
                open_graph(container, entry.rows, schema.dim, verify=True)
    except VersionError:
        raise
    except (CorruptionError, StorageError) as error:
        found = [str(error)]
    return [f"{problem} (lost: {lost})" for problem in found]


def _entry_problems(directory: Directory, manifest: Manifest, entry: SegmentEntry) -> list[str]:
    """Why a segment can't be opened whose files are whole, each for itself."""
    try:
        open_part(directory, manifest, entry, {})
    except (CorruptionError, StorageError) as error:
        return [f"{error} (lost: which {entry.rows - entry.live} rows are deleted)"]
    return []


def _check_logs(
    directory: Directory, manifest: Manifest, report: dict[str, Any]
) -> tuple[Schema, list[str]]:
    """Read every record of the logs, as opening the store would: the schema after the last, and the
    problem that ends the reading, if there is one."""
    state = State(manifest, ())
    try:
        logs = [first_log(directory, manifest)]
        replay(directory, manifest, state, logs)
        for log in logs:
            report["files"] += 1
            report["bytes"] += log.length()
            report["torn_bytes"] += len(log.torn())
        report["log_records"] = state.sequence - manifest.sequence
    except (CorruptionError, StorageError) as error:
        return state.schema, [f"{error} (lost: writes after record {state.sequence})"]
    return state.schema, []
