"""How soon a fresh process answers: import, and process start to first search.

    python -m bench.first_use

Each figure is a whole new Python process. `import_ms` is the import statement alone; `first_ms`
runs from the start of the process to the first answer from a store of 20,000 x 100 on the disk, and
`bare_ms` is the same for ``python -c "import numpy"``. vecdb is measured with a warm kernel cache
and, as "vecdb cold", with an empty one, where NumPy answers while the kernels compile. All modules
have their bytecode beside them, as an installer leaves them: `PYTHONDONTWRITEBYTECODE` is not
handed on, under which a source tree is compiled anew by each process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from bench.harness import Contest, Report, exclusive, summary
from bench.open import Filled
from bench.stores import PACKAGES

ROWS, DIM = 20_000, 100
_IMPORTS = {"vecdb": "vecdb", "LanceDB": "lancedb", "Chroma": "chromadb", "zvec": "zvec"}
_SEARCH = {
    "vecdb": "import vecdb; vecdb.open({path!r}).search(query, 10)",
    "LanceDB": """
import lancedb
table = lancedb.connect({path!r}).open_table("rows")
table.search(query).distance_type("cosine").limit(10).to_arrow()""",
    "Chroma": """
import chromadb
client = chromadb.PersistentClient({path!r}, settings=chromadb.Settings(anonymized_telemetry=False))
rows = client.get_collection("rows", embedding_function=None)
rows.query(query_embeddings=[query], n_results=10)""",
    "zvec": """
import zvec
zvec.open({path!r}).query(zvec.Query("vector", vector=query), topk=10)""",
}
_QUERY = f"import numpy as np; query = np.ones({DIM}, dtype=np.float32)\n"


def process_ms(code: str, **environment: str) -> float:
    """Milliseconds that a new Python takes to run `code` and reach its end."""
    code += "\nimport os; os._exit(0)"  # the answer is there: leave exit handlers out
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        env=_environment() | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return 1000 * (time.perf_counter() - start)


def import_ms(module: str) -> float:
    """Milliseconds of ``import module`` inside a new Python."""
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=_environment()
    )
    return 1000 * float(done.stdout.split()[-1])


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def run(names: list[str], passes: int) -> None:
    """Fill each store, then start processes in turn."""
    report = Report("first_use", PACKAGES)
    first: dict[str, list[float]] = defaultdict(list)
    imports: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="vecdb-bench-") as folder:
        with Contest(report, Filled, names, Path(folder), DIM) as contest:
            filled = dict(contest.round("fill", ROWS, True, timed=False))
        searches = {n: _QUERY + _SEARCH[n].format(path=f"{folder}/{n}") for n in filled}
        for code in searches.values():
            process_ms(code)  # leaves bytecode, and kernels in their cache
        for turn in range(passes):
            for name, code in searches.items():
                with exclusive():
                    first[name].append(process_ms(code))
                    imports[name].append(import_ms(_IMPORTS[name]))
            with exclusive():
                first["bare"].append(process_ms("import numpy"))
                if "vecdb" in searches:
                    empty = f"{folder}/cache-{turn}"
                    first["vecdb cold"].append(process_ms(searches["vecdb"], NUMBA_CACHE_DIR=empty))
    bare = summary(first.pop("bare"))
    for name, values in first.items():
        found = {"import_ms": summary(imports[name])} if name in imports else {}
        report.line(store=name, first_ms=summary(values), bare_ms=bare["median"], **found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stores", default=",".join(_IMPORTS), help="comma separated")
    parser.add_argument("--passes", type=int, default=7)
    given = parser.parse_args()
    run(given.stores.split(","), given.passes)


if __name__ == "__main__":
    main()
