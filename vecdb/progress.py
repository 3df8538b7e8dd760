"""Progress bars, shown only where a caller asks for one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from vecdb.errors import ArgumentError, describe

__all__ = ["Report", "bar"]

Report = Callable[[int, int], None]  # (done, total)


@contextlib.contextmanager
def bar(shown: bool, title: str) -> Iterator[Report | None]:
    """A function ``report(done, total)`` that moves a tqdm bar, or None when none is wanted."""
    if not shown:
        yield None
        return
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ArgumentError(
            describe(
                "progress",
                expected="tqdm to be installed for progress=True",
                got="no tqdm",
                fix="pip install 'vecdb[progress]', or leave progress out",
            )
        ) from None
    with tqdm(desc=title, unit="row", unit_scale=True) as shown_bar:

        def report(done: int, total: int) -> None:
            shown_bar.total = total
            shown_bar.update(done - shown_bar.n)

        yield report
