"""Opening a store of real bytes by mapping, against reading it whole.

    python -m bench.load_real --gb 20

Makes a store of `--gb` gigabytes (vectors and graphs) of real bytes: a set of 128-dim vectors with
its graph, then copies of both in further segments, each vector moved by a little noise of its own,
far less than the distance of neighbours, so that the graph holds for every copy. Then, each in a
fresh process, with the files in the page cache ("warm") and dropped from it ("cold"):

``vecdb``        ``vecdb.open`` of the store; nothing is read until it is needed
``read``         all bytes of the store's files through a buffer of 64 MiB that is used again: the
                 least that a library which reads its index could do, without the memory for it
``fromfile``     ``np.fromfile`` of the first files of the store, up to `--fit-gb`
``hnswlib``, ``faiss``, ``usearch``, ``usearch view``  an index of `--rival-rows` of the vectors

Each line has the time to load, the growth of peak resident memory (pages of mapped files included)
and of the part of it that is the process's own, and the time of the first and of the 100th query;
reading alone answers none. Rivals that are not installed are left out.

A run of 20 GB takes a while: ``--make`` only writes the files, ``--loaders`` and ``--cache`` choose
what is measured on files that ``--path`` kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench import sparse
from bench.datasets import sift_like
from bench.harness import Apart, Report, RivalError, summary
from vecdb.segment import write_segment
from vecdb.segment.format import Header, Kind
from vecdb.segment.fs import Directory
from vecdb.segment.index import write_index
from vecdb.store import names
from vecdb.store.loading import load
from vecdb.store.manifest import SegmentEntry, publish

DIM = 128
QUERIES = 100
NOISE = 0.05  # of a component; neighbours lie 200 apart
_BUFFER = 64 << 20
_BLOCK = 100_000  # rows

Floats = npt.NDArray[np.float32]


def copy_segments(path: Path, nbytes: int) -> int:
    """Add noisy copies of the first segment until the store has `nbytes`; returns the rows.

    A store that has as many is left as it is.
    """
    directory = Directory(path)
    directory.durable = False
    old, parts, logs = load(directory)
    for log in logs:
        log.close()
    first = parts[0].segment
    assert first.graph is not None
    wanted = max(1, round(nbytes / first.nbytes))
    if len(old.segments) == wanted:
        return wanted * first.rows
    number, rows, entries = old.next_file, first.rows, [old.segments[0]]
    for copy in range(1, wanted):
        file = write_segment(
            directory,
            names.container(Kind.SEGMENT, number),
            Header(Kind.SEGMENT, old.uuid, number),
            old.schema,
            first.rows,
            vectors=_moved(first.vectors, copy),
            ids=range(rows, rows + first.rows),
            column=first.column,
        )
        name = names.container(Kind.INDEX, number + 1)
        header = Header(Kind.INDEX, old.uuid, number + 1, number)
        index = write_index(directory, name, header, first.graph)
        bounds = (rows, rows + first.rows - 1)
        entries.append(SegmentEntry(file.info, first.rows, first.rows, bounds, index.info))
        number, rows = number + 2, rows + first.rows
    publish(
        directory,
        dataclasses.replace(
            old,
            generation=old.generation + 1,
            next_file=number,
            next_id=rows,
            segments=tuple(entries),
        ),
    )
    directory.unlink(names.manifest(old.generation))
    directory.close()
    return rows


def _moved(vectors: Floats, seed: int) -> Iterator[Floats]:
    rng = np.random.default_rng(seed)
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK]
        yield block + rng.uniform(-NOISE, NOISE, block.shape).astype(np.float32)


class Loader:
    """One way to load, in a fresh process."""

    def __init__(self, name: str, path: Path, fit: int) -> None:
        self._files = sorted(path.iterdir()) if path.is_dir() else [path]
        self._path, self._fit = path, fit
        self._load = getattr(self, "_" + name.replace(" ", "_"))
        if name == "vecdb":
            import vecdb

            vecdb.warmup()
            self._open = vecdb.open  # imports what it is made of
        elif name not in ("read", "fromfile"):
            importlib.import_module(name.split(maxsplit=1)[0])
        np.zeros(1)

    def measure(self, queries: Floats) -> dict[str, float]:
        """Milliseconds to load and of queries, megabytes of growth at the peak, bytes loaded."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
        before, own, start = _status("VmHWM"), _status("RssAnon"), time.perf_counter()
        search, nbytes = self._load()
        figures = {"load_ms": 1e3 * (time.perf_counter() - start), "gb": nbytes / 1e9}
        if search is not None:
            spent = []
            for query in queries:
                start = time.perf_counter()
                search(query)
                spent.append(1e3 * (time.perf_counter() - start))
            figures |= {"first_query_ms": spent[0], "hundredth_query_ms": spent[-1]}
        return figures | {
            "peak_mb": (_status("VmHWM") - before) / 1e6,
            "own_mb": (_status("RssAnon") - own) / 1e6,
        }

    def _vecdb(self) -> tuple[Any, int]:
        col = self._open(self._path)
        return lambda query: col.search(query, 10), sum(f.stat().st_size for f in self._files)

    def _read(self) -> tuple[None, int]:
        buffer, total = bytearray(_BUFFER), 0
        for file in self._files:
            with file.open("rb", buffering=0) as source:
                while count := source.readinto(buffer):
                    total += count
        return None, total

    def _fromfile(self) -> tuple[Any, int]:
        arrays: list[npt.NDArray[np.uint8]] = []
        for file in self._files:
            left = self._fit - sum(map(len, arrays))
            if left > 0:
                arrays.append(np.fromfile(file, np.uint8, left))
        return None, sum(map(len, arrays))

    def _hnswlib(self) -> tuple[Any, int]:
        import hnswlib

        index = hnswlib.Index("l2", DIM)
        index.load_index(str(self._path))
        index.set_ef(64)
        return lambda query: index.knn_query(query, 10, num_threads=1), self._path.stat().st_size

    def _faiss(self) -> tuple[Any, int]:
        import faiss

        index = faiss.read_index(str(self._path))
        return lambda query: index.search(query[None], 10), self._path.stat().st_size

    def _usearch(self) -> tuple[Any, int]:
        from usearch.index import Index

        index = Index.restore(str(self._path))
        return lambda query: index.search(query, 10), self._path.stat().st_size

    def _usearch_view(self) -> tuple[Any, int]:
        from usearch.index import Index

        index = Index.restore(str(self._path), view=True)
        return lambda query: index.search(query, 10), self._path.stat().st_size


def make_rivals(folder: Path, rows: Floats) -> dict[str, Path]:
    """Indexes of the installed rivals over the rows, saved; those that are there are kept."""
    made = {}
    for name, make in (
        ("hnswlib", _make_hnswlib),
        ("faiss", _make_faiss),
        ("usearch", _make_usearch),
    ):
        if importlib.util.find_spec(name):
            made[name] = folder / name
            if not made[name].exists():
                make(str(made[name]), rows)
    if "usearch" in made:
        made["usearch view"] = made["usearch"]
    return made


def _make_hnswlib(file: str, rows: Floats) -> None:
    import hnswlib

    index = hnswlib.Index("l2", DIM)
    index.init_index(len(rows), M=16, ef_construction=200)
    index.add_items(rows)
    index.save_index(file)


def _make_faiss(file: str, rows: Floats) -> None:
    import faiss

    index = faiss.IndexHNSWFlat(DIM, 16)
    index.hnsw.efConstruction = 200
    index.add(rows)
    faiss.write_index(index, file)


def _make_usearch(file: str, rows: Floats) -> None:
    from usearch.index import Index

    index = Index(ndim=DIM, metric="l2sq", dtype="f32")
    index.add(np.arange(len(rows)), rows)
    index.save(file)


def run(places: dict[str, Path], caches: list[str], queries: Floats, fit: int, passes: int) -> None:
    """A line for each way to load, with a warm and a cold page cache."""
    report = Report("load_real", ("hnswlib", "faiss-cpu", "usearch"))
    for cache in caches:
        for name, place in places.items():
            found: dict[str, list[float]] = defaultdict(list)
            if cache == "warm":
                sparse.fill_cache(place)
            for _ in range(1 if cache == "cold" else passes):
                process = Apart(Loader, name, place, fit)
                if cache == "cold":
                    sparse.drop_cache(place)
                try:
                    figures = process.call("measure", queries)
                except RivalError as error:
                    report.line(loader=name, failed=str(error).strip().splitlines()[-1])
                    break
                finally:
                    process.close()
                for what, value in figures.items():
                    found[what].append(value)
            if found:
                spread = {what: summary(values) for what, values in found.items()}
                report.line(loader=name, cache=cache, **spread)


def _status(what: str) -> int:
    """Resident memory of this process in bytes: its greatest (VmHWM), the part not mapped from
    files (RssAnon)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split(maxsplit=2)[1]) * 1024
    raise OSError(f"no {what} in /proc/self/status")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gb", type=float, help="default: half the free disk, at most 40")
    parser.add_argument("--base-rows", type=int, default=1_000_000, help="of the first segment")
    parser.add_argument("--rival-rows", type=int, default=100_000)
    parser.add_argument("--fit-gb", type=float, default=4.0, help="what np.fromfile may allocate")
    parser.add_argument("--path", type=Path, help="a folder to make the files in, or to find them")
    parser.add_argument("--make", action="store_true", help="make the files, measure nothing")
    parser.add_argument("--loaders", help="names from the list above, with commas between them")
    parser.add_argument("--cache", choices=("warm", "cold"), help="default: both")
    parser.add_argument("--passes", type=int, default=3)
    given = parser.parse_args()
    data = sift_like(given.base_rows, QUERIES)
    train, queries = data.train.astype(np.float32), data.test.astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="vecdb-bench-") as temporary:
        folder = given.path or Path(temporary)
        path = folder / "store"
        there = sparse.bytes_used(path)[0] / 1e9 if path.exists() else 0.0
        free = shutil.disk_usage(folder).free / 1e9
        gigabytes = given.gb or min(40.0, there + free / 2)
        if gigabytes - there > 0.9 * free:
            parser.error(f"{gigabytes - there:.1f} GB more wanted, {free:.1f} GB free")
        if not path.exists():
            sparse.found(path, train)
        copy_segments(path, int(gigabytes * 1e9))
        rivals = make_rivals(folder, train[: given.rival_rows])
        if given.make:
            return
        places = {"vecdb": path, "read": path, "fromfile": path, **rivals}
        chosen = given.loaders.split(",") if given.loaders else list(places)
        caches = [given.cache] if given.cache else ["warm", "cold"]
        places = {name: places[name] for name in chosen}
        run(places, caches, queries, int(given.fit_gb * 1e9), given.passes)


if __name__ == "__main__":
    main()
