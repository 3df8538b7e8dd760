"""The card that a notebook shows for a collection."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from vecdb.schema import type_name

if TYPE_CHECKING:
    from vecdb.collection import Collection

__all__ = ["bytes_text", "html_card"]

_BOX = (
    '<div style="border:1px solid #8884;border-radius:6px;padding:.7em 1em;'
    'display:inline-block;max-width:60em">'
)


def bytes_text(count: int) -> str:
    """``1536 -> "1.5 KiB"``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def html_card(collection: Collection) -> str:
    """Rows, dim, metric, segments, tombstones, index freshness and bytes, and the columns."""
    title = f"<strong>vecdb</strong> <code>{escape(collection.path)}</code>"
    if collection.state == "closed":
        return f"{_BOX}{title} <em>closed</em></div>"
    stats = collection.stats()
    facts = {
        "rows": f"{stats['rows']:,}",
        "dim": f"{collection.dim} x {stats['dtype']}",
        "metric": collection.metric,
        "segments": f"{stats['segments']}",
        "in memory": f"{stats['memtable_rows']:,} rows",
        "tombstones": f"{stats['tombstones']:,}",
        "indexed": f"{stats['indexed']:.0%}",
        "on disk": bytes_text(stats["bytes"]),
        "mode": {"r": "read", "w": "write"}[collection.mode],
    }
    cells = "".join(
        f'<div><div style="font-size:.75em;opacity:.65">{escape(name)}</div>'
        f'<div style="font-weight:600">{escape(value)}</div></div>'
        for name, value in facts.items()
    )
    columns = ", ".join(
        f"<code>{escape(field.name)}</code> {escape(type_name(field.type))}"
        for field in collection.schema
    )
    return (
        f'{_BOX}<div style="margin-bottom:.5em">{title}</div>'
        f'<div style="display:flex;flex-wrap:wrap;gap:.4em 1.6em">{cells}</div>'
        + (f'<div style="margin-top:.5em;font-size:.85em">{columns}</div>' if columns else "")
        + "</div>"
    )
