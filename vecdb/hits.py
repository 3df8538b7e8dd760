"""Answers: :class:`Hits` for one query, :class:`BatchHits` for many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.forking import load

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.query.plan import Plan
    from vecdb.schema import Metric

__all__ = ["BatchHits", "Hits"]


class _Answer:
    """What both kinds of answer share."""

    __slots__ = ("_columns", "_metric", "distances", "ids", "plan")

    def __init__(
        self,
        ids: npt.NDArray[Any],
        distances: npt.NDArray[np.float32],
        metric: Metric,
        plan: Plan,
        columns: pa.Table | None = None,
    ) -> None:
        self.ids = ids
        self.distances = distances
        self.plan = plan
        self._metric = metric
        self._columns = columns

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """Higher is better: the cosine, the dot product, or minus the squared distance."""
        if self._metric == "cosine":
            return np.float32(1) - self.distances
        return -self.distances

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        """Unpacks: ``ids, distances = col.search(query)``."""
        return iter((self.ids, self.distances))

    def _flat(self) -> dict[str, npt.NDArray[Any]]:
        return {"id": self.ids, "distance": self.distances, "score": self.scores}

    def to_arrow(self) -> pa.Table:
        """One row per hit: ``id, distance, score`` and the selected columns (a batch: ``query``
        first, the hits of query 0, then of query 1, ...)."""
        load("pyarrow.compute")  # what append_column would import
        import pyarrow as pa

        arrays: dict[str, Any] = {
            name: pa.array(values, pa.string() if values.dtype == object else None)
            for name, values in self._flat().items()
        }
        table = pa.table(arrays)
        for name in () if self._columns is None else self._columns.column_names:
            table = table.append_column(name, self._columns.column(name))  # type: ignore[union-attr]
        return table

    def to_pandas(self) -> Any:
        """As :meth:`to_arrow`, as a pandas DataFrame (pandas must be installed)."""
        return self.to_arrow().to_pandas()

    def to_polars(self) -> Any:
        """As :meth:`to_arrow`, as a polars DataFrame (polars must be installed)."""
        import polars as pl

        return pl.from_arrow(self.to_arrow())

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        table: Any = self.to_arrow()
        capsule: object = table.__arrow_c_stream__(requested_schema)
        return capsule


class Hits(_Answer):
    """The nearest rows of one query, best first.

    Attributes
    ----------
    ids : ndarray
        (h,) int64, or object holding str; ``h <= k``, less when fewer rows match.
    distances : ndarray
        (h,) float32, ascending. Lower is closer: ``1 - cos``, squared Euclidean, or ``-dot``.
    scores : ndarray
        (h,) float32, descending. Higher is better.
    plan : Plan
        What the search did.
    """

    __slots__ = ("_before",)

    def __init__(
        self,
        ids: npt.NDArray[Any],
        distances: npt.NDArray[np.float32],
        metric: Metric,
        plan: Plan,
        columns: pa.Table | None = None,
        *,
        before: npt.NDArray[Any] | None = None,
    ) -> None:
        super().__init__(ids, distances, metric, plan, columns)
        self._before = before

    @property
    def seen(self) -> npt.NDArray[Any]:
        """Ids of this page and of those before it: what ``after=`` keeps from coming again."""
        return self.ids if self._before is None else np.concatenate([self._before, self.ids])

    def __len__(self) -> int:
        return len(self.ids)

    def to_list(self) -> list[dict[str, Any]]:
        """One dict per hit with ``id, distance, score`` and the selected columns."""
        return self.to_arrow().to_pylist()

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{identifier!r}: {distance:.4g}"
            for identifier, distance in zip(self.ids[:10].tolist(), self.distances, strict=False)
        )
        more = f", ... {len(self) - 10} more" if len(self) > 10 else ""
        return f"Hits({{{shown}{more}}}, plan={self.plan.strategy!r})"

    def _repr_html_(self) -> str:
        return html_table(self.to_arrow().slice(0, 20), f"{len(self)} hits · {self.plan.strategy}")


class BatchHits(_Answer):
    """The nearest rows of `n` queries.

    Attributes
    ----------
    ids : ndarray
        (n, k) int64 padded with -1, or object holding str padded with None.
    distances : ndarray
        (n, k) float32, each row ascending, padded with inf.
    scores : ndarray
        (n, k) float32, each row descending, padded with -inf.
    counts : ndarray
        (n,) int64: number of hits of each query.
    plan : Plan
        What the search did, summed over the batch.
    """

    __slots__ = ("counts",)

    def __init__(
        self,
        ids: npt.NDArray[Any],
        distances: npt.NDArray[np.float32],
        metric: Metric,
        plan: Plan,
        columns: pa.Table | None = None,
        *,
        counts: npt.NDArray[np.int64],
    ) -> None:
        super().__init__(ids, distances, metric, plan, columns)
        self.counts = counts

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, query: int) -> Hits:
        """The hits of one query; its plan is that of the whole batch."""
        query = range(len(self))[query]
        count = int(self.counts[query])
        columns = self._columns
        if columns is not None:
            columns = columns.slice(int(self.counts[:query].sum()), count)
        return Hits(
            self.ids[query, :count], self.distances[query, :count], self._metric, self.plan, columns
        )

    def _flat(self) -> dict[str, npt.NDArray[Any]]:
        real = np.arange(self.ids.shape[1]) < self.counts[:, None]
        queries = np.repeat(np.arange(len(self)), self.counts)
        return {"query": queries} | {name: v[real] for name, v in super()._flat().items()}

    def to_list(self) -> list[list[dict[str, Any]]]:
        """For each query a list of dicts, as :meth:`Hits.to_list`."""
        return [self[query].to_list() for query in range(len(self))]

    def __repr__(self) -> str:
        n, k = self.ids.shape
        return f"BatchHits({n} queries, k={k}, plan={self.plan.strategy!r})"

    def _repr_html_(self) -> str:
        title = f"{len(self)} queries · {self.plan.strategy}"
        return html_table(self.to_arrow().slice(0, 20), title)


def html_table(table: pa.Table, title: str) -> str:
    """A small HTML table for notebooks; every value is escaped."""
    from html import escape

    def cell(value: object) -> str:
        if isinstance(value, float):
            return f'<td style="text-align:right">{value:.4f}</td>'
        align = "right" if isinstance(value, int) else "left"
        text = str(value)
        text = text if len(text) <= 80 else text[:79] + "…"
        return f'<td style="text-align:{align}">{escape(text)}</td>'

    head = "".join(f"<th>{escape(name)}</th>" for name in table.column_names)
    body = "".join(
        f"<tr>{''.join(cell(value) for value in row.values())}</tr>" for row in table.to_pylist()
    )
    return (
        f"<div><strong>{escape(title)}</strong>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
