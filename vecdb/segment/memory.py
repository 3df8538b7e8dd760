"""What memory allows: how large a segment may grow, whose graph is built in memory."""

from __future__ import annotations

import contextlib
import functools
import io
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vecdb.schema import Schema

__all__ = ["build_bytes", "indexable_rows", "usable_memory"]

_GROUPS = "/sys/fs/cgroup"
_MINE = "/proc/self/cgroup"
_MOST = 1 << 16  # bytes of such a file
_SHARE = 0.5  # of the usable memory that a build may take


def indexable_rows(schema: Schema) -> int:
    """Rows of the largest segment whose graph is built in half of the usable memory."""
    return int(_SHARE * usable_memory()) // build_bytes(schema.dim, schema.index.M)


def build_bytes(dim: int, M: int) -> int:
    """Bytes that the build of a graph takes for each row, its result included.

    The record twice (alone and in the node's row; an eighth of them once more), 1.5 times the
    links, the projected row, codes of two bits for each dimension of each neighbour and three pairs
    of factors, 40 bytes of order and marks. Codes are one or two bits wide from 200 dimensions on;
    below that four bits of each would make it a third more.
    """
    degree = -(-2 * M // 32) * 32
    record = dim + 76
    return 17 * record // 8 + 6 * degree + 4 * dim + degree * (8 + dim // 4) + 8 * degree + 40


@functools.cache
def usable_memory() -> int:
    """Bytes of memory of the machine, or of the control group when that allows less; looked up
    once in a process."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in _limit_files():
        with contextlib.suppress(ValueError):  # "max", or no such file
            limits.append(int(_content(file)))
    return min(limits)


def _limit_files() -> list[str]:
    """The files that hold the memory limit of this process's group, of both versions."""
    found = []
    for line in _content(_MINE).splitlines():
        number, controllers, group = line.split(":", 2)
        place = group.strip("/")
        if number == "0":
            found += [f"{_GROUPS}/{place}/memory.max", f"{_GROUPS}/memory.max"]
        elif "memory" in controllers.split(","):
            found += [
                f"{_GROUPS}/memory/{place}/memory.limit_in_bytes",
                f"{_GROUPS}/memory/memory.limit_in_bytes",
            ]
    return found


def _content(file: str) -> str:
    """What a small file of the system's holds, "" when there is none. The first search waits for
    three or four of them: half the time of open() so, which asks for more and has a codec."""
    try:
        with io.FileIO(file) as raw:
            return (raw.read(_MOST) or b"").decode()
    except OSError:
        return ""
