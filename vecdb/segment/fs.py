"""Files as vecdb sees them: every byte read from or written to disk passes this module.

A :class:`Directory` is the only way to a file. It works relative to an open descriptor, follows
no symbolic link, creates files with mode 0600 that must not exist yet (``O_EXCL``), and turns
the operating system's refusals into :class:`StorageError`. Published files are mapped, never
overwritten or truncated: truncating a mapped file kills the process that reads it (SIGBUS),
unlinking it does not.

:data:`calls` holds the system calls themselves; the failure tests put a recording or a failing
twin in their place.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vecdb.errors import CorruptionError, StorageError, describe
from vecdb.segment.mapping import SCATTERED, Mapping, map_file
from vecdb.turns import brief

__all__ = ["Calls", "Directory", "File", "calls", "overwrite", "read_at", "refused"]

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT = 512  # a descriptor of this number is not kept: a process may have 1,024, often
_READS_ROWS = sys.platform == "linux"  # as vecdb.kernels.files does
_WRITEV = 512  # buffers in one writev; POSIX promises 1024 on Linux and macOS
_HINTS = {
    errno.ENOSPC: "free some space, then open the collection again",
    errno.EDQUOT: "free some space in your quota, then open the collection again",
    errno.EACCES: "check owner and permissions of the folder",
    errno.EROFS: "open with mode='r', or move the folder to a writable disk",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ELOOP: "replace the symbolic link by the file itself",
}


class Calls:
    """The system calls that touch the disk, one attribute each."""

    open = staticmethod(brief(os.open))
    close = staticmethod(os.close)
    pread = staticmethod(os.pread)
    writev = staticmethod(brief(os.writev))
    ftruncate = staticmethod(os.ftruncate)
    fsync = staticmethod(os.fsync)
    fdatasync = staticmethod(getattr(os, "fdatasync", os.fsync))
    rename = staticmethod(brief(os.rename))
    unlink = staticmethod(brief(os.unlink))
    mkdir = staticmethod(os.mkdir)
    mmap = staticmethod(map_file)


calls: Calls = Calls()


def refused(action: str, path: Path, error: OSError) -> StorageError:
    """The error for a call that the operating system has refused."""
    code = error.errno or errno.EIO
    message = describe(
        f"{action} {path}", expected="success", got=os.strerror(code),
        fix=_HINTS.get(code, "check the disk, then open the collection again"),
    )  # fmt: skip
    return StorageError(code, message)


class File:
    """A file being written from front to back. Not thread-safe."""

    def __init__(self, fd: int, path: Path, *, durable: bool) -> None:
        self._fd = fd
        self._path = path
        self._durable = durable
        self.length = 0

    def write(self, *buffers: Any) -> None:
        """Append the buffers; a short write goes on where it stopped, until every byte is out."""
        views = [memoryview(buffer) for buffer in buffers]
        pending = [view.cast("B") for view in views if view.nbytes]
        try:
            while pending:
                done = calls.writev(self._fd, pending[:_WRITEV])
                self.length += done
                while pending and done >= len(pending[0]):
                    done -= len(pending.pop(0))
                if done:
                    pending[0] = pending[0][done:]
        except OSError as error:
            raise refused("writing", self._path, error) from None

    def skip(self, length: int) -> None:
        """Append a hole of `length` zero bytes that takes no space on disk."""
        try:
            calls.ftruncate(self._fd, self.length + length)
            self.length = os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as error:
            raise refused("extending", self._path, error) from None

    def sync(self) -> None:
        """Everything on disk, length and times included, before this returns."""
        if not self._durable:
            return
        try:
            calls.fsync(self._fd)
        except OSError as error:
            raise refused("syncing", self._path, error) from None

    def datasync(self) -> None:
        """Every byte on disk, and of the file's metadata only what reading it back needs."""
        if not self._durable:
            return
        try:
            calls.fdatasync(self._fd)
        except OSError as error:
            raise refused("syncing", self._path, error) from None

    def map(self, *, keep: bool) -> Mapping:
        """All that was written, mapped read-only: the end of writing. See :meth:`Directory.map`."""
        try:
            mapping = _mapped(self._fd, self.length, keep=keep)
        except OSError as error:
            raise refused("mapping", self._path, error) from None
        if mapping.descriptor >= 0:
            self._fd = -1
        self.close()
        return mapping

    def close(self) -> None:
        """Close the descriptor; closing twice is fine."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            calls.close(fd)


class Directory:
    """A store's folder, held by a descriptor so that renaming the folder does not matter.

    Attributes
    ----------
    path : Path
    durable : bool
        False leaves it to the operating system when to write to disk: every sync does nothing.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.durable = True
        try:
            self._fd = calls.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise refused("opening", self.path, error) from None

    @staticmethod
    def make(path: Path) -> None:
        """Create a folder of mode 0700 and make its entry in the parent durable."""
        try:
            calls.mkdir(path, 0o700)
        except OSError as error:
            raise refused("creating", path, error) from None
        parent = Directory(path.parent)
        parent.sync()
        parent.close()

    def refuse_unwritable(self) -> None:
        """Raise StorageError when this process may make no files here."""
        effective = os.access in os.supports_effective_ids
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=self._fd, effective_ids=effective):
            error = OSError(errno.EACCES, os.strerror(errno.EACCES))
            raise refused("writing to", self.path, error)

    def create(self, name: str) -> File:
        """A new file for writing, and to be mapped then; one of that name must not exist."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS
        return File(self._open("creating", name, flags), self.path / name, durable=self.durable)

    def reopen(self, name: str) -> File:
        """An existing file, to be appended to."""
        fd = self._open("opening", name, os.O_WRONLY | os.O_APPEND | _FLAGS)
        file = File(fd, self.path / name, durable=self.durable)
        file.length = os.lseek(file._fd, 0, os.SEEK_END)
        return file

    def descriptor(self, name: str, *, write: bool = False) -> int:
        """A raw descriptor: for reading, or (LOCK) for reading and writing, created if missing."""
        flags = (os.O_RDWR | os.O_CREAT if write else os.O_RDONLY) | _FLAGS
        return self._open("opening", name, flags)

    def map(
        self, name: str, head: int, end: int, *, keep: bool = False
    ) -> tuple[Mapping, bytes, bytes]:
        """A whole file mapped read-only, and up to `head` and `end` bytes of its two ends.

        The ends are read, not taken from the mapping: a first touch of a mapped page costs 7 us,
        a read of a page 2 us. The descriptor is closed at once, unless it is to be kept with the
        mapping and there is need and room for it.
        """
        fd = self._open("opening", name, os.O_RDONLY | _FLAGS)
        try:
            length = os.lseek(fd, 0, os.SEEK_END)  # a third of what fstat takes
            if length == 0:
                raise CorruptionError(
                    describe(str(self.path / name), expected="a file with content", got="0 bytes",
                             fix="restore the file from a backup, or run `python -m vecdb repair`")
                )  # fmt: skip
            path = self.path / name
            first, last = read_at(fd, path, 0, head), read_at(fd, path, max(length - end, 0), end)
            mapping = _mapped(fd, length, keep=keep)
            if mapping.descriptor >= 0:
                fd = -1
            return mapping, first, last
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise refused("mapping", self.path / name, error) from None
        finally:
            if fd >= 0:
                calls.close(fd)

    def read(self, name: str, offset: int = 0, limit: int = 1 << 31) -> bytes:
        """Up to `limit` bytes of a file from `offset`; fewer only at its end."""
        fd = self._open("opening", name, os.O_RDONLY | _FLAGS)
        try:
            left = max(os.fstat(fd).st_size - offset, 0)
            return read_at(fd, self.path / name, offset, min(limit, left))
        finally:
            calls.close(fd)

    def size(self, name: str) -> int:
        """Length in bytes; -1 when there is no such file."""
        try:
            return os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_size
        except FileNotFoundError:
            return -1
        except OSError as error:
            raise refused("looking at", self.path / name, error) from None

    def names(self) -> list[str]:
        """Every name in the folder."""
        try:
            return os.listdir(self._fd)  # noqa: PTH208 - of a descriptor, not a path
        except OSError as error:
            raise refused("listing", self.path, error) from None

    def rename(self, old: str, new: str) -> None:
        """Give a file its final name, replacing what stands there, atomically."""
        try:
            calls.rename(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except OSError as error:
            raise refused("renaming", self.path / old, error) from None

    def unlink(self, name: str) -> None:
        """Remove a name; that it is gone already is fine."""
        try:
            calls.unlink(name, dir_fd=self._fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise refused("removing", self.path / name, error) from None

    def sync(self) -> None:
        """Make created, renamed and removed names durable."""
        if not self.durable:
            return
        try:
            calls.fsync(self._fd)
        except OSError as error:
            raise refused("syncing", self.path, error) from None

    def close(self) -> None:
        """Close the descriptor; closing twice is fine."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            calls.close(fd)

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if getattr(self, "_fd", -1) >= 0 and not ending():  # then this module's names may be gone
            self.close()

    def _open(self, action: str, name: str, flags: int) -> int:
        try:
            return calls.open(name, flags, 0o600, dir_fd=self._fd)
        except OSError as error:
            raise refused(action, self.path / name, error) from None


def _mapped(fd: int, length: int, *, keep: bool) -> Mapping:
    """A file of that length mapped; the mapping takes the descriptor when it is to be kept and
    there is need and room for it."""
    address = calls.mmap(fd, length)
    kept = keep and _READS_ROWS and length > SCATTERED and fd < _KEPT
    return Mapping(address, length, fd if kept else -1)


def read_at(fd: int, path: Path, offset: int, length: int) -> bytes:
    """`length` bytes from `offset`, fewer only at the end of the file; `path` is for the error."""
    try:
        data = calls.pread(fd, min(length, 1 << 26), offset)
        if len(data) == length:
            return data
        chunks = []
        while data:
            chunks.append(data)
            offset += len(data)
            length -= len(data)
            data = calls.pread(fd, min(length, 1 << 26), offset)
        return b"".join(chunks)
    except OSError as error:
        raise refused("reading", path, error) from None


def overwrite(fd: int, path: Path, data: bytes) -> None:
    """Make `data` all that a newly opened file holds, in place: LOCK is nowhere mapped."""
    try:
        calls.ftruncate(fd, 0)
    except OSError as error:
        raise refused("emptying", path, error) from None
    File(fd, path, durable=False).write(data)
