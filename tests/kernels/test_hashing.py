"""The compiled loop over blocks gives the xxhash package's own hashes."""

from __future__ import annotations

import numpy as np
import xxhash

from vecdb.kernels import hashing, reference

DATA = np.random.default_rng(0).integers(0, 256, 9_000, np.uint8)
LENGTHS = [0, 1, 16, 17, 128, 129, 240, 241, 1024, 4096, 8192]


def test_digests_are_xxh3_of_each_piece_whatever_its_length() -> None:
    starts = np.arange(len(LENGTHS)) * 7
    lengths = np.array(LENGTHS, np.int64)
    expected = [
        xxhash.xxh3_64_intdigest(DATA[at : at + n].data)
        for at, n in zip(starts.tolist(), LENGTHS, strict=True)
    ]
    for digests in (hashing.digests, reference.digests):
        assert digests(DATA.ctypes.data + starts, lengths).tolist() == expected
        assert not len(digests(starts[:0], lengths[:0]))
