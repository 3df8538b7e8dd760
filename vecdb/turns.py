"""Turns: many threads that ask at once are answered a few calls at a time.

A search takes some 20 us. Were every thread to search on its own, the interpreter's lock would be
handed over twice for each, which takes longer: eight threads on two cores gave fewer answers than
one. So only as many threads as there are cores work at once; what the others bring meanwhile waits
in a queue, and whoever takes the next turn does all of it that is of one kind in a single call
(flat combining: Hendler, Incze, Shavit & Tzafrir, SPAA 2010).
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["Turns"]

MOST = 16  # items done in one call: what comes later need not wait for more
PATIENCE = 1.0  # seconds in a queue, after which a thread works without a turn


class Turns:
    """At most `width` threads work at once; items that wait are done together.

    Every step on the two deques is atomic, so no lock is held while somebody works, and a thread
    that finds a turn free pays .2 us for it. A forked child begins with all turns free.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        self._free: deque[None] = deque([None] * self._width)
        self._waiting: deque[_Waiter] = deque()

    def do(self, work: Callable[[list[Any]], list[Any]], item: Any) -> Any:
        """``work([item])[0]``, perhaps as part of one call for several items.

        `work` gets up to 16 items of callers that gave an equal `work`, and gives as many results.
        When it fails, every item of the call is tried alone, in its own thread.
        """
        if not self._waiting:
            try:
                self._free.pop()
            except IndexError:
                pass
            else:
                try:
                    return work([item])[0]
                finally:
                    self._leave()
        me = _Waiter(work, item)
        self._waiting.append(me)
        try:
            self._wait(me)
        except BaseException:
            self._wake_next()  # the turn that this thread may have been woken for
            raise
        return work([item])[0] if me.failed else me.result

    def _wait(self, me: _Waiter) -> None:
        """Sleep until `me` is done, or take a turn and do what is waiting."""
        while not me.done:
            try:
                self._free.pop()
            except IndexError:
                if not me.sleep():
                    with contextlib.suppress(ValueError):  # it is being done just now
                        self._waiting.remove(me)
                        me.failed = me.done = True
            else:
                try:
                    self._serve()
                finally:
                    self._leave()

    def _serve(self) -> None:
        """Do the first waiting item and those of its kind behind it."""
        batch: list[_Waiter] = []
        with contextlib.suppress(IndexError):
            while len(batch) < MOST:
                following = self._waiting.popleft()
                if batch and following.work != batch[0].work:
                    self._waiting.appendleft(following)
                    break
                batch.append(following)
        try:
            if batch:
                results = batch[0].work([each.item for each in batch])
                for each, result in zip(batch, results, strict=True):
                    each.result = result
        except Exception:
            for each in batch:
                each.failed = True
        except BaseException:  # an interrupt is for this thread alone
            for each in batch:
                each.failed = True
            raise
        finally:
            for each in batch:
                each.done = True
                each.wake()

    def _leave(self) -> None:
        self._free.append(None)
        self._wake_next()

    def _wake_next(self) -> None:
        # after the turn is given back: who queues up later sees that it is free
        with contextlib.suppress(IndexError):
            self._waiting[0].wake()


class _Waiter:
    """A thread that waits, with what it brought."""

    __slots__ = ("_lock", "done", "failed", "item", "result", "work")

    def __init__(self, work: Callable[[list[Any]], list[Any]], item: Any) -> None:
        self.work = work
        self.item = item
        self.result: Any = None
        self.done = self.failed = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def sleep(self) -> bool:
        """Wait to be woken; False when nobody did for too long."""
        return self._lock.acquire(timeout=PATIENCE)

    def wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # it has not slept since it was woken last
            self._lock.release()


_all: weakref.WeakSet[Turns] = weakref.WeakSet()


def _after_fork() -> None:
    for turns in _all:
        turns._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
