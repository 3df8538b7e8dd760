from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

import pytest

from vecdb import turns as module
from vecdb.turns import MOST, Turns


def double(items: list[int]) -> list[int]:
    return [2 * item for item in items]


def in_threads(count: int, task: Any) -> None:
    threads = [threading.Thread(target=task, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()


def wait_for(there: Any) -> None:
    for _ in range(5000):
        if there():
            return
        time.sleep(0.001)
    raise AssertionError("it did not come")


class Slow:
    """Work that blocks until it is let go, and says what it was given."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.calls: list[list[int]] = []

    def __call__(self, items: list[int]) -> list[int]:
        self.calls.append(items)
        assert self.gate.wait(60)
        return double(items)


def test_every_thread_gets_the_result_of_its_own_item() -> None:
    turns = Turns(2)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    results: dict[int, list[int]] = {}

    def ask(me: int) -> None:
        results[me] = [turns.do(double, 1000 * me + i) for i in range(300)]

    try:
        in_threads(8, ask)
    finally:
        sys.setswitchinterval(before)
    for me, got in results.items():
        assert got == [2 * (1000 * me + i) for i in range(300)]
    assert len(turns._free) == 2
    assert not turns._waiting


def test_what_waits_is_done_in_one_call_and_no_more_work_at_once_than_there_are_turns() -> None:
    turns, slow, results = Turns(1), Slow(), {}

    def ask(me: int) -> None:
        results[me] = turns.do(slow, me)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(MOST + 3)]
    threads[0].start()
    wait_for(lambda: slow.calls)
    for thread in threads[1:]:
        thread.start()
    wait_for(lambda: len(turns._waiting) == MOST + 2)
    assert len(slow.calls) == 1
    slow.gate.set()
    for thread in threads:
        thread.join(timeout=60)
    assert results == {i: 2 * i for i in range(MOST + 3)}
    assert [len(call) for call in slow.calls] == [1, MOST, 2]


def test_work_of_another_kind_has_a_call_of_its_own() -> None:
    turns, slow = Turns(1), Slow()
    results: dict[int, Any] = {}
    kinds = [slow, double, lambda items: [-item for item in items], double]

    def ask(me: int) -> None:
        results[me] = turns.do(kinds[me], me)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for count, thread in enumerate(threads):
        thread.start()
        wait_for(lambda count=count: slow.calls and len(turns._waiting) == count)
    slow.gate.set()
    for thread in threads:
        thread.join(timeout=60)
    assert results == {0: 0, 1: 2, 2: -2, 3: 6}


def test_an_error_reaches_the_thread_whose_item_it_is() -> None:
    turns, slow = Turns(1), Slow()
    results: dict[int, Any] = {}

    def picky(items: list[int]) -> list[int]:
        if 3 in items:
            raise ValueError("not three")
        return double(items)

    def ask(me: int) -> None:
        try:
            results[me] = turns.do(picky if me else slow, me)
        except ValueError as error:
            results[me] = str(error)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
    threads[0].start()
    wait_for(lambda: slow.calls)
    for thread in threads[1:]:
        thread.start()
    wait_for(lambda: len(turns._waiting) == 5)
    slow.gate.set()
    for thread in threads:
        thread.join(timeout=60)
    assert results == {0: 0, 1: 2, 2: 4, 3: "not three", 4: 8, 5: 10}


def test_a_thread_whose_turn_does_not_come_works_without_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    turns = Turns(1)
    turns._free.clear()  # as if a thread had died with its turn
    assert turns.do(double, 4) == 8
    assert not turns._waiting


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_finds_all_turns_free() -> None:
    turns, slow = Turns(1), Slow()
    thread = threading.Thread(target=turns.do, args=(slow, 1))
    thread.start()
    wait_for(lambda: slow.calls)
    child = os.fork()
    if child == 0:
        os._exit(0 if turns._free and turns.do(double, 5) == 10 else 1)
    assert os.waitpid(child, 0)[1] == 0
    slow.gate.set()
    thread.join(timeout=60)
