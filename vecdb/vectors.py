"""``col.vectors``: the live vectors of a snapshot as one read-only array-like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.query.gather import bitmap_rows

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.store import Snapshot

__all__ = ["Vectors"]


class Vectors:
    """The vectors of all live rows, shape (rows, dim), in the order of ``col.query()``.

    ``v[i]`` and ``v[a:b]`` are read-only NumPy arrays: views on the mapped file, O(1), where the
    rows lie in one segment without deleted rows between them, copies otherwise. A view keeps its
    mapping alive, also after ``col.close()`` and after a compaction has unlinked the file.
    ``np.asarray(v)`` gives everything as one array under the same rule.

    Attributes
    ----------
    shape : tuple of int
        (rows, dim).
    dtype : numpy.dtype
        float32 or float16, as stored.
    chunks : list of ndarray
        The same rows part by part.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._parts = [part for part in snapshot.parts if part.live_rows]
        self._starts = np.cumsum([0] + [part.live_rows for part in self._parts])
        self.shape = (snapshot.rows, snapshot.schema.dim)
        self.dtype: np.dtype[Any] = np.dtype(snapshot.schema.dtype)
        self.ndim = 2

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all live vectors."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    @property
    def chunks(self) -> list[npt.NDArray[Any]]:
        """One array per part: a view, or a copy where rows were deleted."""
        return [self._slice(i, 0, part.live_rows) for i, part in enumerate(self._parts)]

    def __getitem__(self, key: Any) -> Any:
        """As of an array: a row, a slice, row numbers or a mask, and the same of dimensions."""
        if isinstance(key, tuple):
            return self._both(*key)
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1:
                return self._range(start, max(start, stop))
            return self._rows(np.arange(start, stop, step))
        if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
            if not -len(self) <= key < len(self):
                raise IndexError(f"row {key} of {len(self)} rows")
            position = int(key) % len(self)
            return self._range(position, position + 1)[0]
        wanted = np.asarray(key)
        if wanted.size == 0 and wanted.ndim == 1:
            wanted = wanted.astype(np.int64)
        if wanted.ndim != 1 or wanted.dtype.kind not in "iub":
            raise IndexError(f"a row, a slice, row numbers or a mask expected, got {key!r:.100}")
        if wanted.dtype == np.bool_:
            if len(wanted) != len(self):
                raise IndexError(f"a mask of {len(self)} rows expected, got {len(wanted)}")
            wanted = np.flatnonzero(wanted)
        return self._rows(np.where(wanted < 0, wanted + len(self), wanted).astype(np.int64))

    def _both(self, rows: Any, dims: Any = slice(None), *more: Any) -> Any:
        if more:
            raise IndexError("col.vectors has two dimensions")
        found = self[rows]
        if found.ndim == 1:
            return found[dims]
        if isinstance(rows, slice) or isinstance(dims, (int, np.integer, slice)):
            return found[:, dims]
        return found[np.arange(len(found)), dims]  # two arrays: pairs of a row and a dimension

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        whole = self._range(0, len(self))
        return np.array(whole, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        return f"Vectors(shape={self.shape}, dtype={self.dtype})"

    def _range(self, start: int, stop: int) -> npt.NDArray[Any]:
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        if first < len(self._parts) and stop <= self._starts[first + 1]:
            base = int(self._starts[first])
            return self._slice(first, start - base, stop - base)
        pieces = []
        for i, base in enumerate(self._starts[:-1].tolist()):
            low, high = max(start - base, 0), min(stop - base, self._parts[i].live_rows)
            if low < high:
                pieces.append(self._slice(i, low, high))
        return _frozen(
            np.concatenate(pieces) if pieces else np.empty((0, self.shape[1]), self.dtype)
        )

    def _slice(self, i: int, start: int, stop: int) -> npt.NDArray[Any]:
        part = self._parts[i]
        if part.live is None:
            return part.data.vectors[start:stop]
        rows = bitmap_rows(part.live, part.data.rows)[start:stop]
        if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
            return part.data.vectors[rows[0] : rows[-1] + 1]
        return _frozen(part.data.vectors[rows])

    def _rows(self, wanted: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"row out of range for {len(self)} rows")
        out = np.empty((len(wanted), self.shape[1]), self.dtype)
        owner = np.searchsorted(self._starts, wanted, side="right") - 1
        for i, part in enumerate(self._parts):
            mine = np.flatnonzero(owner == i)
            if len(mine):
                rows = wanted[mine] - self._starts[i]
                if part.live is not None:
                    rows = bitmap_rows(part.live, part.data.rows)[rows]
                out[mine] = part.data.vectors[rows]
        return _frozen(out)


def _frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.flags.writeable = False
    return array
