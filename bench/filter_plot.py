"""The picture of the comparison under filters: QPS and recall over the share that passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.filter_data import KINDS, SHARES, K
from bench.filter_rivals import WANTED

LOW = 0.6  # recall below which it does not matter how far
OURS = ("vecdb", "target", "scan")
_LOOKS: dict[str, dict[str, Any]] = {
    "vecdb": {"color": "#c0392b", "linewidth": 2.5, "marker": "o"},
    "target": {"color": "#e67e22", "linewidth": 2.5, "marker": "s"},
    "scan": {"color": "#555555", "linestyle": "--", "marker": "x"},
    "hnswlib": {"color": "#2980b9", "marker": "^"},
    "faiss": {"color": "#16a085", "marker": "v"},
    "lancedb": {"color": "#8e44ad", "marker": "D"},
    "zvec": {"color": "#2c3e50", "marker": "P"},
    "chroma": {"color": "#b8860b", "marker": "<"},
    "sqlite-vec": {"color": "#7fb800", "marker": ">"},
}
_NAMES = {
    "vecdb": "vecdb, ef_search",
    "target": f"vecdb, target_recall={WANTED}",
    "scan": "vecdb, exact=True",
}


def fastest(points: list[dict[str, Any]], kind: str, share: float) -> dict[str, dict[str, Any]]:
    """Of each library the fastest point with the wanted recall; where it has none, the one that
    found the most."""
    found: dict[str, dict[str, Any]] = {}
    for point in points:
        if (point["kind"], point["share"]) == (kind, share):
            name = point["library"]
            found[name] = max(found.get(name, point), point, key=_rank)
    return found


def reached(point: dict[str, Any]) -> bool:
    """Whether a point has the wanted recall."""
    return bool(point["recall"] >= WANTED)


def _rank(point: dict[str, Any]) -> tuple[bool, float]:
    return reached(point), point["qps"] if reached(point) else point["recall"]


def plot(points: list[dict[str, Any]], path: Path, title: str) -> None:
    """QPS over recall, a column per kind of filter; hollow where the recall was not reached."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        return  # the figures are in the report
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, len(KINDS), figsize=(16, 9), sharex=True, sharey="row")
    ticks = [LOW + 0.05 * i for i in range(9)]
    names = [name for name in _LOOKS if any(point["library"] == name for point in points)]
    for kind, (above, below) in zip(KINDS, panels.T, strict=True):
        chosen = [fastest(points, kind, share) for share in SHARES]
        for name in names:
            mine = [(i, found[name]) for i, found in enumerate(chosen) if name in found]
            _line(above, [(i, point["qps"], reached(point)) for i, point in mine], name)
            _line(
                below, [(i, max(LOW, point["recall"]), reached(point)) for i, point in mine], name
            )
        above.set(yscale="log", title=f"{title}: {kind} filter")
        below.axhline(WANTED, color="black", linewidth=0.8, linestyle=":")
        below.set(xlabel="rows that pass", ylim=(LOW - 0.01, 1.01))
        below.set_yticks(ticks, [f"{LOW} or less", *(f"{tick:.2f}" for tick in ticks[1:])])
        below.set_xticks(range(len(SHARES)), [f"{100 * share:g} %" for share in SHARES])
        below.tick_params(axis="x", labelrotation=45)
        above.grid(alpha=0.3)
        below.grid(alpha=0.3)
    panels[0, 0].set_ylabel(f"queries/s, one thread, one a call\n(recall@{K} at least {WANTED})")
    panels[1, 0].set_ylabel(f"recall@{K}")
    figure.align_ylabels()
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="lower center", ncols=len(names), frameon=False,
        title=f"filled: fastest setting with recall {WANTED} or more; hollow: its best recall",
    )  # fmt: skip
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=110)


def _line(panel: Any, line: list[tuple[int, float, bool]], name: str) -> None:
    """A library's line, its markers filled where the recall was reached."""
    look = {"linewidth": 1.2, **_LOOKS[name]}
    marker = look.pop("marker")
    panel.plot([i for i, *_ in line], [value for _, value, _ in line], alpha=0.6, **look)
    for i, value, good in line:
        panel.plot(
            i, value, marker=marker, markersize=6, color=look["color"],
            markerfacecolor=look["color"] if good else "white", linestyle="none",
        )  # fmt: skip
    panel.plot([], [], marker=marker, label=_NAMES.get(name, name), **look)
