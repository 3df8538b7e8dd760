from __future__ import annotations

import threading

import numpy as np

from vecdb.kernels.jit import INTERPRETED, jit
from vecdb.kernels.memory import fetch_add

TURNS = 300 if INTERPRETED else 300_000


@jit("void(i8, i8[::1])")
def take_turns(turn, taken):
    """Count in `taken` every turn that was this thread's."""
    mine = fetch_add(turn, 1)
    while mine < len(taken):
        taken[mine] += 1
        mine = fetch_add(turn, 1)


def test_each_number_is_given_to_one_thread() -> None:
    turn, taken = np.zeros(1, np.int64), np.zeros(TURNS, np.int64)
    threads = [
        threading.Thread(target=take_turns, args=(turn.ctypes.data, taken)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (taken == 1).all()
    assert turn[0] == TURNS + 4
