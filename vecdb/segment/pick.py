"""What single rows of a column need before Arrow may look at them: the blocks that they lie in
hashed, and offsets of text that stay inside.

Opening a column whole hashes all of it and looks through every offset and text. The first `get` of
ten rows out of a million with two columns of text took 12 ms of CPU so, and takes 4; of 1,000 rows
most blocks are touched, and what is saved is the look at the other rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.segment.container import Container

__all__ = ["SCARCE", "checked", "touch_column", "touch_texts"]

_Array = TypeVar("_Array", bound="pa.Array[Any]")

SCARCE = 64  # a column is opened whole for more than one row in so many


def touch_column(
    container: Container, prefix: str, kind: pa.DataType, rows: npt.NDArray[np.int64]
) -> None:
    """Make rows of a column of numbers, booleans, timestamps, text or bytes fit to be taken from
    an array over its sections that nobody has validated.

    Parameters
    ----------
    prefix : str
        Of the names of the sections: ``<prefix>.0`` are the validity bits, and so on.
    rows : ndarray
        (n,) row numbers.

    Raises
    ------
    CorruptionError
    """
    import pyarrow as pa

    if f"{prefix}.0" in container.sections:
        container.touch(f"{prefix}.0", 1, rows >> 3)
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        touch_texts(container, f"{prefix}.1", f"{prefix}.2", rows)
    elif kind.bit_width == 1:
        container.touch(f"{prefix}.1", 1, rows >> 3)
    else:
        container.touch(f"{prefix}.1", kind.bit_width // 8, rows)


def touch_texts(container: Container, offsets: str, text: str, rows: npt.NDArray[np.int64]) -> None:
    """The same for texts, given the names of their two sections."""
    ends = container.elements(offsets, "<i4", np.concatenate([rows, rows + 1]))
    container.touch_spans(text, ends[: len(rows)], ends[len(rows) :])


def checked(container: Container, what: str, taken: _Array) -> _Array:
    """What was taken, once Arrow has looked at all of it, UTF-8 included."""
    import pyarrow as pa

    try:
        taken.validate(full=True)
    except pa.ArrowInvalid as error:
        raise container.damaged(what, str(error)[:200]) from None
    return taken
