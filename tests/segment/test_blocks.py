"""The disk is asked for blocks in runs, and only for what memory does not hold."""

from __future__ import annotations

import numpy as np
import pytest

from vecdb.segment import blocks as module
from vecdb.segment.blocks import fetch

KIB = 1 << 10


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What is asked for of the disk, (address, length) each; memory holds what is below 1 MiB."""
    runs: list[tuple[int, int]] = []
    monkeypatch.setattr(module, "in_memory", lambda address: address < KIB * KIB)
    monkeypatch.setattr(module, "will_need", lambda *run: runs.append(run))
    return runs


def listed(*places: int, length: int = KIB) -> np.ndarray:
    """Blocks of a KiB that begin at some KiB."""
    return np.array([[KIB * place, length, 0, 0] for place in places], np.int64).reshape(-1, 4)


def test_blocks_that_memory_holds_are_not_asked_for(asked: list[tuple[int, int]]) -> None:
    fetch(listed())
    fetch(listed(*range(0, 1000, 7)))
    assert asked == []


def test_what_lies_between_two_near_blocks_is_read_with_them(asked: list[tuple[int, int]]) -> None:
    fetch(listed(2000, 2001, 2010, 2075, 2140, 2206, 3000))
    assert asked == [(2000 * KIB, 141 * KIB), (2206 * KIB, KIB), (3000 * KIB, KIB)]


def test_blocks_of_another_file_which_may_lie_before_are_a_run_of_their_own(
    asked: list[tuple[int, int]],
) -> None:
    fetch(np.concatenate([listed(5000, 5001), listed(4000), listed(4010, length=37)]))
    assert asked == [(5000 * KIB, 2 * KIB), (4000 * KIB, 10 * KIB + 37)]


def test_a_few_blocks_that_memory_does_not_hold_among_many_are_found(
    asked: list[tuple[int, int]],
) -> None:
    fetch(np.concatenate([listed(*range(0, 900, 9)), listed(*range(2000, 2030))]))
    assert (2000 * KIB, 30 * KIB) in asked
