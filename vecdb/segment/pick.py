"""What single rows of a column need before Arrow may look at them: the blocks that they lie in
hashed, and offsets of text that stay inside.

Opening a column whole hashes all of it and looks through every offset and text; a `get` of some
rows need not wait for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.segment.container import Container

__all__ = ["SCARCE", "checked", "touch_columns", "touch_texts"]

_Taken = TypeVar("_Taken", bound=Any)  # an array or a batch

SCARCE = 64  # a column is opened whole for more than one row in so many


def touch_columns(
    container: Container, columns: Iterable[tuple[str, pa.DataType]], rows: npt.NDArray[np.int64]
) -> None:
    """Make rows of columns of numbers, booleans, timestamps, text or bytes fit to be taken from
    arrays over their sections that nobody has validated.

    Parameters
    ----------
    columns : iterable of (str, DataType)
        How the names of a column's sections begin (``<prefix>.0`` are the validity bits, and so
        on), and its type.
    rows : ndarray
        (n,) row numbers.

    Raises
    ------
    CorruptionError
    """
    import pyarrow as pa

    elements, texts = [], []
    eighth = rows >> 3
    for prefix, kind in columns:
        if f"{prefix}.0" in container.sections:
            elements.append((f"{prefix}.0", 1, eighth))
        if pa.types.is_string(kind) or pa.types.is_binary(kind):
            texts.append((f"{prefix}.1", f"{prefix}.2"))
        elif kind.bit_width == 1:
            elements.append((f"{prefix}.1", 1, eighth))
        else:
            elements.append((f"{prefix}.1", kind.bit_width // 8, rows))
    touch_texts(container, texts, rows, elements)


def touch_texts(
    container: Container,
    texts: Sequence[tuple[str, str]],
    rows: npt.NDArray[np.int64],
    elements: Sequence[tuple[str, int, npt.NDArray[np.int64]]] = (),
) -> None:
    """The same for texts, given the names of their two sections: offsets, then what they lead to.
    Other `elements` are touched with the offsets."""
    if not texts:
        container.touch(*elements)
        return
    ends = np.concatenate([rows, rows + 1])
    container.touch(*elements, *((offsets, 4, ends) for offsets, _ in texts))
    spans = []
    for offsets, text in texts:
        places = container.elements(offsets, "<i4", ends).astype(np.int64)
        spans.append((text, places[: len(rows)], places[len(rows) :]))
    container.touch_spans(*spans)


def checked(container: Container, what: str, taken: _Taken) -> _Taken:
    """What was taken, once Arrow has looked at all of it, UTF-8 included."""
    import pyarrow as pa

    try:
        taken.validate(full=True)
    except pa.ArrowInvalid as error:
        raise container.damaged(what, str(error)[:200]) from None
    return taken
