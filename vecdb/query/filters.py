"""A `where=` argument of any spelling as one bitmap per part of a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.query.evaluate import evaluate
from vecdb.query.parse import parse

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.store import Snapshot

__all__ = ["allowed"]


def allowed(where: Any, snapshot: Snapshot) -> list[npt.NDArray[np.uint8]]:
    """For each part the rows that pass the filter and are not deleted, as Arrow bitmaps.

    Raises
    ------
    FilterError
        The filter can't be read, or does not fit the columns.
    """
    expr = parse(where, snapshot.schema)
    masks = []
    for part in snapshot.parts:
        mask = evaluate(expr, part.data)
        masks.append(mask if part.live is None else mask & part.live)
    return masks
