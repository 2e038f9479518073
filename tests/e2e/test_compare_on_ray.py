"""A comparison on Ray: the figures of one process to the bit, and a killed worker costs its cell a retry."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from vqmem.benchmarks.speed._workers import kill, workers_of
from vqmem.recipes.compare.recipe import Config, run
from vqmem.recipes.engine.config import load
from vqmem.registry import ROOT
from vqmem.tests.e2e.tiny_comparison import TINY

TWO_SEEDS = [*TINY, "seeds=[0,1]", "fit={passages: 3, stream_passages: 2}"]


def tiny(out: Path, *more: str) -> Config:
    """The demo, made tiny."""
    return load(Config, "demo", [*TWO_SEEDS, f"out={out}", *more], folder=ROOT / "recipes" / "compare" / "configs")


def results(out: Path) -> dict[tuple, dict]:
    """The lines of the results, each cell once, without how long they took and keys, which name folders of policies."""
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    found = {(line["strategy"], line["capacity"], line["seed"], line["train"]): line for line in lines}
    assert len(found) == len(lines)
    return {
        cell: {key: value for key, value in line.items() if key not in ("tokens_per_second", "key")}
        for cell, line in found.items()
    }


def measured(out: Path) -> int:
    path = out / "results.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


@pytest.mark.timeout(600)
def test_ray_gives_the_figures_of_one_process_to_the_bit(tmp_path):
    pytest.importorskip("ray", reason="needs Ray (extra 'ray')")
    here = run(tiny(tmp_path / "here", "threads=1"))
    there = run(tiny(tmp_path / "there", "executor=ray", "address=local"))
    assert results(tmp_path / "here") == results(tmp_path / "there")
    for summary in (here, there):
        for row in summary["rows"]:
            del row["tokens_per_second"]
    assert [here[name] for name in ("rows", "passage", "scorer")] == [
        there[name] for name in ("rows", "passage", "scorer")
    ]
    models = [sorted((tmp_path / name).rglob("model.safetensors")) for name in ("here", "there")]
    assert [path.read_bytes() for path in models[0]] == [path.read_bytes() for path in models[1]]


@pytest.mark.timeout(600)
def test_a_killed_worker_loses_nothing_and_doubles_nothing(tmp_path):
    """A worker is killed as soon as one is at work and a cell is measured."""
    pytest.importorskip("ray", reason="needs Ray (extra 'ray')")
    where = [f"out={tmp_path / 'run'}", "seeds=[0]", "executor=ray", "address=local"]
    command = [sys.executable, "-m", "vqmem", "compare", "demo", *TWO_SEEDS, *where]
    with (tmp_path / "log").open("w") as log:
        launched = subprocess.Popen(command, stdout=log, stderr=log)
        killed = False
        while not killed and launched.poll() is None:
            at_work = workers_of(launched.pid) if measured(tmp_path / "run") else []
            killed = bool(at_work) and kill(at_work[0])
            time.sleep(0.01)
        code = launched.wait()
    assert killed, "the run ended before a worker was killed"
    assert code == 0, (tmp_path / "log").read_text()
    config = tiny(tmp_path / "run", "seeds=[0]")
    assert len(results(tmp_path / "run")) == sum(1 for seed in config.seeds for _ in config.points(seed))
    assert (tmp_path / "run" / "report.html").is_file()
