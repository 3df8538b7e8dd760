"""Opening for writing: take the lock, find out what is durable, and go on from there.

Replay stops at the first invalid record; what stands behind it is a torn tail, which is kept
aside and counted, or damage, which is an error. A log that has records is never appended to
again: its rows go into a segment and a new log begins, so that a half-written record can never be
followed by a whole one.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vecdb.errors import StorageError
from vecdb.store import names
from vecdb.store.commit import files_of
from vecdb.store.loading import load, replay
from vecdb.store.state import State
from vecdb.store.wal import HEADER_SIZE, WalReader, WalWriter

if TYPE_CHECKING:
    from vecdb.segment.fs import Directory
    from vecdb.store.manifest import Manifest

__all__ = ["Recovered", "recover"]

_log = logging.getLogger("vecdb")


class Recovered:
    """What recovery found.

    Attributes
    ----------
    manifest : Manifest
    state : State
        With every valid record applied.
    wal : WalWriter
        The log to go on with.
    checkpoint : bool
        Whether older logs are still to be flushed before anything else is written.
    torn_bytes : int
        Length of the torn tail.
    records : int
        Records that only the logs held: of a writer that ended without closing the store.
    """

    def __init__(self, directory: Directory) -> None:
        self.manifest, parts, logs = load(directory)
        manifest = self.manifest
        directory.durable = manifest.sync == "full"
        self.state = State(manifest, parts)
        replay(directory, manifest, self.state, logs)
        last = logs[-1]
        self.torn_bytes = _keep_torn(directory, last)
        self.records = self.state.sequence - manifest.sequence
        if self.records:
            _log.info("%s was not closed: %d records of its log", directory.path, self.records)
        _remove_orphans(directory, manifest, last.number)
        if last.length() == HEADER_SIZE:
            self.wal = WalWriter.resume(directory, last)
        else:
            self.wal = WalWriter(directory, last.number + 1, manifest.uuid, self.state.sequence + 1)
            self.state.start_memtable(self.wal.number)
        self.checkpoint = len(self.state.memtables) > 1
        for log in logs:
            log.close()


def recover(directory: Directory) -> Recovered:
    """Recover a store whose lock is held. Interrupted and run again, it finds the same."""
    return Recovered(directory)


def _keep_torn(directory: Directory, log: WalReader) -> int:
    """Copy a torn tail to a file of its own; returns its length."""
    tail = log.torn()
    if tail:
        name = names.torn(log.number)
        _log.warning(
            "%s: %d bytes of an unfinished write set aside in %s", log.path, len(tail), name
        )
        directory.unlink(name)
        file = directory.create(name)
        file.write(tail)
        file.sync()
        file.close()
    return len(tail)


def _remove_orphans(directory: Directory, manifest: Manifest, last_log: int) -> None:
    """Remove what unfinished commits left: own names that this generation does not need."""
    needed = files_of(manifest) | {names.manifest(manifest.generation)}
    needed |= {names.wal(number) for number in range(manifest.wal, last_log + 1)}
    for name in directory.names():
        if names.is_own(name) and name not in needed and not name.startswith("torn-"):
            try:
                directory.unlink(name)
            except StorageError as error:
                _log.warning("%s", error)
