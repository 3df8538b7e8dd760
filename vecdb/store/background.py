"""The writer's background threads: one flushes full memtables, one compacts and builds indexes.

Two, because an index build takes minutes and a full memtable must not wait for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from vecdb.ending import start

if TYPE_CHECKING:
    from vecdb.store.compaction import Compactor
    from vecdb.store.writer import Writer

__all__ = ["Background"]

_log = logging.getLogger("vecdb")
# seconds in which changes of the segments gather before the compactor looks: each look takes the
# interpreter from others, and with .01 bench.swaps made a quarter fewer swaps
_SETTLE = 0.1


class Background:
    """Threads that work until :meth:`stop`, or the end of the process."""

    def __init__(self, writer: Writer, compactor: Compactor) -> None:
        self._writer = writer
        self._compactor = compactor
        self._stopping = threading.Event()
        self._seen = 0  # changes of the segments that the compactor has looked at
        self._threads = [
            start(name, partial(self._run, work), self._tell)
            for name, work in (("flush", self._flush), ("compact", self._compact))
        ]

    def stop(self) -> None:
        """End both threads; an index build gives up, anything shorter is finished."""
        self._tell()
        for thread in self._threads:
            thread.join()

    def _tell(self) -> None:
        self._stopping.set()
        self._writer.wake_all()
        self._compactor.interrupt()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException:  # a poisoned writer tells its callers
            if not self._stopping.is_set() and self._writer.failure is None:
                _log.exception("background work stopped")

    def _wait(
        self, told: threading.Condition, ready: Callable[[], bool], seconds: float | None = None
    ) -> bool:
        """Wait until there may be work, at most so long; False when it is time to stop."""
        with self._writer.lock:
            told.wait_for(lambda: self._ends() or ready(), seconds)
            return not self._ends()

    def _ends(self) -> bool:
        return self._stopping.is_set() or self._writer.failure is not None

    def _flush(self) -> None:
        writer = self._writer
        while self._wait(writer.full, lambda: len(writer.state.memtables) > 1):
            writer.flush_oldest()

    def _compact(self) -> None:
        writer = self._writer
        pause: float | None = 0.0
        while self._wait(writer.changed, lambda: writer.state.changes != self._seen, pause):
            self._stopping.wait(_SETTLE)
            self._seen = writer.state.changes
            pause = self._compactor.step()
