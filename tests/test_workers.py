from __future__ import annotations

import os
import threading
import time

import pytest

from vecdb.errors import ArgumentError, ClosedError
from vecdb.workers import Workers


def test_the_queue_takes_two_tasks_a_thread_and_no_more() -> None:
    workers, running, gate = Workers(2), threading.Barrier(3), threading.Event()
    occupied = workers._offer(lambda: (running.wait(10), gate.wait(10)), 2)
    running.wait(10)
    queued = workers._offer(int, 9)  # of which the queue takes four
    assert len(queued) == 4
    assert workers._offer(int, 1) == []
    gate.set()
    assert [future.result(timeout=10) for future in queued] == [0] * 4
    for future in occupied:
        future.result(timeout=10)
    workers.close()


def test_a_thread_starts_when_none_is_free_and_not_before() -> None:
    workers, gate = Workers(3), threading.Event()
    for _ in range(4):
        workers._offer(int, 1)[0].result(timeout=10)
        while workers._queue.unfinished_tasks:  # its thread is free a moment later
            time.sleep(0.001)
    assert len(workers._started) == 1
    occupied = [workers._offer(lambda: gate.wait(10), 1)[0] for _ in range(5)]
    assert len(workers._started) == 3
    gate.set()
    assert all(future.result(timeout=10) for future in occupied)
    workers.close()


def test_work_that_no_thread_could_be_started_for_is_not_done_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers, calls = Workers(2), []
    with monkeypatch.context() as then:
        then.setattr(threading.Thread, "start", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            workers.each(calls.append, range(2))
    workers.each(calls.append, range(10, 12))
    workers.close()
    assert sorted(calls) == [10, 11]


def test_shared_work_is_done_once_by_whoever_is_free() -> None:
    workers = Workers(3)
    done: list[tuple[int, str]] = []

    def task(i: int) -> None:
        done.append((i, threading.current_thread().name))
        time.sleep(0.0001)

    workers.each(task, range(1000))
    assert sorted(i for i, _ in done) == list(range(1000))
    assert 1 < len({name for _, name in done}) <= 3  # the caller is one of the three
    workers.close()


def test_shared_work_waits_for_nobody_who_has_not_begun() -> None:
    workers, running, gate = Workers(2), threading.Barrier(3), threading.Event()

    def busy() -> None:
        running.wait(10)
        gate.wait(10)

    workers._offer(busy, 2)
    running.wait(10)
    calls: list[int] = []
    for _ in range(6):  # the queue has room for four
        workers.each(calls.append, range(2))
    gate.set()
    workers.close()
    assert calls == [0, 1] * 6  # nor is what was offered called later


def test_an_error_in_shared_work_reaches_the_caller_after_all_have_ended() -> None:
    workers, both = Workers(2), threading.Barrier(2)
    for failing in ("the caller", "the worker"):
        begun, ended = [], []

        def task(
            i: int, failing: str = failing, begun: list[int] = begun, ended: list[int] = ended
        ) -> None:
            begun.append(i)
            both.wait(10)
            mine = threading.current_thread() is threading.main_thread()
            if mine is (failing == "the caller"):
                raise ZeroDivisionError
            time.sleep(0.05)
            ended.append(i)

        with pytest.raises(ZeroDivisionError):
            workers.each(task, range(9))
        assert sorted(begun) == [0, 1]  # and nothing after the error
        assert len(ended) == 1
    workers.close()


def test_a_pool_of_one_calls_each_from_its_own_worker() -> None:
    workers = Workers(1)
    calls: list[int] = []
    (future,) = workers._offer(lambda: workers.each(calls.append, range(8)), 1)
    future.result(timeout=10)
    assert calls == list(range(8))
    workers.close()


def test_a_closed_pool_refuses_and_leaves_no_thread() -> None:
    workers = Workers(4)
    futures = workers._offer(threading.current_thread, 8)
    ran_on = {future.result() for future in futures}
    workers.close()
    workers.close()
    assert ran_on
    assert not any(thread.is_alive() for thread in ran_on)
    with pytest.raises(ClosedError):
        workers.each(int, range(2))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork with threads is what is tested
def test_a_forked_child_starts_its_own_threads() -> None:
    workers = Workers(2)
    workers._offer(int, 1)[0].result(timeout=10)
    child = os.fork()
    if child == 0:
        os._exit(0 if workers._offer(lambda: 7, 1)[0].result(timeout=10) == 7 else 1)
    assert os.waitpid(child, 0)[1] == 0
    workers.close()


@pytest.mark.parametrize("threads", [0, -1, 1.5])
def test_a_pool_needs_a_worker(threads: int) -> None:
    with pytest.raises(ArgumentError, match="threads"):
        Workers(threads)
