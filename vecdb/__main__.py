"""``python -m vecdb``: look at, check, measure, compact, mend and export a collection."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vecdb
from vecdb.card import bytes_text


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0 when all is well, 1 for damage, 2 for an error."""
    args = _parser().parse_args(argv)
    try:
        code: int = args.run(args)
    except vecdb.VecdbError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vecdb", description=__doc__)
    parser.add_argument("--version", action="version", version=vecdb.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str, *, path: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        if path:
            sub.add_argument("path", help="folder of the collection")
            sub.add_argument("--json", action="store_true", help="print JSON")
        return sub

    command("info", _info, "rows, columns, segments, bytes")
    command("verify", _verify, "read and check every byte; exit code 1 on damage")
    repair = command("repair", _repair, "copy a damaged collection and keep what can be kept")
    repair.add_argument("target", help="folder for the mended copy; must not exist")
    bench = command("bench", _bench, "recall and speed on this collection's own rows")
    bench.add_argument("-k", type=int, default=10)
    bench.add_argument("--queries", type=int, default=200)
    command("compact", _compact, "merge segments, drop deleted rows, build graphs")
    export = command("export", _export, "write all rows to a Parquet file")
    export.add_argument("target", help="the .parquet file to write")
    command("warmup", _warmup, "compile all kernels ahead of time", path=False)
    return parser


def _info(args: argparse.Namespace) -> int:
    with vecdb.open(args.path) as col:
        stats = {"path": col.path, "dim": col.dim, "metric": col.metric, **col.stats()}
        stats["columns"] = {field.name: str(field.type) for field in col.schema}
    _show(args, stats)
    return 0


def _verify(args: argparse.Namespace) -> int:
    from vecdb.store import verify

    report = verify(args.path)
    _show(args, report)
    return 0 if report["ok"] else 1


def _repair(args: argparse.Namespace) -> int:
    from vecdb.store import repair

    report = repair(args.path, args.target)
    _show(args, report)
    return 0 if report["ok"] else 1


def _bench(args: argparse.Namespace) -> int:
    vecdb.warmup()
    with vecdb.open(args.path) as col:
        report = col.recall(k=args.k, sample=args.queries)
    _show(args, dataclasses.asdict(report))
    return 0


def _compact(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    with vecdb.open(args.path, "w") as col:
        before = col.stats()["bytes"]
        col.optimize(progress=not args.json and sys.stderr.isatty())
        after = col.stats()["bytes"]
    seconds = round(time.perf_counter() - started, 3)
    _show(args, {"bytes_before": before, "bytes_after": after, "seconds": seconds})
    return 0


def _export(args: argparse.Namespace) -> int:
    import pyarrow.parquet as pq

    target = Path(args.target)
    if target.exists():
        raise vecdb.ExistsError(f"{target} exists already. Fix: choose another file name")
    with vecdb.open(args.path) as col:
        batches = col.batches()
        first = next(batches)
        with pq.ParquetWriter(target, first.schema) as writer:
            writer.write_batch(first)
            for batch in batches:
                writer.write_batch(batch)
        _show(args, {"rows": len(col), "bytes": target.stat().st_size})
    return 0


def _warmup(_: argparse.Namespace) -> int:
    print(f"kernels ready in {vecdb.warmup():.1f} s")
    return 0


def _show(args: argparse.Namespace, report: dict[str, Any]) -> None:
    if args.json:
        print(json.dumps(report, default=str))
        return
    width = max(map(len, report))
    for name, value in report.items():
        text = value
        if name.startswith("bytes") and isinstance(value, int):
            text = f"{value:,} ({bytes_text(value)})"
        elif isinstance(value, bool):
            text = "yes" if value else "no"
        elif isinstance(value, int):
            text = f"{value:,}"
        elif isinstance(value, float):
            text = f"{value:.4g}"
        elif isinstance(value, dict):
            text = ", ".join(f"{key} {item}" for key, item in value.items())
        elif isinstance(value, list):
            text = "\n".join(str(item) for item in value) or "none"
            text = text.replace("\n", "\n" + " " * (width + 2))
        print(f"{name:<{width}}  {text}")


if __name__ == "__main__":
    sys.exit(main())
