"""The end of a build: the codes of every node's neighbours, and the rows laid out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.graph.job import Job, Links, Records
from vecdb.graph.layout import VERSION, Graph
from vecdb.graph.upper import Upper
from vecdb.kernels import blas
from vecdb.quant.neighbours import (
    BLOCK,
    Projection,
    block_bytes,
    choose_codes,
    encode_neighbours,
    fit_projection,
    principal,
)
from vecdb.quant.record import FLOAT_DIMS

__all__ = ["CODES", "finish"]

SAMPLE = 16384  # links that the projection and its codes are fitted to
_BEYOND = 100.0  # unit of float16 factors, at most, as a multiple of the usual factor
CODES = {
    "auto": (0, 1, 2, 4),
    "int8": (0,),
    "1bit": (1,),
    "2bit": (2,),
    "4bit": (4,),
}


def finish(
    job: Job,
    records: Records,
    ground: Links,
    upper: Upper,
    codes: str,
    seed: int,
) -> Graph:
    """Code the neighbours of every node and lay out the rows."""
    n, inner, links, degrees = job.rows, records.inner, ground.links, ground.degrees
    residuals, queries = _residuals(records, links, degrees, seed)
    basis = principal(residuals) if inner > FLOAT_DIMS else np.eye(inner, dtype=np.float32)
    # queries of ip lie far from all rows: the 4,000 rows of Records.asks got .89 with two bits,
    # .986 with four, .99 without codes
    options = (0, 4) if job.space.metric == "ip" and codes == "auto" else CODES[codes]
    dims, bits = choose_codes(residuals, queries, basis, records.stride, options)
    projection = fit_projection(basis, dims, seed)
    block = block_bytes(dims, bits)
    rows = np.zeros((n, records.stride + job.degree // BLOCK * block), np.uint8)
    rows[:, : records.stride] = records.table
    for b in range(job.degree // BLOCK):
        at = records.stride + b * block
        rows[:, at : at + 4 * BLOCK].view(np.int32)[:] = links[:, b * BLOCK : (b + 1) * BLOCK]
    add_unit = res_unit = 0.0
    if bits:
        add_unit, res_unit = _encode(job, records, ground, projection, bits, rows)
    meta = {
        "version": VERSION, "metric": job.space.metric, "entry": upper.entry,
        "levels": len(upper.sizes), "degree": job.degree, "dims": dims, "bits": bits,
        "radius": float(job.space.radius), "add_unit": add_unit, "res_unit": res_unit,
    }  # fmt: skip
    arrays = {
        "rows": rows, "mean": job.space.mean, "matrix": projection.matrix,
        "scales": projection.scales, "upper_rows": upper.sample, "upper_records": upper.records,
        "upper_links": upper.links,
    }  # fmt: skip
    return Graph(arrays, meta, inner - (job.space.metric == "ip"))


def _encode(
    job: Job,
    records: Records,
    ground: Links,
    projection: Projection,
    bits: int,
    rows: NDArray[np.uint8],
) -> tuple[float, float]:
    """Write the codes of every node's neighbours, and their factors; return the factors' units."""
    n, inner, dims = job.rows, records.inner, projection.dims
    matrix = projection.floats(inner).T
    places = np.empty((n, dims), np.float32)

    def project(first: int, last: int) -> None:
        decoded = records.decode(slice(first, last))
        if inner <= FLOAT_DIMS:  # the search refines such codes around the node, unprojected
            places[first:last, :inner] = decoded
            places[first:last, inner:] = 0
        else:
            blas.room()
            places[first:last] = decoded @ matrix

    job.each(project, n, 4096)
    add = np.full((n, job.degree), np.inf, np.float32)
    res = np.zeros((n, job.degree), np.float32)

    def encode(first: int, last: int) -> None:
        encode_neighbours(
            *records.args, places, inner <= FLOAT_DIMS, ground.links, ground.degrees, bits, first,
            last, rows.ctypes.data + records.stride, rows.shape[1], add, res,
        )  # fmt: skip

    job.each(encode, n, 256)
    add_unit, res_unit = _fit(add), _fit(res)
    for b in range(job.degree // BLOCK):
        at = records.stride + b * block_bytes(dims, bits) + 4 * BLOCK
        slots = slice(b * BLOCK, (b + 1) * BLOCK)
        rows[:, at : at + 64].view(np.float16)[:] = add[:, slots] / add_unit
        rows[:, at + 64 : at + 128].view(np.float16)[:] = res[:, slots] / res_unit
    return add_unit, res_unit


def _fit(factors: NDArray[np.float32]) -> float:
    """Unit in which factors fit into float16; those far beyond the usual are cut to what does.

    One row a million times as long as 3,000 others left these no bits: recall .76, .99 with a cut.
    """
    finite = np.isfinite(factors)
    top = max(
        float(factors.max(where=finite, initial=0)), -float(factors.min(where=finite, initial=0))
    )
    some = np.abs(factors[:: len(factors) // SAMPLE + 1])
    usual = some[np.isfinite(some) & (some > 0)]
    unit = max(top / 60000, 1e-30)
    if len(usual) and unit > (most := max(_BEYOND * float(np.median(usual)), 1e-30)):
        unit = most
        np.clip(factors, -60000 * unit, 60000 * unit, out=factors, where=finite)
    return unit


def _residuals(
    records: Records, links: NDArray[np.int32], degrees: NDArray[np.int32], seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Neighbour - node for a sample of links, and (row two links away) - node beside each.

    Of two links the nearer is taken: codes must tell near neighbours apart, not far clusters.
    """
    nodes = np.flatnonzero(degrees)
    if len(nodes) == 0:
        return (np.zeros((1, records.inner), np.float32),) * 2
    rng = np.random.default_rng(seed)
    nodes = rng.choice(nodes, SAMPLE)

    def step(rows: NDArray[Any]) -> NDArray[Any]:
        counts = np.maximum(degrees[rows], 1)
        return np.where(degrees[rows] > 0, links[rows, rng.integers(0, counts)], rows)

    def nearer(rows: NDArray[Any]) -> NDArray[Any]:
        here, one, two = records.decode(rows), step(rows), step(rows)
        first = np.linalg.norm(records.decode(one) - here, axis=1)
        return np.where(np.linalg.norm(records.decode(two) - here, axis=1) < first, two, one)

    center = records.decode(nodes)
    near, far = nearer(nodes), nearer(nearer(nodes))
    return records.decode(near) - center, records.decode(far) - center
