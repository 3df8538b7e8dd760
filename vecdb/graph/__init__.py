"""The graph index of a segment: build, layout, search.

Importing this package compiles its kernels (or loads them from the cache): import it after
:func:`vecdb.kernels.warmup`.
"""

from vecdb.graph.build import build
from vecdb.graph.calibrate import calibrate
from vecdb.graph.effort import Effort, effort_for, kept
from vecdb.graph.islands import cut_off
from vecdb.graph.layout import Graph
from vecdb.graph.search import COUNTERS, Bound, Found, Knobs, search

__all__ = ["COUNTERS", "Bound", "Effort", "Found", "Graph", "Knobs", "build",
           "calibrate", "cut_off", "effort_for", "kept", "search"]  # fmt: skip
