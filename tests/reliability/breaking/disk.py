"""Power loss: what vecdb did to the disk, recorded, and the images that may be found afterwards.

A :class:`Recorder` logs every change. :class:`Replay` walks the log and gives, for the moment
after each change, the contents that a POSIX file system may show after a power loss: what was
synced is there; of what was not, anything may be: all, nothing, all but one change, one change
alone, a write cut at a sector or a page or zeros in its place. Names are made durable by a sync
of their folder alone, bytes by a sync of their file alone.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from breaking.inject import SYNCS, Hook
from vecdb.segment import fs
from vecdb.store.names import LOCK

SECTOR, PAGE = 512, 4096


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """One change: `folder` and `name` for names, `file` (a number) with `offset` and `data` for
    bytes, `label` for the place in the code that synced."""

    kind: str  # create, rename, unlink, write, cut, sync, sync folder, mark
    folder: str = ""
    name: str = ""
    to: str = ""
    file: int = -1
    offset: int = 0
    data: bytes = b""
    label: str = ""


class Recorder(Hook):
    """Passes calls on and logs those that change the folder `root` or what is in it."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.events: list[Event] = []
        self._folders: dict[int, str] = {}  # open descriptors of folders, relative to root
        self._files: dict[int, int] = {}  # open descriptors of files
        self._lengths: dict[int, int] = {}
        self._names: dict[tuple[str, str], int] = {}
        self._kinds: list[str] = []  # of files, by number

    def mark(self, label: str) -> None:
        """Note in the log how far the workload has come."""
        with self._lock:
            self.events.append(Event("mark", label=label))

    def around(self, name: str, real: Callable[..., Any], args: Any, options: Any) -> Any:
        done = None if name in SYNCS else real(*args, **options)  # the log is what counts
        note = getattr(self, f"_{name}", None)
        if note is not None:
            note(done, *args, **options)
        return done

    def _log(self, kind: str, **fields: Any) -> None:
        self.events.append(Event(kind, **fields))

    def _open(self, fd: int, name: Any, flags: int, mode: int = 0, *, dir_fd: Any = None) -> None:
        self._files.pop(fd, None)
        self._folders.pop(fd, None)
        if flags & os.O_DIRECTORY:
            path = Path(name)
            if path == self.root or self.root in path.parents:
                self._folders[fd] = str(path.relative_to(self.root))
            return
        folder = self._folders.get(dir_fd)
        if folder is None or name == LOCK:  # whose content says nothing about the store
            return
        key = folder, name
        if key not in self._names:
            self._names[key] = len(self._lengths)
            self._lengths[self._names[key]] = 0
            self._kinds.append(name.split("-")[0])
            self._log("create", folder=folder, name=name, file=self._names[key])
        self._files[fd] = self._names[key]

    def _writev(self, done: int, fd: int, buffers: Any) -> None:
        file = self._files.get(fd)
        if file is None:
            return
        data = b"".join(bytes(buffer) for buffer in buffers)[:done]
        self._log("write", file=file, offset=self._lengths[file], data=data)
        self._lengths[file] += done

    def _ftruncate(self, _: None, fd: int, length: int) -> None:
        file = self._files.get(fd)
        if file is None:
            return
        self._log("cut", file=file, offset=length)
        self._lengths[file] = length

    def _fsync(self, _: None, fd: int) -> None:
        if fd in self._folders:
            self._log("sync folder", folder=self._folders[fd], label=f"{_caller()} folder")
        elif fd in self._files:
            file = self._files[fd]
            self._log("sync", file=file, label=f"{_caller()} {self._kinds[file]}")

    _fdatasync = _fsync

    def _rename(self, _: None, old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        folder = self._folders[src_dir_fd]
        self._names[folder, new] = self._names.pop((folder, old))
        self._log("rename", folder=folder, name=old, to=new)

    def _unlink(self, _: None, name: str, *, dir_fd: int) -> None:
        folder = self._folders[dir_fd]
        self._names.pop((folder, name), None)
        self._log("unlink", folder=folder, name=name)

    def _mkdir(self, _: None, path: Any, mode: int = 0) -> None:
        self._log("create", folder=str(Path(path).parent.relative_to(self.root)),
                  name=Path(path).name)  # fmt: skip


def _caller() -> str:
    """The place in vecdb that asked for a sync: outside the file layer, and outside what a log or
    a container has one method for, so that each of its uses is a place of its own."""
    passed_on = {"vecdb.store.wal.sync", "vecdb.segment.writer.finish"}
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        passing_on = f"{module}.{frame.f_code.co_name}" in passed_on
        if module.startswith("vecdb.") and module != fs.__name__ and not passing_on:
            return f"{module}.{frame.f_code.co_name}:{frame.f_lineno}"
        if module == fs.__name__ and frame.f_code.co_name == "make":
            return f"{module}.make:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "?"


class Bytes:
    """One file: what is surely on the disk, and the changes that may be."""

    def __init__(self) -> None:
        self.synced = b""
        self.pending: list[Event] = []
        self._variants: list[bytes] | None = None

    def change(self, event: Event) -> None:
        """A change that no sync has followed yet."""
        self.pending.append(event)
        self._variants = None

    def sync(self) -> None:
        """Every change is on the disk."""
        self.synced, self.pending = self.variants()[0], []
        self._variants = None

    def variants(self) -> list[bytes]:
        """Contents after a power loss; the first has every change, the second none."""
        if self._variants is None:
            self._variants = list(dict.fromkeys(self._contents()))
        return self._variants

    def _contents(self) -> Iterator[bytes]:
        changes = self.pending
        yield _written(self.synced, changes)
        if not changes:
            return
        yield self.synced
        for i, change in enumerate(changes):
            others = changes[:i], changes[i + 1 :]
            if len(changes) > 1:
                yield _written(self.synced, others[0] + others[1])
            for torn in _torn(change):
                yield _written(self.synced, [*others[0], torn, *others[1]])
                if others[1]:
                    yield _written(self.synced, [*others[0], torn])


def _written(content: bytes, changes: list[Event]) -> bytes:
    data = bytearray(content)
    for change in changes:
        if change.kind == "cut":
            del data[change.offset :]
            data.extend(bytes(change.offset - len(data)))
        else:
            data.extend(bytes(max(change.offset - len(data), 0)))
            data[change.offset : change.offset + len(change.data)] = change.data
    return bytes(data)


def _torn(change: Event) -> Iterator[Event]:
    """A write of which only the first sectors or pages came out, or only its length."""
    if change.kind != "write":
        return
    start, stop = change.offset, change.offset + len(change.data)
    cuts = set()
    for unit in (SECTOR, PAGE):
        borders = range((start // unit + 1) * unit, stop, unit)
        if borders:
            cuts |= {borders[0], borders[len(borders) // 2], borders[-1]}
    for cut in sorted(cuts):
        kept = change.data[: cut - start]
        yield dataclasses.replace(change, data=kept)
        yield dataclasses.replace(change, data=kept + bytes(stop - cut))
    yield dataclasses.replace(change, data=bytes(len(change.data)))


@dataclasses.dataclass(frozen=True)
class Image:
    """A possible disk: files by path relative to the root; `mark` is the last one in the log."""

    files: dict[str, bytes]
    folders: frozenset[str]
    mark: str
    event: int

    def key(self) -> int:
        """Equal for equal disks."""
        return hash((frozenset(self.files.items()), self.folders))

    def write(self, root: Path) -> None:
        """Put the image on a real disk."""
        for folder in sorted(self.folders):
            (root / folder).mkdir()
        for path, data in self.files.items():
            if (root / path).parent.is_dir():
                (root / path).write_bytes(data)


class Replay:
    """Walks a recorded log. `without` leaves out the syncs of one label."""

    def __init__(self, events: list[Event], *, without: str | None = None) -> None:
        self._events = events
        self._without = without
        self._files: dict[int, Bytes] = {}
        self._names: dict[str, dict[str, int]] = {}  # durable, by folder; -1 is a folder
        self._pending: dict[str, list[Event]] = {}
        self._mark = ""

    def images(self) -> Iterator[Image]:
        """Every image after every change (equal ones come more than once)."""
        for number, event in enumerate(self._events):
            if event.label == self._without and event.kind in ("sync", "sync folder"):
                continue
            self._step(event)
            if event.kind != "mark":
                yield from self._now(number)

    def _step(self, event: Event) -> None:
        if event.kind == "mark":
            self._mark = event.label
        elif event.kind in ("create", "rename", "unlink"):
            self._pending.setdefault(event.folder, []).append(event)
        elif event.kind in ("write", "cut"):
            self._files.setdefault(event.file, Bytes()).change(event)
        elif event.kind == "sync":
            self._files.setdefault(event.file, Bytes()).sync()
        else:
            names = self._names.get(event.folder, {})
            changes = self._pending.pop(event.folder, [])
            self._names[event.folder] = _named(names, changes)

    def _now(self, number: int) -> Iterator[Image]:
        first, *others = self._name_variants()
        for choice in self._byte_variants(every=True):
            yield self._image(number, first, choice)
        for names in others:
            for choice in self._byte_variants(every=False):
                yield self._image(number, names, choice)

    def _name_variants(self) -> Iterator[dict[str, dict[str, int]]]:
        """All changes of names, none, all but each one, each one alone."""
        pending = [(folder, e) for folder, events in self._pending.items() for e in events]
        choices = [pending]
        if pending:
            choices.append([])
        if len(pending) > 1:
            choices += [pending[:i] + pending[i + 1 :] for i in range(len(pending))]
            choices += [[change] for change in pending]
        for chosen in choices:
            names = {folder: dict(entries) for folder, entries in self._names.items()}
            for folder, event in chosen:
                names[folder] = _named(names.get(folder, {}), [event], self._named_before(event))
            yield names

    def _named_before(self, event: Event) -> int:
        """The file that a rename moves, also when the creation of its name is not applied."""
        if event.kind != "rename":
            return -1
        entries = dict(self._names.get(event.folder, {}))
        for change in self._pending.get(event.folder, []):
            if change is event:
                break
            entries = _named(entries, [change])
        return entries.get(event.name, -1)

    def _byte_variants(self, *, every: bool) -> Iterator[dict[int, bytes]]:
        """All bytes, none that is not synced, and (`every`) each variant of each file."""
        used = {number for entries in self._names.values() for number in entries.values()}
        used |= {event.file for events in self._pending.values() for event in events}
        self._files = {n: file for n, file in self._files.items() if n in used}
        variants = {number: file.variants() for number, file in self._files.items()}
        full = {number: found[0] for number, found in variants.items()}
        yield full
        bare = {number: file.synced for number, file in self._files.items()}
        if bare == full:
            return
        yield bare
        if every:
            for number, found in variants.items():
                for content in found[1:]:
                    yield full | {number: content}

    def _image(self, number: int, names: dict[str, dict[str, int]], content: Any) -> Image:
        files, folders = {}, set()
        for folder, entries in names.items():
            for name, file in entries.items():
                path = os.path.normpath(f"{folder}/{name}")
                if file < 0:
                    folders.add(path)
                else:
                    files[path] = content.get(file, b"")
        kept = {p: d for p, d in files.items() if str(Path(p).parent) in folders | {"."}}
        return Image(kept, frozenset(folders), self._mark, number)


def _named(entries: dict[str, int], changes: list[Event], moved: int = -1) -> dict[str, int]:
    found = dict(entries)
    for change in changes:
        if change.kind == "create":
            found[change.name] = change.file
        elif change.kind == "unlink":
            found.pop(change.name, None)
        else:
            file = found.pop(change.name, moved)
            if file >= 0:
                found[change.to] = file
    return found


def labels(events: list[Event]) -> list[str]:
    """The places in the code that synced, each once, in order."""
    synced = (e.label for e in events if e.kind in ("sync", "sync folder"))
    return list(dict.fromkeys(synced))
