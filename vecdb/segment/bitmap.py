"""Bitmaps of live rows: uint8, Arrow's bit order (LSB first), padded to a multiple of 8 bytes.

Bit 1 means that the row may be returned. Padding bits are 0. Bitmaps are shared by snapshots and
read by kernels without a lock, so a changed one is always a copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["all_live", "cleared", "extended", "live_rows", "nbytes", "rows_of", "test"]


def nbytes(rows: int) -> int:
    """Length in bytes of a bitmap over `rows` rows."""
    return -(-rows // 64) * 8


def all_live(rows: int) -> npt.NDArray[np.uint8]:
    """A bitmap in which every row is live."""
    bitmap = np.zeros(nbytes(rows), np.uint8)
    bitmap[: rows // 8] = 255
    if rows % 8:
        bitmap[rows // 8] = (1 << rows % 8) - 1
    return bitmap


def cleared(
    bitmap: npt.NDArray[np.uint8] | None, rows: int, dead: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    """A copy (of all rows live when `bitmap` is None) with the rows of `dead` cleared."""
    changed = all_live(rows) if bitmap is None else bitmap.copy()
    np.bitwise_and.at(changed, dead >> 3, ~(np.uint8(1) << (dead & 7).astype(np.uint8)))
    return changed


def extended(bitmap: npt.NDArray[np.uint8], old: int, rows: int) -> npt.NDArray[np.uint8]:
    """A copy that covers `rows` rows instead of `old`; the new ones are live."""
    longer = all_live(rows)
    longer[: len(bitmap)] ^= all_live(old)
    longer[: len(bitmap)] |= bitmap
    return longer


def live_rows(bitmap: npt.NDArray[np.uint8]) -> int:
    """Number of bits that are set."""
    return int(np.bitwise_count(bitmap.view(np.uint64)).sum())


def rows_of(bitmap: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """The live rows, ascending."""
    return np.flatnonzero(np.unpackbits(bitmap, bitorder="little"))


def test(bitmap: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """For each row whether it is live."""
    bits = bitmap[rows >> 3] >> (rows & 7).astype(np.uint8) & np.uint8(1)
    live: npt.NDArray[np.bool_] = bits.astype(np.bool_)
    return live
