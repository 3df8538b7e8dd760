"""Immutable columnar files: ids, vectors, metadata columns, graph; and the module of all I/O.

``fs`` is the only way to a file. ``format`` defines the bytes, ``writer`` and ``container`` write
and map them; ``ids``, ``columns`` and ``index`` know what sections mean, ``bitmap`` which rows are
live. ``segment`` puts them together. Nothing here knows of commits or durability of a store.
"""

from vecdb.segment.segment import Segment, take, write_segment

__all__ = ["Segment", "take", "write_segment"]
