"""Arrays that are zero but for a few rows: what a store far larger than the disk is tried with."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Sparse", "little_endian"]


@dataclasses.dataclass(frozen=True, slots=True)
class Sparse:
    """An array of `rows` rows that is zero but for some; a file keeps holes in their stead.

    Attributes
    ----------
    rows : int
        Length of the first axis.
    places : ndarray
        (n,) int64, ascending: the rows that are not zero.
    values : ndarray
        (n, ...) what stands there.
    """

    rows: int
    places: npt.NDArray[np.int64]
    values: npt.NDArray[Any]

    def __post_init__(self) -> None:
        places = self.places
        if len(places) != len(self.values) or np.any(np.diff(places) <= 0):
            raise ValueError("one ascending place for each value expected")
        if len(places) and not 0 <= int(places[0]) <= int(places[-1]) < self.rows:
            raise ValueError(f"a place outside the {self.rows} rows")

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        return self.values.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""
        return (self.rows, *self.values.shape[1:])

    def pieces(self) -> Iterator[npt.NDArray[Any] | int]:
        """Values and, between them, the length of each hole in bytes, from front to back."""
        width = self.dtype.itemsize * math.prod(self.values.shape[1:])
        after = 0
        for place, value in zip(self.places.tolist(), self.values, strict=True):
            if place > after:
                yield (place - after) * width
            yield value
            after = place + 1
        if self.rows > after:
            yield (self.rows - after) * width


def little_endian(array: npt.NDArray[Any] | Sparse, dtype: np.dtype[Any]) -> Any:
    """The array as the file holds it: C-contiguous, `dtype` in little-endian order."""
    kind = dtype.newbyteorder("<")
    if isinstance(array, Sparse):
        return dataclasses.replace(array, values=np.ascontiguousarray(array.values, kind))
    return np.ascontiguousarray(array, kind)
