from __future__ import annotations

import os
import threading
import time

import pytest

from vecdb.errors import ArgumentError, ClosedError
from vecdb.workers import Workers


def test_run_gives_results_in_order() -> None:
    workers = Workers(3)
    assert workers.run(lambda i: i * i, 50) == [i * i for i in range(50)]
    workers.close()


def test_a_nested_run_does_not_deadlock_a_pool_of_one() -> None:
    workers = Workers(1)
    done = workers.submit(lambda: workers.run(lambda i: i, 8)).result(timeout=10)
    assert done == list(range(8))
    workers.close()


def test_the_queue_is_bounded_and_a_fast_caller_waits() -> None:
    workers = Workers(1)
    gate = threading.Event()
    for _ in range(3):  # one running, two queued
        workers.submit(gate.wait)
    late = threading.Thread(target=workers.submit, args=(int,))
    while workers._queue.qsize() < 2:
        time.sleep(0.001)
    late.start()
    late.join(timeout=0.1)
    assert late.is_alive()
    gate.set()
    late.join(timeout=10)
    assert not late.is_alive()
    workers.close()


def test_an_error_in_one_task_reaches_the_caller_after_all_have_ended() -> None:
    workers = Workers(2)
    ended = []

    def task(i: int) -> None:
        if i == 0:
            raise ZeroDivisionError
        time.sleep(0.01)
        ended.append(i)

    with pytest.raises(ZeroDivisionError):
        workers.run(task, 4)
    assert sorted(ended) == [1, 2, 3]
    assert workers.run(lambda i: i, 2) == [0, 1]
    workers.close()


def test_a_closed_pool_refuses_and_leaves_no_thread() -> None:
    workers = Workers(4)
    futures = [workers.submit(threading.current_thread) for _ in range(8)]
    ran_on = {future.result() for future in futures}
    workers.close()
    workers.close()
    assert ran_on
    assert not any(thread.is_alive() for thread in ran_on)
    with pytest.raises(ClosedError):
        workers.submit(int)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork with threads is what is tested
def test_a_forked_child_starts_its_own_threads() -> None:
    workers = Workers(2)
    workers.run(lambda i: i, 4)
    child = os.fork()
    if child == 0:
        os._exit(0 if workers.run(lambda i: i + 1, 4) == [1, 2, 3, 4] else 1)
    assert os.waitpid(child, 0)[1] == 0
    workers.close()


@pytest.mark.parametrize("threads", [0, -1, 1.5])
def test_a_pool_needs_a_worker(threads: int) -> None:
    with pytest.raises(ArgumentError, match="threads"):
        Workers(threads)
