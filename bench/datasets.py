"""Data sets for the benchmarks, and their exact neighbours.

=================== ============================================================================
name or path        what it gives
=================== ============================================================================
``sift-like``       200,000 x 128 u8-valued descriptors made here (no download), 1,000 queries;
                    likewise every other name in :data:`bench.made.MADE`
``NAME``            ``$VECDB_DATA/NAME.npz`` with arrays ``train`` and ``test``
``FILE.npz``        the same, by path
``FILE.hdf5``       an ann-benchmarks file (``train``, ``test``, attribute ``distance``)
``FILE.fvecs``      rows of (int32 dim, float32 x dim); ``.bvecs`` alike with u8 values
``FILE.fbin``       (uint32 rows, uint32 dim), then float32 rows; ``.u8bin``, ``.i8bin`` alike
=================== ============================================================================

The metric comes from the file's attribute, from ``-angular`` / ``-euclidean`` / ``-ip`` in its
name, or is l2. Files without queries give their last 1,000 rows away as queries.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.made import MADE, draw

OUT = Path(__file__).parent / "out"
Floats = npt.NDArray[np.float32]

_HELD_OUT = 1000
_METRICS = {"angular": "cosine", "cosine": "cosine", "euclidean": "l2", "l2": "l2", "ip": "ip"}


@dataclass(frozen=True)
class Dataset:
    """Rows to index, queries to ask, and the metric that makes them neighbours."""

    name: str
    metric: str  # "cosine" | "l2" | "ip"
    train: Floats  # (rows, dim)
    test: Floats  # (queries, dim)


def load(source: str, rows: int | None = None) -> Dataset:
    """Read a data set by name or path; `rows` keeps only the first so many."""
    if source in MADE:
        data = made(source)
    else:
        path = _find(source)
        data = _READERS[path.suffix](path)
    train = np.ascontiguousarray(data.train[:rows], dtype=np.float32)
    name = data.name if rows is None else f"{data.name}-{len(train)}"
    return Dataset(name, data.metric, train, np.ascontiguousarray(data.test, dtype=np.float32))


def truth(data: Dataset, k: int) -> npt.NDArray[np.float64]:
    """Distances (queries, k) of the exact neighbours, ascending; kept under ``bench/out``.

    Float32 products of centred rows find 2k + 20 candidates, float64 arithmetic ranks them.
    """
    cache = OUT / f"truth-{data.name}-{len(data.test)}-k{k}.npy"
    if cache.exists():
        return np.asarray(np.load(cache))
    best = np.empty((len(data.test), k))
    mean = data.train.mean(axis=0, dtype=np.float64).astype(np.float32)
    rows = _prepared(data.train, data.metric, mean)
    norms = np.einsum("ij,ij->i", rows, rows)
    for i in range(0, len(data.test), 100):
        queries = _prepared(data.test[i : i + 100], data.metric, mean)
        rough = -2 * (queries @ rows.T)
        if data.metric != "ip":
            rough += norms
        near = np.argpartition(rough, 2 * k + 20, axis=1)[:, : 2 * k + 20]
        best[i : i + 100] = np.sort(exact(data, near, first=i), axis=1)[:, :k]
    OUT.mkdir(exist_ok=True)
    np.save(cache, best)
    return best


def exact(data: Dataset, ids: npt.NDArray[np.int64], first: int = 0) -> npt.NDArray[np.float64]:
    """Float64 distances between queries `first`, `first + 1`, ... and the rows in `ids` (n, k)."""
    queries = data.test[first : first + len(ids), None].astype(np.float64)
    rows = data.train[ids].astype(np.float64)
    if data.metric == "l2":
        return np.asarray(np.square(rows - queries).sum(axis=2))
    dots = (rows * queries).sum(axis=2)
    if data.metric == "ip":
        return np.asarray(-dots)
    return np.asarray(1 - dots / np.linalg.norm(rows, axis=2) / np.linalg.norm(queries, axis=2))


def recall(data: Dataset, ids: npt.NDArray[np.int64], best: npt.NDArray[np.float64]) -> float:
    """Share of the `k` neighbours found; any row as near as the true k-th counts, once.

    `ids` is (queries, k), padded with -1.
    """
    real = np.clip(ids, 0, len(data.train) - 1).astype(np.int64)
    found = np.concatenate(
        [exact(data, real[i : i + 500], first=i) for i in range(0, len(ids), 500)]
    )
    limit = best[:, -1:] + 1e-6 * np.abs(best[:, -1:]) + 1e-9
    ordered = np.sort(ids, axis=1)
    twice = np.count_nonzero((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0))
    hits = np.count_nonzero((found <= limit) & (ids >= 0)) - twice
    return hits / best.size


def normalised(vectors: Floats) -> Floats:
    """Rows scaled to length 1, for libraries that know l2 but not cosine."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)


def made(name: str, rows: int | None = None, queries: int = _HELD_OUT) -> Dataset:
    """A set of :data:`bench.made.MADE`, with so many rows and queries."""
    kind = MADE[name]
    train, test = draw(kind, kind.rows if rows is None else rows, queries)
    word = next(word for word, metric in _METRICS.items() if metric == kind.metric)
    return Dataset(f"{name}-{kind.dim}-{word}", kind.metric, train, test)


def text_like(
    rows: int, queries: int = _HELD_OUT, dim: int = 1536, seed: int = 11
) -> tuple[Floats, Floats]:
    """Rows and queries that behave like embeddings of text by a large model: unit rows in an
    uneven mixture of 2,000 topics, each spread over the same 64 directions, and a little noise."""
    rng = np.random.default_rng(seed)
    total, latent = rows + queries, 64
    topics = rng.standard_normal((2_000, latent), dtype=np.float32)
    popularity = rng.dirichlet(np.full(len(topics), 0.7))
    mixing = rng.standard_normal((latent, dim), dtype=np.float32)
    out = np.empty((total, dim), np.float32)
    for i in range(0, total, 20_000):
        block = out[i : i + 20_000]
        rng.standard_normal(out=block, dtype=np.float32)
        points = topics[rng.choice(len(topics), len(block), p=popularity)]
        points = points + 0.75 * rng.standard_normal(points.shape, dtype=np.float32)
        block += points @ mixing
        block[:] = normalised(block)
    return out[:rows], out[rows:]


def sift_like(rows: int = 200_000, queries: int = _HELD_OUT) -> Dataset:
    """128-dim u8 descriptors that behave like SIFT's."""
    return made("sift-like", rows, queries)


def _prepared(vectors: Floats, metric: str, mean: Floats) -> Floats:
    """Vectors whose products rank like the metric; under l2 those of centred rows cancel least."""
    if metric == "l2":
        return vectors - mean
    return normalised(vectors) if metric == "cosine" else vectors


def _find(source: str) -> Path:
    path = Path(source)
    if path.suffix in _READERS and path.exists():
        return path
    folder = os.environ.get("VECDB_DATA")
    if folder and (named := Path(folder) / f"{source}.npz").exists():
        return named
    raise FileNotFoundError(
        f"no data set {source!r}: give a path ending in {', '.join(_READERS)}, one of "
        f"{', '.join(MADE)}, or the name of an .npz in the folder that the environment variable "
        "VECDB_DATA names"
    )


def _metric_of(name: str) -> str:
    words = name.lower().replace("_", "-").split("-")
    return next((_METRICS[word] for word in reversed(words) if word in _METRICS), "l2")


def _split(path: Path, vectors: npt.NDArray[np.generic]) -> Dataset:
    return Dataset(path.stem, _metric_of(path.stem), vectors[:-_HELD_OUT], vectors[-_HELD_OUT:])  # type: ignore[arg-type]


def _read_npz(path: Path) -> Dataset:
    with np.load(path) as arrays:
        return Dataset(path.stem, _metric_of(path.stem), arrays["train"], arrays["test"])


def _read_hdf5(path: Path) -> Dataset:
    import h5py

    with h5py.File(path) as file:
        metric = _METRICS[file.attrs.get("distance", _metric_of(path.stem))]
        return Dataset(path.stem, metric, file["train"][:], file["test"][:])


def _read_vecs(path: Path) -> Dataset:
    kind = np.dtype("<f4") if path.suffix == ".fvecs" else np.dtype("u1")
    dim = int(np.fromfile(path, "<i4", 1)[0])
    row = np.dtype([("dim", "<i4"), ("vector", kind, (dim,))])
    return _split(path, np.fromfile(path, row)["vector"])


def _read_bin(path: Path) -> Dataset:
    kind = {".fbin": "<f4", ".u8bin": "u1", ".i8bin": "i1"}[path.suffix]
    rows, dim = np.fromfile(path, "<u4", 2).tolist()
    return _split(path, np.fromfile(path, kind, rows * dim, offset=8).reshape(rows, dim))


_READERS = {
    ".npz": _read_npz,
    ".hdf5": _read_hdf5,
    ".fvecs": _read_vecs,
    ".bvecs": _read_vecs,
    ".fbin": _read_bin,
    ".u8bin": _read_bin,
    ".i8bin": _read_bin,
}
