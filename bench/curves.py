"""Recall against queries per second: the frontier of a library's points, and the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

SINGLE = "(1 a call)"  # ends the names of libraries that are asked one query at a time


class Point(NamedTuple):
    """One library at one beam width."""

    ef: float
    recall: float
    qps: float


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both recall and QPS, by rising recall."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.recall, -p.qps)):
        if not kept or point.qps > kept[-1].qps:
            kept.append(point)
    return kept[::-1]


def qps_at(points: Sequence[Point], recall: float) -> float | None:
    """QPS where the frontier crosses `recall` (log QPS linear in between); None if unreached.

    Below the first point nothing is extrapolated: a smaller beam can't be asked for, so that
    point's QPS counts.
    """
    best = frontier(points)
    if not best or best[-1].recall < recall:
        return None
    log_qps = np.log([p.qps for p in best])
    return float(np.exp(np.interp(recall, [p.recall for p in best], log_qps)))


def draw(
    path: Path, title: str, curves: Mapping[str, Sequence[Point]], lead: str = "vecdb"
) -> None:
    """One PNG: vecdb in front, hnswlib dashed, every other library a thin labelled line."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, FuncFormatter

    figure, axes = plt.subplots(figsize=(9, 5.6), dpi=150, layout="constrained")
    colours = plt.get_cmap("tab10").colors  # type: ignore[attr-defined]
    others = 0
    for name, points in curves.items():
        best = [p for p in frontier(points) if p.recall >= 0.8]
        if not best:
            continue
        style = {"linewidth": 1.3, "marker": "o", "markersize": 2.5, "alpha": 0.9, "zorder": 2}
        if name.startswith("vecdb"):
            style |= {"linewidth": 3.0, "markersize": 4.5, "zorder": 5, "color": "#d1105a"}
        elif name.startswith("hnswlib"):
            style |= {"linewidth": 1.8, "color": "black", "linestyle": "--", "zorder": 4}
        else:
            style |= {"color": colours[others % 10], "linestyle": "-" if others < 10 else ":"}
            others += 1
        if name.endswith(SINGLE):
            style |= {"linewidth": 1.3, "linestyle": ":"}
        # the axis shows the share of neighbours missed, so that .99 and .999 have room
        missed = [max(1 - p.recall, 1e-4) for p in best]
        axes.plot(missed, [p.qps for p in best], label=name, **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(0.2, 0.0008)
    ticks = [0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999]
    axes.xaxis.set_major_locator(FixedLocator([1 - t for t in ticks]))
    axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{1 - x:.3f}".rstrip("0")))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.0f}"))
    axes.grid(which="major", color="#dddddd", linewidth=0.8)
    axes.grid(which="minor", axis="y", color="#eeeeee", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("recall@10")
    axes.set_ylabel("queries per second, one thread")
    axes.set_title(title, loc="left", fontweight="bold")
    axes.legend(frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path)
    plt.close(figure)
