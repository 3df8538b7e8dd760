"""The rows that a filter cuts off, found out when walks under it keep losing their way.

A walk that finds itself in the midst of what the filter hides may miss them. One with a beam is not
believed then anyway: a scan follows, see :mod:`vecdb.query.planner`. One for a wanted recall is, if
it has looked at these rows as well, as it did when it was calibrated. As long as they are not known
a scan follows here too; the second time they are looked for, which costs about as much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from vecdb.filter.masks import Allowed
    from vecdb.query.planner import Choice
    from vecdb.segment import Segment

__all__ = ["known", "learned", "matter"]

_OFTEN = 2  # lost walks after which it pays


def known(passing: Allowed, choice: Choice) -> npt.NDArray[np.int64] | None:
    """The rows that the filter cuts off, for a walk that is to look at them, if they are known."""
    cut: npt.NDArray[np.int64] | None = None if choice.slack is None else passing.memo.get("cut")
    return cut


def matter(passing: Allowed, choice: Choice) -> bool:
    """Whether a walk would have to look at them, and does not know them."""
    return passing.bits is not None and choice.slack is not None and "cut" not in passing.memo


def learned(data: Segment, passing: Allowed, lost: int) -> bool:
    """Whether they are known now that so many more walks were lost."""
    from vecdb import graph

    memo = passing.memo
    memo["lost"] = memo.get("lost", 0) + lost
    if memo["lost"] < _OFTEN:
        return False
    assert data.graph is not None
    assert passing.bits is not None
    memo["cut"] = graph.cut_off(data.graph, passing.bits, passing.count)
    return True
