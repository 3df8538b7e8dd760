"""A reader: follows a store that another process writes, without a lock or a written byte."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING

from vecdb.store import names
from vecdb.store.loading import (
    TRIES,
    LogGapError,
    apply_records,
    load,
    open_next_log,
    replay,
    too_fast,
)
from vecdb.store.state import State

if TYPE_CHECKING:
    from vecdb.segment.fs import Directory
    from vecdb.store.snapshot import Snapshot

__all__ = ["Pinned", "Reader"]


class Reader:
    """The newest snapshot of a store at the time of opening or of the last refresh.

    Attributes
    ----------
    published : Snapshot
        What searches see.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._lock = threading.Lock()  # one refresh at a time
        self._doubtful = True  # a refresh failed, or was under way when this process was forked
        self._load()
        _readers.add(self)

    def refresh(self) -> bool:
        """Move on to the newest state; whether anything had changed.

        Three stats and one read of 32 bytes when nothing has. One that fails changes nothing; the
        next one begins anew, because nobody knows how far this one came.
        """
        with self._lock:
            if not self._doubtful and not self._replaced():
                self._doubtful = True
                try:
                    changed = self._follow()
                except LogGapError:
                    if not self._replaced():  # else a commit came between two looks
                        raise
                else:
                    # a manifest goes before its logs: while it is there none was missed
                    if self._directory.size(names.manifest(self._manifest.generation)) >= 0:
                        self._doubtful = False
                        return changed
            self._doubtful = True
            for log in self._logs:
                log.close()
            self._load()
            return True

    def close(self) -> None:
        """Close the logs; snapshots stay valid."""
        for log in self._logs:
            log.close()

    def _follow(self) -> bool:
        """Apply what the logs have more than at the last look."""
        count = apply_records(self._state, self._logs[-1])
        if open_next_log(self._directory, self._manifest, self._logs[-1]) is not None:
            before = self._state.sequence
            replay(self._directory, self._manifest, self._state, self._logs)
            count += self._state.sequence - before
        if count:
            self.published: Snapshot = self._state.renew()
        return count > 0

    def _load(self) -> None:
        known = {}
        if hasattr(self, "published"):
            known = {p.segment.id: p.segment for p in self.published.parts if p.data.files}
        for _ in range(TRIES):
            manifest, parts, self._logs = load(self._directory, known)
            self._manifest = manifest
            self._state = State(manifest, parts)
            try:
                replay(self._directory, manifest, self._state, self._logs)
            except LogGapError:
                if not self._replaced():
                    raise
            else:
                if not self._replaced():
                    break
            for log in self._logs:
                log.close()
        else:
            raise too_fast(self._directory)
        self.published = self._state.current
        self._doubtful = False

    def _replaced(self) -> bool:
        """Whether there is a newer manifest; then logs that were to be replayed may have been
        removed, and what was loaded may be older than what was seen before. Two stats are enough:
        manifests come and go in order."""
        generation = self._manifest.generation
        newer = self._directory.size(names.manifest(generation + 1)) >= 0
        return newer or self._directory.size(names.manifest(generation)) < 0


_readers: weakref.WeakSet[Reader] = weakref.WeakSet()


def _after_fork() -> None:
    for reader in list(_readers):
        reader._lock = threading.Lock()  # a thread that the child has not got may have held it
        reader._doubtful = True


os.register_at_fork(after_in_child=_after_fork)


class Pinned:
    """One snapshot, for good."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.published = snapshot

    def close(self) -> None:
        """Nothing to let go of: the snapshot goes with its last reference."""
