"""The one place that says how vecdb's kernels are compiled, and for which CPU.

Every kernel is compiled when its module is imported (explicit signatures), releases the GIL (but
for one, :func:`vecdb.graph.traverse.search_held`), and is cached on disk in the folder that the
gate (:mod:`vecdb.kernels`) chooses. ``fastmath`` leaves
out ``nnan`` and ``ninf``: a NaN must stay a NaN, because the code that ranks distances refuses it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba
from numba.core import config

from vecdb.kernels import cache_folder

__all__ = ["AVX512", "FOLDER", "INTERPRETED", "features", "jit"]

FASTMATH = {"reassoc", "contract", "arcp", "nsz", "afn"}
NEEDED = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512vbmi", "avx512vnni"})

INTERPRETED = bool(config.DISABLE_JIT)
"""True under ``NUMBA_DISABLE_JIT=1``, where the kernels run as plain Python (tests only)."""

FOLDER = cache_folder()
"""Where compiled kernels are kept; None compiles them in every process."""


def features() -> frozenset[str]:
    """Names of the CPU features that numba compiles for (``NUMBA_CPU_FEATURES`` is respected)."""
    if config.CPU_FEATURES is not None:
        return frozenset(f[1:] for f in config.CPU_FEATURES.split(",") if f.startswith("+"))
    if config.CPU_NAME not in {None, "host"}:
        return frozenset()
    return frozenset(name for name, there in llvm.get_host_cpu_features().items() if there)


AVX512 = not INTERPRETED and features() >= NEEDED
"""True when the kernels are the AVX-512 ones; otherwise their portable twins are used."""


def jit(
    *signatures: Any, inline: bool = False, nogil: bool = True
) -> Callable[[Callable[..., Any]], Any]:
    """Compile a kernel: nogil, cached, NaN-safe fast math; no signature means "when called".

    `inline` makes LLVM put the function into its callers, whatever its size: worth it for leaves
    of some ten nanoseconds.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(
            nogil=nogil, fastmath=FASTMATH, error_model="numpy", forceinline=inline
        )(function)
        if INTERPRETED:
            return dispatcher
        if FOLDER is not None:
            before, config.CACHE_DIR = config.CACHE_DIR, FOLDER  # ours alone, not the user's
            try:
                dispatcher.enable_caching()
            finally:
                config.CACHE_DIR = before
        for signature in signatures:
            dispatcher.compile(signature)
        if signatures:
            dispatcher.disable_compile()
        return dispatcher

    return compiled
