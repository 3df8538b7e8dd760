"""User input made into a :class:`Batch`: checked ids and vectors (metadata: its own module).

Everything that can be wrong with input is found here, before a byte is written: the layers below
see nothing but NumPy and Arrow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.errors import DimensionError, DuplicateIdError, SchemaError, describe
from vecdb.schema import Schema

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

__all__ = [
    "Batch",
    "as_ids",
    "as_queries",
    "as_vectors",
    "refuse_duplicates",
    "refuse_unmatched",
]

_MAX_ID = 2**63 - 1
MAX_STRING_ID = 65_535  # bytes of UTF-8
_SHOWN = 5  # offenders named in a message
_LEAST_SQUARE = 1e-37  # below it float32 has fewer bits


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """`n` rows on their way into the store.

    Attributes
    ----------
    ids : ndarray
        (n,) int64, or (n,) object holding str.
    vectors : ndarray
        (n, dim), C-contiguous, of the schema's dtype.
    metadata : pyarrow.RecordBatch or None
        n rows with exactly the schema's columns; None while the collection has no columns.
    """

    ids: npt.NDArray[Any]
    vectors: npt.NDArray[Any]
    metadata: pa.RecordBatch | None

    def __len__(self) -> int:
        return len(self.vectors)


def as_vectors(data: Any, schema: Schema) -> npt.NDArray[Any]:
    """Rows to store: (n, dim) of the schema's dtype, C-contiguous.

    Raises
    ------
    DimensionError
        Not two-dimensional, or not `dim` wide.
    SchemaError
        A dtype other than float16/32/64, or NaN, Inf, overflow, or (cosine) zero rows, by number.
    """
    if _is_one_good_row(data, (1, schema.dim)) and schema.dtype == "float32":
        return np.ascontiguousarray(data)
    array = _float_array(data, "vectors")
    if array.shape == (0,):
        array = array.reshape(0, schema.dim)
    if array.ndim != 2:
        raise DimensionError(
            describe("vectors", expected=f"shape (n, {schema.dim})", got=f"shape {array.shape}",
                     fix="pass one row per vector; for a single vector use vector[None, :]")
        )  # fmt: skip
    if array.shape[1] != schema.dim:
        raise DimensionError(
            describe("vectors", expected=f"dim {schema.dim}", got=f"dim {array.shape[1]}",
                     fix="embed with the model that this collection was created for")
        )  # fmt: skip
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(array, dtype=schema.dtype)
    extreme = refuse_unusable_rows(stored, schema, "vectors")
    if len(extreme):
        raise SchemaError(
            describe("vectors", expected="rows of a length between 1e-18 and 1e18 (metric is "
                     "cosine)", got=f"one that float32 can't square in row {_some(extreme)}",
                     fix="scale these rows: only their direction counts")
        )  # fmt: skip
    return stored


def as_queries(data: Any, schema: Schema) -> tuple[npt.NDArray[np.float32], bool]:
    """Queries as (nq, dim) float32, and whether a single 1-D query came.

    Raises
    ------
    DimensionError, SchemaError
        As :func:`as_vectors`.
    """
    if _is_one_good_row(data, (schema.dim,)):
        return np.ascontiguousarray(data)[None], True
    array = _float_array(data, "query")
    if array.ndim not in (1, 2) or array.shape[-1] != schema.dim:
        raise DimensionError(
            describe("query", expected=f"shape ({schema.dim},) or (n, {schema.dim})",
                     got=f"shape {array.shape}",
                     fix="embed the query with the model that made the stored vectors")
        )  # fmt: skip
    single = array.ndim == 1
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(array.reshape(-1, schema.dim), dtype=np.float32)
    extreme = refuse_unusable_rows(rows, schema, "query")
    if len(extreme):  # only their direction counts
        scaled = rows.astype(np.float64)
        scaled[extreme] /= np.linalg.norm(scaled[extreme], axis=1, keepdims=True)
        rows = scaled.astype(np.float32)
    return rows, single


def as_ids(data: Any, schema: Schema, subject: str = "ids") -> npt.NDArray[Any]:
    """Ids as (n,) int64 or (n,) object of str; a scalar is an array of one.

    Raises
    ------
    SchemaError
        Wrong type, more than one dimension, negative, empty or overlong ids.
    """
    if schema.ids == "string":
        return _string_ids(data, subject)
    if type(data) in (int, np.int64) and 0 <= data <= _MAX_ID:  # the commonest
        return np.array([data], np.int64)
    if hasattr(data, "__arrow_array__") or hasattr(data, "to_numpy"):
        data = data.to_numpy(zero_copy_only=False) if _is_arrow(data) else data.to_numpy()
    array = np.asarray(data)
    if array.ndim == 0:
        array = array[None]
    if array.ndim != 1:
        raise SchemaError(
            describe(subject, expected="one dimension", got=f"shape {array.shape}",
                     fix="pass a flat list or array of ids")
        )  # fmt: skip
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.dtype.kind not in "iu":
        raise SchemaError(
            describe(subject, expected="integers (this collection has ids='int64')",
                     got=f"{array.dtype} such as {array[0]!r}",
                     fix="pass integers, or create the collection with ids='string'")
        )  # fmt: skip
    bad = array < 0 if array.dtype.kind == "i" else array > np.uint64(_MAX_ID)
    if bad.any():
        raise SchemaError(
            describe(subject, expected="integers from 0 to 2**63 - 1",
                     got=f"{array[bad][0]} at position {int(np.argmax(bad))}",
                     fix="shift the ids or use ids='string'")
        )  # fmt: skip
    return np.ascontiguousarray(array, dtype=np.int64)


def refuse_unmatched(ids: npt.NDArray[Any], rows: int) -> None:
    """Raise SchemaError when there is not one id for each row."""
    if len(ids) != rows:
        raise SchemaError(
            describe("ids", expected=f"{rows} ids, one per vector", got=str(len(ids)),
                     fix="pass as many ids as vectors")
        )  # fmt: skip


def refuse_duplicates(ids: npt.NDArray[Any]) -> None:
    """Raise DuplicateIdError when an id stands twice in one batch."""
    if len(ids) < 2 or (ids.dtype == np.int64 and bool(np.all(ids[1:] > ids[:-1]))):
        return
    ordered = np.sort(ids)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(repeated):
        raise DuplicateIdError(
            describe("ids", expected="each id once in a batch", got=_some(repeated),
                     fix="drop the repeated rows before adding")
        )  # fmt: skip


def refuse_unusable_rows(
    rows: npt.NDArray[Any], schema: Schema, subject: str
) -> npt.NDArray[np.intp]:
    """Raise SchemaError for NaN, Inf and, under cosine, zero rows, naming the row numbers.

    Returns
    -------
    (m,) array
        Under cosine the rows whose squared length float32 does not hold: kernels would divide by 0
        or infinity.
    """
    # one pass: a finite squared norm in float32 clears a row; only suspects are looked at closely
    with np.errstate(over="ignore", invalid="ignore"):
        squared = np.einsum("ij,ij->i", rows, rows, dtype=np.float32)
    suspects = np.flatnonzero(~np.isfinite(squared))
    bad = suspects[~np.isfinite(rows[suspects]).all(axis=1)]
    if len(bad):
        raise SchemaError(
            describe(subject, expected=f"finite {rows.dtype} numbers",
                     got=f"NaN or Inf in row {_some(bad)}",
                     fix="drop these rows, or look for overflow in the model that made them")
        )  # fmt: skip
    if schema.metric == "cosine":
        tiny = np.flatnonzero(squared < _LEAST_SQUARE)
        zero = tiny[~rows[tiny].any(axis=1)]
        if len(zero):
            raise SchemaError(
                describe(subject, expected="rows with a direction (metric is cosine)",
                         got=f"all zeros in row {_some(zero)}",
                         fix="drop these rows, or use metric='l2'")
            )  # fmt: skip
        return np.flatnonzero((squared < _LEAST_SQUARE) | ~np.isfinite(squared))
    return np.empty(0, np.intp)


def _is_one_good_row(data: Any, shape: tuple[int, ...]) -> bool:
    """Whether this is one float32 row of that shape, fit for every metric: a look of 2 us at the
    commonest input, where all checks take 20; for what it refuses they say what is wrong."""
    if type(data) is not np.ndarray or data.dtype != np.float32 or data.shape != shape:
        return False
    row = data[0] if len(shape) == 2 else data
    return _LEAST_SQUARE < float(np.dot(row, row)) < np.inf


def _float_array(data: Any, subject: str) -> npt.NDArray[Any]:
    if _is_arrow(data):
        data = _from_arrow(data, subject)
    # numpy.ma is named only where it has been imported already: that takes 10 ms
    if type(data).__module__.startswith("numpy.ma") and np.ma.is_masked(data):
        raise SchemaError(
            describe(subject, expected="a value everywhere", got="a masked array with gaps",
                     fix="drop the masked rows, or fill them")
        )  # fmt: skip
    try:
        array = np.asarray(data)
    except (ValueError, TypeError) as error:
        raise DimensionError(
            describe(subject, expected="rows of equal length", got=str(error)[:200],
                     fix="pass one numpy array of shape (n, dim)")
        ) from None  # fmt: skip
    if array.size == 0 and array.dtype == object:
        array = array.astype(np.float32)
    listed_ints = isinstance(data, Sequence) and array.dtype.kind in "iu"
    if listed_ints:  # [1, 0, 0] typed by hand; an integer *array* is refused like its peers
        array = array.astype(np.float32)
    if array.dtype not in (np.float16, np.float32, np.float64):
        raise SchemaError(
            describe(subject, expected="float32, float64 or float16", got=f"dtype {array.dtype}",
                     fix=f"convert: np.stack({subject}).astype('float32')"
                     if array.dtype == object else f"convert: {subject}.astype('float32')")
        )  # fmt: skip
    return array


def _is_arrow(data: Any) -> bool:
    return type(data).__module__.partition(".")[0] == "pyarrow"


def _from_arrow(data: Any, subject: str) -> Any:
    import pyarrow as pa

    if isinstance(data, pa.ChunkedArray):
        data = data.combine_chunks()
    if isinstance(data, pa.Array) and data.null_count == 0:
        if isinstance(data, pa.FixedSizeListArray):
            values: Any = data.flatten()
            if values.null_count == 0:
                return values.to_numpy(zero_copy_only=False).reshape(len(data), -1)
        elif pa.types.is_floating(data.type):
            return data.to_numpy(zero_copy_only=False)
    raise SchemaError(
        describe(subject, expected="an Arrow FixedSizeList of floats without nulls",
                 got=str(getattr(data, "type", type(data).__name__)),
                 fix="cast the column: column.cast(pa.list_(pa.float32(), dim))")
    )  # fmt: skip


def _string_ids(data: Any, subject: str) -> npt.NDArray[Any]:
    if isinstance(data, str) or not hasattr(data, "__iter__"):
        data = [data]
    values = data.to_pylist() if _is_arrow(data) else list(data)
    for position, value in enumerate(values):
        if not isinstance(value, str) or not 0 < _utf8_length(value) <= MAX_STRING_ID:
            raise SchemaError(
                describe(subject,
                         expected=f"text of 1 to {MAX_STRING_ID} bytes (this collection has "
                         "ids='string')", got=f"{value!r:.100} at position {position}",
                         fix="convert the ids with str(), or create with ids='int64'")
            )  # fmt: skip
    array = np.empty(len(values), dtype=object)
    array[:] = [str(value) for value in values]
    return array


def _utf8_length(text: str) -> int:
    """Bytes of UTF-8, 0 for text that has none (lone surrogates)."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return 0


def _some(values: npt.NDArray[Any]) -> str:
    shown = ", ".join(str(value) for value in values[:_SHOWN])
    return shown if len(values) <= _SHOWN else f"{shown} and {len(values) - _SHOWN} more"
