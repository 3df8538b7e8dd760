"""The libraries of the comparison under filters, each answering one query a call on one thread."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bench.filter_data import SHARES, K, Rows, rows_of

BEAMS = (16, 24, 32, 48, 64, 96, 128, 256, 512)
WANTED = 0.95  # recall
REPEATED = 5  # times that a query is asked both ways
WARMING = 100  # queries asked before the clock runs, at most


class Library(Protocol):
    """What the benchmark asks of a library."""

    beams: tuple[int, ...]

    def search(self, query: npt.NDArray[Any], column: str, share: float, beam: int) -> Any:
        """Row numbers of the neighbours among the rows whose `column` is below `share`."""


class Vecdb:
    """vecdb through its public face."""

    beams: tuple[int, ...] = BEAMS

    def __init__(self, rows: Rows, folder: Path) -> None:
        import vecdb

        vecdb.warmup()
        data = rows.data
        self._col = vecdb.col
        if not (folder / "vecdb").exists():
            with vecdb.create(folder / "vecdb", data.train.shape[1], data.metric) as made:
                made.add(data.train, metadata=rows.columns)
                made.optimize()
        self._store = vecdb.open(folder / "vecdb", threads=1)
        self._filters: dict[tuple[str, float], Any] = {}  # made once, as the rivals' masks are

    def search(self, query: npt.NDArray[Any], column: str, share: float, beam: int) -> Any:
        return self._search(query, column, share, ef_search=beam)

    def _search(self, query: npt.NDArray[Any], column: str, share: float, **asked: Any) -> Any:
        where = None
        if share < 1:
            where = self._filters.setdefault((column, share), self._col(column) < share)
        return self._store.search(query, K, where=where, **asked).ids


class Target(Vecdb):
    """vecdb asked for a recall instead of a beam."""

    beams = (0,)

    def search(self, query: npt.NDArray[Any], column: str, share: float, beam: int) -> Any:
        return self._search(query, column, share, target_recall=WANTED)


class Scan(Vecdb):
    """vecdb's exact scan of the rows that pass."""

    beams = (0,)

    def search(self, query: npt.NDArray[Any], column: str, share: float, beam: int) -> Any:
        return self._search(query, column, share, exact=True)


class Hnswlib:
    """hnswlib with its filter callback, M=16."""

    beams = (64, 256)  # a call of Python per node: a fraction of a second each

    def __init__(self, rows: Rows, folder: Path) -> None:
        import hnswlib

        data = rows.data
        self._rows = rows
        self._index = hnswlib.Index(data.metric, data.train.shape[1])
        file = folder / "hnswlib"
        if file.exists():
            self._index.load_index(str(file))
        else:
            self._index.init_index(len(data.train), M=16, ef_construction=200)
            self._index.add_items(data.train)
            self._index.save_index(str(file))
        self._index.set_num_threads(1)
        self._masks: dict[tuple[str, float], list[bool]] = {}

    def search(self, query: npt.NDArray[Any], column: str, share: float, beam: int) -> Any:
        passes = self._masks.get((column, share))
        if passes is None:
            passes = (self._rows.columns[column] < share).tolist()
            self._masks[column, share] = passes
        self._index.set_ef(beam)
        if share >= 1:
            return self._index.knn_query(query, K)[0][0]
        try:
            return self._index.knn_query(query, K, filter=passes.__getitem__)[0][0]
        except RuntimeError:  # fewer than k were met
            return []


class Faiss:
    """FAISS HNSW with an IDSelectorBitmap; rows of length 1 for the cosine."""

    beams = BEAMS

    def __init__(self, rows: Rows, folder: Path) -> None:
        import faiss

        self._faiss, self._rows = faiss, rows
        file = folder / "faiss"
        if file.exists():
            self._index = faiss.read_index(str(file))
        else:
            train = self._scaled(rows.data.train)
            self._index = faiss.IndexHNSWFlat(train.shape[1], 16)
            self._index.hnsw.efConstruction = 200
            self._index.add(train)
            faiss.write_index(self._index, str(file))
        faiss.omp_set_num_threads(1)
        self._selectors: dict[tuple[str, float], Any] = {}

    def search(self, query: npt.NDArray[Any], column: str, share: float, beam: int) -> Any:
        kept = self._selectors.get((column, share))
        if kept is None:
            bits = np.packbits(self._rows.columns[column] < share, bitorder="little")
            kept = bits, self._faiss.IDSelectorBitmap(bits)
            self._selectors[column, share] = kept
        selector = kept[1] if share < 1 else None
        asked = self._faiss.SearchParametersHNSW(sel=selector, efSearch=beam)
        return self._index.search(self._scaled(query[None]), K, params=asked)[1][0]

    def _scaled(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self._rows.data.metric != "cosine":
            return rows
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Lancedb:
    """LanceDB with an IVF_HNSW_SQ index, refined, filtering before the search."""

    beams = (64, 256)

    def __init__(self, rows: Rows, folder: Path) -> None:
        import lancedb
        import pyarrow as pa

        data = rows.data
        base = lancedb.connect(str(folder / "lance"))
        if "rows" in base.table_names():
            self._table = base.open_table("rows")
            return
        if (folder / "lance" / "rows.lance").exists():
            self._table = base.open_table("rows")
            return
        flat = pa.array(data.train.reshape(-1))
        table = pa.table({
            "id": np.arange(len(data.train)), **rows.columns,
            "vector": pa.FixedSizeListArray.from_arrays(flat, data.train.shape[1]),
        })  # fmt: skip
        self._table = base.create_table("rows", table)
        self._table.create_index(
            metric=data.metric,
            index_type="IVF_HNSW_SQ",
            num_partitions=1,
            m=16,
            ef_construction=200,
        )

    def search(self, query: npt.NDArray[Any], column: str, share: float, beam: int) -> Any:
        asked = self._table.search(query)
        if share < 1:
            asked = asked.where(f"{column} < {share}", prefilter=True)
        return (
            asked.ef(beam)
            .refine_factor(3)
            .select(["id", "_distance"])
            .limit(K)
            .to_arrow()["id"]
            .to_numpy()
        )


class Zvec:
    """zvec with an HNSW index."""

    beams = (64, 256)

    def __init__(self, rows: Rows, folder: Path) -> None:
        import zvec

        self._zvec, data = zvec, rows.data
        if (folder / "zvec").exists():
            self._rows = zvec.open(path=str(folder / "zvec"))
            return
        metric = {"cosine": zvec.MetricType.COSINE, "l2": zvec.MetricType.L2}[data.metric]
        index = zvec.HnswIndexParam(metric_type=metric, m=16, ef_construction=200)
        schema = zvec.CollectionSchema(
            name="rows",
            fields=[zvec.FieldSchema(name, zvec.DataType.DOUBLE) for name in rows.columns],
            vectors=[zvec.VectorSchema("v", zvec.DataType.VECTOR_FP32, data.train.shape[1], index)],
        )
        self._rows = zvec.create_and_open(path=str(folder / "zvec"), schema=schema)
        for start in range(0, len(data.train), 1000):
            stop = min(start + 1000, len(data.train))
            self._rows.insert([
                zvec.Doc(
                    id=str(i), vectors={"v": data.train[i].tolist()},
                    fields={name: column[i] for name, column in rows.columns.items()},
                )
                for i in range(start, stop)
            ])  # fmt: skip
        self._rows.optimize()

    def search(self, query: npt.NDArray[Any], column: str, share: float, beam: int) -> Any:
        asked = self._zvec.VectorQuery(
            field_name="v", vector=query.tolist(), param=self._zvec.HnswQueryParam(ef=beam)
        )
        filtered = {"filter": f"{column} < {share}"} if share < 1 else {}
        return [int(doc.id) for doc in self._rows.query(asked, topk=K, **filtered)]


class Chroma:
    """Chroma with its defaults and `ef_search` 100."""

    beams = (100,)

    def __init__(self, rows: Rows, folder: Path) -> None:
        import chromadb

        data = rows.data
        space = {"cosine": "cosine", "l2": "l2"}[data.metric]
        base = chromadb.PersistentClient(str(folder / "chroma"))
        self._rows = base.get_or_create_collection(
            "rows", configuration={"hnsw": {"space": space, "ef_search": 100, "max_neighbors": 16}}
        )
        for start in range(self._rows.count(), len(data.train), 5000):
            stop = min(start + 5000, len(data.train))
            self._rows.add(
                ids=[str(i) for i in range(start, stop)],
                embeddings=data.train[start:stop],
                metadatas=[
                    {name: float(column[i]) for name, column in rows.columns.items()}
                    for i in range(start, stop)
                ],
            )

    def search(self, query: npt.NDArray[Any], column: str, share: float, beam: int) -> Any:
        where: Any = {column: {"$lt": share}} if share < 1 else None
        found = self._rows.query(query_embeddings=[query], n_results=K, where=where, include=[])
        return [int(i) for i in found["ids"][0]]


class SqliteVec:
    """sqlite-vec, which scans, with the columns beside the vectors."""

    beams = (0,)

    def __init__(self, rows: Rows, folder: Path) -> None:
        import pysqlite3 as sqlite3  # Python may be built without extensions of SQLite
        import sqlite_vec

        data = rows.data
        fresh = not (folder / "sqlite").exists()
        self._base = sqlite3.connect(folder / "sqlite")
        self._base.enable_load_extension(True)
        sqlite_vec.load(self._base)
        if fresh:
            columns = "".join(f"{name} float, " for name in rows.columns)
            self._base.execute(
                f"create virtual table rows using vec0({columns}v "
                f"float[{data.train.shape[1]}] distance_metric={data.metric})"
            )
            places = ", ".join("?" * (2 + len(rows.columns)))
            self._base.executemany(
                f"insert into rows(rowid, {', '.join(rows.columns)}, v) values ({places})",
                (
                    (i, *(float(column[i]) for column in rows.columns.values()), row.tobytes())
                    for i, row in enumerate(data.train)
                ),
            )
            self._base.commit()

    def search(self, query: npt.NDArray[Any], column: str, share: float, beam: int) -> Any:
        found = self._base.execute(
            f"select rowid from rows where v match ? and k = {K} and {column} < ?",
            (query.tobytes(), share),
        )
        return [row for (row,) in found]


LIBRARIES = {
    "vecdb": Vecdb, "target": Target, "scan": Scan, "hnswlib": Hnswlib, "faiss": Faiss,
    "lancedb": Lancedb, "zvec": Zvec, "chroma": Chroma, "sqlite-vec": SqliteVec,
}  # fmt: skip


class Subject:
    """One library in its process, timed query by query."""

    def __init__(
        self, name: str, source: str, limit: int | None, keep: Path | None, seconds: float
    ) -> None:
        self._seconds = seconds  # for one beam of one filter
        self._rows = rows_of(source, limit)
        self._folder = TemporaryDirectory()
        folder = Path(self._folder.name)
        if keep is not None:
            folder = keep / self._rows.data.name
            folder.mkdir(parents=True, exist_ok=True)
        self._library: Library = LIBRARIES[name](self._rows, folder)

    def run(self, kind: str, share: float) -> dict[int, tuple[list[list[int]], list[float]]]:
        """For each beam the answers to the kind's queries and the seconds of each; fewer than all
        queries when time runs out."""
        found = {}
        for beam in self._library.beams:
            answers: list[list[int]] = []
            seconds: list[float] = []
            self._warm(kind, share, beam)
            for column, number in self._rows.asked[kind]:
                query = self._rows.data.test[number]
                started = time.perf_counter()
                ids = self._library.search(query, column, share, beam)
                seconds.append(time.perf_counter() - started)
                answers.append([int(i) for i in ids if i >= 0])
                if sum(seconds) > self._seconds:
                    break
            found[beam] = answers, seconds
        return found

    def _warm(self, kind: str, share: float, beam: int) -> None:
        """Ask queries before the clock runs: filters become masks, and the caches of the processor
        are no longer full of what the library before left there."""
        until = time.perf_counter() + self._seconds / 3
        masked: set[str] = set()
        for column, number in self._rows.asked[kind][-WARMING:]:
            if column in masked and time.perf_counter() > until:
                break
            self._library.search(self._rows.data.test[number], column, share, beam)
            masked.add(column)

    def kept(self, kind: str) -> dict[int, float]:
        """For each beam the QPS under the filter that passes most as a share of that without one.

        Both are asked turn by turn, for the pace of a machine may change by half within a second,
        and of several times each the fastest counts: a single one of 50 us is disturbed too often.
        """
        found = {}
        for beam in self._library.beams:
            ratios: list[float] = []
            spent = 0.0
            for column, number in self._rows.asked[kind]:
                query = self._rows.data.test[number]
                seconds: dict[float, list[float]] = {SHARES[-2]: [], 1.0: []}
                for share in tuple(seconds) * REPEATED:
                    started = time.perf_counter()
                    self._library.search(query, column, share, beam)
                    seconds[share].append(time.perf_counter() - started)
                ratios.append(min(seconds[1.0]) / min(seconds[SHARES[-2]]))
                spent += sum(map(sum, seconds.values()))
                if spent > 2 * REPEATED * self._seconds:
                    break
            found[beam] = float(np.median(ratios))
        return found
