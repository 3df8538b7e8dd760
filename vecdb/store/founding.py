"""Where a store may be: looks at a path, makes the folder, writes the first log and manifest."""

from __future__ import annotations

import dataclasses
import errno
import stat
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from vecdb.errors import ExistsError, NotFoundError, SchemaError, StorageError, describe
from vecdb.segment.fs import Directory
from vecdb.store import names
from vecdb.store.manifest import Manifest, publish
from vecdb.store.wal import WalWriter

if TYPE_CHECKING:
    from vecdb.schema import Schema

__all__ = [
    "exists",
    "make_folder",
    "not_found",
    "refuse_foreign",
    "refuse_other_kind",
    "what_is_at",
    "write_first_files",
]


def not_found(path: Path, found: str) -> NotFoundError:
    """The error for a path without a store."""
    return NotFoundError(
        describe(str(path), expected="a vecdb collection", got=found,
                 fix="create it with vecdb.create(...)")
    )  # fmt: skip


def what_is_at(path: Path) -> str:
    """ "a folder", "a file" or "nothing"; StorageError where one may not look."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "nothing"
    except OSError as error:
        raise StorageError(
            error.errno,
            describe(str(path), expected="a path that can be looked at", got=str(error.strerror),
                     fix="check the path and its permissions"),
        ) from None  # fmt: skip
    return "a folder" if stat.S_ISDIR(mode) else "a file"


def make_folder(path: Path) -> None:
    """Have a folder at the path; its parent must exist."""
    found = what_is_at(path)
    if found == "a folder":
        return
    if found != "nothing":
        raise ExistsError(
            errno.EEXIST, describe(str(path), expected="nothing or a folder", got="a file",
                                   fix="choose another path")
        )  # fmt: skip
    if what_is_at(path.parent) != "a folder":
        raise NotFoundError(
            describe(str(path.parent), expected="a folder to create the collection in",
                     got=what_is_at(path.parent), fix="create that folder first")
        )  # fmt: skip
    Directory.make(path)


def refuse_foreign(directory: Directory) -> None:
    """A folder may hold what an interrupted creation left, and nothing else."""
    for name in directory.names():
        if name != names.LOCK and not names.is_own(name):
            raise ExistsError(
                errno.EEXIST, describe(str(directory.path), expected="an empty folder",
                                       got=f"{name!r} in it", fix="choose another path")
            )  # fmt: skip


def write_first_files(directory: Directory, schema: Schema, sync: str) -> None:
    """Write the first log and manifest; what an interrupted creation left is removed."""
    for name in directory.names():
        if names.is_own(name):
            directory.unlink(name)
    manifest = Manifest(uuid=uuid.uuid4().bytes, generation=1, schema=schema, sync=sync)
    WalWriter(directory, manifest.wal, manifest.uuid, 1).close()
    publish(directory, manifest)


def exists(path: Path) -> ExistsError:
    """The error for a path that has a store already."""
    return ExistsError(
        errno.EEXIST,
        describe(str(path), expected="nothing there", got="a vecdb collection",
                 fix="open it with vecdb.open(path, mode='w'), or pass exist_ok=True"),
    )  # fmt: skip


def refuse_other_kind(path: Path, found: Schema, wanted: Schema) -> None:
    """Raise SchemaError when the store is not what was asked for; columns and model may be left
    out."""
    kind = dataclasses.replace(found, columns=None) if wanted.columns is None else found
    kind = dataclasses.replace(kind, model=None) if wanted.model is None else kind
    if kind != wanted:
        raise SchemaError(
            describe(str(path), expected=f"{wanted}", got=f"{found}",
                     fix="open it with vecdb.open, or choose another path")
        )  # fmt: skip
