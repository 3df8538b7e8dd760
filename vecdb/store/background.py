"""The writer's background threads: one flushes full memtables, one compacts and builds indexes.

Two, because an index build takes minutes and a full memtable must not wait for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vecdb.store.writer import Writer

__all__ = ["Background"]

_log = logging.getLogger("vecdb")


class Background:
    """Daemon threads that work until :meth:`stop`.

    Parameters
    ----------
    tidy : callable
        One step of compaction or indexing; returns whether there was something to do. It is
        called again at once then, otherwise when the set of segments has changed.
    """

    def __init__(self, writer: Writer, tidy: Callable[[], bool]) -> None:
        self._writer = writer
        self._tidy = tidy
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=f"vecdb-{name}", daemon=True)
            for name, work in (("flush", self._flush), ("tidy", self._tidy_up))
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End both threads; returns when they have ended."""
        with self._writer.lock:
            self._stopping = True
            self._writer.lock.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException:  # a poisoned writer tells its callers
            if not self._stopping and self._writer.failure is None:
                _log.exception("background work stopped")

    def _idle(self, ready: Callable[[], bool]) -> bool:
        """Wait until there may be work; False when it is time to stop."""
        writer = self._writer
        with writer.lock:
            while not (self._stopping or writer.failure or ready()):
                writer.lock.wait()
            return not self._stopping and writer.failure is None

    def _flush(self) -> None:
        writer = self._writer
        while self._idle(lambda: len(writer.state.memtables) > 1):
            writer.flush_oldest()

    def _tidy_up(self) -> None:
        writer = self._writer
        seen = -1
        while self._idle(lambda: writer.manifest.generation != seen):
            seen = writer.manifest.generation
            while not self._stopping and writer.failure is None and self._tidy():
                seen = writer.manifest.generation
