"""The graph as arrays: what a segment stores, maps back and hands to the search kernel.

Arrays of the layout ``rows`` (n = rows, offsets in bytes of a row):

| name | dtype, shape | content |
|---|---|---|
| ``rows`` | uint8 (n, stride) | a record, then blocks of neighbours |
| ``mean`` | float32 (inner,) | centre of the inner space |
| ``matrix`` | uint8 (dims16 / 16, groups, 64) | the projection of the neighbour codes |
| ``scales`` | float32 (dims16,) | its rows' scales |
| ``upper_rows`` | int32 (size of the lowest upper level,) | sample of the rows |
| ``upper_records`` | uint8 (size of the lowest upper level, record) | their records once more |
| ``upper_links`` | int32 (all sizes, 16) | links of each level within the sample, or -1 |
| ``queries`` | float32 (up to 2,000, dim) | what it is calibrated on; missing: its own rows |

A record is what :mod:`vecdb.quant.record` says, a block of 32 neighbours what
:mod:`vecdb.quant.neighbours` says; both are multiples of 64 bytes. ``meta`` holds the numbers that
these shapes don't say; see :data:`META`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.graph.levels import WIDTH, level_sizes, levels_of
from vecdb.graph.repair import reach
from vecdb.kernels.jit import jit
from vecdb.kernels.scan import METRICS, flat
from vecdb.quant.neighbours import BLOCK, block_bytes
from vecdb.quant.record import FLOAT_DIMS, record_bytes
from vecdb.quant.space import Space

__all__ = ["MAX_QUERIES", "Graph"]

META = {
    "version": int, "metric": str, "entry": int, "degree": int, "dims": int, "bits": int,
    "radius": float, "add_unit": float, "res_unit": float, "levels": int,
}  # fmt: skip
VERSION = 1
MAX_ROWS = (1 << 31) - 1  # a key of the search pool has 31 bits for the row
MAX_QUERIES = 2_000  # a calibration is made with


@jit("i8(Array(i4, 2, 'A', readonly=True), i8)", entry=True)
def _bad_links(links, rows):
    """First node with a link outside [-1, rows), or -1."""
    for i in range(links.shape[0]):
        for j in range(links.shape[1]):
            if links[i, j] < -1 or links[i, j] >= rows:
                return i
    return -1


class Graph:
    """A navigable graph over the rows of one segment, ready to be searched.

    Made by :func:`vecdb.graph.build` or :meth:`from_arrays`; immutable. Any number of threads may
    search it at once.

    Attributes
    ----------
    arrays : dict of str to array
        Named C-contiguous sections, as in the module's table.
    meta : dict
        JSON-safe numbers and names beside them.
    """

    def __init__(self, arrays: dict[str, NDArray[Any]], meta: dict[str, Any], dim: int) -> None:
        self.arrays = arrays
        self.meta = meta
        self.dim = dim
        self.space = Space(meta["metric"], arrays["mean"], meta["radius"])
        self.bound: tuple[NDArray[Any], NDArray[np.uint8], NDArray[np.int64]] | None = None
        self.calls: dict[Any, NDArray[np.int64]] = {}  # what the kernel takes, by k, ef and knobs
        self.data = arrays["rows"].reshape(-1)
        self.fixed = np.concatenate([flat(arrays[name]) for name in ("mean", "scales", "matrix")])
        self.units = np.array([meta[name] for name in ("add_unit", "res_unit", "radius")], "f4")
        self._source: tuple[Any, int, int, int] = (None, -1, 0, 0)

    def shape(self, half: bool) -> NDArray[np.int64]:
        """The numbers that :data:`vecdb.graph.traverse.SHAPE` names, for float16 rows or float32
        ones."""
        return np.array([
            METRICS[self.meta["metric"]], half, self.dim, self.inner, self.stride, self.record,
            self.blocks, self.meta["dims"], self.meta["bits"], self.meta["entry"],
            self.meta["levels"],
            *[self.arrays[f"upper_{what}"].ctypes.data for what in ("rows", "links", "records")],
            *self._source[1:],
        ], np.int64)  # fmt: skip

    def read_rows_from(self, owner: object, descriptor: int, offset: int, flags: int = 0) -> None:
        """From now on searches read the raw rows that they rescore from a file, past the mapping.

        It takes time instead of memory; see :mod:`vecdb.kernels.files`. The descriptor stays open
        as long as `owner` is there; `flags` are those of preadv2(2).
        """
        self._source = owner, descriptor, offset, flags
        self.bound = None

    @property
    def queries(self) -> NDArray[np.float32] | None:
        """(n, dim), what :func:`vecdb.graph.calibrate` asks in place of rows; None for rows."""
        return self.arrays.get("queries")

    def with_queries(self, queries: NDArray[np.float32]) -> Graph:
        """The same graph, not calibrated yet, with queries for that: a sample of them where they
        are more than :data:`MAX_QUERIES`."""
        if len(queries) > MAX_QUERIES:
            chosen = np.random.default_rng(0).permutation(len(queries))[:MAX_QUERIES]
            queries = queries[np.sort(chosen)]
        meta = {name: value for name, value in self.meta.items() if name != "calibration"}
        own = np.ascontiguousarray(queries, np.float32)
        return Graph({**self.arrays, "queries": own}, meta, self.dim)

    @property
    def rows(self) -> int:
        """Number of nodes; node i is row i of the segment."""
        return len(self.arrays["rows"])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    @property
    def inner(self) -> int:
        """Dimensions of the inner space."""
        return int(self.arrays["mean"].shape[0])

    @property
    def stride(self) -> int:
        """Bytes of a node's row."""
        return int(self.arrays["rows"].shape[1])

    @property
    def record(self) -> int:
        """Bytes of a node's own record, after which its blocks begin."""
        return int(record_bytes(self.inner))

    @property
    def chunks(self) -> int:
        """Chunks of 64 bytes of codes in a block."""
        return int(self.meta["dims"] * self.meta["bits"]) // 16

    @property
    def blocks(self) -> int:
        """Blocks of 32 neighbours in a row."""
        return int(self.meta["degree"]) // BLOCK

    def links(self) -> NDArray[np.int32]:
        """Neighbours of every node, (n, degree) int32, -1 for an empty slot (a copy)."""
        return np.concatenate(self.link_views(), axis=1)

    def link_views(self) -> list[NDArray[np.int32]]:
        """The links where they lie: for each block of the rows a view (n, 32) int32."""
        step = block_bytes(self.meta["dims"], self.meta["bits"])
        starts = [self.record + b * step for b in range(self.blocks)]
        return [self.arrays["rows"][:, at : at + 4 * BLOCK].view(np.int32) for at in starts]

    def reachable(self) -> int:
        """Number of nodes that a walk from the entry can come to; the number of rows when sound."""
        if self.rows == 0:
            return 0
        reached = np.zeros(self.rows, np.uint8)
        stack = np.empty(self.rows, np.int64)
        return int(reach(self.links(), self.meta["degree"], self.meta["entry"], reached, stack))

    @classmethod
    def from_arrays(
        cls,
        arrays: dict[str, NDArray[Any]],
        meta: dict[str, Any],
        rows: int,
        dim: int,
        *,
        check_links: bool = True,
    ) -> Graph:
        """A graph over stored arrays, after checks of all that a hostile file could get wrong.

        Parameters
        ----------
        arrays, meta
            As a graph gave them; arrays may be read-only mappings.
        rows, dim : int
            Of the segment's vectors.
        check_links : bool
            Read every node's links now. Without it nothing is read in proportion to the rows; a
            search passes over links that point outside either way.

        Raises
        ------
        ValueError
            A section is missing or has a wrong type or shape, a number is out of range, or a link
            points outside the rows.
        """
        _check_meta(meta, rows)
        inner = dim + (meta["metric"] == "ip")
        dims, bits = meta["dims"], meta["bits"]
        if inner <= FLOAT_DIMS < dims:
            raise ValueError(f"graph meta: {dims} coded dimensions of {inner}")
        block = block_bytes(dims, bits)
        sizes = level_sizes(meta["levels"])
        record, sampled = record_bytes(inner), int(sizes.max(initial=0))
        stride = record + meta["degree"] // BLOCK * block
        padded, groups = dims + 15 & ~15, inner + 3 >> 2
        expected: dict[str, tuple[type, tuple[int, ...]]] = {
            "rows": (np.uint8, (rows, stride)),
            "mean": (np.float32, (inner,)),
            "matrix": (np.uint8, (padded // 16, groups, 64)),
            "scales": (np.float32, (padded,)),
            "upper_rows": (np.int32, (sampled,)),
            "upper_records": (np.uint8, (sampled, record)),
            "upper_links": (np.int32, (int(sizes.sum()), WIDTH)),
        }
        if "queries" in arrays:
            expected["queries"] = np.float32, (min(len(arrays["queries"]), MAX_QUERIES), dim)
        for name, (dtype, shape) in expected.items():
            array = arrays.get(name)
            if array is None or array.dtype != dtype or array.shape != shape:
                got = None if array is None else (str(array.dtype), array.shape)
                raise ValueError(f"graph section {name!r}: {np.dtype(dtype)} {shape}, got {got}")
            if not array.flags.c_contiguous or not array.flags.aligned:
                raise ValueError(f"graph section {name!r} is not contiguous and aligned")
        for name in ("mean", "scales"):
            if not np.isfinite(arrays[name]).all():
                raise ValueError(f"graph section {name!r} has a value that is not finite")
        graph = cls({name: arrays[name] for name in expected}, dict(meta), dim)
        if check_links:
            graph.check_links()
        return graph

    def check_links(self) -> None:
        """Raise ValueError for the first link, on any level, that points outside its rows."""
        for links in self.link_views():
            bad = _bad_links(links, self.rows)
            if bad >= 0:
                raise ValueError(f"graph: node {bad} has a link outside the {self.rows} rows")
        sample, links = self.arrays["upper_rows"], self.arrays["upper_links"]
        if len(sample) and not 0 <= sample.min() <= sample.max() < self.rows:
            raise ValueError(f"graph: an upper level has a row outside the {self.rows} rows")
        start = 0
        for size in level_sizes(self.meta["levels"]).tolist():
            bad = _bad_links(links[start : start + size], size)
            if bad >= 0:
                raise ValueError(f"graph: row {bad} of an upper level links outside its {size}")
            start += size


def _check_meta(meta: dict[str, Any], rows: int) -> None:
    for name, kind in META.items():
        value: Any = meta.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"graph meta {name!r}: a {kind.__name__} expected, got {value!r}")
        if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"graph meta {name!r}: out of range, {value!r}")
    if meta["version"] != VERSION:
        raise ValueError(f"graph version {meta['version']} is not {VERSION}")
    if meta["metric"] not in {"cosine", "l2", "ip"} or meta["bits"] not in {0, 1, 2, 4}:
        raise ValueError(f"graph meta: metric {meta['metric']!r}, bits {meta['bits']!r}")
    coded = meta["dims"] > 0
    if (
        not 0 <= meta["dims"] <= 1 << 16
        or meta["dims"] * meta["bits"] % 16
        or coded != (meta["bits"] > 0)
    ):
        raise ValueError(f"graph meta: {meta['dims']} coded dimensions are not whole chunks")
    if not 0 <= rows <= MAX_ROWS or not 0 <= meta["entry"] < max(rows, 1):
        raise ValueError(f"graph meta: entry {meta['entry']} of {rows} rows")
    if meta["levels"] != levels_of(rows):
        raise ValueError(f"graph meta: {meta['levels']} upper levels over {rows} rows")
    if not BLOCK <= meta["degree"] <= 8 * BLOCK or meta["degree"] % BLOCK:
        raise ValueError(f"graph meta: degree {meta['degree']}")
