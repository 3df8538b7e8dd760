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
from vecdb.forking import no_fork
from vecdb.segment import fs
from vecdb.store import names

if TYPE_CHECKING:
    from pathlib import Path

    from vecdb.segment.fs import Directory

__all__ = ["WriterLock"]


class WriterLock:
    """Held from construction to :meth:`release` or the end of the process.

    Raises
    ------
    LockedError
        At once, naming the holder's pid.
    StorageError
        The pid can't be written, or the file system knows no locks.
    """

    def __init__(self, directory: Directory) -> None:
        with no_fork:  # a child born before its parent knows the descriptor would keep it
            self._fd = directory.descriptor(names.LOCK, write=True)
            _held.add(self)
        try:
            self._take(directory.path / names.LOCK)
        except BaseException:
            self.release()
            raise

    def _take(self, path: Path) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = fs.read_at(self._fd, path, 0, 32).decode("ascii", "replace").strip()
            raise LockedError(
                describe(f"writing to {path.parent}", expected="no other writer",
                         got=f"the lock is held by process {holder or 'unknown'}",
                         fix="close that writer, or open with mode='r'")
            ) from None  # fmt: skip
        except OSError as error:  # a file system without locks
            raise fs.refused("locking", path, error) from None
        fs.overwrite(self._fd, path, f"{os.getpid()}\n".encode())

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
