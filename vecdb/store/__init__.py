"""Durability: files and lock, write-ahead log, memtable, manifest, snapshots, recovery.

A change goes ``writer`` -> ``record`` -> ``wal`` -> ``state`` (``memtable``) -> ``snapshot``; what
has gathered in a memtable becomes a segment by a ``commit``, which publishes a ``manifest``.
``loading`` and ``recovery`` are the way back, ``compaction`` keeps segments few and indexed.
``store`` is the face that the layers above see; ``verifying``, ``repairing`` and ``salvage`` are
for bad days.
"""

from vecdb.store.repairing import repair
from vecdb.store.snapshot import Part, Snapshot
from vecdb.store.store import Store
from vecdb.store.verifying import verify

__all__ = ["Part", "Snapshot", "Store", "repair", "verify"]
