"""The id column of a segment: rows to ids, and ids to rows by binary search.

==========  =============================================  ==================================
ids         sections                                       bytes per row
==========  =============================================  ==================================
consecutive none: the first id is in the meta              0
ascending   ``ids``                                        8
any int64   ``ids``, ``ids.order`` (rows by id, uint32)    12
text        ``ids.offsets`` (int32), ``ids.text`` (UTF-8), 16 + text
            ``ids.hashes`` (XXH3-64, sorted),
            ``ids.order`` (rows by hash, uint32)
==========  =============================================  ==================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xxhash

from vecdb.segment.columns import numbers
from vecdb.segment.pick import SCARCE, Reach, checked, reach_texts, touch

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.schema import IdType
    from vecdb.segment.container import Container
    from vecdb.segment.writer import ContainerWriter

__all__ = ["IdColumn", "TextIds", "open_ids", "row_hashes", "write_ids"]


class IdColumn(Protocol):
    """What every kind of id column can do."""

    def __len__(self) -> int: ...

    def get(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Ids of the rows: int64, or object holding str."""

    def find(self, ids: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Row of each id, -1 where there is none."""

    def all(self) -> Any:
        """Every id in row order: an int64 array, or a pyarrow.StringArray."""


class RangeIds:
    """Consecutive int64 ids."""

    def __init__(self, first: int, rows: int) -> None:
        self.first = first
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def get(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return rows + self.first if self.first else rows

    def find(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        rows = ids - self.first
        return np.where((rows >= 0) & (rows < self.rows), rows, -1)

    def all(self) -> npt.NDArray[np.int64]:
        return np.arange(self.rows, dtype=np.int64) + self.first


class IntIds:
    """int64 ids, ascending or with the permutation that sorts them."""

    def __init__(
        self, ids: npt.NDArray[np.int64], order: npt.NDArray[np.uint32] | None = None
    ) -> None:
        self._ids = ids
        self._order = order

    def __len__(self) -> int:
        return len(self._ids)

    def get(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return self._ids[rows]

    def find(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        count = len(self._ids)
        if count == 0:
            return np.full(len(ids), -1, np.int64)
        if self._order is None:
            rows = np.minimum(np.searchsorted(self._ids, ids), count - 1)
        else:
            place = np.minimum(self._search(ids), count - 1)
            rows = self._order[place].astype(np.int64)
        return np.where(self._ids[rows] == ids, rows, -1)

    def all(self) -> npt.NDArray[np.int64]:
        return self._ids

    def _search(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """searchsorted through the permutation; NumPy's own would copy it to int64 each time."""
        assert self._order is not None
        low = np.zeros(len(ids), np.int64)
        high = np.full(len(ids), len(self._ids), np.int64)
        for _ in range(len(self._ids).bit_length()):
            middle = np.minimum((low + high) >> 1, len(self._ids) - 1)
            less = (self._ids[self._order[middle]] < ids) & (low < high)
            low = np.where(less, middle + 1, low)
            high = np.where(less, high, np.minimum(high, middle))
        return low


class TextIds:
    """Text ids, found through their sorted hashes and compared in full."""

    def __init__(
        self,
        container: Container,
        rows: int,
        hashes: npt.NDArray[np.uint64],
        order: npt.NDArray[np.uint32],
    ) -> None:
        import pyarrow as pa

        self._container = container
        self._rows = rows
        self._checked = False  # whether all texts are
        self._reach: Reach | None = None
        offsets, text = (container.buffer(n, verify=False) for n in ("ids.offsets", "ids.text"))
        try:  # which looks at the first offset and at the last
            self._texts = pa.StringArray.from_buffers(rows, offsets, text)
        except pa.ArrowInvalid as error:
            raise container.damaged("text ids", error) from None
        self.hashes = hashes
        self.order = order

    def __len__(self) -> int:
        return self._rows

    def get(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        if self._checked or len(rows) * SCARCE > self._rows:
            taken = self.all().take(numbers(rows))
        else:
            if self._reach is None:
                self._reach = reach_texts(self._container, "ids.offsets", "ids.text")
            touch([([self._reach], np.sort(rows))])
            taken = checked(self._container, "text ids", self._texts.take(numbers(rows)))
        found: npt.NDArray[Any] = taken.to_numpy(zero_copy_only=False)
        return found

    def find(self, ids: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        if self._rows == 0:
            return np.full(len(ids), -1, np.int64)
        wanted = hash_texts(ids)
        place = np.minimum(np.searchsorted(self.hashes, wanted), len(self.hashes) - 1)
        rows = np.full(len(ids), -1, np.int64)
        known = np.flatnonzero(self.hashes[place] == wanted)
        candidates = self.order[place[known]].astype(np.int64)
        same = self.get(candidates) == ids[known]
        rows[known[same]] = candidates[same]
        for i in known[~same]:  # two texts of one hash: one pair in 2**64 by chance
            rows[i] = self._walk(int(place[i]), wanted[i], ids[i])
        return rows

    def all(self) -> pa.StringArray:
        if not self._checked:
            for name in ("ids.offsets", "ids.text"):
                self._container.verify(name)
            checked(self._container, "text ids", self._texts)
            self._checked = True
        return self._texts

    def _walk(self, place: int, digest: np.uint64, text: str) -> int:
        while place < len(self.hashes) and self.hashes[place] == digest:
            row = int(self.order[place])
            if self.get(np.array([row]))[0] == text:
                return row
            place += 1
        return -1


def hash_texts(ids: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """XXH3-64 of each text's UTF-8."""
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter((digest(text.encode()) for text in ids), np.uint64, len(ids))


def row_hashes(ids: IdColumn) -> npt.NDArray[np.uint64]:
    """The hash of each row's text id, so that a merge hashes no text again."""
    if not isinstance(ids, TextIds):
        raise TypeError("only text ids have hashes")
    by_row = np.empty(len(ids), np.uint64)
    by_row[ids.order] = ids.hashes
    return by_row


def write_ids(
    writer: ContainerWriter, ids: Any, hashes: npt.NDArray[np.uint64] | None = None
) -> dict[str, Any]:
    """Write the sections for `ids` (int64 array, range or StringArray) and return their meta.

    Takes 16 bytes a row beside the ids themselves for sorting; a range takes nothing.
    """
    if isinstance(ids, range):
        return {"kind": "range", "first": ids.start}
    if not isinstance(ids, np.ndarray):
        return _write_texts(writer, ids, hashes)
    if len(ids) and bool(np.all(ids[1:] - ids[:-1] == 1)):
        return {"kind": "range", "first": int(ids[0])}
    writer.add("ids", np.ascontiguousarray(ids, "<i8"))
    if bool(np.all(ids[1:] > ids[:-1])):
        return {"kind": "ascending"}
    writer.add("ids.order", np.argsort(ids, kind="stable").astype("<u4"))
    return {"kind": "any"}


def _write_texts(
    writer: ContainerWriter, texts: pa.StringArray, hashes: npt.NDArray[np.uint64] | None
) -> dict[str, Any]:
    if hashes is None:
        hashes = hash_texts(texts.to_numpy(zero_copy_only=False))
    order = np.argsort(hashes, kind="stable")
    _, starts, text = (memoryview(buffer or b"") for buffer in texts.buffers())
    offsets = np.frombuffer(starts, "<i4")[texts.offset :][: len(texts) + 1]
    writer.add("ids.offsets", offsets - offsets[:1])
    writer.add("ids.text", text[int(offsets[0]) : int(offsets[-1])])
    writer.add("ids.hashes", hashes[order].astype("<u8"))
    writer.add("ids.order", order.astype("<u4"))
    return {"kind": "text", "length": int(offsets[-1] - offsets[0])}


def open_ids(container: Container, rows: int, ids: IdType, *, find: bool = True) -> IdColumn:
    """The id column of a segment file of a collection with such `ids`; hashes its sections and
    checks what a find relies on.

    Without `find` nothing may be asked but the ids of rows, and numbers are not hashed: a repair
    looks for their damaged blocks itself.
    """
    meta = container.meta.get("ids")
    meta = meta if isinstance(meta, dict) else {}
    kind = meta.get("kind")
    if (kind == "text") != (ids == "string"):
        raise container.damaged(f"ids of type {ids}", repr(kind)[:40])
    if kind == "range":
        first = meta.get("first")
        if not isinstance(first, int) or not 0 <= first <= 2**63 - rows:
            raise container.damaged("ids of 63 bits", repr(first)[:40])
        return RangeIds(first, rows)
    if kind == "ascending":
        return IntIds(container.array("ids", "<i8", (rows,), verify=find))
    if kind == "any":
        order = _order(container, rows) if find else None
        return IntIds(container.array("ids", "<i8", (rows,), verify=find), order)
    if kind == "text":
        return _open_texts(container, rows, meta.get("length"), find=find)
    raise container.damaged("a known kind of ids", repr(kind)[:40])


def _open_texts(container: Container, rows: int, length: Any, *, find: bool) -> TextIds:
    offsets, text = container.length_of("ids.offsets"), container.length_of("ids.text")
    if offsets != 4 * (rows + 1) or text != length:
        raise container.damaged(f"{rows} text ids", f"{offsets} bytes of offsets")
    if not find:
        return TextIds(container, rows, np.empty(0, np.uint64), np.empty(0, np.uint32))
    hashes = container.array("ids.hashes", "<u8", (rows,))
    return TextIds(container, rows, hashes, _order(container, rows))


def _order(container: Container, rows: int) -> npt.NDArray[np.uint32]:
    order = container.array("ids.order", "<u4", (rows,))
    if rows and int(order.max()) >= rows:
        raise container.damaged(f"row numbers below {rows}", int(order.max()))
    return order
