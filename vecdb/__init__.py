"""vecdb: the embedded vector database for Python.

::

    import vecdb

    with vecdb.create("notes.vdb", dim=384) as col:
        col.add(vectors, metadata=[{"year": 2024}, ...])
        hits = col.search(query, k=10, where="year > 2010", select=["year"])

The architecture, in the order of the data's path. A module imports only from what stands above it
in this list::

    errors      every error, one message form; ending, forking: what the end of the process and a
                fork wait for; turns: how searches let a thread go first that comes back from the
                system
    schema      what a collection holds; batch, metadata: user input, checked
    workers     the fixed thread pool
    kernels     numba leaves: distances, scans, prefetch, heaps, visited sets; a gate that loads
                them in the background while NumPy answers
    quant       codecs: fit, encode, estimate with an error bound
    graph       HNSW in arrays: layout, build, search with pruning, repair
    segment     one immutable, mapped, columnar file: ids | vectors | metadata, and its index file
    store       durability: files, lock, WAL, memtable, manifest, snapshot, compaction, recovery
    filter      one typed tree in four spellings -> a bitmap per part
    query       planner (scan, filtered graph, graph), execution, merge, measured recall
    collection  the public face; reading: its reading half; trust: how far to believe the answers;
                hits: answers; vectors: all rows, viewed; fingerprint: warns of another model

`graph` knows arrays, not files; `segment` knows bytes, not durability; `store` knows durability,
not queries. A write goes user -> batch -> WAL (durable) -> memtable -> snapshot; in the background
a full memtable becomes a segment, a segment gets a graph, small segments are merged. A search takes
the current snapshot, an immutable tuple of parts, and never locks: it asks every part (graph, or
exact scan where there is none) and merges. What is derived (graph, codes) may be lost at any time:
the answer then comes from an exact scan until it is rebuilt.

Importing vecdb loads neither NumPy's, Arrow's nor numba's machinery; the first call does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vecdb.collection import Collection, create, open
    from vecdb.errors import (
        ArgumentError,
        ClosedError,
        CorruptionError,
        DimensionError,
        DuplicateIdError,
        ExistsError,
        FilterError,
        LockedError,
        ModelWarning,
        NotFoundError,
        PoisonedError,
        ReadOnlyError,
        SchemaError,
        StorageError,
        VecdbError,
        VersionError,
    )
    from vecdb.filter.expr import col, predicate
    from vecdb.hits import BatchHits, Hits
    from vecdb.interop import from_hnswlib
    from vecdb.kernels import warmup
    from vecdb.query.plan import Plan
    from vecdb.schema import Hnsw, Schema

__version__ = "0.1.0"

_HOME = {
    "vecdb.collection": ("Collection", "create", "open"),
    "vecdb.errors": (
        "ArgumentError",
        "ClosedError",
        "CorruptionError",
        "DimensionError",
        "DuplicateIdError",
        "ExistsError",
        "FilterError",
        "LockedError",
        "ModelWarning",
        "NotFoundError",
        "PoisonedError",
        "ReadOnlyError",
        "SchemaError",
        "StorageError",
        "VecdbError",
        "VersionError",
    ),
    "vecdb.hits": ("BatchHits", "Hits"),
    "vecdb.interop": ("from_hnswlib",),
    "vecdb.kernels": ("warmup",),
    "vecdb.filter.expr": ("col", "predicate"),
    "vecdb.query.plan": ("Plan",),
    "vecdb.schema": ("Hnsw", "Schema"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "ArgumentError",
    "BatchHits",
    "ClosedError",
    "Collection",
    "CorruptionError",
    "DimensionError",
    "DuplicateIdError",
    "ExistsError",
    "FilterError",
    "Hits",
    "Hnsw",
    "LockedError",
    "ModelWarning",
    "NotFoundError",
    "Plan",
    "PoisonedError",
    "ReadOnlyError",
    "Schema",
    "SchemaError",
    "StorageError",
    "VecdbError",
    "VersionError",
    "col",
    "create",
    "from_hnswlib",
    "open",
    "predicate",
    "warmup",
]


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used (PEP 562)."""
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'vecdb' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
