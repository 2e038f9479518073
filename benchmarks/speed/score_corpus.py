"""How much faster two workers score a corpus than one, each on a core.

    python benchmarks/speed/score_corpus.py [--quick] [--json] [--save] [--documents N]

`vqmem score_corpus` scores texts with the packaged scorer on Ray, which starts before and has two workers or one, each
with one thread. The workers start within the time that is measured; an idle machine with two cores is needed.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from pydoc_data.topics import topics
from tempfile import TemporaryDirectory

import ray
from vqmem.benchmarks._results import options, present
from vqmem.benchmarks.speed._workers import cluster, two_against_one
from vqmem.recipes.score_corpus.run import Config, run

GOAL = 1.8
CHARACTERS = 20_000
"""Of a document; with ``--quick`` a twentieth."""


def main() -> None:
    """Measure, print, save."""
    parser = options(__doc__)
    parser.add_argument("--documents", type=int, default=400, help="documents to score (default 400)")
    flags = parser.parse_args()
    count = 8 if flags.quick else flags.documents
    with TemporaryDirectory() as folder, cluster(2):
        data = write_corpus(Path(folder), count, CHARACTERS // 20 if flags.quick else CHARACTERS)
        speeds = {workers: count / score(data, f"{folder}/{workers}", workers, count) for workers in (1, 2)}
    present(
        "score_corpus_speed",
        two_against_one(speeds, "documents/s", GOAL),
        flags,
        title="Scoring a corpus with two workers",
        question="Do two workers score a corpus 1.8 times as fast as one?",
        measured=(
            f"{count} documents of Python's documentation, {CHARACTERS} characters each, in shards of "
            f"{shard_documents(count)}, with the packaged scorer on Ray {ray.__version__}; one thread a worker. "
            "The time includes the start of the workers."
        ),
    )


def write_corpus(folder: Path, count: int, characters: int) -> dict[str, str]:
    """Write documents that are stretches of one text, and return the data source that reads them."""
    text = "\n".join(topics.values())
    path = folder / "documents.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            start = number * 997 % (len(text) - characters)
            file.write(json.dumps({"text": text[start : start + characters]}) + "\n")
    return {"name": "hub", "path": str(path)}


def shard_documents(count: int) -> int:
    """The documents of a shard: forty shards, so that neither worker waits long for the other at the end."""
    return max(1, count // 40)


def score(data: dict[str, str], out: str, workers: int, count: int) -> float:
    """Score a corpus on Ray.

    Args:
        data: the data source of the corpus.
        out: the folder for the scores.
        workers: actors that score at the same time.
        count: documents of the corpus.

    Returns:
        The seconds from the start of the workers to the end.
    """
    start = time.perf_counter()
    run(Config(out, data, shard_documents=shard_documents(count), executor="ray", workers=workers))
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
