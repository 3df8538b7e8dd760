"""How much memory this process may use, and what is told the kernel of files that exceed it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vecdb.store.snapshot import Part

__all__ = ["advise", "usable_memory"]

_GROUPS = Path("/sys/fs/cgroup")
_SMALL = 1 << 30  # no machine that runs this has less: the limits need not be looked up


def advise(parts: Iterable[Part]) -> None:
    """Switch read-ahead off for the files of a store that exceeds memory.

    A search touches single rows. Read-ahead brings in 128 KiB around each, which pays as long as
    everything ends up in memory anyway, and else throws out what is needed.
    """
    mappings = [file.mapping for part in parts for file in part.data.files]
    total = sum(mapping.length for mapping in mappings)
    if total > _SMALL and total > usable_memory():
        for mapping in mappings:
            mapping.scatter()


def usable_memory() -> int:
    """Bytes of memory of the machine, or of the control group when that allows less."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in _limit_files():
        try:
            limits.append(int(file.read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(limits)


def _limit_files() -> list[Path]:
    """The files that hold the memory limit of this process's group, of both versions."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        number, controllers, group = line.split(":", 2)
        place = group.lstrip("/")
        if number == "0":
            found += [_GROUPS / place / "memory.max", _GROUPS / "memory.max"]
        elif "memory" in controllers.split(","):
            found += [
                _GROUPS / "memory" / place / "memory.limit_in_bytes",
                _GROUPS / "memory" / "memory.limit_in_bytes",
            ]
    return found
