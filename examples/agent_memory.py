"""A memory for an agent: notes come in one by one, and each question asks all of them.

    python examples/agent_memory.py

Every note is durable when `remember` returns and found by the very next `recall`. Old notes are
forgotten by age. A sentence's vector is the mean of its words' vectors, rare words counting more:
enough for a demonstration; put your own embedding model in `Embedder`.
"""

import re
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

import vecdb

DATA = Path(__file__).parent / "data"

DAY = [
    ("user", "My daughter Ada plays the violin in the school orchestra."),
    ("user", "I am allergic to peanuts, milk and shrimp: nothing with them, please."),
    ("tool", "The flight to Lisbon leaves Tuesday at nine in the morning."),
    ("user", "We prefer quiet hotels near the beach."),
    ("tool", "Copper prices rose again; the mining shares gained four percent."),
    ("user", "The dentist moved my appointment to the third of March."),
    ("agent", "Ordered a birthday cake with lemon cream for Saturday."),
    ("user", "The garage replaced the brakes and the engine oil of our old car."),
    ("tool", "Heavy rain and thunder are expected over the weekend."),
    ("agent", "Booked a table for two at the Italian restaurant."),
]

QUESTIONS = [
    "What must I never cook or eat?",
    "What instrument does my child practice?",
    "When does the plane depart?",
    "Will it be sunny on Sunday?",
    "Was the vehicle repaired?",
]


class Embedder:
    """Sentences as the weighted mean of their words' vectors (Arora et al., 2017)."""

    def __init__(self) -> None:
        vectors = np.load(DATA / "words.npy").astype(np.float32)
        words = pq.read_table(DATA / "words.parquet", columns=["word"])["word"].to_pylist()
        self.row_of = {word: row for row, word in enumerate(words)}
        share = 1 / (9 * (np.arange(len(words)) + 10))  # of all text, by Zipf's law
        weight = 2e-4 / (2e-4 + share)  # "the" says little, "violin" much
        vectors -= vectors[:5000].mean(axis=0)  # what all common words have in common
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self.vectors = vectors * weight[:, None].astype(np.float32)

    def __call__(self, text: str) -> np.ndarray:
        rows = [self.row_of[w] for w in re.findall("[a-z]+", text.lower()) if w in self.row_of]
        return self.vectors[rows].mean(axis=0)


class Memory:
    """Notes in one collection: who said what, and when."""

    def __init__(self, path: Path, embed: Embedder) -> None:
        self.embed = embed
        schema = {"text": "string", "source": "string", "at": "timestamp[s]"}
        self.col = vecdb.create(path, dim=100, schema=schema, exist_ok=True)

    def remember(self, text: str, source: str, at: datetime) -> None:
        note = {"text": text, "source": source, "at": at}
        self.col.add(self.embed(text)[None], metadata=[note])

    def recall(self, question: str, k: int = 2, where: object = None) -> list[dict]:
        select = ["text", "source", "at"]
        return self.col.search(self.embed(question), k, where=where, select=select).to_list()

    def forget_before(self, moment: datetime) -> int:
        return self.col.delete(where=vecdb.col("at") < moment)


def main(folder: Path) -> None:
    memory = Memory(folder / "memory.vdb", Embedder())
    morning = datetime(2026, 3, 2, 8, tzinfo=UTC).replace(tzinfo=None)
    for hour, (source, text) in enumerate(DAY):
        memory.remember(text, source, morning + timedelta(hours=hour))
        assert memory.recall(text, k=1)[0]["text"] == text  # found at once

    print(f"{len(memory.col)} notes\n")
    for question in QUESTIONS:
        print(question)
        for note in memory.recall(question):
            print(f"  {note['score']:.2f}  {note['at']:%H:%M} {note['source']:<5}  {note['text']}")

    print("\nWhich trip do we plan? (only what the user said)")
    for note in memory.recall("Which trip do we plan?", where="source = 'user'"):
        print(f"  {note['score']:.2f}  {note['text']}")

    noon = morning + timedelta(hours=4)
    print(f"\nforgot {memory.forget_before(noon)} notes from before {noon:%H:%M}")
    for question in (QUESTIONS[1], QUESTIONS[4]):
        best = memory.recall(question, k=1)[0]
        print(f"  {question:<40} {best['score']:.2f}  {best['text']}")
    memory.col.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
