"""Between bitmaps of rows (:mod:`vecdb.segment.bitmap`) and the bool arrays of conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["pack_into", "unpack"]


def pack_into(bitmap: npt.NDArray[np.uint8], start: int, flags: npt.NDArray[np.bool_]) -> None:
    """Write `flags` at the bits from `start`, a multiple of 8, on; the bits behind become 0."""
    packed = np.packbits(flags, bitorder="little")
    bitmap[start // 8 : start // 8 + len(packed)] = packed


def unpack(bitmap: npt.NDArray[np.uint8], start: int, stop: int) -> npt.NDArray[np.bool_]:
    """The bits ``[start, stop)`` as a fresh bool array."""
    skip = start % 8
    packed = bitmap[start // 8 : (stop + 7) // 8]
    flags = np.unpackbits(packed, count=skip + stop - start, bitorder="little")
    return flags[skip:].view(np.bool_)
