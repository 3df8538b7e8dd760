"""What a fork waits for: steps that a child can't end, because only the thread that forks lives on.

A child that is born while another thread imports a module inherits that module's lock as held, and
waits for ever when it wants the module itself. So what vecdb imports late, often in a thread, is
first imported by :func:`load`.
"""

from __future__ import annotations

import importlib
import logging  # noqa: F401 - forks take its lock too: after ours only when it registers before us
import os
import threading

__all__ = ["load", "no_fork"]

no_fork = threading.RLock()  # held by whoever must not be cut in two by a fork

os.register_at_fork(
    before=no_fork.acquire, after_in_parent=no_fork.release, after_in_child=no_fork.release
)


def load(name: str) -> None:
    """Import the module `name`; a fork in another thread waits until that is done."""
    with no_fork:
        importlib.import_module(name)
