"""Who takes the interpreter next: a search lets a thread go first that comes back from the system.

A thread that calls the system lets go of the interpreter, and those that search take it. They let
go themselves at every kernel, but for microseconds, and have it again before the other has woken
up: a commit of a dozen calls waited for each of them, 6 ms beside two threads that searched
(`python -m bench.swaps`), where it takes one alone. So a search that finds a thread in a short call
sleeps first, as briefly as the system can, and a few times at most.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["brief", "give_way"]

P = ParamSpec("P")
T = TypeVar("T")
_PAUSE = 1e-6  # seconds: Linux makes 60 us of it
_PAUSES = 4

# idents of the threads that are in a call, or wait to come back from one; what an interrupt leaves
# behind goes with the thread's next call
_away: set[int] = set()
os.register_at_fork(after_in_child=_away.clear)  # the other threads are not there


def brief(call: Callable[P, T]) -> Callable[P, T]:
    """A call of the system that takes microseconds, and after which searches give way."""

    @functools.wraps(call)
    def inner(*args: P.args, **kwargs: P.kwargs) -> T:
        me = threading.get_ident()
        _away.add(me)
        try:
            return call(*args, **kwargs)
        finally:
            _away.discard(me)

    return inner


def give_way() -> None:
    """Let a thread go first that is in a short call of the system; else at once."""
    if _away:
        for _ in range(_PAUSES):
            time.sleep(_PAUSE)
            if not _away:
                break
