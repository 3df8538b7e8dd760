"""The leaves that this CPU runs: AVX-512 where it has it, the portable twins elsewhere."""

from __future__ import annotations

from vecdb.kernels.jit import AVX512

if AVX512:
    from vecdb.kernels.avx512 import (
        below,
        distance,
        distance4,
        dot_codes,
        estimate,
        fill_table,
        peak,
        pool_insert,
        pool_next,
        prefetch_bytes,
        project,
        quantize,
        trailing_zeros,
    )
else:
    from vecdb.kernels.portable import (
        below,
        distance,
        distance4,
        dot_codes,
        estimate,
        fill_table,
        peak,
        pool_insert,
        pool_next,
        prefetch_bytes,
        project,
        quantize,
        trailing_zeros,
    )

__all__ = [
    "below",
    "distance",
    "distance4",
    "dot_codes",
    "estimate",
    "fill_table",
    "peak",
    "pool_insert",
    "pool_next",
    "prefetch_bytes",
    "project",
    "quantize",
    "trailing_zeros",
]
