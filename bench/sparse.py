"""Stores of billions of rows on a small disk: some real rows, holes between them.

Everything but the rows is as always: vecdb's own writer makes the files, with headers, checksums,
block hashes, footers, ids, graphs and a manifest. A hole is a range of a sparse file that reads as
zeros and takes no space, and the checksums of zeros stand in the file like any others.

A segment with holes has :data:`SOWN` real rows at random places. Its graph section has a node row
for each of its rows; the nodes of the real ones form a graph of their own that no hole is linked
into, and are the first of each upper level, so a search finds real rows only.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

import vecdb
from vecdb.segment import write_segment
from vecdb.segment.format import FileInfo, Header, Kind
from vecdb.segment.fs import Directory
from vecdb.segment.index import write_index
from vecdb.segment.sparse import Sparse
from vecdb.store import names
from vecdb.store.manifest import Manifest, SegmentEntry, newest_generation, publish, read_manifest

if TYPE_CHECKING:  # numba comes with it, and a process that times `open` imports this module
    from vecdb.graph import Graph

SOWN = 64  # real rows of a segment with holes


class Sown(NamedTuple):
    """Real rows between holes."""

    ids: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]


def found(
    path: Path, vectors: npt.NDArray[np.float32], metric: Any = "l2", codes: Any = "auto"
) -> None:
    """Create a store of one segment with a graph, ids from 0, by the public interface."""
    index = vecdb.Hnsw(codes=codes)
    with vecdb.create(path, vectors.shape[1], metric, index=index, sync="os") as made:
        for start in range(0, len(vectors), 50_000):
            made.add(vectors[start : start + 50_000])
        made.optimize()


def patches(vectors: npt.NDArray[np.float32], metric: Any = "l2") -> list[Graph]:
    """A graph over each :data:`SOWN` of the rows."""
    from vecdb.graph import build

    return [build(vectors[i : i + SOWN], metric) for i in range(0, len(vectors), SOWN)]


def grow(path: Path, rows: int, vectors: npt.NDArray[np.float32], graphs: list[Graph]) -> Sown:
    """Give the store segments with holes, in place of those that it has, until it has `rows`.

    Parameters
    ----------
    vectors : ndarray
        (segments * SOWN, dim): the rows to sow.
    graphs : list of Graph
        What :func:`patches` makes of them: one for each segment to come.

    Raises
    ------
    OSError
        The disk is too small, or the file system has no sparse files; nothing was written.
    """
    check_disk(path, rows, vectors.shape[1])
    directory = Directory(path)
    directory.durable = False  # sync="os": 300 fsyncs are not what is measured
    old = read_manifest(directory, newest_generation(directory))
    solid = old.segments[0]
    number, first = old.next_file, solid.rows
    rng = np.random.default_rng(rows)
    entries, ids = [solid], []
    for i, graph in enumerate(graphs):
        last = solid.rows + (rows - solid.rows) * (i + 1) // len(graphs)
        places = np.sort(rng.choice(last - first, SOWN, replace=False))
        sown = Sparse(last - first, places, vectors[i * SOWN : (i + 1) * SOWN])
        file, index = _write(directory, old, number, first, sown, graph)
        bounds = (first, last - 1)
        entries.append(SegmentEntry(file, last - first, last - first, bounds, index))
        ids.append(first + places)
        number, first = number + 2, last
    new = dataclasses.replace(
        old,
        generation=old.generation + 1,
        next_file=number,
        next_id=rows,
        segments=tuple(entries),
    )
    publish(directory, new)
    directory.unlink(names.manifest(old.generation))
    for entry in old.segments[1:]:
        directory.unlink(names.container(Kind.SEGMENT, entry.file.id))
        directory.unlink(names.container(Kind.INDEX, entry.index.id if entry.index else 0))
    directory.close()
    return Sown(np.concatenate(ids), vectors)


def check_disk(path: Path, rows: int, dim: int) -> None:
    """Refuse a disk without sparse files or without room for the block hashes."""
    needed = 256 << 20  # block hashes of 10 billion rows: 8 bytes for each MiB of 23 TB
    needed = max(needed, rows * (4 * dim + 2048) // (1 << 17))
    disk = os.statvfs(path)
    if disk.f_bavail * disk.f_frsize < needed:
        raise OSError(f"{path}: {needed:,} bytes needed, {disk.f_bavail * disk.f_frsize:,} free")
    with tempfile.TemporaryFile(dir=path) as file:
        file.truncate(64 << 20)
        file.flush()
        if os.fstat(file.fileno()).st_blocks * 512 > 1 << 20:
            raise OSError(f"{path}: this file system has no sparse files")


def bytes_used(path: Path) -> tuple[int, int]:
    """Bytes that the files seem to have, and that they take on the disk."""
    stats = [file.stat() for file in path.iterdir()]
    return sum(s.st_size for s in stats), sum(512 * s.st_blocks for s in stats)


def drop_cache(path: Path) -> None:
    """Ask the system to forget the pages of a store's files, or of one file."""
    for file in _files(path):
        fd = os.open(file, os.O_RDONLY)
        os.fsync(fd)  # a page that is not on the disk yet would stay
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def fill_cache(path: Path) -> None:
    """Read what is no hole of a store's files, or of one file, into the page cache."""
    buffer = bytearray(8 << 20)
    for file in _files(path):
        fd = os.open(file, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead into the holes
        for start, end in _extents(fd):
            for at in range(start, end, len(buffer)):
                os.preadv(fd, [memoryview(buffer)[: end - at]], at)
        os.close(fd)


def _files(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else [path]


def _extents(fd: int) -> Iterator[tuple[int, int]]:
    """Start and end of each run of bytes that the disk holds."""
    end = 0
    while True:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole behind
                return
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


def _write(
    directory: Directory, old: Manifest, number: int, first: int, sown: Sparse, graph: Graph
) -> tuple[FileInfo, FileInfo]:
    """One segment with holes, and its index."""
    schema = old.schema
    file = write_segment(
        directory,
        names.container(Kind.SEGMENT, number),
        Header(Kind.SEGMENT, old.uuid, number),
        schema,
        sown.rows,
        vectors=[sown],
        ids=range(first, first + sown.rows),
        column=_no_column,
    )
    index = write_index(
        directory,
        names.container(Kind.INDEX, number + 1),
        Header(Kind.INDEX, old.uuid, number + 1, number),
        _spread(graph, sown),
    )
    return file.info, index.info


class _Spread(NamedTuple):
    """What the writer of an index asks of a graph."""

    rows: int
    arrays: dict[str, Any]
    meta: dict[str, Any]


def _spread(small: Graph, sown: Sparse) -> Any:
    """The graph over the real rows as one over all rows: nodes and links moved to their places."""
    from vecdb.graph import Graph
    from vecdb.graph.levels import levels_of

    node_rows = small.arrays["rows"].copy()
    spread = Graph({**small.arrays, "rows": node_rows}, small.meta, small.dim)
    for links in spread.link_views():
        links[links >= 0] = sown.places[links[links >= 0]]
    levels = levels_of(sown.rows)
    arrays = {
        **small.arrays,
        **_upper(small, sown.places, levels),
        "rows": Sparse(sown.rows, sown.places, node_rows),
    }
    meta = {**small.meta, "entry": int(sown.places[small.meta["entry"]]), "levels": levels}
    return _Spread(sown.rows, arrays, meta)


def _upper(small: Graph, places: npt.NDArray[np.int64], levels: int) -> dict[str, Sparse]:
    """Upper levels of so many: the real rows stand first in each of them, the entry before all."""
    from vecdb.graph.levels import WIDTH, level_sizes

    if not levels:
        return {}
    sizes = level_sizes(levels)
    entry = small.meta["entry"]
    order = np.concatenate([[entry], np.delete(np.arange(small.rows), entry)])
    position = np.argsort(order)
    links = small.links()[order, :WIDTH]
    links = np.where(links >= 0, position[links], -1).astype(np.int32)
    real = [links[:size] for size in sizes]
    real = [np.where(level < len(level), level, -1).astype(np.int32) for level in real]
    starts = (np.cumsum(sizes) - sizes).tolist()
    at = [start + np.arange(len(level)) for start, level in zip(starts, real, strict=True)]
    sample = places[order[: sizes[-1]]].astype(np.int32)
    records = small.arrays["rows"][order[: sizes[-1]], : small.record]
    return {
        "upper_rows": Sparse(int(sizes[-1]), np.arange(len(sample)), sample),
        "upper_records": Sparse(int(sizes[-1]), np.arange(len(sample)), records),
        "upper_links": Sparse(int(sizes.sum()), np.concatenate(at), np.concatenate(real)),
    }


def _no_column(name: str) -> Any:
    raise KeyError(name)
