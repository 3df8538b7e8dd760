"""Your own vectors: any .npy of shape (rows, dim), with metadata from a Parquet or CSV file.

    python examples/your_npy.py VECTORS.npy [METADATA.parquet|.csv] [STORE]

The file is mapped, not read, and added in blocks, so it may be larger than memory. Without
arguments it takes the words beside this file. Prints what came in, the neighbours of three rows,
and how far the graph's answers can be trusted: their recall against an exact scan.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

import vecdb

DATA = Path(__file__).parent / "data"
BLOCK = 50_000  # rows


def read_metadata(path: Path) -> pa.Table:
    return pq.read_table(path) if path.suffix == ".parquet" else pa.csv.read_csv(path)


def load(vectors: np.ndarray, metadata: pa.Table | None, store: Path) -> None:
    with vecdb.create(store, dim=vectors.shape[1], metric="cosine") as col:
        for start in range(0, len(vectors), BLOCK):
            block = vectors[start : start + BLOCK]
            rows = None if metadata is None else metadata.slice(start, len(block))
            col.add(block, metadata=rows)
            print(f"  {len(col):>10,} rows")
        col.optimize()


def main(vectors_path: Path, metadata_path: Path | None, store: Path) -> None:
    vectors = np.load(vectors_path, mmap_mode="r")
    print(f"{vectors_path.name}: {vectors.shape[0]:,} x {vectors.shape[1]} {vectors.dtype}")
    load(vectors, read_metadata(metadata_path) if metadata_path else None, store)

    with vecdb.open(store) as col:
        print(f"\n{col}")
        picked = np.random.default_rng(5).choice(len(vectors), 100, replace=False)
        queries = np.asarray(vectors[np.sort(picked)], dtype=np.float32)

        print("\nthree rows and their neighbours")
        columns = col.schema.names[:1]  # a name to judge them by, if there is one
        for query in queries[:3]:
            near = col.search(query, k=6, select=columns).to_list()
            shown = [str(hit[columns[0]] if columns else hit["id"]) for hit in near]
            print(f"  {shown[0]:<14} {', '.join(shown[1:])}")

        found, exact = col.search(queries, k=10), col.search(queries, k=10, exact=True)
        same = [len(np.intersect1d(a, b)) for a, b in zip(found.ids, exact.ids, strict=True)]
        recall = np.mean(same) / 10
        print(f"\nrecall@10 of {len(queries)} searches against an exact scan: {recall:.3f}")


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:]] or [
        DATA / "words.npy",
        DATA / "words.parquet",
    ]
    metadata_given = given[1] if len(given) > 1 else None
    if len(given) > 2:
        main(given[0], metadata_given, given[2])
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(given[0], metadata_given, Path(temporary) / "vectors.vdb")
