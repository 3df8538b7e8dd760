"""The fixed pool of threads that every parallel step of vecdb runs on.

Tasks are long (a batch of queries, a block of a graph build) and release the GIL. The queue in
front of the workers is bounded at twice their number; where it is full, the work is left to its
caller, so that no backlog grows. A pool belongs to the process that made it: in a forked child,
where the threads do not exist, it starts anew at its first use.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TypeVar

from vecdb.errors import ArgumentError, ClosedError, describe

__all__ = ["Workers", "cores"]

T = TypeVar("T")
_Task = tuple[Future[object], Callable[[], object]]


def cores() -> int:
    """Number of cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """A pool of `threads` worker threads with a queue of at most ``2 * threads`` tasks.

    Parameters
    ----------
    threads : int, optional
        Number of workers; the number of cores when not given. A thread starts when a task comes
        for which none is free.
    """

    def __init__(self, threads: int | None = None) -> None:
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise ArgumentError(
                describe(
                    "threads",
                    expected="an integer >= 1",
                    got=repr(threads),
                    fix="leave it out to use every core",
                )
            )
        self.threads = threads or cores()
        self._lock = threading.Lock()
        self._closed = False
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._queue: queue.Queue[_Task | None] = queue.Queue(maxsize=2 * self.threads)
        self._started: list[threading.Thread] = []

    def each(self, task: Callable[[T], object], items: Iterable[T]) -> None:
        """Call ``task(item)`` for all items, here and on the workers that are free meanwhile.

        The threads, this one among them, take one item after the other: who comes late does less,
        and nothing waits for workers that are busy with something else. On a worker itself it all
        happens here. An error is raised after all threads have ended; no item is begun after it.

        Raises
        ------
        ClosedError
            After :meth:`close`, where other threads could help.
        """
        todo = list(items)
        left = iter(todo)

        def work() -> None:
            try:
                for item in left:  # one step of a list's iterator is atomic
                    task(item)
            except BaseException:
                deque(left, maxlen=0)
                raise

        helpers = [] if self._is_worker() else self._offer(work, min(len(todo), self.threads) - 1)
        error: BaseException | None = None
        try:
            work()
        except BaseException as caught:  # the others still use the caller's arrays
            error = caught
        for helper in helpers:
            if not helper.cancel():
                error = helper.exception() or error
        if error is not None:
            raise error

    def _offer(self, work: Callable[[], object], times: int) -> list[Future[object]]:
        """The futures of what the queue has room for."""
        futures: list[Future[object]] = []
        try:
            for _ in range(times):
                self._enter()
                future: Future[object] = Future()
                try:
                    self._queue.put_nowait((future, work))
                except queue.Full:
                    break
                futures.append(future)
                self._have_one_free()  # the task is there: a new thread begins with it
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        return futures

    def close(self) -> None:
        """Finish the queued tasks and end the threads. Closing twice is fine."""
        if self._pid != os.getpid():  # there are no threads here, and a lost one may hold the lock
            self._closed = True
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            threads = self._started
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()

    def _is_worker(self) -> bool:
        return threading.current_thread() in self._started

    def _enter(self) -> None:
        """Begin anew in a forked child; raises ClosedError after :meth:`close`."""
        if self._pid != os.getpid():
            self._lock = threading.Lock()  # the parent's lock may have been held at the fork
            with self._lock:
                if self._pid != os.getpid() and not self._closed:
                    self._reset()
        if self._closed:
            raise ClosedError("the thread pool is closed. Fix: open the collection again")

    def _have_one_free(self) -> None:
        """Start a thread if all are busy and there may be one more."""
        if not self._may_start():
            return
        with self._lock:
            if self._may_start():
                name = f"vecdb-{len(self._started)}"
                thread = threading.Thread(target=_work, args=(self._queue,), name=name, daemon=True)
                self._started.append(thread)  # before it asks whether it is one of them
                try:
                    thread.start()
                except BaseException:
                    self._started.remove(thread)
                    raise

    def _may_start(self) -> bool:
        wanted = self._queue.unfinished_tasks > len(self._started)
        return wanted and len(self._started) < self.threads and not self._closed


def _work(tasks: queue.Queue[_Task | None]) -> None:
    while (task := tasks.get()) is not None:
        future, work = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work())
            except BaseException as error:  # handed to whoever waits for the result
                future.set_exception(error)
        del task, future, work  # keep no array alive while waiting
        tasks.task_done()
