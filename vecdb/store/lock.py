"""The writer's lock: flock on ``LOCK``, which holds the pid of its owner.

flock and not fcntl's record locks, which are lost as soon as any other descriptor of the file is
closed in the process. A forked child inherits the descriptor and with it the lock; closing the
child's copy leaves the parent's lock alone.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from typing import TYPE_CHECKING

from vecdb.errors import LockedError, describe
from vecdb.store import names

if TYPE_CHECKING:
    from vecdb.segment.fs import Directory

__all__ = ["WriterLock"]


class WriterLock:
    """Held from construction to :meth:`release` or the end of the process.

    Raises
    ------
    LockedError
        At once, naming the holder's pid.
    """

    def __init__(self, directory: Directory) -> None:
        self._fd = directory.descriptor(names.LOCK, write=True)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            self.release()
            raise LockedError(
                describe(f"writing to {directory.path}", expected="no other writer",
                         got=f"the lock is held by process {holder or 'unknown'}",
                         fix="close that writer, or open with mode='r'")
            ) from None  # fmt: skip
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        _held.add(self)

    def release(self) -> None:
        """Give the lock up; releasing twice is fine."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


_held: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _release_in_child() -> None:
    for lock in list(_held):
        lock.release()
    _held.clear()


os.register_at_fork(after_in_child=_release_in_child)
