"""A file in memory: mapped read-only, and unmapped when the last view on it is gone."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

__all__ = ["SCATTERED", "Mapping", "in_memory", "map_file", "will_need"]

SCATTERED = 4 << 20  # what a smaller file has is soon read, whatever the order
_DONT_CACHE = 0x80  # RWF_DONTCACHE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
# calls of a microsecond or two that never wait for the disk: other threads are not let in, for
# beside searching threads it takes a tenth of a millisecond to have the interpreter back
_quick = ctypes.PyDLL(None, use_errno=True)
_quick.munmap.argtypes = _libc.munmap.argtypes
_quick.mmap.restype = ctypes.c_void_p
_quick.mmap.argtypes = [
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long
]  # fmt: skip
_view = ctypes.pythonapi.PyMemoryView_FromMemory
_view.restype = ctypes.py_object
_view.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int]
_READ = 0x100  # PyBUF_READ
_MAP_FAILED = ctypes.c_void_p(-1).value


def map_file(fd: int, length: int) -> int:
    """Map a file read-only and return the address. Python's own mmap keeps a duplicate descriptor
    for each mapping."""
    address = _quick.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    if address is None or address == _MAP_FAILED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(address)


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
        self._scattered = length > SCATTERED
        self._munmap = _libc.munmap if self._scattered else _quick.munmap
        self.address = address
        self.length = length
        self.descriptor = descriptor
        self._told = not self._scattered  # whether the kernel knows
        self._streams = 0

    def glance(self, offset: int, length: int) -> memoryview:
        """A few bytes (the caller has checked the bounds) for use at once: it does not keep the
        mapping alive."""
        view: memoryview = _view(self.address + offset, length, _READ)
        return view

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

    def __del__(self, _close: Any = os.close) -> None:
        if self.length:
            self._munmap(self.address, self.length)
        if self.descriptor >= 0:
            _close(self.descriptor)


def will_need(address: int, length: int) -> None:
    """Have the system begin to read a mapped range; how it takes other accesses does not change."""
    start = address // mmap.PAGESIZE * mmap.PAGESIZE
    _libc.madvise(start, address + length - start, mmap.MADV_WILLNEED)


def in_memory(address: int) -> bool:
    """Whether the page cache has the page of a mapped byte; True where the system won't tell."""
    found = ctypes.c_ubyte(1)
    _libc.mincore(address // mmap.PAGESIZE * mmap.PAGESIZE, 1, ctypes.byref(found))
    return bool(found.value & 1)


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


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for extent in shape:
        total *= int(extent)
    return total
