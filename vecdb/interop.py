"""Collections made from what other libraries hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vecdb.collection import create
from vecdb.errors import ArgumentError, NotFoundError, describe

if TYPE_CHECKING:
    from vecdb.collection import Collection
    from vecdb.schema import Metric

__all__ = ["from_hnswlib"]

_BATCH_BYTES = 256 << 20  # copied out of the other index at a time


def from_hnswlib(
    source: Any,
    path: str | os.PathLike[str],
    dim: int | None = None,
    metric: Metric | None = None,
    **options: Any,
) -> Collection:
    """A new collection with the labels and vectors of an hnswlib index.

    Elements that hnswlib marks as deleted are left out. The vectors are as hnswlib stored them:
    under cosine it had normalised them. The graph is built anew by :meth:`Collection.optimize`.

    Parameters
    ----------
    source : hnswlib.Index or path
        An index in memory, or a file that ``index.save_index`` wrote (hnswlib must be installed).
    path : path
        Folder of the new collection.
    dim, metric : int, {"cosine", "l2", "ip"}
        Needed for a file, which records neither; taken from an index in memory.
    **options
        Passed on to :func:`vecdb.create`.

    Returns
    -------
    Collection
        Open for writing.

    Raises
    ------
    ArgumentError, NotFoundError
        `dim` or `metric` missing or wrong; no such file; hnswlib not installed.
    """
    index = _load(source, dim, metric) if isinstance(source, (str, os.PathLike)) else source
    labels = index.get_ids_list()
    step = max(1, _BATCH_BYTES // (4 * index.dim))
    collection = create(path, index.dim, index.space, **options)
    for start in range(0, len(labels), step):
        for some, vectors in _items(index, labels[start : start + step]):
            collection.add(vectors, ids=some)
    return collection


def _items(index: Any, labels: list[int]) -> Iterator[tuple[list[int], Any]]:
    """Labels with their vectors. hnswlib lists deleted labels too and refuses a request that holds
    one without saying which: such a request is halved until the deleted ones stand alone."""
    if not labels:
        return
    try:
        vectors = index.get_items(labels, return_type="numpy")
    except RuntimeError:
        if len(labels) > 1:
            middle = len(labels) // 2
            yield from _items(index, labels[:middle])
            yield from _items(index, labels[middle:])
        return
    yield labels, vectors


def _load(source: str | os.PathLike[str], dim: int | None, metric: Metric | None) -> Any:
    try:
        import hnswlib
    except ImportError:
        raise ArgumentError(
            describe(
                "from_hnswlib",
                expected="hnswlib to be installed",
                got="no hnswlib",
                fix="pip install 'vecdb[hnswlib]'",
            )
        ) from None
    if dim is None or metric is None:
        raise ArgumentError(
            describe(
                "from_hnswlib",
                expected="dim= and metric= (the file records neither)",
                got=f"dim={dim}, metric={metric}",
                fix="pass both as the index was made",
            )
        )
    if not os.path.isfile(source):  # noqa: PTH113 - takes any path-like
        raise NotFoundError(f"{os.fspath(source)!r}: no such file. Fix: pass an hnswlib index file")
    index = hnswlib.Index(space=metric, dim=dim)
    try:
        index.load_index(os.fspath(source))
    except RuntimeError as error:
        raise ArgumentError(
            describe(
                "from_hnswlib",
                expected=f"an hnswlib index of dim {dim}",
                got=str(error),
                fix="check the file and dim",
            )
        ) from None
    return index
