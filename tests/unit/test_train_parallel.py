"""Training in two processes: gradients are averaged, and a run stopped by a signal resumes to the bit, DDP and FSDP."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from vqmem.recipes._parallel import start_processes


def test_two_processes_resume_to_the_bit(tmp_path):
    worker = Path(__file__).with_name("train_worker.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", worker, tmp_path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]


def test_parallel_that_cannot_be_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="fsdp needs torchrun"):
        start_processes("fsdp", torch.device("cpu"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="torchrun started 2 processes"):
        start_processes("none", torch.device("cpu"))
