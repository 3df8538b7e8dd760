"""Two rivals without a storage engine of their own, for :mod:`bench.reliability`.

hnswlib saves its index as one file whenever it is told to; here that is after every batch.
sqlite-vec is a virtual table of SQLite, with SQLite's own defaults (a rollback journal, synced).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.stores import Floats, Rows

__all__ = ["Hnswlib", "SqliteVec"]


class Hnswlib:
    durability = "disk when the kernel writes it"

    def create(self, path: Path, dim: int) -> None:
        import hnswlib

        path.mkdir()
        self._file = str(path / "index.bin")
        self._index: Any = hnswlib.Index("l2", dim)
        self._index.init_index(200_000)

    def prepare(self, rows: Rows) -> Any:
        return rows.vectors, rows.ids

    def add(self, prepared: Any) -> None:
        self._index.add_items(*prepared)
        self._index.save_index(self._file)

    def optimize(self) -> None:
        """Nothing to do."""

    def open(self, path: Path) -> None:
        import hnswlib

        self._file = str(path / "index.bin")
        self._index = hnswlib.Index("l2", 32)
        self._index.load_index(self._file, max_elements=200_000)

    def get(self, ids: Sequence[int]) -> int:
        return len(self._index.get_items(ids))

    def read(self, ids: Sequence[int]) -> dict[int, Any]:
        known = sorted(set(self._index.get_ids_list()) & set(ids))
        return dict(zip(known, self._index.get_items(known, return_type="list"), strict=True))

    def search(self, query: Floats, k: int) -> list[int]:
        found: list[int] = self._index.knn_query(query, k)[0][0].tolist()
        return found

    def close(self) -> None:
        self._index = None


class SqliteVec:
    durability = "disk"

    def create(self, path: Path, dim: int) -> None:
        path.mkdir()
        self.open(path)
        self._base.execute(f"CREATE VIRTUAL TABLE rows USING vec0(embedding float[{dim}])")
        self._base.commit()

    def prepare(self, rows: Rows) -> Any:
        ids = [int(i) for i in rows.ids]
        return list(zip(ids, (v.tobytes() for v in rows.vectors), strict=True))

    def add(self, prepared: Any) -> None:
        with self._base:
            self._base.executemany("INSERT INTO rows(rowid, embedding) VALUES (?, ?)", prepared)

    def optimize(self) -> None:
        """Nothing to do."""

    def open(self, path: Path) -> None:
        import sqlite_vec
        from pysqlite3 import dbapi2 as sqlite3  # Python's own is often built without extensions

        self._base = sqlite3.connect(path / "base.db", timeout=60)
        self._base.enable_load_extension(True)
        sqlite_vec.load(self._base)

    def get(self, ids: Sequence[int]) -> int:
        found = (self._base.execute("SELECT 1 FROM rows WHERE rowid = ?", (int(i),)) for i in ids)
        return sum(cursor.fetchone() is not None for cursor in found)

    def read(self, ids: Sequence[int]) -> dict[int, Any]:
        wanted = set(ids)
        rows = self._base.execute("SELECT rowid, embedding FROM rows")
        return {i: list(vector) for i, vector in rows if i in wanted}

    def search(self, query: Floats, k: int) -> list[int]:
        sql = "SELECT rowid FROM rows WHERE embedding MATCH ? AND k = ? ORDER BY distance"
        return [row for (row,) in self._base.execute(sql, (query.tobytes(), k))]

    def close(self) -> None:
        self._base.close()
