"""The one place that says how vecdb's kernels are compiled, and for which CPU.

Every kernel has its signature and is cached on disk, in the folder that the gate
(:mod:`vecdb.kernels`) chooses. Those that Python calls, the entries, are compiled when their module
is imported; the others when an entry first needs them. A cached entry contains them: a process
has its kernels in .77 s, not in 1.1 (``python -m bench.compile``). All but one
(:func:`vecdb.graph.traverse.search_held`) release the GIL. ``fastmath`` leaves
out ``nnan`` and ``ninf``: a NaN must stay a NaN, because the code that ranks distances refuses it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba
from numba.core import config
from numba.core.compiler_lock import global_compiler_lock

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
    *signatures: Any, entry: bool = False, inline: bool = False, nogil: bool = True
) -> Callable[[Callable[..., Any]], Any]:
    """Compile a kernel: nogil, cached, NaN-safe fast math; no signature means "when called".

    `entry` says that Python calls it.

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
        if entry:
            _settle(dispatcher, signatures)
        elif signatures:
            _settle_when_needed(dispatcher, signatures)
        return dispatcher

    return compiled


def _settle(dispatcher: Any, signatures: tuple[Any, ...]) -> None:
    for signature in signatures:
        dispatcher.compile(signature)
    dispatcher.disable_compile()


def _settle_when_needed(dispatcher: Any, signatures: tuple[Any, ...]) -> None:
    """Put off compiling until a kernel that is being compiled calls this one, or Python does."""

    def template(args: Any, kws: Any) -> Any:
        settle()
        return dispatcher.get_call_template(args, kws)

    def called(*_: Any) -> Any:
        settle()
        return dispatcher  # what is to be called then

    def settle() -> None:
        with global_compiler_lock:  # the others that need it wait
            if vars(dispatcher).pop("get_call_template", None) is not None:
                _settle(dispatcher, signatures)

    dispatcher.get_call_template = template
    dispatcher._compile_for_args = called
