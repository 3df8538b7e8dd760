"""What a fork waits for: steps that a child can't end, because only the thread that forks lives on.

A child that is born while another thread imports a module inherits that module's lock as held, and
waits for ever when it wants the module itself. So what vecdb imports late, often in a thread, is
first imported by :func:`load`.
"""

from __future__ import annotations

import contextlib
import importlib
import logging  # noqa: F401 - forks take its lock too: after ours only when it registers before us
import os
import sys
import threading
import time
from functools import partial

from vecdb.ending import start

__all__ = ["load", "load_in_time", "no_fork", "patience"]

no_fork = threading.RLock()  # held by whoever must not be cut in two by a fork

os.register_at_fork(
    before=no_fork.acquire, after_in_parent=no_fork.release, after_in_child=no_fork.release
)


def load(name: str) -> None:
    """Import the module `name`; a fork in another thread waits until that is done."""
    if name in _loaded:
        return
    with no_fork:
        importlib.import_module(name)
        _loaded.add(name)


_loaded: set[str] = set()
_loading: dict[tuple[str, int], threading.Thread] = {}  # by name and process


def load_in_time(name: str, deadline_ns: int) -> bool:
    """Import the module `name` on a thread of its own, and whether that was done by a time of
    ``time.monotonic_ns``; if not, the thread goes on for the next who wants it."""
    if name in _loaded:
        return True
    key = name, os.getpid()
    thread = _loading.get(key)
    if thread is None:
        thread = _loading[key] = start("load", partial(_load_quietly, name))
    if thread.is_alive():
        thread.join(patience(deadline_ns))
    return not thread.is_alive()


def patience(deadline_ns: int) -> float:
    """Seconds to wait for another thread, so as to be back by a time of ``time.monotonic_ns``: that
    thread may keep the interpreter for a switch interval, and half of the time is always waited."""
    left = max(0, deadline_ns - time.monotonic_ns()) / 1e9
    return left - min(left / 2, sys.getswitchinterval())


def _load_quietly(name: str) -> None:
    with contextlib.suppress(Exception):  # who imports it next meets the error
        load(name)
