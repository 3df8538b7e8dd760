"""The upper levels of a graph under construction; see :mod:`vecdb.graph.levels`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.graph.insert import thin_rows
from vecdb.graph.job import ALPHA, Job, Links, Records
from vecdb.graph.layout import MAX_ROWS
from vecdb.graph.levels import WIDTH, level_sizes, levels_of

__all__ = ["Upper"]


class Upper:
    """The upper levels, finished one by one as the graph grows past their sizes."""

    def __init__(self, order: NDArray[np.int64], records: Records) -> None:
        self.entry = int(order[0]) if len(order) else 0
        self.sizes = level_sizes(levels_of(len(order)))
        self.sample = order[: self.sizes.max(initial=0)].astype(np.int32)
        self.records = records.table[self.sample]
        self.links = np.full((int(self.sizes.sum()), WIDTH), -1, np.int32)
        self.done = 0

    def room(self, done: int) -> int:
        """Rows that may be inserted before the next level must be taken."""
        return int(self.sizes[self.done]) - done if self.done < len(self.sizes) else MAX_ROWS

    def take(self, job: Job, records: Records, ground: Links, order: NDArray[Any]) -> None:
        """Make the graph of the rows `order` the next level, thinned."""
        size = len(order)
        chosen = np.full((size, job.degree), -1, np.int32)
        counts = np.zeros(size, np.int32)

        def thin(first: int, last: int) -> None:
            thin_rows(
                *records.args, ground.links, ground.degrees, order[first:last], WIDTH,
                np.float32(ALPHA), chosen[first:last], counts[first:last],
            )  # fmt: skip

        job.each(thin, size, 1024)
        places = np.empty(job.rows, np.int32)
        places[order] = np.arange(size, dtype=np.int32)
        there = np.arange(WIDTH) < counts[:, None]
        start = int(self.sizes[: self.done].sum())
        level = self.links[start : start + size]
        level[there] = places[chosen[:, :WIDTH][there]]
        self.done += 1
