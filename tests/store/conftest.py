"""What the tests of the store share: a place to try things, with small rows of known content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vecdb.batch import Batch
from vecdb.schema import Schema
from vecdb.store import Store
from vecdb.workers import Workers

DIM = 16
COLUMNS = pa.schema([("n", pa.int64()), ("text", pa.string())])


class Lab:
    """A folder for one store, a pool of two threads, and rows to put into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workers = Workers(2)
        self.schema = Schema(dim=DIM, metric="l2", columns=COLUMNS)

    def create(self, schema: Schema | None = None, **options: Any) -> Store:
        """A new store in the folder."""
        return Store.create(self.folder, schema or self.schema, workers=self.workers, **options)

    def segments(self, *rows: int, **options: Any) -> Store:
        """A new store of segments with so many rows, ids from 0 on, which nothing happens to in
        the background."""
        store = self.create(**options)
        assert store._background is not None
        store._background.stop()
        first = 0
        for count in rows:
            store.append(self.batch(range(first, first + count)))
            store.flush()
            first += count
        return store

    def open(self, mode: Any = "r", **options: Any) -> Store:
        """The store in the folder."""
        return Store.open(self.folder, mode, workers=self.workers, **options)

    @staticmethod
    def batch(ids: Any, shift: float = 0.0) -> Batch:
        """Rows with the given ids, 7 or "t7"; the vector of either holds 7 plus `shift`."""
        keys = list(ids)
        numbers = np.array([int(str(key).lstrip("t")) for key in keys], np.int64)
        vectors = np.repeat(numbers[:, None] + shift, DIM, 1).astype(np.float32)
        texts = [f"{n} {shift}" if n % 3 else None for n in numbers.tolist()]
        metadata = pa.RecordBatch.from_arrays(
            [pa.array(numbers), pa.array(texts, pa.string())], schema=COLUMNS
        )
        stored = np.array(keys, object) if isinstance(keys[0], str) else numbers
        return Batch(stored, vectors, metadata)

    @staticmethod
    def contents(store: Any) -> dict[Any, tuple[float, Any]]:
        """Everything a store or snapshot holds: id -> (value of its vector, text)."""
        snapshot = getattr(store, "snapshot", store)
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

    @staticmethod
    def crash(store: Store) -> None:
        """Let go of a store as kill -9 does: nothing is flushed, the lock is free."""
        assert store._background is not None
        assert store._lock is not None
        store._background.stop()
        store._lock.release()

    def recovered(self, store: Store) -> dict[Any, tuple[float, Any]]:
        """What the next writer finds after a crash of the store."""
        self.crash(store)
        again = self.open("w")
        found = self.contents(again)
        again.close()
        return found

    def files(self, kind: str = "") -> list[str]:
        """Names in the folder that begin with `kind`."""
        return sorted(path.name for path in self.folder.iterdir() if path.name.startswith(kind))

    def file(self, kind: str) -> Path:
        """The one file of a kind."""
        (name,) = self.files(kind)
        return self.folder / name


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A fresh :class:`Lab`."""
    made = Lab(tmp_path / "store")
    yield made
    made.workers.close()
