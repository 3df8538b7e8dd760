"""What a collection holds: dimension, metric, id type, vector type, metadata columns, index.

A :class:`Schema` is immutable; adding columns gives a new one. It is stored in the manifest as
plain JSON (:meth:`Schema.to_json`), never as pickled or executable content.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from vecdb.errors import ArgumentError, SchemaError, describe
from vecdb.forking import load

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Hnsw", "IdType", "Metric", "Schema", "VectorType", "columns_from", "type_from_name"]

Metric = Literal["cosine", "l2", "ip"]
IdType = Literal["int64", "string"]
VectorType = Literal["float32", "float16"]

MAX_DIM = 65_536
MAX_COLUMNS = 4_096
MAX_NAME = 255
RESERVED = frozenset({"id", "vector", "distance", "score", "query"})
_INTS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_SIMPLE = ("bool", *_INTS, "float32", "float64", "string", "binary")
_PYTHON = {bool: "bool", int: "int64", float: "float64", str: "string", bytes: "binary"}
_TIMESTAMP = re.compile(r"timestamp\[(s|ms|us|ns)(?:, tz=([\w+\-:/]{1,64}))?\]")
_LIST = re.compile(r"list<(?:(?:item|element): )?(\w+)>")


@dataclasses.dataclass(frozen=True, slots=True)
class Hnsw:
    """Parameters of the graph index (Malkov and Yashunin, 2016, arXiv:1603.09320).

    Parameters
    ----------
    M : int, default 16
        Degree: a node keeps up to ``2 * M`` neighbours on the ground level, 4 to 64. More costs
        memory and build time and raises the recall that can be reached.
    ef_construction : int, default 200
        Beam width of the searches that find a new node's neighbours, 8 to 4096.
    codes : str, default "auto"
        The compact codes that the traversal estimates distances from: ``"auto"`` (chosen by
        their measured error on the rows), ``"1bit"``, ``"2bit"`` or ``"4bit"`` a dimension, kept
        in each node's row: more bits cost memory and find more at an equal beam. ``"int8"`` keeps
        no codes there but reads each neighbour's own bytes: the least memory (about dim + 150
        bytes a row), slower.
    seed : int, default 0
        Seed of every random choice. Equal data, parameters and seed give the same graph for any
        number of threads.
    """

    M: int = 16
    ef_construction: int = 200
    codes: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        _check_int("M", self.M, 4, 64)
        _check_int("ef_construction", self.ef_construction, 8, 4096)
        _check_int("seed", self.seed, 0, 2**63 - 1)
        check_choice("codes", self.codes, ("auto", "int8", "1bit", "2bit", "4bit"))


@dataclasses.dataclass(frozen=True)
class Schema:
    """What one collection holds; see :func:`vecdb.create` for the meaning of each field."""

    dim: int
    metric: Metric = "cosine"
    ids: IdType = "int64"
    dtype: VectorType = "float32"
    index: Hnsw = dataclasses.field(default_factory=Hnsw)
    columns: pa.Schema | None = None  # None: taken from the first metadata that arrives
    model: str | None = None

    def __post_init__(self) -> None:
        _check_int("dim", self.dim, 1, MAX_DIM)
        check_choice("metric", self.metric, get_args(Metric))
        check_choice("ids", self.ids, get_args(IdType))
        check_choice("dtype", self.dtype, get_args(VectorType))
        if not isinstance(self.index, Hnsw):
            raise ArgumentError(
                describe(
                    "index",
                    expected="vecdb.Hnsw(...)",
                    got=repr(self.index),
                    fix="pass index=vecdb.Hnsw(M=16)",
                )
            )
        if self.columns is not None:
            _check_columns(self.columns)
        if self.model is not None:
            check_model(self.model)

    def with_columns(self, added: pa.Schema) -> Schema:
        """The schema with more metadata columns behind those it has."""
        import pyarrow as pa

        old = [] if self.columns is None else list(self.columns)
        known = {field.name for field in old}
        for field in added:
            if field.name in known:
                raise SchemaError(
                    describe(
                        f"column {field.name!r}",
                        expected="a new name",
                        got="one that the collection has already",
                        fix="leave it out or choose another name",
                    )
                )
        return dataclasses.replace(self, columns=pa.schema([*old, *added]))

    def extends(self, other: Schema) -> bool:
        """Whether it is the other one, or that with more metadata columns."""
        old, new = ([] if s.columns is None else list(s.columns) for s in (other, self))
        same = dataclasses.replace(self, columns=None) == dataclasses.replace(other, columns=None)
        return same and new[: len(old)] == old

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for the manifest; :meth:`from_json` is its inverse."""
        columns = None
        if self.columns is not None:
            columns = [[field.name, type_name(field.type)] for field in self.columns]
        named = {} if self.model is None else {"model": self.model}
        return {
            "dim": self.dim,
            "metric": self.metric,
            "ids": self.ids,
            "dtype": self.dtype,
            "index": dataclasses.asdict(self.index),
            "columns": columns,
            **named,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Schema:
        """Raises ArgumentError, KeyError or TypeError on anything that `to_json` can't make."""
        columns = data["columns"]
        return cls(
            dim=data["dim"],
            metric=data["metric"],
            ids=data["ids"],
            dtype=data["dtype"],
            index=Hnsw(**data["index"]),
            columns=None if columns is None else columns_from(columns),
            model=data.get("model"),
        )


def columns_from(spec: Any) -> pa.Schema:
    """Metadata columns from a pyarrow schema, ``{name: type}`` or ``[(name, type), ...]``.

    A type is a pyarrow type, its name (``"int64"``, ``"timestamp[us]"``, ``"list<string>"``) or
    one of Python's ``bool, int, float, str, bytes``.

    Raises
    ------
    SchemaError
        For a name or a type that a collection can't hold.
    """
    load("pyarrow")
    import pyarrow as pa

    if isinstance(spec, pa.Schema):
        pairs: Iterable[Any] = [(field.name, field.type) for field in spec]
    elif isinstance(spec, Mapping):
        pairs = spec.items()
    else:
        pairs = spec
    try:
        fields = [(name, kind) for name, kind in pairs]
    except (TypeError, ValueError):
        raise SchemaError(
            describe(
                "schema",
                expected="a pyarrow.Schema or {name: type}",
                got=repr(spec),
                fix='pass schema={"year": "int64", "lang": "string"}',
            )
        ) from None
    for name, _ in fields:
        check_name(name)
    columns = pa.schema([pa.field(name, _storable(name, kind)) for name, kind in fields])
    _check_columns(columns)
    return columns


def check_name(name: object) -> None:
    """Refuse a column name that is reserved, empty, too long or not printable text."""
    usable = isinstance(name, str) and 0 < len(name) <= MAX_NAME and name.isprintable()
    if not usable or "/" in str(name):  # columns travel as file and path names elsewhere
        raise SchemaError(
            describe(
                "column name",
                expected=f"printable text of 1 to {MAX_NAME} characters without a slash",
                got=repr(name)[:300],
                fix="rename the column",
            )
        )
    if name in RESERVED:
        raise SchemaError(
            describe(
                "column name",
                expected="a name that vecdb does not use itself",
                got=f"{name!r} (reserved: {', '.join(sorted(RESERVED))})",
                fix="rename the column",
            )
        )


def check_model(name: object) -> None:
    """Refuse a model's name that is empty, too long or not printable text."""
    if not isinstance(name, str) or not name or len(name) > MAX_NAME or not name.isprintable():
        raise ArgumentError(
            describe("model", expected=f"printable text of 1 to {MAX_NAME} characters",
                     got=repr(name)[:300], fix="pass the name under which the model is known")
        )  # fmt: skip


def type_name(kind: pa.DataType) -> str:
    """The canonical name of a storable type; :func:`type_from_name` is its inverse."""
    import pyarrow as pa

    if pa.types.is_list(kind):
        return f"list<{type_name(kind.value_type)}>"
    return {"float": "float32", "double": "float64"}.get(str(kind), str(kind))


def type_from_name(name: str) -> pa.DataType | None:
    """The Arrow type that a canonical name stands for, None when there is no such type."""
    import pyarrow as pa

    if name in _SIMPLE:
        kind: pa.DataType = getattr(pa, "bool_" if name == "bool" else name)()
        return kind
    if match := _TIMESTAMP.fullmatch(name):
        unit: Any = match[1]
        return pa.timestamp(unit, match[2])
    if (match := _LIST.fullmatch(name)) and match[1] in _SIMPLE:
        inner = type_from_name(match[1])
        return None if inner is None else pa.list_(inner)
    return None


def _storable(name: str, kind: Any) -> pa.DataType:
    """The type that is stored for a declared or inferred one: views, dictionaries and large
    variants become their plain form, so that a file has one spelling of each type."""
    import pyarrow as pa

    if isinstance(kind, type):
        kind = _PYTHON.get(kind, kind)
    found = type_from_name(kind) if isinstance(kind, str) else None
    if isinstance(kind, pa.DataType):
        found = _plain(kind)
    if found is None:
        raise SchemaError(
            describe(
                f"column {name!r}",
                expected="bool, an int or float type, string, binary, timestamp, or a list",
                got=f"type {kind}",
                fix="convert the column or leave it out",
            )
        )
    return found


def _plain(kind: pa.DataType) -> pa.DataType | None:
    import pyarrow as pa

    is_ = pa.types
    if is_.is_dictionary(kind):
        return _plain(kind.value_type)
    if is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind):
        inner = _plain(kind.value_type)
        return None if inner is None or is_.is_list(inner) else pa.list_(inner)
    forms = {
        "string": is_.is_large_string(kind) or is_.is_string_view(kind) or is_.is_null(kind),
        "binary": is_.is_large_binary(kind)
        or is_.is_binary_view(kind)
        or is_.is_fixed_size_binary(kind),
        "timestamp[s]": is_.is_date32(kind),
        "timestamp[ms]": is_.is_date64(kind),
        "float32": is_.is_float16(kind),
    }
    return type_from_name(next((name for name, fits in forms.items() if fits), type_name(kind)))


def _check_columns(columns: pa.Schema) -> None:
    if len(columns) > MAX_COLUMNS:
        raise SchemaError(
            describe(
                "schema",
                expected=f"at most {MAX_COLUMNS} columns",
                got=len(columns),
                fix="put rare fields into one text column",
            )
        )
    seen: set[str] = set()
    for field in columns:
        check_name(field.name)
        if field.name in seen:
            raise SchemaError(
                describe(
                    "schema",
                    expected="each column once",
                    got=f"{field.name!r} twice",
                    fix="rename one of them",
                )
            )
        seen.add(field.name)


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ArgumentError(
            describe(
                name,
                expected=f"an integer from {low} to {high}",
                got=repr(value),
                fix="choose a value in that range",
            )
        )


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ArgumentError when a parameter is none of its choices."""
    if value not in choices:
        raise ArgumentError(
            describe(
                name,
                expected=" | ".join(map(repr, choices)),
                got=repr(value),
                fix=f"pass {name}={choices[0]!r}",
            )
        )
