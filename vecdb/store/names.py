"""Every file name of a store, built and recognised here and nowhere else.

========================  ==================================================================
``LOCK``                  flock of the writer, holds its pid; never removed
``MANIFEST-<generation>``  what the store consists of; the newest one counts
``wal-<number>.log``      records that no segment holds yet
``seg-<file>.vdb``        a segment
``idx-<file>.vdb``        graph and codes of a segment, derived
``del-<file>.vdb``        live bitmap of a segment
``torn-<number>.log``     the torn tail that recovery cut from ``wal-<number>.log``, kept aside
========================  ==================================================================

Numbers have at least eight digits, so that names sort. Names with ``.tmp`` behind are unfinished.
"""

from __future__ import annotations

import re

from vecdb.segment.format import Kind

__all__ = ["LOCK", "container", "is_own", "manifest", "number_of", "torn", "wal"]

LOCK = "LOCK"
_PREFIX = {Kind.SEGMENT: "seg", Kind.INDEX: "idx", Kind.TOMBSTONES: "del"}
_OWN = re.compile(
    r"(?P<kind>MANIFEST|wal|seg|idx|del|torn)-(?P<number>[0-9]{8,19})(?:\.vdb|\.log)?(?:\.tmp)?"
)


def manifest(generation: int) -> str:
    """Name of the manifest of a generation."""
    return f"MANIFEST-{generation:08d}"


def wal(number: int) -> str:
    """Name of a write-ahead log."""
    return f"wal-{number:08d}.log"


def torn(number: int) -> str:
    """Name of the file that keeps the torn tail of a write-ahead log."""
    return f"torn-{number:08d}.log"


def container(kind: Kind, number: int) -> str:
    """Name of a container file."""
    return f"{_PREFIX[kind]}-{number:08d}.vdb"


def is_own(name: str) -> bool:
    """Whether vecdb may have made a file of this name (and so may remove it)."""
    return _OWN.fullmatch(name) is not None


def number_of(name: str, kind: str) -> int | None:
    """The number in a finished file's name when it is of this kind (``MANIFEST``, ``wal``...)."""
    match = _OWN.fullmatch(name) if name.startswith(kind) else None
    if match is None or match["kind"] != kind or name.endswith(".tmp"):
        return None
    return int(match["number"])
