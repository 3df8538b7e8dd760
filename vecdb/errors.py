"""Every error that vecdb raises on purpose, and its one warning.

A message has three parts, made by :func:`describe`: what was expected, what came, and the fix.
Each class also inherits the built-in error that a Python user would expect, so that
``except ValueError`` or ``except OSError`` keep working.
"""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "Cancelled",
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
    "describe",
]


def describe(subject: str, *, expected: object, got: object, fix: str) -> str:
    """One message in the form that all of vecdb's errors share."""
    return f"{subject}: expected {expected}, got {got}. Fix: {fix}"


class VecdbError(Exception):
    """The base of all errors below."""


class ArgumentError(VecdbError, ValueError):
    """A parameter has a value that can't be used (k = 0, an unknown metric)."""


class SchemaError(ArgumentError):
    """Ids, vectors or metadata do not fit what the collection holds. Nothing was written."""


class DimensionError(SchemaError):
    """Vectors or a query have the wrong number of dimensions. Nothing was written."""


class DuplicateIdError(SchemaError):
    """An id stands twice in a batch or is in the collection already. Nothing was written."""


class FilterError(ArgumentError):
    """A filter names an unknown column or operator, or compares what can't be compared."""


class NotFoundError(VecdbError, LookupError):
    """An id, a collection or a version that was asked for does not exist."""


class ExistsError(VecdbError, FileExistsError):
    """There is something already where a collection was to be created."""


class LockedError(VecdbError):
    """Another process (its pid is in the message) holds the collection for writing."""


class ReadOnlyError(VecdbError):
    """A write through a handle that can only read."""


class ClosedError(VecdbError):
    """A call on a handle that was closed, or that belongs to the parent of a forked process."""


class PoisonedError(ClosedError):
    """An earlier write failed half-way: this handle reads on but must be reopened to write."""


class StorageError(VecdbError, OSError):
    """The operating system refused a read or a write (disk full, I/O error, permission)."""


class CorruptionError(VecdbError):
    """A file of the collection is damaged or missing; the message names it."""


class VersionError(VecdbError):
    """The collection was written by a newer vecdb, or in a format this machine can't read."""


class Cancelled(VecdbError):
    """The `cancel` callback of a graph's build said so; who interrupts a build catches it."""


class ModelWarning(UserWarning):
    """Vectors that are being added seem to come from another model than those that are stored."""
