"""Searches let a thread go first that is in a short call of the system."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import turns


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of every pause that a search makes."""
    found: list[float] = []
    monkeypatch.setattr(turns, "time", type("Time", (), {"sleep": staticmethod(found.append)}))
    return found


def test_a_search_gives_way_only_while_a_thread_is_in_a_short_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    from vecdb.segment import fs

    inside, go_on = threading.Event(), threading.Event()

    def write(*args: Any) -> int:
        inside.set()
        assert go_on.wait(60)
        return os.writev(*args)

    vectors = np.eye(8, dtype=np.float32)
    with vecdb.create(tmp_path / "store", 8, sync="os") as col:
        col.add(vectors)
        col.search(vectors[0])
        assert not pauses
        monkeypatch.setattr(fs.calls, "writev", turns.brief(write), raising=False)
        adding = threading.Thread(target=col.add, args=(vectors,))
        adding.start()
        assert inside.wait(60)
        assert len(col.search(vectors[0])) == 8  # of what was there before
        assert len(pauses) == turns._PAUSES  # the call takes long: then it is not waited for
        go_on.set()
        adding.join()
        monkeypatch.delattr(fs.calls, "writev")
        assert len(col.search(vectors[0], k=16)) == 16
        assert len(pauses) == turns._PAUSES


def test_a_search_pauses_no_more_once_the_thread_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    back, paused = threading.Event(), []

    def sleep(seconds: float) -> None:
        paused.append(seconds)
        back.set()
        calling.join()

    monkeypatch.setattr(turns, "time", type("Time", (), {"sleep": staticmethod(sleep)}))
    inside = threading.Event()

    def call() -> None:
        inside.set()
        assert back.wait(60)

    calling = threading.Thread(target=turns.brief(call))
    calling.start()
    assert inside.wait(60)
    turns.give_way()
    assert len(paused) == 1


def test_a_call_that_fails_ends_the_waiting(pauses: list[float]) -> None:
    with pytest.raises(FileNotFoundError):
        turns.brief(os.unlink)("/there/is/no/such/file")
    turns.give_way()
    assert not pauses


def test_what_an_interrupt_left_behind_goes_with_the_next_call(pauses: list[float]) -> None:
    turns._away.add(threading.get_ident())  # as if it had come between the call and its end
    turns.brief(os.getpid)()
    turns.give_way()
    assert not pauses


def test_the_calls_of_a_commit_are_among_them() -> None:
    from vecdb.segment import fs

    names = ("open", "writev", "rename", "unlink", "fsync", "fdatasync")
    brief = {name for name in names if hasattr(getattr(fs.Calls, name), "__wrapped__")}
    assert brief == {"open", "writev", "rename", "unlink"}


def test_nobody_is_waited_for_in_a_forked_child() -> None:
    def fork() -> int:
        child = os.fork()
        if child == 0:
            os._exit(len(turns._away))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert turns.brief(fork)() == 0
    assert not turns._away
