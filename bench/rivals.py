"""One small class per library: build a graph over `train`, search it with a beam of `ef`.

Each rival gets its best code that reaches recall .99 and a degree at least as large as ours
where that helps it; all search on one thread. Libraries without cosine get rows of length 1
under l2 (the same order), scaled before any clock starts. Imports stand inside the methods: a
process loads the one library that it measures.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from bench.curves import SINGLE
from bench.datasets import Floats

Ids = npt.NDArray[Any]

BEAMS = (10, 14, 20, 28, 40, 56, 80, 120, 180, 280, 420, 640, 900)


class Library(Protocol):
    """What the benchmarks ask of a library."""

    unit: ClassVar[bool]  # True: cosine data comes as rows of length 1 with metric "l2"
    beams: ClassVar[tuple[float, ...]]

    def build(self, train: Floats, metric: str, threads: int) -> None:
        """Index `train` (rows, dim) with `threads` threads, ready to search on one."""

    def search(self, queries: Floats, k: int, ef: float) -> Ids:
        """Row numbers (queries, k) of the neighbours, -1 where none was found."""


class VecdbGraph:
    """vecdb's engine with default parameters, a batch of queries in one call."""

    unit = False
    beams = BEAMS

    def __init__(self) -> None:
        import vecdb

        vecdb.warmup()  # bench.compile measures this

    def build(self, train: Floats, metric: str, threads: int) -> None:
        from vecdb import graph
        from vecdb.workers import Workers

        self._train, self._metric, self._search = train, metric, graph.search
        pool = Workers(threads)
        self._graph = graph.build(train, metric, workers=pool)
        pool.close()
        self._one = Workers(1)

    def search(self, queries: Floats, k: int, ef: float) -> Ids:
        found = self._search(
            self._graph, self._train, queries, k, int(ef), metric=self._metric, workers=self._one
        )
        return found.rows


class VecdbCollection(VecdbGraph):
    """vecdb as people call it: ``Collection.search``, one query a call, ids from a store."""

    search_threads: ClassVar[int | None] = 1

    def build(self, train: Floats, metric: str, threads: int) -> None:
        import vecdb

        self._folder = tempfile.TemporaryDirectory(prefix="vecdb-bench-")
        path = Path(self._folder.name) / "store"
        with vecdb.create(path, train.shape[1], metric, threads=threads, sync="os") as col:
            for i in range(0, len(train), 50_000):
                col.add(train[i : i + 50_000])
            col.optimize()
        self._col = vecdb.open(path, threads=self.search_threads)

    def search(self, queries: Floats, k: int, ef: float) -> Ids:
        beam, search = int(ef), self._col.search
        return padded([search(query, k, ef_search=beam).ids for query in queries], k)


class VecdbStore(VecdbCollection):
    """The same with a batch of queries in one call, and what it answers when asked for no beam."""

    def search(self, queries: Floats, k: int, ef: float) -> Ids:
        return self.ask(queries, k, ef_search=int(ef))

    def ask(self, queries: Floats, k: int, **how: Any) -> Ids:
        """Ids (queries, k) of a batch search with these options."""
        return np.asarray(self._col.search(queries, k, **how).ids)

    def ask_each(self, queries: Floats, k: int) -> None:
        """Search one query a call, by default."""
        for query in queries:
            self._col.search(query, k)


class Hnswlib:
    """The baseline: M=16, ef_construction=200, float32."""

    unit = False
    beams = BEAMS

    def build(self, train: Floats, metric: str, threads: int) -> None:
        import hnswlib

        self._index = hnswlib.Index(metric, train.shape[1])
        self._index.init_index(len(train), ef_construction=200, M=16)
        self._index.add_items(train, num_threads=threads)

    def search(self, queries: Floats, k: int, ef: float) -> Ids:
        self._index.set_ef(int(ef))
        return np.asarray(self._index.knn_query(queries, k, num_threads=1)[0]).astype(np.int64)


class HnswlibCalls(Hnswlib):
    """hnswlib, one query a call."""

    def search(self, queries: Floats, k: int, ef: float) -> Ids:
        self._index.set_ef(int(ef))
        ask = self._index.knn_query
        return padded([ask(query, k, num_threads=1)[0][0] for query in queries], k)


class SymphonyQG:
    """SymphonyQG by its authors: 1-bit codes of the neighbours in each node's row."""

    unit = True
    beams = BEAMS
    degree = 32

    def build(self, train: Floats, metric: str, threads: int) -> None:
        from rabitqlib import SymqgIndex

        self._index = SymqgIndex(train.shape[1], self.degree, metric=metric)
        self._index.build(train, 200, num_threads=threads)

    def search(self, queries: Floats, k: int, ef: float) -> Ids:
        return np.asarray(self._index.search_batch(queries, k, int(ef), num_threads=1)[0])


class SymphonyQGWide(SymphonyQG):
    """The same with 64 neighbours a node: better at high recall where the data is hard."""

    degree = 64


class RabitqHnsw:
    """HNSW over RaBitQ codes of 8 bits (64 centroids), from the same authors."""

    unit = True
    beams = BEAMS

    def build(self, train: Floats, metric: str, threads: int) -> None:
        from rabitqlib import HnswIndex, RaBitQKMeans

        clusters = RaBitQKMeans(train.shape[1], 64, num_threads=threads)
        clusters.train(train)
        self._index = HnswIndex(train.shape[1], len(train), nbits=8, metric=metric)
        self._index.build(train, clusters.centroids, clusters.assignments, num_threads=threads)

    def search(self, queries: Floats, k: int, ef: float) -> Ids:
        return np.asarray(self._index.search(queries, k, int(ef), num_threads=1)[0])


class Glass:
    """glass: HNSW of degree 32, u8 codes, float32 refinement."""

    unit = True
    beams = BEAMS

    def build(self, train: Floats, metric: str, threads: int) -> None:
        import glass

        glass.set_num_threads(threads)
        name = {"l2": "L2", "ip": "IP"}[metric]
        self._rows = train  # the searcher refers to it
        self._graph = glass.Index("HNSW", name, "FP32", 32, 200).build(train)
        self._searcher = glass.Searcher(self._graph, train, name, "SQ8U", "FP32")

    def search(self, queries: Floats, k: int, ef: float) -> Ids:
        self._searcher.set_ef(int(ef))
        return np.asarray(self._searcher.batch_search(queries, k, 1)[0])


class Vsag:
    """VSAG's hgraph: degree 32, u8 codes, float32 reorder. It has no batch call."""

    unit = True
    beams = BEAMS

    def build(self, train: Floats, metric: str, threads: int) -> None:
        import pyvsag

        pyvsag.set_logger_off()
        index = {
            "base_quantization_type": "sq8_uniform",
            "use_reorder": True,
            "precise_quantization_type": "fp32",
            "max_degree": 32,
            "ef_construction": 200,
            "build_thread_count": threads,
        }
        outer = {
            "dtype": "float32",
            "metric_type": metric,
            "dim": train.shape[1],
            "index_param": index,
        }
        self._index = pyvsag.Index("hgraph", json.dumps(outer))
        self._index.build(train.ravel(), np.arange(len(train)), len(train), train.shape[1])

    def search(self, queries: Floats, k: int, ef: float) -> Ids:
        knobs = json.dumps({"hgraph": {"ef_search": int(ef)}})
        return padded([self._index.knn_search(query, k, knobs)[0] for query in queries], k)


class Svs:
    """Scalable Vector Search: Vamana of degree 32 over float16 (its LVQ codes need Intel)."""

    unit = True
    beams = BEAMS

    def build(self, train: Floats, metric: str, threads: int) -> None:
        import svs

        kind = {"l2": svs.DistanceType.L2, "ip": svs.DistanceType.MIP}[metric]
        alpha = 1.2 if metric == "l2" else 0.95
        self._half = train.max() < 60_000  # float16's range
        rows = train.astype(np.float16) if self._half else train
        params = svs.VamanaBuildParameters(alpha=alpha, graph_max_degree=32, window_size=200)
        self._index = svs.Vamana.build(params, rows, kind, num_threads=threads)
        self._index.num_threads = 1

    def search(self, queries: Floats, k: int, ef: float) -> Ids:
        self._index.search_window_size = int(ef)
        asked = queries.astype(np.float16) if self._half else queries
        return np.asarray(self._index.search(asked, k)[0]).astype(np.int64)


class Faiss:
    """FAISS HNSW32 over float32."""

    unit = True
    beams = BEAMS
    recipe = "HNSW32,Flat"

    def build(self, train: Floats, metric: str, threads: int) -> None:
        import faiss

        faiss.omp_set_num_threads(threads)
        self._pad = -train.shape[1] % 16  # its SQ8 kernels are several times slower otherwise
        rows = np.pad(train, ((0, 0), (0, self._pad)))
        kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        self._index = faiss.index_factory(rows.shape[1], self.recipe, kind)
        inner = getattr(self._index, "base_index", self._index)
        self._graph = faiss.downcast_index(inner)
        self._graph.hnsw.efConstruction = 200
        self._index.train(rows)
        self._index.add(rows)
        faiss.omp_set_num_threads(1)

    def search(self, queries: Floats, k: int, ef: float) -> Ids:
        self._graph.hnsw.efSearch = int(ef)
        if self._graph is not self._index and hasattr(self._index, "k_factor"):
            self._index.k_factor = 3 if ef >= 3 * k else 1  # candidates refined, per k
        return np.asarray(self._index.search(np.pad(queries, ((0, 0), (0, self._pad))), k)[1])


class FaissSQ8(Faiss):
    """FAISS HNSW32 over u8 codes, refined in float32."""

    recipe = "HNSW32_SQ8,RFlat"


class USearch:
    """USearch over float16, connectivity 16, expansion_add 200."""

    unit = True
    beams = BEAMS
    dtype = "f16"

    def build(self, train: Floats, metric: str, threads: int) -> None:
        from usearch.index import Index

        kind = {"l2": "l2sq", "ip": "ip"}[metric]
        self._index = Index(
            ndim=train.shape[1], metric=kind, dtype=self.dtype, connectivity=16, expansion_add=200
        )
        self._index.add(np.arange(len(train)), train, threads=threads)

    def search(self, queries: Floats, k: int, ef: float) -> Ids:
        self._index.expansion_search = int(ef)
        return np.asarray(self._index.search(queries, k, threads=1).keys).astype(np.int64)


class Voyager:
    """Voyager (Spotify's hnswlib) over float32."""

    unit = True
    beams = BEAMS

    def build(self, train: Floats, metric: str, threads: int) -> None:
        import voyager

        space = voyager.Space.Euclidean if metric == "l2" else voyager.Space.InnerProduct
        self._index = voyager.Index(space, train.shape[1], M=16, ef_construction=200)
        self._index.add_items(train, num_threads=threads)

    def search(self, queries: Floats, k: int, ef: float) -> Ids:
        ids, _ = self._index.query(queries, k, num_threads=1, query_ef=int(ef))
        return np.asarray(ids).astype(np.int64)


class Ngt:
    """NGT's ANNG over float32 (the wheel can't build its quantised graph). Its beam is epsilon."""

    unit = True
    beams = (-0.05, 0.0, 0.02, 0.05, 0.08, 0.12)

    def build(self, train: Floats, metric: str, threads: int) -> None:
        import ngtpy

        self._folder = tempfile.TemporaryDirectory(prefix="ngt-")
        path = f"{self._folder.name}/index"
        kind = {"l2": "L2", "ip": "Inner product"}[metric]
        ngtpy.create(path, train.shape[1], distance_type=kind, object_type="Float")
        index = ngtpy.Index(path, log_disabled=True)
        index.batch_insert(train, num_threads=threads)
        index.save()
        index.close()
        self._index = ngtpy.Index(path, read_only=True, log_disabled=True)

    def search(self, queries: Floats, k: int, ef: float) -> Ids:
        found = (self._index.search(query, k, ef, with_distance=False) for query in queries)
        return padded(list(found), k)


LIBRARIES: dict[str, type[Library]] = {
    "vecdb": VecdbGraph,
    f"vecdb {SINGLE}": VecdbCollection,
    "vecdb store": VecdbStore,
    "hnswlib": Hnswlib,
    f"hnswlib {SINGLE}": HnswlibCalls,
    "SymphonyQG": SymphonyQG,
    "SymphonyQG 64": SymphonyQGWide,
    "RaBitQ HNSW": RabitqHnsw,
    "glass": Glass,
    "VSAG": Vsag,
    "SVS": Svs,
    "FAISS": Faiss,
    "FAISS SQ8": FaissSQ8,
    "USearch": USearch,
    "Voyager": Voyager,
    "NGT": Ngt,
}


def padded(found: list[Any], k: int) -> Ids:
    """Answers of unequal length as one (queries, k) array filled up with -1."""
    ids = np.full((len(found), k), -1, dtype=np.int64)
    for row, answer in zip(ids, found, strict=True):
        row[: len(answer)] = answer[:k]
    return ids
