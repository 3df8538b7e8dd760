"""Some rows of a column or of text ids: only the blocks that they lie in are hashed, only their
text is checked to be UTF-8.

The first `get` of 1,000 rows out of a million with two columns of text took three times as long
when the columns were opened whole for it, and of ten rows of 64 million it would read all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.segment.container import Container

__all__ = ["SCARCE", "pick_column", "pick_texts"]

SCARCE = 64  # a column is opened whole for more than one row in so many: Arrow is faster then


def pick_column(
    container: Container, prefix: str, kind: pa.DataType, rows: npt.NDArray[np.int64]
) -> pa.Array[Any]:
    """Values of a column of numbers, booleans, timestamps, text or bytes.

    Parameters
    ----------
    prefix : str
        Of the names of its sections: ``<prefix>.0`` are the validity bits, and so on.
    rows : ndarray
        (n,) row numbers, each below the column's length.
    """
    import pyarrow as pa

    valid = _bits(container, f"{prefix}.0", rows) if f"{prefix}.0" in container.sections else None
    null = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little").data)
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        starts, data = pick_texts(container, f"{prefix}.1", f"{prefix}.2", rows)
        values = [pa.py_buffer(starts.data), pa.py_buffer(data)]
    elif kind.bit_width == 1:
        bits = _bits(container, f"{prefix}.1", rows)
        values = [pa.py_buffer(np.packbits(bits, bitorder="little").data)]
    else:
        words = container.elements(f"{prefix}.1", f"<u{kind.bit_width // 8}", rows)
        values = [pa.py_buffer(words.data)]
    picked: pa.Array[Any] = pa.Array.from_buffers(kind, len(rows), [null, *values])
    try:
        picked.validate(full=True)
    except pa.ArrowInvalid as error:
        raise container.damaged(f"values of {kind} in {prefix!r}", str(error)[:200]) from None
    return picked


def pick_texts(
    container: Container, offsets: str, text: str, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int32], bytes]:
    """Texts as Arrow keeps them: (n + 1,) int32 offsets, and the bytes, not checked to be UTF-8."""
    starts = container.elements(offsets, "<i4", rows)
    stops = container.elements(offsets, "<i4", rows + 1)
    data = b"".join(container.spans(text, starts, stops)) if len(rows) else b""
    ends = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(stops.astype(np.int64) - starts, out=ends[1:])
    if ends[-1] >= 2**31:
        raise MemoryError(f"{ends[-1]} bytes of text in one answer: ask for fewer rows at a time")
    return ends.astype(np.int32), data


def _bits(container: Container, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    octets = container.elements(name, "u1", rows >> 3)
    bits: npt.NDArray[np.bool_] = (octets >> (rows & 7).astype(np.uint8) & 1).astype(np.bool_)
    return bits
