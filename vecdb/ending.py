"""What the end of a process waits for: threads of vecdb that may be inside Arrow.

A thread in the background that is not told would go on while the process is taken down around it;
Arrow's code then at times ends the process with an abort: so ended processes while columns were
read behind searches that had timed out.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable

__all__ = ["is_near", "start"]

_running: dict[threading.Thread, Callable[[], None]] = {}  # and how each is told


def start(
    name: str, work: Callable[[], None], stop: Callable[[], None] = lambda: None
) -> threading.Thread:
    """Have `work` done by a thread, ``vecdb-<name>``, that the end of the process waits for.

    Parameters
    ----------
    stop : callable, optional
        Tells the thread that the end has come. Work that does not take long needs none; work that
        waits for its turn asks :func:`is_near`.
    """

    def run() -> None:
        try:
            work()
        finally:
            _running.pop(threading.current_thread(), None)

    thread = threading.Thread(target=run, name=f"vecdb-{name}", daemon=True)
    _running[thread] = stop
    try:
        thread.start()
    except BaseException:
        del _running[thread]
        raise
    return thread


def is_near() -> bool:
    """Whether the process ends: its exit handlers run, or are about to."""
    return not threading.main_thread().is_alive()


def _wait() -> None:
    threads = dict(_running)
    for stop in threads.values():
        stop()
    for thread in threads:
        thread.join()


atexit.register(_wait)
os.register_at_fork(after_in_child=_running.clear)  # the threads are not there
