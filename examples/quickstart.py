"""Twenty thousand English words: create, add, search, filter, delete, close, reopen.

    python examples/quickstart.py [FOLDER]

Without a folder the store is made in a temporary one and removed at the end.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

import vecdb

DATA = Path(__file__).parent / "data"


def main(folder: Path) -> None:
    vectors = np.load(DATA / "words.npy")  # (20000, 100) float16, most frequent word first
    words = pq.read_table(DATA / "words.parquet")  # word, freq_rank, length: one row per vector
    row_of = {word: row for row, word in enumerate(words["word"].to_pylist())}

    # Create and add: the rows are on the disk when add() returns.
    with vecdb.create(folder / "words.vdb", dim=100, metric="cosine") as col:
        start = time.perf_counter()
        col.add(vectors, metadata=words)
        print(f"added {len(col):,} words in {time.perf_counter() - start:.2f} s")

        start = time.perf_counter()
        col.optimize()  # build the graph now; it would come by itself in the background
        print(f"indexed them in {time.perf_counter() - start:.2f} s\n")

        # Search: lower distances are closer, higher scores are better.
        print("nearest words, cosine in per cent")
        for word in ["piano", "volcano", "copper", "tuesday", "lemon"]:
            hits = col.search(vectors[row_of[word]], k=7, select=["word"])
            near = [f"{hit['word']} {hit['score']:.0%}" for hit in hits.to_list()[1:]]
            print(f"  {word:<8} {'  '.join(near)}")

        # Filter: only words that pass are returned, and k of them are.
        hits = col.search(vectors[row_of["ocean"]], k=6, where="length >= 9", select=["word"])
        print("\nnear 'ocean', nine letters or more")
        print("  " + ", ".join(hits.to_arrow()["word"].to_pylist()))
        print(f"  {hits.plan}")

        # Delete by filter or by id; the next search knows.
        rare = col.delete(where=vecdb.col("freq_rank") >= 15_000)
        col.delete(ids=[row_of["piano"]])
        print(f"\ndeleted {rare:,} rare words, and 'piano'")

    # Reopen: any number of processes may read.
    start = time.perf_counter()
    with vecdb.open(folder / "words.vdb") as col:
        print(f"reopened in {1000 * (time.perf_counter() - start):.1f} ms\n{col}\n")
        hits = col.search(vectors[row_of["piano"]], k=5, select=["word", "freq_rank"])
        print("nearest to where 'piano' was\n    id  distance  word            rank")
        for hit in hits.to_list():
            print("{id:6d}  {distance:8.4f}  {word:<13} {freq_rank:6,d}".format(**hit))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
