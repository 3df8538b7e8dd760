from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb

hnswlib = pytest.importorskip("hnswlib", reason="hnswlib is an optional extra")


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@pytest.mark.parametrize("from_file", [True, False])
def test_an_hnswlib_index_becomes_a_collection_with_its_labels(
    tmp_path: Path, metric: Any, from_file: bool
) -> None:
    rows = np.random.default_rng(0).standard_normal((200, 12)).astype(np.float32)
    index = hnswlib.Index(space=metric, dim=12)
    index.init_index(max_elements=200)
    index.add_items(rows, np.arange(1000, 1200))
    index.mark_deleted(1007)
    source: Any = index
    if from_file:
        source = tmp_path / "index.bin"
        index.save_index(str(source))
    with vecdb.from_hnswlib(source, tmp_path / "a.vdb", dim=12, metric=metric) as col:
        assert len(col) == 199
        assert 1007 not in col
        index.set_ef(200)
        labels, distances = index.knn_query(rows[:5], k=4)
        hits = col.search(rows[:5], k=4)
        np.testing.assert_allclose(
            hits.distances, distances - (metric == "ip"), rtol=1e-3, atol=1e-5
        )
        assert hits.ids.tolist() == labels.tolist()


def test_a_file_needs_dim_and_metric_and_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dim= and metric="):
        vecdb.from_hnswlib(tmp_path / "x.bin", tmp_path / "a.vdb")
    with pytest.raises(vecdb.NotFoundError, match=r"x\.bin"):
        vecdb.from_hnswlib(tmp_path / "x.bin", tmp_path / "a.vdb", dim=3, metric="l2")
