"""Figures about an open store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vecdb.segment.fs import Directory
    from vecdb.store.snapshot import Snapshot

__all__ = ["file_stats", "snapshot_stats"]

_KINDS = {"seg": "segments", "idx": "indexes", "del": "tombstones", "wal": "wal"}


def snapshot_stats(snapshot: Snapshot) -> dict[str, Any]:
    """What a snapshot holds: rows, segments, deleted rows, how much of it is indexed."""
    segments = [part for part in snapshot.parts if part.data.files]
    fresh = [part for part in snapshot.parts if not part.data.files]
    indexed = sum(part.live_rows for part in segments if part.data.indexed)
    return {
        "rows": snapshot.rows,
        "generation": snapshot.generation,
        "sequence": snapshot.sequence,
        "dtype": snapshot.schema.dtype,
        "segments": len(segments),
        "segments_indexed": sum(1 for part in segments if part.data.indexed),
        "indexed": indexed / snapshot.rows if snapshot.rows else 1.0,
        "tombstones": sum(part.data.rows - part.live_rows for part in snapshot.parts),
        "memtable_rows": sum(part.live_rows for part in fresh),
        "memtable_bytes": sum(part.data.nbytes for part in fresh),
    }


def file_stats(directory: Directory) -> dict[str, Any]:
    """What lies on disk: number of files, bytes in all and by kind."""
    sizes = {name: max(directory.size(name), 0) for name in directory.names()}
    by_kind = dict.fromkeys(_KINDS.values(), 0)
    by_kind["other"] = 0
    for name, size in sizes.items():
        by_kind[_KINDS.get(name.partition("-")[0], "other")] += size
    return {
        "files": len(sizes),
        "bytes": sum(sizes.values()),
        **{f"bytes_{kind}": size for kind, size in by_kind.items()},
    }
