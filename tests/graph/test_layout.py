"""The graph as arrays: mapped back unchanged, hostile arrays refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vecdb import graph

RNG = np.random.default_rng(3)
VECTORS = RNG.standard_normal((300, 40)).astype(np.float32)


@pytest.fixture(scope="module")
def built():
    return graph.build(VECTORS, "cosine", ef_construction=48)


def test_a_graph_mapped_from_its_file_answers_as_before(built, tmp_path):
    arrays = {}
    for name, array in built.arrays.items():
        array.tofile(tmp_path / name)
        arrays[name] = np.memmap(tmp_path / name, array.dtype, "r", shape=array.shape)
    meta = json.loads(json.dumps(built.meta))
    mapped = graph.Graph.from_arrays(arrays, meta, 300, 40)
    first, second = (
        graph.search(g, VECTORS, VECTORS[:20], 5, 32, metric="cosine") for g in (built, mapped)
    )
    np.testing.assert_array_equal(first.rows, second.rows)
    assert mapped.nbytes == built.nbytes
    assert mapped.reachable() == 300


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", 99), ("metric", "hamming"), ("entry", 300), ("entry", -1), ("degree", 0),
        ("degree", 33), ("degree", 1 << 30), ("bits", 3), ("dims", 0), ("dims", -16),
        ("dims", 1 << 40), ("radius", float("nan")), ("add_unit", "x"), ("res_unit", float("inf")),
        ("entry", True), ("dims", 41), ("levels", -1), ("levels", 0), ("levels", 1 << 40),
    ],
)  # fmt: skip
def test_a_number_out_of_range_is_refused(built, name, value):
    with pytest.raises(ValueError, match="graph"):
        graph.Graph.from_arrays(built.arrays, {**built.meta, name: value}, 300, 40)


@pytest.mark.parametrize(
    "name",
    ["rows", "mean", "matrix", "scales", "upper_rows", "upper_records", "upper_links"],
)
def test_a_section_of_a_wrong_shape_or_type_or_missing_is_refused(built, name):
    array = built.arrays[name]
    for wrong in (None, array[:-1], array.view(np.int8), array.astype(np.float64)):
        arrays = {**built.arrays, name: wrong}
        if wrong is None:
            del arrays[name]
        with pytest.raises(ValueError, match="graph"):
            graph.Graph.from_arrays(arrays, built.meta, 300, 40)


def test_links_outside_the_rows_never_leave_the_mapping(built):
    """They are refused at once, or passed over by the walk."""
    for bad in (300, -2, 2**31 - 1, -(2**31)):
        rows = built.arrays["rows"].copy()
        at = built.record
        rows[:, at : at + 128].view(np.int32)[:, ::3] = bad
        try:
            hostile = graph.Graph.from_arrays({**built.arrays, "rows": rows}, built.meta, 300, 40)
        except ValueError:
            continue
        found = graph.search(hostile, VECTORS, VECTORS[:5], 5, 64, metric="cosine")
        assert ((found.rows >= -1) & (found.rows < 300)).all()


def test_random_bytes_in_the_rows_harm_nothing(built):
    rows = np.random.default_rng(1).integers(0, 256, built.arrays["rows"].shape, dtype=np.uint8)
    at = built.record
    links = rows[:, at : at + 128].view(np.int32)
    links[:] = np.abs(links) % 300
    hostile = graph.Graph.from_arrays({**built.arrays, "rows": rows}, built.meta, 300, 40)
    found = graph.search(hostile, VECTORS, VECTORS[:20], 5, 64, metric="cosine")
    assert ((found.rows >= -1) & (found.rows < 300)).all()


def test_links_and_meta_have_the_documented_shapes(built):
    assert built.links().shape == (300, built.meta["degree"])
    assert (built.links() < 300).all()
    assert built.rows == 300
    assert built.dim == built.inner == 40


def test_more_coded_dimensions_than_a_small_row_has_are_refused():
    rows = np.random.default_rng(0).standard_normal((300, 20)).astype(np.float32)
    built = graph.build(rows, "l2", codes="4bit")
    dims = 2 * built.meta["dims"]
    wide = graph.layout.block_bytes(dims, 4) - graph.layout.block_bytes(built.meta["dims"], 4)
    padded, groups = -(-dims // 16), built.arrays["matrix"].shape[1]
    arrays = {
        **built.arrays,
        "rows": np.zeros((300, built.stride + wide), np.uint8),
        "matrix": np.zeros((padded, groups, 64), np.uint8),
        "scales": np.zeros(16 * padded, np.float32),
    }
    with pytest.raises(ValueError, match=f"{dims} coded dimensions of 20"):
        graph.Graph.from_arrays(arrays, {**built.meta, "dims": dims}, 300, 20)
