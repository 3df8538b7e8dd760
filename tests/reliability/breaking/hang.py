"""A hang is an error, with the traceback of every thread, and not a test that never ends."""

from __future__ import annotations

import contextlib
import faulthandler
import signal
from collections.abc import Iterator


class Hang(BaseException):
    """Nothing that a handler of errors may take for one of its own."""


@contextlib.contextmanager
def hanging_is_an_error(seconds: int = 5) -> Iterator[None]:
    """Raise Hang in this thread, the main one, when it has not come back by then."""

    def give_up(*_: object) -> None:
        faulthandler.dump_traceback(all_threads=True)
        raise Hang(f"for {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
