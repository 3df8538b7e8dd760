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

import contextlib
import ctypes
import errno
import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.errors import CorruptionError, StorageError, describe

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

__all__ = ["Calls", "Directory", "File", "Mapping", "calls", "overwrite", "read_at", "refused"]

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC
SCATTERED = 4 << 20  # what a smaller file has is soon read, whatever the order
_KEPT = 512  # a descriptor of this number is not kept: a process may have 1,024, often
_READS_ROWS = sys.platform == "linux"  # as vecdb.kernels.files does
_DONT_CACHE = 0x80  # RWF_DONTCACHE
_WRITEV = 512  # buffers in one writev; POSIX promises 1024 on Linux and macOS
_HINTS = {
    errno.ENOSPC: "free some space, then open the collection again",
    errno.EDQUOT: "free some space in your quota, then open the collection again",
    errno.EACCES: "check owner and permissions of the folder",
    errno.EROFS: "open with mode='r', or move the folder to a writable disk",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ELOOP: "replace the symbolic link by the file itself",
}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long
]  # fmt: skip
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
_MAP_FAILED = ctypes.c_void_p(-1).value


def _mmap(fd: int, length: int) -> int:
    """Map a file read-only. Python's own mmap keeps a duplicate descriptor for each mapping."""
    address = _libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    if address is None or address == _MAP_FAILED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(address)


class Calls:
    """The system calls that touch the disk, one attribute each."""

    open = staticmethod(os.open)
    close = staticmethod(os.close)
    pread = staticmethod(os.pread)
    writev = staticmethod(os.writev)
    ftruncate = staticmethod(os.ftruncate)
    fsync = staticmethod(os.fsync)
    fdatasync = staticmethod(getattr(os, "fdatasync", os.fsync))
    rename = staticmethod(os.rename)
    unlink = staticmethod(os.unlink)
    mkdir = staticmethod(os.mkdir)
    mmap = staticmethod(_mmap)


calls: Calls = Calls()


def refused(action: str, path: Path, error: OSError) -> StorageError:
    """The error for a call that the operating system has refused."""
    code = error.errno or errno.EIO
    message = describe(
        f"{action} {path}", expected="success", got=os.strerror(code),
        fix=_HINTS.get(code, "check the disk, then open the collection again"),
    )  # fmt: skip
    return StorageError(code, message)


class Mapping:
    """A file mapped read-only: unmapped when this object and the last view on it are gone.

    Of a file above :data:`SCATTERED` bytes single rows are touched, so read-ahead is off except
    during :meth:`streaming`. Measured on a graph and vectors of 2 GB that fit into memory: with
    the page cache dropped the first 100 searches take 0.6 s so, 0.8 to 1.2 s with read-ahead, 0.9 s
    while a thread populates the mapping; 2,000 of them 11.1, 10.4 and 11.3 s. With all of it in the
    page cache the three are alike. On files with holes read-ahead costs 100 times the time.

    Attributes
    ----------
    descriptor : int
        Of the file, for single rows that are read rather than touched; -1 where it was not kept.
    """

    length, descriptor = 0, -1  # of one that memory did not suffice to make

    def __init__(self, address: int, length: int, descriptor: int = -1) -> None:
        self.address = address
        self.length = length
        self.descriptor = descriptor
        self._scattered = length > SCATTERED
        self._told = not self._scattered  # whether the kernel knows
        self._streams = 0

    def bytes(self, offset: int, length: int) -> bytes:
        """A copy of a few bytes (the caller has checked the bounds)."""
        return ctypes.string_at(self.address + offset, length)

    def array(self, offset: int, dtype: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """A read-only array over the mapping, which it keeps alive."""
        kind = np.dtype(dtype)
        if offset < 0 or offset + int(kind.itemsize) * _product(shape) > self.length:
            raise ValueError("array outside its mapping")
        self._tell()
        return np.asarray(_Window(self, offset, kind, shape))

    def buffer(self, offset: int, length: int) -> pa.Buffer:
        """An Arrow buffer over the mapping, which it keeps alive."""
        import pyarrow as pa

        if offset < 0 or offset + length > self.length:
            raise ValueError("buffer outside its mapping")
        self._tell()
        return pa.foreign_buffer(self.address + offset, length, self)

    def will_need(self, offset: int, length: int) -> None:
        """Have the kernel begin to read a range, without changing how it takes other accesses."""
        if self._scattered:
            start = offset // mmap.PAGESIZE * mmap.PAGESIZE
            _libc.madvise(self.address + start, offset + length - start, mmap.MADV_WILLNEED)

    def in_memory(self, offset: int) -> bool:
        """Whether the page cache has the page of a byte; True where the system won't tell."""
        start = offset // mmap.PAGESIZE * mmap.PAGESIZE
        found = ctypes.c_ubyte(1)
        _libc.mincore(self.address + start, 1, ctypes.byref(found))
        return bool(found.value & 1)

    def release(self, offset: int, length: int) -> None:
        """Take the whole pages of a range out of this process's resident memory again; they stay
        in the page cache."""
        start = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        end = min(offset + length, self.length) // mmap.PAGESIZE * mmap.PAGESIZE
        if start < end:
            _libc.madvise(self.address + start, end - start, mmap.MADV_DONTNEED)

    def reading(self, scarce: bool) -> tuple[int, int]:
        """The descriptor for reads of single rows, and flags for preadv2(2).

        There is no read-ahead, as in the mapping. Where memory is scarce what was read is not kept
        in the page cache, if the system can do that (Linux 6.14 and ext4 can): the graph needs it.
        With memory for a quarter of the store of bench.beyond_memory a query read 23 pages, not 64.
        """
        os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        flags = _DONT_CACHE if scarce else 0
        try:
            os.preadv(self.descriptor, [bytearray(1)], 0, flags)
        except OSError:
            flags = 0
        return self.descriptor, flags

    @contextlib.contextmanager
    def streaming(self) -> Iterator[None]:
        """Have read-ahead on while the file is read from front to back."""
        if not self._scattered:
            yield
            return
        self._streams += 1
        self._advise(mmap.MADV_NORMAL)
        try:
            yield
        finally:
            self._streams -= 1
            if self._streams == 0:
                self._advise(mmap.MADV_RANDOM)

    def _tell(self) -> None:
        """Advise the kernel at the first use: 300 calls would be a millisecond of an open."""
        if not self._told:
            self._advise(mmap.MADV_RANDOM)

    def _advise(self, advice: int) -> None:
        """madvise(2) for the whole file; a kernel that refuses the hint is left alone."""
        self._told = True
        _libc.madvise(self.address, self.length, advice)

    def __del__(self, _munmap: Any = _libc.munmap, _close: Any = os.close) -> None:
        if self.length:
            _munmap(self.address, self.length)
        if self.descriptor >= 0:
            _close(self.descriptor)


class _Window:
    """What NumPy asks for an array over foreign memory; the array's base, it pins the mapping."""

    __slots__ = ("__array_interface__", "mapping")

    def __init__(
        self, mapping: Mapping, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> None:
        self.mapping = mapping
        self.__array_interface__ = {
            "data": (mapping.address + offset, True),  # True: read-only
            "shape": shape,
            "typestr": dtype.str,
            "version": 3,
        }


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
        """A new file for writing; one of that name must not exist."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS
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
            address = calls.mmap(fd, length)
            if not (keep and _READS_ROWS and length > SCATTERED and fd < _KEPT):
                return Mapping(address, length), first, last
            mapping, fd = Mapping(address, length, fd), -1
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

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()

    def _open(self, action: str, name: str, flags: int) -> int:
        try:
            return calls.open(name, flags, 0o600, dir_fd=self._fd)
        except OSError as error:
            raise refused(action, self.path / name, error) from None


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


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for extent in shape:
        total *= int(extent)
    return total
