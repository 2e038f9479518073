"""Workers of Ray that are killed at random moments: is every cell and every document there at the end, and only once?

    python benchmarks/speed/killed_workers.py [--quick] [--json] [--save] [--runs N]

Every run of `vqmem compare demo`, made tiny, and of `vqmem score_corpus` is a process of its own, with two workers. In
each a worker that is at work is killed after a random time, drawn over the time that a run without a death takes.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
from vqmem.benchmarks._results import figure, options, present
from vqmem.benchmarks.speed._workers import kill, workers_of
from vqmem.benchmarks.speed.score_corpus import write_corpus

TINY = [
    *("seeds=[0,1]", "passages=7", "beside=null", "lm.passage=256", "lm.segment=32", "lm.train_tokens=30000"),
    *("capacities=[8]", "lm.scorer_train.steps=20", "lm.train.steps=40", "lm.front_end.vocab_size=300"),
    *("lm.train.save_every=10", "executor=ray", "address=local"),
]
DOCUMENTS, SHARD = 60, 4
ATTEMPTS = 5
"""How often a run is given whose worker could not be killed before the run ended, for each death."""


def main() -> None:
    """Measure, print, save."""
    parser = options(__doc__)
    parser.add_argument("--runs", type=int, default=10, help="runs of either command, each with a death (default 10)")
    flags = parser.parse_args()
    runs = 1 if flags.quick else flags.runs
    with TemporaryDirectory() as name:
        figures = {
            "grids with every cell once": survived(Path(name) / "grids", grid_command, cells_of, runs),
            "corpora with every document once": survived(Path(name) / "corpora", corpus_command, documents_of, runs),
        }
    present(
        "killed_workers",
        figures,
        flags,
        title="Workers that are killed",
        question="Is every cell and every document there, and only once, where a worker is killed in every run?",
        measured=(
            f"{runs} runs of `vqmem compare demo {' '.join(TINY)}` and of `vqmem score_corpus` with {DOCUMENTS} "
            f"documents in shards of {SHARD}, two workers. In each a worker was killed by SIGKILL after a random "
            "time. A run counts if it ended well, and has what a run without a death has."
        ),
        seeds=[0],
    )


def survived(
    folder: Path, command: Callable[[Path], list[str]], content: Callable[[Path], list[Any]], runs: int
) -> dict[str, Any]:
    """Run a command without a death, and then with one in each of ``runs``.

    Args:
        folder: where the runs are kept.
        command: the command for the folder of a run.
        content: what a run made, each thing once for every time that it is there.
        runs: how often a worker dies.

    Returns:
        The figure: how many runs ended well with the content of the one without a death.
    """
    folder.mkdir()
    draw = random.Random(0)
    began = time.perf_counter()
    ended, _ = run_and_kill(command(folder / "0"), None)
    seconds = time.perf_counter() - began
    wanted = content(folder / "0")
    if not ended or not wanted:
        raise RuntimeError(f"the run without a death in {folder} failed")
    right = deaths = 0
    for number in range(1, 1 + ATTEMPTS * runs):
        out = folder / str(number)
        ended, killed = run_and_kill(command(out), draw.uniform(0, seconds))
        deaths += killed
        right += killed and ended and content(out) == wanted
        if deaths == runs:
            break
    return figure(right, f"of {deaths}", runs, seconds=round(seconds, 1))


def run_and_kill(command: list[str], moment: float | None) -> tuple[bool, bool]:
    """Run a command, and kill a worker at work after ``moment`` seconds. Whether it ended well, and whether one was."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    environment.pop("RAY_ADDRESS", None)
    run = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    strikes, killed = time.monotonic() + (moment or 0), False
    while run.poll() is None:
        if moment is not None and not killed and time.monotonic() >= strikes and (workers := workers_of(run.pid)):
            killed = kill(workers[0])
        time.sleep(0.05)
    return run.returncode == 0, killed


def grid_command(out: Path) -> list[str]:
    """The comparison, with ``out`` for its folder."""
    return [sys.executable, "-m", "vqmem", "compare", "demo", *TINY, f"out={out}"]


def cells_of(out: Path) -> list[Any]:
    """Every point that was measured, with its figures."""
    lines = map(json.loads, (out / "results.jsonl").read_text(encoding="utf-8").splitlines())
    cells = [[line["strategy"], line["seed"], line["capacity"], line["train"], line["figures"]] for line in lines]
    return sorted(cells, key=lambda cell: cell[:4])


def corpus_command(out: Path) -> list[str]:
    """The scoring of a corpus, which is written beside ``out``."""
    folder = out.with_name(f"data-{out.name}")
    folder.mkdir()
    data = write_corpus(folder, DOCUMENTS, 20_000)
    keys = [f"out={out}", f"shard_documents={SHARD}", "executor=ray", "address=local", "workers=2"]
    return [sys.executable, "-m", "vqmem", "score_corpus", json.dumps(data), *keys]


def documents_of(out: Path) -> list[Any]:
    """Every document as often as its first token is in the shards, and the bytes of each shard."""
    shards = sorted(out.glob("shard-*.parquet"))
    names = [row["document"] for path in shards for row in pq.read_table(path).to_pylist() if row["start"] == 0]
    if len(names) != DOCUMENTS or len(set(names)) != DOCUMENTS:
        return []
    return [(path.name, path.read_bytes()) for path in shards]


if __name__ == "__main__":
    main()
