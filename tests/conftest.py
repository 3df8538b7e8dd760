"""What all tests share."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def _refuse_the_network(event: str, args: tuple[Any, ...]) -> None:
    """Jupyter's kernels are connected within this machine; nothing else is connected at all."""
    if event in ("socket.connect", "socket.sendto"):
        host = args[1][0] if isinstance(args[1], tuple) else "localhost"
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = args[0]
    else:
        return
    if host not in (None, "", "localhost", "::1") and not str(host).startswith("127."):
        raise RuntimeError(f"a test reaches for {host}")


sys.addaudithook(_refuse_the_network)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """A process for each core that this one may use; on a single core, none beside it."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return cores if cores > 1 else 0


@pytest.fixture
def held() -> Callable[[Path], tuple[int, int]]:
    """``held(path)``: how many descriptors and mappings this process has of a folder or file."""

    def target(link: Path) -> str:
        try:
            return str(link.readlink())
        except FileNotFoundError:  # the descriptor of the listing itself
            return ""

    def count(path: Path) -> tuple[int, int]:
        if not Path("/proc/self/maps").exists():
            pytest.skip("needs /proc")
        gc.collect()
        links = [target(link) for link in Path("/proc/self/fd").iterdir()]
        maps = Path("/proc/self/maps").read_text().splitlines()
        return sum(link.startswith(str(path)) for link in links), sum(str(path) in m for m in maps)

    return count


@pytest.fixture
def data_folder() -> Path:
    """The folder of large real data sets, named by VECDB_DATA; a test that needs it is skipped
    without."""
    folder = os.environ.get("VECDB_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("VECDB_DATA names no folder of data sets")
    return Path(folder)
