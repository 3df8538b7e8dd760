"""What the tests of the store share: small batches, and a store that is left as a crash does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vecdb.batch import Batch
from vecdb.schema import Schema
from vecdb.store import Store
from vecdb.workers import Workers

DIM = 4
COLUMNS = pa.schema([("n", pa.int64()), ("text", pa.string())])


@pytest.fixture
def workers() -> Iterator[Workers]:
    """A pool of two threads."""
    pool = Workers(2)
    yield pool
    pool.close()


@pytest.fixture
def schema() -> Schema:
    """Four dimensions, int64 ids, one number and one text column."""
    return Schema(dim=DIM, metric="l2", columns=COLUMNS)


@pytest.fixture
def batch() -> Callable[..., Batch]:
    """Rows with the given ids; the vector of id i holds i plus `shift`."""

    def make(ids: Any, shift: float = 0.0) -> Batch:
        keys = np.asarray(list(ids))
        numbers = np.array([int(str(key).lstrip("t")) for key in keys], np.int64)
        vectors = np.repeat(numbers[:, None] + shift, DIM, 1).astype(np.float32)
        texts = [f"{n} {shift}" if n % 3 else None for n in numbers.tolist()]
        metadata = pa.RecordBatch.from_arrays(
            [pa.array(numbers), pa.array(texts, pa.string())], schema=COLUMNS
        )
        stored = numbers if keys.dtype.kind != "U" else keys.astype(object)
        return Batch(stored, vectors, metadata)

    return make


@pytest.fixture
def contents() -> Callable[..., dict[Any, tuple[float, Any]]]:
    """Everything a snapshot holds: id -> (first value of its vector, text)."""

    def read(snapshot: Any) -> dict[Any, tuple[float, Any]]:
        found: dict[Any, tuple[float, Any]] = {}
        for part in snapshot.parts:
            rows = np.arange(part.data.rows)
            if part.live is not None:
                rows = rows[np.unpackbits(part.live, bitorder="little")[: len(rows)].astype(bool)]
            texts = part.data.column("text").to_pylist()
            vectors = part.data.vectors
            assert part.live_rows == len(rows)
            for key, row in zip(part.data.ids.get(rows).tolist(), rows.tolist(), strict=True):
                assert key not in found
                found[key] = (float(vectors[row, 0]), texts[row])
        assert snapshot.rows == len(found)
        return found

    return read


@pytest.fixture
def crash() -> Callable[[Store], None]:
    """Let go of a store as kill -9 does: nothing is flushed, the lock is free."""

    def kill(store: Store) -> None:
        assert store._background is not None
        assert store._lock is not None
        store._background.stop()
        store._lock.release()

    return kill


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a store may be created."""
    return tmp_path / "store"
