"""One small class per embedded store, for the benchmarks of ingest, single rows and opening.

A batch reaches each store in the form that its own API asks for, made before any clock starts.
`durability` says what an acknowledged `add` survives, found by watching the system calls
(``strace -e fsync,fdatasync``): "disk" stores sync their files, "process" ones leave the bytes
with the operating system, so a power loss may take them.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from bench.datasets import Floats

LANGUAGES = ("de", "en", "es", "fr", "hi", "ja", "pt", "zh")


class Rows(NamedTuple):
    """Rows with four metadata columns."""

    ids: npt.NDArray[np.int64]  # (n,)
    vectors: Floats  # (n, dim)
    columns: dict[str, list[Any]]  # year int, lang str, price float, title str

    @property
    def content(self) -> int:
        """Bytes of the vectors and of the metadata, 8 a number; ids that count up need none."""
        texts = (len(text) for name in ("lang", "title") for text in self.columns[name])
        return self.vectors.nbytes + 16 * len(self.ids) + sum(texts)


def make_rows(first: int, count: int, dim: int, seed: int = 0) -> Rows:
    """`count` rows with ids from `first`; the same arguments give the same rows."""
    rng = np.random.default_rng((seed, first))
    ids = np.arange(first, first + count)
    return Rows(
        ids,
        rng.standard_normal((count, dim), dtype=np.float32),
        {
            "year": (1990 + ids % 36).tolist(),
            "lang": [LANGUAGES[i % len(LANGUAGES)] for i in ids],
            "price": np.round(rng.random(count) * 100, 2).tolist(),
            "title": [f"row {i} of a store that fills up batch by batch" for i in ids],
        },
    )


class Store(Protocol):
    """What the benchmarks ask of a store; cosine distance throughout."""

    durability: ClassVar[str]

    def create(self, path: Path, dim: int) -> None: ...
    def prepare(self, rows: Rows) -> Any: ...
    def add(self, prepared: Any) -> None: ...
    def optimize(self) -> None: ...
    def open(self, path: Path) -> None: ...
    def get(self, ids: Sequence[int]) -> int: ...
    def read(self, ids: Sequence[int]) -> dict[int, Any]: ...
    def search(self, query: Floats, k: int) -> list[int]: ...
    def close(self) -> None: ...


class Vecdb:
    durability = "disk"
    sync = "full"

    def create(self, path: Path, dim: int) -> None:
        import vecdb

        schema = {"year": "int64", "lang": "string", "price": "float64", "title": "string"}
        self._col = vecdb.create(path, dim, schema=schema, sync=self.sync)

    def prepare(self, rows: Rows) -> Any:
        import pyarrow as pa

        return rows.vectors, rows.ids, pa.table(rows.columns)

    def add(self, prepared: Any) -> None:
        self._col.add(*prepared)

    def optimize(self) -> None:
        self._col.optimize()

    def open(self, path: Path) -> None:
        import vecdb

        self._col = vecdb.open(path)

    def get(self, ids: Sequence[int]) -> int:
        return self._col.get(ids).num_rows

    def read(self, ids: Sequence[int]) -> dict[int, Any]:
        names = [*self._col.schema.names, "vector"]
        return _by_id(self._col.query(select=names), ids)

    def search(self, query: Floats, k: int) -> list[int]:
        return self._col.search(query, k).ids.tolist()

    def close(self) -> None:
        self._col.close()


class VecdbOs(Vecdb):
    durability = "process"
    sync = "os"


class LanceDB:
    durability = "process"

    def create(self, path: Path, dim: int) -> None:
        import lancedb
        import pyarrow as pa

        self._types = pa.schema(
            [
                pa.field("id", pa.int64()),
                pa.field("vector", pa.list_(pa.float32(), dim)),
                pa.field("year", pa.int64()),
                pa.field("lang", pa.string()),
                pa.field("price", pa.float64()),
                pa.field("title", pa.string()),
            ]
        )
        self._table = lancedb.connect(path).create_table("rows", schema=self._types)

    def prepare(self, rows: Rows) -> Any:
        import pyarrow as pa

        flat = pa.FixedSizeListArray.from_arrays(rows.vectors.ravel(), rows.vectors.shape[1])
        return pa.table({"id": rows.ids, "vector": flat} | rows.columns, schema=self._types)

    def add(self, prepared: Any) -> None:
        self._table.add(prepared)

    def optimize(self) -> None:
        self._table.optimize()
        self._table.create_index(metric="cosine", index_type="IVF_HNSW_SQ", num_partitions=1)

    def open(self, path: Path) -> None:
        import lancedb

        self._table = lancedb.connect(path).open_table("rows")
        self._types = self._table.schema

    def get(self, ids: Sequence[int]) -> int:
        wanted = f"id IN ({', '.join(map(str, ids))})"
        return self._table.search().where(wanted).limit(len(ids)).to_arrow().num_rows

    def read(self, ids: Sequence[int]) -> dict[int, Any]:
        return _by_id(self._table.to_arrow(), ids)

    def search(self, query: Floats, k: int) -> list[int]:
        found = self._table.search(query).distance_type("cosine").limit(k).select(["id"])
        return found.to_arrow()["id"].to_pylist()

    def close(self) -> None:
        del self._table


class Chroma:
    durability = "disk"

    def create(self, path: Path, dim: int) -> None:
        space = {"hnsw": {"space": "cosine"}}
        self._col = self._client(path).create_collection(
            "rows", configuration=space, embedding_function=None
        )

    def _client(self, path: Path) -> Any:
        import chromadb

        quiet = chromadb.Settings(anonymized_telemetry=False)
        return chromadb.PersistentClient(str(path), settings=quiet)

    def prepare(self, rows: Rows) -> Any:
        names = list(rows.columns)
        metadatas = [dict(zip(names, row, strict=True)) for row in zip(*rows.columns.values())]  # noqa: B905
        return {
            "ids": [str(i) for i in rows.ids],
            "embeddings": rows.vectors,
            "metadatas": metadatas,
        }

    def add(self, prepared: Any) -> None:
        self._col.add(**prepared)

    def optimize(self) -> None:
        """Chroma indexes while it adds."""

    def open(self, path: Path) -> None:
        self._col = self._client(path).get_collection("rows", embedding_function=None)

    def get(self, ids: Sequence[int]) -> int:
        return len(self._col.get(ids=[str(i) for i in ids])["ids"])

    def read(self, ids: Sequence[int]) -> dict[int, Any]:
        found = self._col.get(ids=[str(i) for i in ids], include=["embeddings", "metadatas"])
        rows = zip(found["ids"], found["embeddings"], found["metadatas"], strict=True)
        return {int(i): [vector.tolist(), metadata] for i, vector, metadata in rows}

    def search(self, query: Floats, k: int) -> list[int]:
        found = self._col.query(query_embeddings=[query], n_results=k, include=[])
        return [int(i) for i in found["ids"][0]]

    def close(self) -> None:
        del self._col


class Zvec:
    """zvec with a flush after every add, which syncs its files."""

    durability = "disk"
    flushes = True

    def create(self, path: Path, dim: int) -> None:
        import zvec

        kinds = {"year": "INT64", "lang": "STRING", "price": "DOUBLE", "title": "STRING"}
        fields = [zvec.FieldSchema(name, getattr(zvec.DataType, k)) for name, k in kinds.items()]
        index = zvec.HnswIndexParam(zvec.MetricType.COSINE)
        vector = zvec.VectorSchema("vector", zvec.DataType.VECTOR_FP32, dim, index_param=index)
        schema = zvec.CollectionSchema("rows", fields=fields, vectors=vector)
        self._col = zvec.create_and_open(str(path), schema)

    def prepare(self, rows: Rows) -> Any:
        import zvec

        names = list(rows.columns)
        return [
            zvec.Doc(
                id=str(i),
                vectors={"vector": vector},
                fields=dict(zip(names, values, strict=True)),
            )
            for i, vector, *values in zip(rows.ids, rows.vectors, *rows.columns.values())  # noqa: B905
        ]

    def add(self, prepared: Any) -> None:
        self._col.insert(prepared)
        if self.flushes:
            self._col.flush()

    def optimize(self) -> None:
        self._col.optimize()

    def open(self, path: Path) -> None:
        import zvec

        self._col = zvec.open(str(path))

    def get(self, ids: Sequence[int]) -> int:
        return len(self._col.fetch([str(i) for i in ids]))

    def read(self, ids: Sequence[int]) -> dict[int, Any]:
        rows = [[i, str(i)] for i in ids]
        found = self._col.fetch([name for _, name in rows])
        docs = [(i, found[name]) for i, name in rows if name in found]
        return {i: [list(doc.vector("vector")), doc.fields] for i, doc in docs}

    def search(self, query: Floats, k: int) -> list[int]:
        import zvec

        asked = zvec.Query("vector", vector=query)
        return [int(doc.id) for doc in self._col.query(asked, topk=k, output_fields=[])]

    def close(self) -> None:
        self._col.close()


class ZvecOs(Zvec):
    """zvec as it is: its log is written, not synced."""

    durability = "process"
    flushes = False


STORES: dict[str, type[Store]] = {
    "vecdb": Vecdb,
    "vecdb sync=os": VecdbOs,
    "LanceDB": LanceDB,
    "Chroma": Chroma,
    "zvec": ZvecOs,
    "zvec flushed": Zvec,
}
PACKAGES = ("lancedb", "chromadb", "zvec", "pyarrow")
MODULES = {"vecdb": "vecdb.collection", "LanceDB": "lancedb", "Chroma": "chromadb", "zvec": "zvec"}


def import_everything(name: str) -> None:
    """What a store's calls would import, vecdb's kernels included; bench.first_use times it."""
    for module in (MODULES[name.partition(" ")[0]], "pyarrow.compute"):
        importlib.import_module(module)
    if name.startswith("vecdb"):
        importlib.import_module("vecdb").warmup()


def _by_id(table: Any, ids: Sequence[int]) -> dict[int, Any]:
    """The rows of an Arrow table that have one of the ids."""
    wanted = set(ids)
    return {row["id"]: row for row in table.to_pylist() if row["id"] in wanted}


def footprint(path: Path) -> dict[str, int]:
    """Files and bytes under `path`, as the disk holds them."""
    files = [file for file in path.rglob("*") if file.is_file()]
    return {"files": len(files), "bytes": sum(512 * file.stat().st_blocks for file in files)}
