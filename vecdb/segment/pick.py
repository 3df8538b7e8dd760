"""Single rows of columns, taken from files of which only the blocks that they lie in are hashed.

Opening a column whole hashes all of it and looks through every offset and text; a `get` of some
rows need not wait for that. All its columns of all its segments are looked for, hashed and copied
together: in bench.open the first `get` of a process takes 4 ms so, and took 9.7 when NumPy and
Arrow did it section by section.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from vecdb import kernels
from vecdb.errors import CorruptionError
from vecdb.kernels import reference
from vecdb.segment.blocks import changed, fetch, unknown
from vecdb.segment.columns import is_text, numbers

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.segment.container import Container
    from vecdb.workers import Workers

__all__ = ["SCARCE", "Reach", "Wanted", "checked", "pick", "reach_column", "reach_texts", "touch"]

_Taken = TypeVar("_Taken", bound=Any)  # an array or a batch

SCARCE = 64  # a column is opened whole for more than one row in so many
_SHARE = 1024  # blocks that a thread hashes at a time, 64 MB in an old file
_MOST_TEXT = 2**31 - 1  # bytes, in an Arrow array

Part = tuple[str, tuple[int, ...]]
"""A section's name, and what the kernels know of it: see :func:`vecdb.kernels.reference.unknown`,
without the last two numbers."""
_ALL_VALID: Part = "", (0,) * 8


class Reach(NamedTuple):
    """What leads from the rows of a column to the bytes of its sections. Offsets, where there are
    some, are the values; the text is what they lead to."""

    container: Container
    validity: Part | None
    values: Part
    text: Part | None


Wanted = Sequence[tuple[Sequence[Reach | None], "npt.NDArray[np.int64]"]]
"""Columns of a file, None those that are younger, and (n,) row numbers."""
_Section = tuple["Container", str, tuple[int, ...]]
_Own = tuple[Reach, tuple[int, int]]  # and the first of its rows, and the one behind its last


def reach_column(container: Container, prefix: str, kind: pa.DataType) -> Reach:
    """The reach of a column of numbers, booleans, timestamps, text or bytes.

    Parameters
    ----------
    prefix : str
        How the names of its sections begin: ``<prefix>.0`` are the validity bits, and so on.
    """
    validity, values = f"{prefix}.0", f"{prefix}.1"
    bits = None
    if validity in container.sections:
        bits = validity, container.reach(validity, 0, 1)
    if is_text(kind):
        return reach_texts(container, values, f"{prefix}.2")._replace(validity=bits)
    size = kind.bit_width // 8  # none for one bit
    return Reach(container, bits, (values, container.reach(values, size, max(size, 1))), None)


def reach_texts(container: Container, offsets: str, text: str) -> Reach:
    """The reach of texts, given the names of their two sections: offsets, and what they lead to."""
    ends = container.reach(offsets, 4, 8)
    return Reach(container, None, (offsets, ends), (text, container.reach(text, 0, 0, ends[0])))


def pick(
    wanted: Wanted,
    kinds: Sequence[pa.DataType],
    places: npt.NDArray[np.int64] | None = None,
    workers: Workers | None = None,
) -> list[pa.Array[Any]]:
    """Rows of columns that lie in some files.

    Parameters
    ----------
    wanted : Wanted
        Every file has the same columns; rows in any order.
    kinds : sequence of DataType
        Of the columns.
    places : ndarray, optional
        Where each row comes to lie in the result, those of the first file first; one after the
        other when not given.
    workers : Workers, optional
        Who may help.

    Raises
    ------
    CorruptionError
    ArrowInvalid
        More text than an array may have.
    """
    ordered, order = [], []
    for (reaches, rows), (first, _) in zip(wanted, _ends(wanted), strict=True):
        ascending = rows.argsort()
        ordered.append((reaches, rows[ascending]))
        order.append(ascending + first)
    wanted = ordered
    found_at = order[0] if len(order) == 1 else np.concatenate(order)
    places = found_at if places is None else places[found_at]
    touch(wanted, workers)
    rows = _concatenated(wanted)
    columns: list[list[_Own]] = [[] for _ in kinds]
    for (reaches, _), ends in zip(wanted, _ends(wanted), strict=True):
        for column, reach in zip(columns, reaches, strict=True):
            if reach is not None:
                column.append((reach, ends))
    return [
        _column(kind, column, rows, places) for kind, column in zip(kinds, columns, strict=True)
    ]


def touch(wanted: Wanted, workers: Workers | None = None) -> None:
    """Hash the blocks that rows, ascending in each file, lie in, where that was not done before.

    Raises
    ------
    CorruptionError
    """
    elements: list[_Section] = []
    texts: list[_Section] = []
    for (reaches, _), ends in zip(wanted, _ends(wanted), strict=True):
        for reach in reaches:
            if reach is None:
                continue
            container, validity, (name, values), text = reach
            if validity is not None:
                elements.append((container, validity[0], validity[1] + ends))
            elements.append((container, name, values + ends))
            if text is not None:
                texts.append((container, text[0], text[1] + ends))
    rows = _concatenated(wanted)
    found = _unknown(elements, rows)

    def follow() -> None:
        try:  # offsets are followed before they are hashed: others do that meanwhile
            more = _unknown(texts, rows)
        except CorruptionError:
            _hash(elements, found)  # they are to blame, it may be
            raise
        for share in _shares(more):
            _hash(texts, share)

    tasks: list[Callable[[], None]] = [follow]
    tasks += [partial(_hash, elements, share) for share in _shares(found)]
    if workers is None or len(tasks) < 3:  # one share at most
        for task in tasks:
            task()
    else:
        workers.each(lambda task: task(), tasks)


def _shares(blocks: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    return [blocks[start : start + _SHARE] for start in range(0, len(blocks), _SHARE)]


def _unknown(sections: list[_Section], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Blocks with the rows that were not hashed yet; they are fetched."""
    blocks: npt.NDArray[np.int64] | int = unknown(
        _table([values for _, _, values in sections]), rows
    )
    if isinstance(blocks, int):
        container, name, _ = sections[blocks]
        length = container.length_of(name)
        raise container.damaged(f"rows inside the {length} bytes of {name!r}", "others")
    fetch(blocks)
    return blocks


def _hash(sections: list[_Section], blocks: npt.NDArray[np.int64]) -> None:
    bad = blocks[changed(blocks), 0]
    if not len(bad):
        return
    for container, name, (start, length, shift, *_) in sections:
        inside = bad[(bad >= start) & (bad < start + length)]
        if len(inside):
            raise container.changed(name, (inside - start >> shift).tolist())


def _column(
    kind: pa.DataType,
    reaches: Sequence[_Own],
    rows: npt.NDArray[np.int64],
    places: npt.NDArray[np.int64],
) -> pa.Array[Any]:
    """Rows of one column, which have been touched; null where no reach leads to them."""
    import pyarrow as pa

    copy = _copying()
    count = len(rows)
    buffers: list[npt.NDArray[Any] | None] = [None]
    if sum(last - first for _, (first, last) in reaches) < count or any(
        reach.validity is not None for reach, _ in reaches
    ):
        valid = _table([(reach.validity or _ALL_VALID)[1] + own for reach, own in reaches])
        buffers[0] = np.zeros(-(-count // 8), np.uint8)
        copy.bits(valid, rows, places, buffers[0])
    values = _table([reach.values[1] + own for reach, own in reaches])
    if is_text(kind):
        texts = _table([reach.text[1] + own for reach, own in reaches if reach.text is not None])
        ends = np.zeros(count + 1, np.int64)
        copy.ends(texts, rows, places, ends)
        if ends[-1] > _MOST_TEXT:
            raise pa.ArrowInvalid(f"{ends[-1]} bytes of text in one array")
        text = np.empty(int(ends[-1]), np.uint8)
        copy.texts(texts, rows, places, ends, text)
        buffers += [ends.astype(np.int32), text]
    elif kind.bit_width == 1:
        bits = np.zeros(-(-count // 8), np.uint8)
        copy.bits(values, rows, places, bits)
        buffers.append(bits)
    else:
        fixed = np.zeros((count, kind.bit_width // 8), np.uint8)
        copy.values(values, rows, places, fixed)
        buffers.append(fixed)
    array = pa.Array.from_buffers(
        kind, count, [None if buffer is None else pa.py_buffer(buffer.data) for buffer in buffers]
    )
    _validate(array, reaches, places)
    return array


def _validate(array: pa.Array[Any], reaches: Sequence[_Own], places: npt.NDArray[np.int64]) -> None:
    """Have Arrow look at all of it; the error names the file whose rows it does not like."""
    import pyarrow as pa

    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        for reach, (first, last) in reaches:
            own = array.take(numbers(places[first:last]))
            checked(reach.container, f"section {reach.values[0]!r}", own)
        raise


def _copying() -> Any:
    if not kernels.ready():
        return reference
    from vecdb.kernels import pick

    return pick


def _table(numbers: Sequence[tuple[int, ...]]) -> npt.NDArray[np.int64]:
    return np.array(numbers, np.int64).reshape(-1, 10)


def _ends(wanted: Wanted) -> Iterator[tuple[int, int]]:
    """Of each file the numbers of its first row and of the one behind its last."""
    first = 0
    for _, rows in wanted:
        yield first, first + len(rows)
        first += len(rows)


def _concatenated(wanted: Wanted) -> npt.NDArray[np.int64]:
    return wanted[0][1] if len(wanted) == 1 else np.concatenate([rows for _, rows in wanted])


def checked(container: Container, what: str, taken: _Taken) -> _Taken:
    """What was taken, once Arrow has looked at all of it, UTF-8 included."""
    import pyarrow as pa

    try:
        taken.validate(full=True)
    except pa.ArrowInvalid as error:
        raise container.damaged(what, str(error)[:200]) from None
    return taken
