"""The scale of `gpu.py`, its session, and how a phase runs and writes what it found."""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from vqmem.benchmarks._results import RESULTS, ROOT, Result, machine, write_result
from vqmem.benchmarks.text.memories import counts
from vqmem.recipes.compare.config import Config
from vqmem.recipes.engine.config import load
from vqmem.recipes.text_lm import recipe as text_lm

NAME = "gpu"
BASELINE, COMPRESSIVE, MIXED = "transformer_xl", "compressive", "mixed"
FULL_TRAIN = "steps: 1, lr: 0.001, warmup: 100, save_every: 0, log_every: 10, tensorboard: false"


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    device: str
    overrides: tuple[str, ...]
    """Of the config ``novels`` of `vqmem compare`."""
    side: int
    """Of the matrices whose product is the peak."""
    dtype: torch.dtype
    """Of the product."""
    warm_up: int
    """Steps that are timed. The learning rate rises for at least as long, so that they are the same in any training."""
    most_steps: int | None
    """At most so many steps of training."""
    fit_passages: int
    """Passages that the policy is fitted on."""
    pytest: tuple[str, ...]
    """Arguments of pytest."""


FULL = Scale(
    device="cuda",
    overrides=(
        "capacities=[64,128,256]",
        "lm.dtype=bfloat16",
        "lm.compile=true",
        "lm.batch_size=128",
        "lm.segment=128",
        "lm.shape={layers: 12, dim: 512, heads: 8, dropout: 0.1, shift: true}",
        "lm.scorer_train={steps: 600, lr: 0.003, warmup: 50, save_every: 0, tensorboard: false}",
        f"lm.train={{{FULL_TRAIN}}}",
        "native.capacity=128",
        f"native.train={{{FULL_TRAIN}}}",
        "passages=96",
    ),
    side=8192,
    dtype=torch.bfloat16,
    warm_up=60,
    most_steps=None,
    fit_passages=24,
    pytest=("-q", "-m", "gpu", "--timeout=60"),
)
QUICK_TRAIN = "steps: 1, lr: 0.001, warmup: 4, save_every: 0, log_every: 1, tensorboard: false"
QUICK = Scale(
    device="cpu",
    overrides=(
        "capacities=[16,32]",
        "rare=4.0",
        "lm.dtype=float32",
        "lm.data=builtin_text",
        "lm.front_end={name: bpe, vocab_size: 300, train_bytes: 20000}",
        "lm.train_tokens=6000",
        "lm.passage=128",
        "lm.batch_size=4",
        "lm.segment=16",
        "lm.shape={layers: 2, dim: 16, heads: 2, shift: true}",
        "lm.scorer={name: vq_lm, dim: 8, hidden: 8, codes: 8}",
        "lm.scorer_train={steps: 3, tensorboard: false}",
        f"lm.train={{{QUICK_TRAIN}}}",
        "native.capacity=16",
        f"native.train={{{QUICK_TRAIN}}}",
        "passages=8",
    ),
    side=128,
    dtype=torch.float32,
    warm_up=3,
    most_steps=5,
    fit_passages=2,
    pytest=("-q", "-m", "gpu", "--collect-only"),
)
SHARES = {"tests": 0.2, "reading": 0.1, "learned": 0.18}
"""Of all the time: the most that the tests may take, and what training leaves to the phases behind it."""
SAVING = 6.0
"""Seconds to save a model of 40 million parameters and what its optimiser remembers."""


@dataclass
class Session:
    """A run of the benchmark: its settings, and what it has found so far."""

    flags: argparse.Namespace
    scale: Scale
    config: Config
    folder: Path
    deadline: float
    values: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    """What was read; see `vqmem.recipes.compare.measure.measure`."""
    peak: float | None = None
    """TFLOP/s of the product."""
    steps: int = 0
    """Of each training."""
    trained: list[str] = field(default_factory=list)
    """The models that have all their steps."""

    def left(self) -> float:
        """Seconds that are left."""
        return self.deadline - time.monotonic()

    def share(self, *phases: str) -> float:
        """The seconds of `SHARES`."""
        return self.flags.seconds * sum(SHARES[phase] for phase in phases)

    def say(self, line: str) -> None:
        """Print a line with the seconds since the start."""
        print(f"[{self.flags.seconds - self.left():5.0f} s] {line}", file=sys.stderr, flush=True)

    def note(self, line: str) -> None:
        """Print a line, and add it to the result."""
        self.say(line)
        self.notes.append(line)

    def models(self) -> list[str]:
        """The models to train, the ones to skip first at the end."""
        return [MIXED, BASELINE, self.flags.winner, COMPRESSIVE]

    def model(self, name: str, steps: int) -> text_lm.Config:
        """The config of a model, which is trained for ``steps``."""
        made = self.config.mixed(0) if name == MIXED else self.config.natively(name, 0)
        return replace(made, train=replace(made.train, steps=steps))


def run_phase(session: Session, name: str, least: float, work: Callable[[], Any]) -> Any:
    """Run a phase, and write the result; a phase that fails is noted, so that it does not cost the other phases.

    Args:
        session: the run.
        name: the name of the phase.
        least: the seconds that it needs; where fewer are left it is skipped.
        work: the phase.

    Returns:
        What ``work`` returned; None for a phase that was skipped or failed.
    """
    phases = session.values.setdefault("Phases", {})
    began, found = time.monotonic(), None
    if session.left() < least:
        phases[name] = {"state": "skipped", "seconds": 0.0}
        session.note(f"{name}: skipped, {max(0.0, session.left()):.0f} s are left and it takes {least:.0f}")
    else:
        session.say(f"{name} …")
        done, found = attempt(session, name, work)
        phases[name] = {"state": "done" if done else "failed", "seconds": round(time.monotonic() - began, 1)}
    write(session)
    return found


def attempt(session: Session, name: str, work: Callable[[], Any]) -> tuple[bool, Any]:
    """Whether ``work`` succeeded, and what it returned; an error is printed and noted, and costs nothing else."""
    try:
        return True, work()
    except Exception as error:
        traceback.print_exc()
        session.note(f"{name}: failed ({type(error).__name__}: {str(error).strip().partition(chr(10))[0]})")
        return False, None


def write(session: Session) -> None:
    """Write what is known so far."""
    compiled, lm = session.config.lm.compile, session.config.lm
    read = {key: table for key, table in session.values.items() if key.endswith(" training")}
    first: dict[str, Any] = session.rows[0] if session.rows else {"documents": [], "tokens": 0}
    device = torch.cuda.get_device_name() if session.scale.device == "cuda" else "CPU, in miniature: no evidence"
    result = Result(
        title="One GPU for eight minutes",
        question="What do memories gain at 40 million parameters, and how fast does a GPU train them?",
        answer=counts(read) if read else "Nothing has been read.",
        measured=(
            f"On {device}: transformers ({lm.shape}), {lm.dtype}, {'compiled' if compiled else 'not compiled'}, "
            f"{session.steps} steps of {lm.batch_size} x {lm.segment} tokens each, passages of {lm.passage}. Read in "
            "float32. Counted operations: see the head of the script."
        ),
        values=session.values,
        split=f"{session.config.split}: {len(first['documents'])} passages, {first['tokens']} tokens",
        seeds=[0],
        intervals=session.intervals,
        interval_kind="95 %, paired bootstrap over passages, one training a model",
        notes=session.notes,
        topic="speed",
        machine=machine() | {"device": device},
    )
    for folder in (session.flags.out, *([RESULTS] if session.flags.save else [])):
        folder.mkdir(parents=True, exist_ok=True)
        write_result(NAME, result, folder)


def make_config(flags: argparse.Namespace, scale: Scale, folder: Path) -> Config:
    """The config ``novels`` of `vqmem compare` at this scale. Raises `ValueError` for an unknown winner."""
    data = [] if flags.quick else [f"lm.data.path={json.dumps(str(flags.data / 'text'))}"]
    extra = ["strategies.h2o={policy: h2o}"] if flags.winner == "h2o" else []
    natives = f"native.strategies={json.dumps([BASELINE, COMPRESSIVE, flags.winner])}"
    more = [f"out={json.dumps(str(folder))}", "seeds=[0]", f"split={flags.split}", f"lm.device={scale.device}", natives]
    configs = ROOT / "recipes" / "compare" / "configs"
    made = load(Config, "novels", [*scale.overrides, *data, *extra, *more], folder=configs)
    # The fitted policy has a phase of its own, after those that need no fit.
    return replace(made, strategies={name: made.strategies[name] for name in made.strategies if name != "learned"})
