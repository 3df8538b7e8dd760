"""The index file of a segment (``idx-``): its graph and codes, one section per array.

An index is derived data. Whatever is wrong with it, the segment answers by exact scan and the
index is built anew; it never makes an answer wrong.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from vecdb.segment import format as f
from vecdb.segment.sparse import little_endian
from vecdb.segment.writer import ContainerWriter

if TYPE_CHECKING:
    from vecdb.graph import Graph
    from vecdb.segment.container import Container
    from vecdb.segment.fs import Directory

__all__ = ["open_graph", "write_index"]

_DTYPE = re.compile(r"[<|][iuf][1248]")
_MAX_AXES = 3
HASHED_BYTES = 16 << 20  # hashed in a millisecond; a graph of 10,000 rows of 128 dimensions


def write_index(directory: Directory, name: str, header: f.Header, graph: Graph) -> f.FileInfo:
    """Write a graph's arrays and make them durable."""
    writer = ContainerWriter(directory, name, header)
    try:
        described = {}
        for key, array in graph.arrays.items():
            little = little_endian(array, array.dtype)
            writer.add(key, little, f.PAGE)
            described[key] = [little.dtype.str, list(little.shape)]
        return writer.finish({"rows": graph.rows, "arrays": described, "graph": graph.meta})
    except BaseException:
        writer.abandon()
        raise


def open_graph(container: Container, rows: int, dim: int, *, verify: bool = False) -> Graph:
    """The graph over the mapped file.

    Sections up to :data:`HASHED_BYTES` are hashed and every link in them is checked, so is
    everything with `verify`. Of a larger section the block hashes alone are, 8 bytes a MiB: the
    first search in a graph of a million rows would wait 0.1 s otherwise, in one of 64 million
    until 100 GB are read. A search checks each link that it follows and takes its distances from
    the vectors, so damage there can cost recall until :meth:`Container.verify` finds it, but makes
    neither a distance wrong nor a process crash.

    Raises
    ------
    CorruptionError
        Naming the file.
    """
    from vecdb.graph import Graph

    meta = container.meta
    described = meta.get("arrays")
    facts = meta.get("graph")
    if meta.get("rows") != rows or not isinstance(described, dict) or not isinstance(facts, dict):
        raise container.damaged(f"an index of {rows} rows", f"{meta.get('rows')!r}"[:40])
    whole = verify or all(s.length <= HASHED_BYTES for s in container.sections.values())
    arrays = {name: _array(container, name, entry, verify) for name, entry in described.items()}
    try:
        return Graph.from_arrays(arrays, facts, rows, dim, check_links=whole)
    except (ValueError, TypeError, KeyError) as error:
        raise container.damaged("a usable graph", str(error)[:200]) from None


def _array(container: Container, name: str, entry: Any, verify: bool) -> Any:
    try:
        kind, shape = entry
        extents = tuple(int(extent) for extent in shape)
    except (TypeError, ValueError):
        raise container.damaged(f"dtype and shape of {name!r}", f"{entry!r}"[:80]) from None
    if (
        not isinstance(kind, str)
        or not _DTYPE.fullmatch(kind)
        or len(extents) > _MAX_AXES
        or any(extent < 0 for extent in extents)
    ):
        raise container.damaged(f"dtype and shape of {name!r}", f"{entry!r}"[:80])
    array = container.array(name, kind, extents, verify=False)
    if verify or array.nbytes <= HASHED_BYTES:
        container.verify(name)
    else:
        container.block_hashes(name)
    return array
