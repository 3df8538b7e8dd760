"""Wanted recall: the beam that the calibration picks keeps what it promises on new queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.query import calibrate

ROWS, DIM, K = 12_000, 48, 10
RNG = np.random.default_rng(2)
BASIS = RNG.standard_normal((16, DIM))
ALL = (
    RNG.standard_normal((ROWS + 300, 16)) @ BASIS + RNG.standard_normal((ROWS + 300, DIM))
).astype(np.float32)
VECTORS, QUERIES = ALL[:ROWS], ALL[ROWS:]


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Any:
    vecdb.warmup()
    path: Path = tmp_path_factory.mktemp("calibrate") / "store"
    with vecdb.create(path, DIM) as made:
        made.add(VECTORS, metadata={"dice": RNG.random(ROWS)})
        made.optimize()
        yield made


@pytest.mark.parametrize("where", [None, "dice < 0.6", "dice < 0.02"])
@pytest.mark.parametrize("target", [0.8, 0.95, 0.99])
def test_new_queries_reach_the_wanted_recall(
    collection: Any, target: float, where: str | None
) -> None:
    found = collection.recall(K, queries=QUERIES, where=where, target_recall=target)
    assert found.recall >= target - 0.02


def test_more_recall_takes_a_wider_beam(collection: Any) -> None:
    beams = [
        collection.explain(QUERIES[0], target_recall=target).ef_search
        for target in (0.5, 0.9, 0.99, 0.9999)
    ]
    assert beams == sorted(beams)
    assert beams[0] < beams[-1]


def test_the_curve_is_measured_once_per_k(collection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = collection.search(QUERIES[0], target_recall=0.9).plan.ef_search
    monkeypatch.setattr(calibrate, "_measure", None)
    assert collection.search(QUERIES[1], target_recall=0.9).plan.ef_search == first
    with pytest.raises(TypeError):
        collection.search(QUERIES[0], k=11, target_recall=0.9)


def test_beams_between_the_measured_ones_are_interpolated(monkeypatch: pytest.MonkeyPatch) -> None:
    class Data:
        pass

    curve = np.array([16.0, 32.0, 64.0]), np.array([0.8, 0.9, 0.98])
    monkeypatch.setattr(calibrate, "_measure", lambda *_: curve)
    monkeypatch.setattr(calibrate, "_EASIER", 1.0)

    def beam(target: float) -> int:
        return calibrate.beam_for(data, "l2", K, target, None)  # type: ignore[arg-type]

    data: Any = Data()
    assert beam(0.5) == 16
    assert beam(0.85) == 24
    assert beam(0.94) == 48
    assert beam(0.99) == 128


@pytest.mark.parametrize("target", [0, 1, 1.5, -0.1, "high", True])
def test_a_target_that_is_no_share_is_refused(collection: Any, target: Any) -> None:
    with pytest.raises(vecdb.ArgumentError, match="between 0 and 1"):
        collection.search(QUERIES[0], target_recall=target)


def test_a_beam_and_a_target_exclude_each_other(collection: Any) -> None:
    with pytest.raises(vecdb.ArgumentError, match="no ef_search beside it"):
        collection.search(QUERIES[0], target_recall=0.9, ef_search=50)
