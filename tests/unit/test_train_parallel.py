"""Training in two processes: gradients are averaged, and a run stopped by a signal resumes to the bit, DDP and FSDP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from vqmem.recipes.engine.distributed import start_processes


def test_two_processes_resume_to_the_bit(tmp_path):
    worker = Path(__file__).with_name("train_worker.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", worker, tmp_path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_recipe_in_two_processes(tmp_path, parallel):
    """Scorer and language model, every kind of memory, evaluated on the way; it tells once."""
    config = {
        "front_end": "bytes",
        "device": "cpu",
        "passage": 64,
        "batch_size": 2,
        "segment": 16,
        "train_tokens": 2000,
        "eval_passages": 2,
        "scorer": {"name": "vq_lm", "dim": 8, "hidden": 8, "codes": 4},
        "scorer_train": {"steps": 2, "eval_every": 1, "parallel": parallel, "tensorboard": False},
        "shape": {"layers": 1, "dim": 16, "heads": 2},
        "train": {"steps": 6, "eval_every": 3, "parallel": parallel, "tensorboard": False},
        "resample_every": 1,
        "capacities": [24],
        "strategies": {"pooled": {"policy": "fifo", "compression": "pool"}, "scored": {"policy": "scored"}},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "vqmem", "text_lm"]
    arguments = [tmp_path / "config.yaml", f"out={tmp_path / 'run'}"]
    done = subprocess.run([sys.executable, *command, *arguments], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("on the dev split") == 1
    assert "find_unused_parameters" not in done.stderr, "the advice of DDP, which is not for users"
    assert set(json.loads((tmp_path / "run" / "evaluation.json").read_text())["memories"]) == {"pooled@24", "scored@24"}


def losses(folder: Path) -> list[float]:
    """The loss of every step of a training."""
    lines = (folder / "training" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_train_as_one_with_twice_the_batch(tmp_path, parallel):
    """Passages of one length: the processes together read each as often as one process does, at the same steps."""
    for split in ("train", "dev"):
        (tmp_path / "text" / split).mkdir(parents=True)
        words = " ".join(f"{split} {number * number % 97}" for number in range(900))
        (tmp_path / "text" / split / "a.txt").write_text(words[: 64 * 100])
    base = ["front_end=bytes", f"data={{name: text_files, path: {tmp_path / 'text'}}}", "device=cpu", "passage=64"]
    base += ["segment=16", "eval_passages=2", "capacities=[24]", "strategies={scored: {policy: scored}}"]
    # Without codes: those that die are drawn again, by each process from its own vectors.
    base += ["scorer={name: lstm_lm, dim: 8, hidden: 8}", "shape={layers: 1, dim: 16, heads: 2}"]
    base += [
        f"{part}.{key}" for part in ("scorer_train", "train") for key in ("steps=12", "log_every=1", "accumulate=2")
    ]
    (tmp_path / "empty.yaml").write_text("seed: 0")
    recipe = ["-m", "vqmem", "text_lm", str(tmp_path / "empty.yaml"), *base]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    modes = [f"{part}.parallel={parallel}" for part in ("scorer_train", "train")]
    for command in (
        [*recipe, "batch_size=4", f"out={tmp_path / 'one'}"],
        [*launch, *recipe, *modes, "batch_size=2", f"out={tmp_path / 'two'}"],
    ):
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-4000:]
    for part in ("scorer", "transformer"):
        one, two = (losses(tmp_path / name / part) for name in ("one", "two"))
        assert len(one) == 12
        assert one == pytest.approx(two, abs=1e-4), part


def test_what_the_first_process_finds_wrong_is_said_in_one_line(tmp_path):
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "vqmem", "vqvae", "demo"]
    with FileLock(tmp_path / ".lock"):
        for _ in range(2):  # the processes race for who says it
            done = subprocess.run(
                [sys.executable, *command, f"out={tmp_path}"], capture_output=True, text=True, timeout=120
            )
            lines = [line for line in done.stderr.splitlines() if line.startswith("vqmem: ")]
            assert lines == [f"vqmem: {tmp_path} is in use by another run; wait for its end, or give another `out`"]
            assert "ProcessFailedError" not in done.stderr


def test_parallel_that_cannot_be_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="fsdp needs torchrun"):
        start_processes("fsdp", torch.device("cpu"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="torchrun started 2 processes"):
        start_processes("none", torch.device("cpu"))
