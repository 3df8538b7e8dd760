"""The card that a notebook shows for a collection."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vecdb.collection import Collection

__all__ = ["bytes_text", "html_card"]


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
    if collection.state == "closed":
        return f"<div><strong>vecdb</strong> {escape(collection.path)} <em>closed</em></div>"
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
        '<div style="margin-right:1.6em"><div style="font-size:.75em;opacity:.65">'
        f'{escape(name)}</div><div style="font-weight:600">{escape(value)}</div></div>'
        for name, value in facts.items()
    )
    columns = ", ".join(
        f"<code>{escape(field.name)}</code> {escape(str(field.type))}"
        for field in collection.schema
    )
    return (
        '<div style="border:1px solid #8884;border-radius:6px;padding:.7em 1em;'
        'display:inline-block;max-width:60em">'
        f'<div style="margin-bottom:.5em"><strong>vecdb</strong> '
        f"<code>{escape(collection.path)}</code></div>"
        f'<div style="display:flex;flex-wrap:wrap;row-gap:.4em">{cells}</div>'
        + (f'<div style="margin-top:.5em;font-size:.85em">{columns}</div>' if columns else "")
        + "</div>"
    )
