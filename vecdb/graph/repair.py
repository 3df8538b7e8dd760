"""Reachability: a row that no walk from the entry comes to would never be found."""

from __future__ import annotations

import numpy as np

from vecdb.graph.insert import beam, select
from vecdb.graph.keys import key_row, make_key
from vecdb.kernels.jit import jit
from vecdb.quant.record import record_distance

__all__ = ["bridge", "connect", "reach"]

ROUNDS = 8  # of connecting; one is nearly always enough
TRIED = 32  # nearest reachable rows that are asked for a place


@jit("i8(Array(i4, 2, 'C', readonly=True), i8, i8, u1[::1], i8[::1])", entry=True)
def reach(links, degree, entry, reached, stack):
    """Mark the rows that a walk from `entry` comes to; -1 is no link. Returns how many are new."""
    if reached[entry]:
        return 0
    reached[entry] = 1
    stack[0] = entry
    depth = 1
    count = 0
    while depth:
        depth -= 1
        node = stack[depth]
        count += 1
        for i in range(degree):
            other = links[node, i]
            if other >= 0 and not reached[other]:
                reached[other] = 1
                stack[depth] = other
                depth += 1
    return count


@jit("b1(i4[:, ::1], i4[::1], i4[::1], i8, i8, i8)")
def _give_place(links, degrees, incoming, node, row, degree):
    """Link `node` to `row`: in a free slot, else for its farthest link with other ways in."""
    if degrees[node] < degree:
        links[node, degrees[node]] = row
        degrees[node] += 1
        incoming[row] += 1
        return True
    for slot in range(degree - 1, -1, -1):
        other = links[node, slot]
        if incoming[other] > 1:
            incoming[other] -= 1
            incoming[row] += 1
            links[node, slot] = row
            return True
    return False


@jit("i8(i8, i8, i8, i4[:, ::1], i4[::1], i8, i8, i8, u1[::1])", entry=True)
def _connect_once(data, stride, inner, links, degrees, degree, entry, size, visited):
    """Link every unreachable row from one of the nearest reachable ones; return how many."""
    rows = len(degrees)
    reached = np.zeros(rows, np.uint8)
    stack = np.empty(rows, np.int64)
    total = reach(links, degree, entry, reached, stack)
    if total == rows:
        return 0
    incoming = np.zeros(rows, np.int32)
    for node in range(rows):
        for slot in range(degrees[node]):
            incoming[links[node, slot]] += 1
    pool = np.empty(8 + size, np.int64)
    linked = 0
    for row in range(rows):
        if reached[row]:
            continue
        own = data + row * stride
        count = beam(data, stride, inner, links, degrees, entry, own, pool, size, visited)
        for i in range(min(count, TRIED)):
            if _give_place(links, degrees, incoming, key_row(pool[8 + i]), row, degree):
                break
        reach(links, degree, row, reached, stack)
        linked += 1
    return linked


def connect(records, links, degrees, degree, entry, size) -> None:  # type: ignore[no-untyped-def]
    """Make every row reachable from the entry; `records` are the address, stride and dimensions."""
    visited = np.zeros(len(degrees) + 1, np.uint8)
    for _ in range(ROUNDS):
        if not _connect_once(*records, links, degrees, degree, entry, size, visited):
            return


@jit(
    "void(i8, i8, i8, Array(i4, 2, 'C', readonly=True), Array(i8, 1, 'C', readonly=True),"
    " Array(i8, 1, 'C', readonly=True), i8, i8, i4[:, ::1], i4[::1], i8, f4)",
    entry=True,
)
def bridge(
    data, stride, inner, old_links, moved, rows, first, last, links, degrees, degree, alpha
):  # fmt: skip
    """Carry the links of old rows[first : last] over to their new numbers, moved[old] (-1: dead).

    A row that loses a dead neighbour may choose among that neighbour's own neighbours instead, so
    the ways that led through a dead row stay (FreshDiskANN's rule, Singh et al., 2021).
    """
    width = old_links.shape[1]
    keys = np.empty(width * (width + 1), np.int64)
    for i in range(first, last):
        old, row = rows[i], moved[rows[i]]
        count = 0
        kept = True
        for slot in range(width):
            other = old_links[old, slot]
            if other < 0:
                continue
            if moved[other] >= 0:
                links[row, degrees[row]] = moved[other]
                degrees[row] += 1
                continue
            kept = False
            for further in range(width):
                beyond = old_links[other, further]
                if beyond >= 0 and moved[beyond] >= 0:
                    keys[count] = moved[beyond]
                    count += 1
        if kept:
            continue
        for slot in range(degrees[row]):
            keys[count] = links[row, slot]
            count += 1
        keys[:count].sort()
        unique = 0
        for j in range(count):
            other = keys[j]
            if other != row and (j == 0 or keys[j] != keys[j - 1]):
                value = record_distance(data + other * stride, data + row * stride, inner)
                keys[unique] = make_key(value, other)
                unique += 1
        keys[:unique].sort()
        degrees[row] = select(data, stride, inner, row, keys, unique, links[row], degree, alpha)
