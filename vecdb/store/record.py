"""What a record of the write-ahead log says: rows put, rows deleted, a new schema.

Payloads by type, little-endian::

    1 PUT      4  n            number of rows
    2 REPLACE  4  i            bytes of ids
               4  m            bytes of metadata, 0 for none
               4  zero
               i  ids          n int64; or text: n uint32 lengths, then UTF-8
                  vectors      n * dim of the schema's dtype
               m  metadata     Arrow IPC record batch message of the schema's columns
    3 DELETE   4  n, 4  i, 8  zero, then ids as above
    4 SCHEMA      the schema as JSON, see Schema.to_json

REPLACE deletes the rows that have one of its ids before it adds; PUT found none when it was
written. One record is one atomic step.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.errors import VecdbError
from vecdb.schema import Schema

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.batch import Batch

__all__ = [
    "Delete",
    "Kind",
    "NewSchema",
    "Put",
    "decode",
    "encode_delete",
    "encode_put",
    "encode_schema",
]

_COUNTS = struct.Struct("<III4x")


class Kind(enum.IntEnum):
    """Type byte of a record."""

    PUT = 1
    REPLACE = 2
    DELETE = 3
    SCHEMA = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Put:
    """Rows to add, with `replace` after deleting those of the same ids."""

    ids: npt.NDArray[Any]
    vectors: npt.NDArray[Any]
    metadata: pa.RecordBatch | None
    replace: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Delete:
    """Ids of rows to delete where they exist."""

    ids: npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, slots=True)
class NewSchema:
    """The schema from here on."""

    schema: Schema


def encode_put(batch: Batch) -> list[Any]:
    """Payload of PUT and REPLACE as buffers, without copying the vectors."""
    ids = _encode_ids(batch.ids)
    metadata = b"" if batch.metadata is None else batch.metadata.serialize()
    head = _COUNTS.pack(len(batch), len(ids), memoryview(metadata).nbytes)
    return [head, ids, batch.vectors.reshape(-1).view(np.uint8).data, metadata]


def encode_delete(ids: npt.NDArray[Any]) -> list[Any]:
    """Payload of DELETE."""
    encoded = _encode_ids(ids)
    return [_COUNTS.pack(len(ids), len(encoded), 0), encoded]


def encode_schema(schema: Schema) -> list[Any]:
    """Payload of SCHEMA."""
    return [json.dumps(schema.to_json()).encode()]


def decode(kind: int, payload: memoryview, schema: Schema) -> Put | Delete | NewSchema:
    """The record that a payload means under the schema in force.

    Raises
    ------
    ValueError
        When it can't have been written by this module.
    """
    try:
        if kind == Kind.SCHEMA:
            changed = Schema.from_json(json.loads(bytes(payload)))
            if not changed.extends(schema):
                raise ValueError("a schema that the one before can't become")
            return NewSchema(changed)
        rows, ids_size, metadata_size = _COUNTS.unpack_from(payload)
        start = _COUNTS.size + ids_size
        ids = _decode_ids(payload[_COUNTS.size : start], rows, schema)
        if kind == Kind.DELETE and start == len(payload):
            return Delete(ids)
        if kind not in (Kind.PUT, Kind.REPLACE):
            raise ValueError(f"record of unknown type {kind}")
        dtype = np.dtype(schema.dtype).newbyteorder("<")
        stop = start + rows * schema.dim * dtype.itemsize
        if stop + metadata_size != len(payload):
            raise ValueError("sizes do not add up")
        vectors = np.frombuffer(payload[start:stop], dtype).reshape(rows, schema.dim)
        metadata = _decode_metadata(payload[stop:], rows, schema)
        return Put(ids, vectors, metadata, kind == Kind.REPLACE)
    except (struct.error, KeyError, TypeError, VecdbError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _encode_ids(ids: npt.NDArray[Any]) -> bytes:
    if ids.dtype == np.int64:
        return ids.astype("<i8", copy=False).tobytes()
    texts = [text.encode() for text in ids]
    lengths = np.fromiter(map(len, texts), "<u4", len(texts))
    return lengths.tobytes() + b"".join(texts)


def _decode_ids(data: memoryview, rows: int, schema: Schema) -> npt.NDArray[Any]:
    if schema.ids == "int64":
        ids = np.frombuffer(data, "<i8").astype(np.int64)
        if len(ids) != rows or (rows and int(ids.min()) < 0):
            raise ValueError("ids do not fit")
        return ids
    lengths = np.frombuffer(data[: 4 * rows], "<u4").astype(np.int64)
    ends = np.cumsum(lengths) + 4 * rows
    if len(lengths) != rows or int(ends[-1] if rows else 0) != len(data):
        raise ValueError("ids do not fit")
    texts = np.empty(rows, object)
    for i, (length, end) in enumerate(zip(lengths.tolist(), ends.tolist(), strict=True)):
        texts[i] = str(data[end - length : end], "utf-8")
    return texts


def _decode_metadata(data: memoryview, rows: int, schema: Schema) -> pa.RecordBatch | None:
    import pyarrow as pa

    if not len(data):
        return None
    if schema.columns is None:
        raise ValueError("metadata without columns")
    try:
        # a copy of its own, so that the batch does not keep the whole log in memory
        batch = pa.ipc.read_record_batch(pa.py_buffer(bytes(data)), schema.columns)
        batch.validate(full=True)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise ValueError(str(error)) from None
    if batch.num_rows != rows:
        raise ValueError("metadata of another number of rows")
    return batch
