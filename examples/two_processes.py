"""Two processes, one store: this one writes, the other reads, and moves on when it wants to.

    python examples/two_processes.py

The reader sees one consistent state until it calls `refresh`; the writer never waits for it. A
second writer is refused at once, with the pid of the first.
"""

import multiprocessing
import os
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

import vecdb

DATA = Path(__file__).parent / "data"
STEP = 5_000  # words a batch


def reader(path: Path, query: np.ndarray, said: Connection) -> None:
    """Search, wait for word from the writer, refresh, search again."""
    with vecdb.open(path) as col:
        while True:
            words = col.search(query, k=5, select=["word"]).to_arrow()["word"].to_pylist()
            print(f"  reader {os.getpid()}: {len(col):>6,} rows, near 'whale': {', '.join(words)}")
            said.send("searched")
            if said.recv() == "done":
                break
            before = len(col)
            col.refresh()
            print(f"  reader {os.getpid()}: refreshed, {before:,} -> {len(col):,} rows")
        try:
            vecdb.open(path, "w")
        except vecdb.LockedError as error:
            print(f"  reader {os.getpid()}: may not write. {error}")


def main(folder: Path) -> None:
    vectors = np.load(DATA / "words.npy")
    words = pq.read_table(DATA / "words.parquet", columns=["word"])
    whale = vectors[words["word"].to_pylist().index("whale")]

    path = folder / "words.vdb"
    with vecdb.create(path, dim=100) as col:
        col.add(vectors[:STEP], metadata=words.slice(0, STEP))
        print(f"writer {os.getpid()}: {len(col):,} words")

        context = multiprocessing.get_context("spawn")
        said, theirs = context.Pipe()
        process = context.Process(target=reader, args=(path, whale, theirs))
        process.start()
        said.recv()  # the reader has searched
        for start in range(STEP, len(vectors), STEP):
            col.add(vectors[start : start + STEP], metadata=words.slice(start, STEP))
            print(f"writer {os.getpid()}: {len(col):,} words")
            said.send("more")
            said.recv()
        said.send("done")
        process.join()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
