"""Workers of Ray that are killed at random moments: is every cell and every document there at the end, and only once?

    python benchmarks/speed/killed_workers.py [--quick] [--json] [--save] [--runs N]

Every run of `vqmem compare demo`, made tiny, and of `vqmem score_corpus` is a process of its own, with two workers. In
each a worker that is at work is killed after a random time, drawn over the time that a run without a death takes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
from vqmem.benchmarks._results import ROOT, figure, options, present
from vqmem.benchmarks.speed.score_corpus import write_corpus
from vqmem.recipes.compare.recipe import Config
from vqmem.recipes.engine.config import load

TINY = ["seeds=[0,1]", "passages=7", "beside=null", "lm.passage=256", "lm.segment=32", "lm.train_tokens=30000"]
TINY += ["capacities=[8]", "lm.scorer_train.steps=20", "lm.train.steps=40", "lm.front_end.vocab_size=300"]
TINY += ["lm.train.save_every=10", "executor=ray"]
DOCUMENTS, SHARD = 60, 4


def main() -> None:
    """Measure, print, save."""
    parser = options(__doc__)
    parser.add_argument("--runs", type=int, default=10, help="runs of either command, each with a death (default 10)")
    flags = parser.parse_args()
    runs = 1 if flags.quick else flags.runs
    with TemporaryDirectory() as name:
        folder = Path(name)
        figures = {
            "grids with every cell once": once(folder / "grid", grid_command, cells_are_there, runs, "ray::_attempt"),
            "corpora with every document once": once(
                folder / "corpus", corpus_command, documents_are_there, runs, "ray::.*MapBatches|ray::.*_Worker"
            ),
        }
    present(
        "killed_workers",
        figures,
        flags,
        title="Workers that are killed",
        question="Is every cell and every document there, and only once, where a worker is killed in every run?",
        measured=(
            f"{runs} runs of `vqmem compare demo {' '.join(TINY)}` and of `vqmem score_corpus` with {DOCUMENTS} "
            f"documents in shards of {SHARD}, two workers. In each a worker was killed by SIGKILL after a random time."
        ),
        seeds=[0],
    )


def once(
    folder: Path,
    command: Callable[[Path], list[str]],
    is_whole: Callable[[Path, Path], bool],
    runs: int,
    workers: str,
) -> dict[str, Any]:
    """Run a command without a death, and then with one in each of ``runs``.

    Args:
        folder: where the runs are kept.
        command: the command for the folder of a run.
        is_whole: whether a run has all that the first one has, once.
        runs: how often a worker dies.
        workers: pattern of the names of the processes that are killed.

    Returns:
        The figure: how many runs were whole.
    """
    folder.mkdir()
    draw = random.Random(0)
    begun = time.perf_counter()
    killed_in(command(folder / "whole"), workers, None)
    seconds = time.perf_counter() - begun
    whole = deaths = 0
    while deaths < runs:
        out = folder / f"run-{draw.random()}"
        if killed_in(command(out), workers, draw.uniform(0, seconds)):
            deaths += 1
            whole += is_whole(out, folder / "whole")
    return figure(whole, f"of {runs}", runs, seconds=round(seconds, 1))


def killed_in(command: list[str], workers: str, moment: float | None) -> bool:
    """Run a command; the first worker at work after ``moment`` seconds is killed. Returns whether one was."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    run = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    ends, killed = time.monotonic() + (moment or 0), False
    while run.poll() is None and not killed and moment is not None:
        if time.monotonic() >= ends:
            found = subprocess.run(["pgrep", "-f", workers], capture_output=True, text=True).stdout.split()
            for pid in found[:1]:
                os.kill(int(pid), signal.SIGKILL)
                killed = True
        time.sleep(0.02)
    _, said = run.communicate()
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {run.returncode}: {said[-2000:]}")
    return killed


def grid_command(out: Path) -> list[str]:
    """The comparison, with ``out`` for its folder."""
    return [sys.executable, "-m", "vqmem", "compare", "demo", *TINY, f"out={out}"]


def cells_are_there(out: Path, whole: Path) -> bool:
    """Whether every point of the grid was measured once, with the figures of the run without a death."""
    config = load(Config, "demo", [*TINY, f"out={out}"], folder=ROOT / "recipes" / "compare" / "configs")
    return len(results(out)) == sum(len([*config.points(seed)]) for seed in config.seeds) and results(out) == results(
        whole
    )


def results(out: Path) -> dict[str, list[Any]]:
    """The figures of every point; a point that is there twice has two."""
    found: dict[str, list] = {}
    for line in map(json.loads, (out / "results.jsonl").read_text().splitlines()):
        found.setdefault(f"{line['strategy']} {line['seed']} {line['capacity']}", []).append(line["figures"])
    return found


def corpus_command(out: Path) -> list[str]:
    """The scoring of a corpus, which is written beside ``out``."""
    out.with_suffix(".data").mkdir()
    data = write_corpus(out.with_suffix(".data"), DOCUMENTS, 20_000)
    keys = [f"out={out}", f"shard_documents={SHARD}", "executor=ray", "workers=2"]
    return [sys.executable, "-m", "vqmem", "score_corpus", json.dumps(data), *keys]


def documents_are_there(out: Path, whole: Path) -> bool:
    """Whether the shards are those of the run without a death, with every document once."""
    shards = sorted(out.glob("shard-*.parquet"))
    found = Counter(name for path in shards for name in set(pq.read_table(path)["document"].to_pylist()))
    same = all(path.read_bytes() == (whole / path.name).read_bytes() for path in shards)
    return same and len(found) == DOCUMENTS and set(found.values()) == {1}


if __name__ == "__main__":
    main()
