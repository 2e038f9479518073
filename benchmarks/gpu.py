"""What one GPU gives in eight minutes: its tests, trainings with bounded memories, what they read, and speed.

    python benchmarks/gpu.py [--seconds 480] [--split dev] [--winner surprise] [--data FOLDER] [--out FOLDER] [--save]
    python benchmarks/gpu.py --quick        # all of it in miniature on a CPU, on text that every Python carries

The phases, in this order; each has a share of the time, is skipped with a line where too little is left, and writes
``OUT/gpu.json`` at its end, so that a run that is cut off loses nothing:

1. **matmul**: the best speed of a large bfloat16 product, the peak of what follows.
2. **tests**: those of ``tests/gpu`` that are marked ``gpu``.
3. **scorer**: front-end and VQ-LM on the novels.
4. **warm-up**: the first steps of each training, which compile it and say how long a step takes.
5. **training**: `vqmem.recipes.text_lm` continues each to the same number of steps, and so of tokens: as many as fit
   into the time, at most ``--epochs`` of the novels. One model is trained with the mixed memory, one natively with each
   of: the newest tokens (Transformer-XL), the compressive memory, the winner. 12 layers, about 40 million parameters,
   bfloat16, compiled. Where the compiler fails, training goes on without it, and the result says so.
6. **reading**: bits per byte and the loss on long-gap tokens of each on the passages of the split, in float32, with
   paired intervals of the difference from the newest tokens.
7. **learned**: a policy that `vqmem fit_policy` fits to the mixed model, read in the same way.

``--winner`` is a strategy of the config ``novels`` of `vqmem compare`, or ``h2o``. ``--split`` is dev by default: the
novels' test split was read several times before, and new ones are for published claims. Choose on dev.

Share of the peak: floating-point operations of a training step, counted by `training_step.flops` (what it counts is
said there; the compression and its loss are not), a second, by those of the product. ``by 6 N`` takes 6 operations a
parameter and token in their place. Needs one card with bfloat16; without one and without ``--quick`` it ends with 2.
`make bench` leaves it out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
import traceback
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
import torch._dynamo
from vqmem.benchmarks._gpu import (
    BASELINE,
    COMPRESSIVE,
    FULL,
    MIXED,
    QUICK,
    SAVING,
    Session,
    attempt,
    make_config,
    run_phase,
    write,
)
from vqmem.benchmarks._results import ROOT, data_option, options
from vqmem.benchmarks.speed._training import Shape
from vqmem.benchmarks.speed.training_step import flops
from vqmem.benchmarks.text.memories import tables
from vqmem.memory.scorer import ScorerModel
from vqmem.recipes.compare.classes import token_classes
from vqmem.recipes.compare.config import Point
from vqmem.recipes.compare.kinds import token_kinds
from vqmem.recipes.compare.measure import EvalData, measure
from vqmem.recipes.compare.table import summarise
from vqmem.recipes.fit_policy.run import Config as FitConfig
from vqmem.recipes.fit_policy.run import run as fit_policy
from vqmem.recipes.lm.corpus import Passage
from vqmem.recipes.lm.language_model import load_language_model, score_passages
from vqmem.recipes.lm.strategies import Strategy, strategies
from vqmem.recipes.text_lm import recipe as text_lm
from vqmem.tokenizers_.base import Tokenizer

LEARNED = {"name": "weighted", "learned": 1.0, "score": 0.2}
"""The policy that is fitted to the mixed model, beside a share of surprise."""


class Prepared(NamedTuple):
    """What all trainings share."""

    tokenizer: Tokenizer
    scorer: ScorerModel
    corpus: list[Passage]


def run(session: Session) -> None:
    """All phases."""
    time_of = session.flags.seconds
    run_phase(session, "matmul", 0.02 * time_of, lambda: measure_peak(session))
    run_phase(session, "tests", 0.05 * time_of, lambda: run_tests(session))
    prepared = run_phase(session, "scorer", 0.2 * time_of, lambda: prepare(session))
    if prepared is None:
        return
    speeds = run_phase(session, "warm-up", 0.2 * time_of, lambda: warm_up(session, prepared))
    if speeds is None:
        return
    run_phase(session, "training", 0.2 * time_of, lambda: train_all(session, prepared, speeds))
    if MIXED in session.trained or BASELINE in session.trained:
        run_phase(session, "reading", 0.03 * time_of, lambda: read_all(session, prepared))
    if MIXED in session.trained:
        run_phase(session, "learned", 0.15 * time_of, lambda: read_learned(session, prepared))


def measure_peak(session: Session) -> None:
    """The best of several products of two square matrices."""
    side, device, count = session.scale.side, torch.device(session.scale.device), 20
    a, b = torch.randn(2, side, side, device=device, dtype=session.scale.dtype)
    product, seconds = torch.empty_like(a), []
    for _ in range(5):
        _wait(device)
        began = time.perf_counter()
        for _ in range(count):
            torch.mm(a, b, out=product)
        _wait(device)
        seconds.append((time.perf_counter() - began) / count)
    best, median = (2 * side**3 / of(seconds) / 1e12 for of in (min, statistics.median))
    session.peak = best
    name = f"{side} x {side}, {str(session.scale.dtype).removeprefix('torch.')}"
    session.values["Matmul"] = {name: {"TFLOP/s": round(best, 4), "median": round(median, 4)}}


def run_tests(session: Session) -> None:
    """The tests that are marked ``gpu``, in a process of their own. Raises `RuntimeError` where they fail."""
    report = session.folder / "tests.xml"
    arguments = [*session.scale.pytest, "-p", "no:cacheprovider", f"--junitxml={report}", "tests/gpu"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=ROOT,
        timeout=max(1.0, min(session.left(), session.share("tests"))),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout[-3000:], file=sys.stderr)
    suite = ET.parse(report).getroot().find("testsuite") if report.is_file() else None
    found = (
        {} if suite is None else {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
    )
    session.values["Tests"] = {"marked gpu": {**found, "exit status": done.returncode}}
    if done.returncode:
        raise RuntimeError(f"pytest ended with {done.returncode}")


def prepare(session: Session) -> Prepared:
    """Front-end and scorer of all models, and the training text."""
    return Prepared(*text_lm.fit_scorer(session.model(MIXED, session.scale.warm_up)))


def warm_up(session: Session, prepared: Prepared) -> dict[str, float]:
    """The seconds of a step of each training, from its first steps, which stay a part of it."""
    speeds = {}
    for name in session.models():
        trained, _ = attempt(session, name, partial(train, session, prepared, name, session.scale.warm_up))
        if not trained:
            continue
        lines = timing(session, name)
        speeds[name] = statistics.median(line["seconds a step"] for line in lines[len(lines) // 2 :])
        session.say(f"{name}: {1e3 * speeds[name]:.1f} ms a step")
    if not speeds:
        raise RuntimeError("no model could be trained")
    return speeds


def train_all(session: Session, prepared: Prepared, speeds: Mapping[str, float]) -> None:
    """Continue each training to the number of steps that fits into the time for all."""
    lm, scale = session.config.lm, session.scale
    text = sum(len(passage.ids) for passage in prepared.corpus)
    limits = [int(session.flags.epochs * text / (lm.batch_size * lm.segment)), scale.most_steps]
    seconds = session.left() - session.share("reading", "learned") - SAVING * len(speeds)
    limits.append(scale.warm_up + int(0.9 * seconds / sum(speeds.values())))
    session.steps = max(scale.warm_up, min(limit for limit in limits if limit is not None))
    session.say(f"{session.steps} steps of each training")
    for name, seconds_a_step in speeds.items():
        needed = SAVING + 1.1 * (session.steps - scale.warm_up) * seconds_a_step
        if session.left() < needed:
            session.note(f"{name}: not trained, {max(0.0, session.left()):.0f} s are left and it takes {needed:.0f}")
            continue
        trained, _ = attempt(session, name, partial(train, session, prepared, name, session.steps))
        if not trained:
            continue
        session.trained.append(name)
        session.values.setdefault("Training", {})[name] = training_figures(session, prepared, name)
        write(session)


def train(session: Session, prepared: Prepared, name: str, steps: int) -> None:
    """Train a model, without the compiler if that fails.

    Args:
        session: Settings and notes of the run.
        prepared: Front-end, scorer and text.
        name: Of the model.
        steps: To which step it is trained.
    """
    config = session.model(name, steps)
    try:
        text_lm.train_model(config, prepared.tokenizer, prepared.scorer, prepared.corpus)
    except RuntimeError as error:
        if not config.compile:
            raise
        traceback.print_exc()
        session.note(f"compiled training failed ({str(error).strip().partition(chr(10))[0]}); on without the compiler")
        session.config = replace(session.config, lm=replace(session.config.lm, compile=False))
        train(session, prepared, name, steps)


def timing(session: Session, name: str) -> list[dict[str, float]]:
    """The lines of the log of a training, with tokens and ``seconds a step`` of the stretch that each is of."""
    folder = Path(session.model(name, 1).out) / "transformer" / "training"
    logs = []
    for file, kind in (("metrics.jsonl", "train"), ("timing.jsonl", "timing")):
        lines = [json.loads(line) for line in (folder / file).read_text(encoding="utf-8").splitlines()]
        logs.append([line for line in lines if line["kind"] == kind])
    merged = [{**metrics, **times} for metrics, times in zip(*logs, strict=True)]
    starts = [0, *(line["step"] for line in merged)]
    return [
        {**line, "seconds a step": line["seconds"] / (line["step"] - start)}
        for start, line in zip(starts, merged, strict=False)
    ]


def training_figures(session: Session, prepared: Prepared, name: str) -> dict[str, Any]:
    """The row of a training: tokens, loss at its end, speed behind the warm-up and share of the peak."""
    lm, lines = session.config.lm, timing(session, name)
    later = [line["seconds a step"] for line in lines if line["step"] > session.scale.warm_up] or [
        lines[-1]["seconds a step"]
    ]
    second, size = 1 / statistics.median(later), lm.batch_size * lm.segment
    shape = Shape(
        lm.shape.dim, lm.shape.layers, lm.shape.heads, lm.batch_size, lm.segment, prepared.tokenizer.vocab_size
    )
    capacity = session.config.native.capacity
    if name == MIXED:
        capacity = round(statistics.mean(session.config.capacities))
    model = load_language_model(Path(session.model(name, 1).out) / "transformer", prepared.scorer)
    parameters = sum(weight.numel() for weight in model.transformer.parameters())
    speeds = {"counted": flops(shape, capacity) * second / 1e12, "by 6 N": 6 * parameters * size * second / 1e12}
    row: dict[str, Any] = {
        "parameters": parameters,
        "steps": session.steps,
        "tokens": int(sum(line["tokens"] for line in lines)),
        "nll, last": round(lines[-1]["nll"], 4),
        "tokens/s": round(size * second),
        "TFLOP/s, counted": round(speeds["counted"], 4),
    }
    if session.peak:
        row |= {f"% of the peak, {how}": round(100 * speed / session.peak, 2) for how, speed in speeds.items()}
    return row


def read_all(session: Session, prepared: Prepared) -> None:
    """Read the split with each model and memory, the native ones first, while there is time."""
    reader = reader_of(session, prepared)
    built = {strategy.name: strategy for strategy in strategies(session.config.strategies)}
    longest = 0.0
    for point in points(session):
        if session.left() < 1.5 * longest:
            session.note(f"reading: ended before {point.strategy} @ {point.capacity}, {point.train}, for time")
            break
        began = time.monotonic()
        attempt(session, f"reading {point}", partial(reader, point, built[point.strategy]))
        longest = max(longest, time.monotonic() - began)
    add_tables(session)


def points(session: Session) -> Iterator[Point]:
    """What to read, in the order of its worth; the baseline comes first, for the rest is compared with it."""
    config, names = session.config, [BASELINE, session.flags.winner, COMPRESSIVE]
    if BASELINE in session.trained:
        yield from (Point(name, config.native.capacity, 0, "native") for name in names if name in session.trained)
    if MIXED in session.trained:
        others = [capacity for capacity in config.capacities if capacity != config.native.capacity]
        every = [*names, *(name for name in config.strategies if name not in names)]
        yield from (Point(name, config.native.capacity, 0, "mixed") for name in every)
        yield from (Point(name, capacity, 0, "mixed") for capacity, name in itertools.product(others, names))


def reader_of(session: Session, prepared: Prepared) -> Callable[[Point, Strategy], None]:
    """A function that reads the passages with a strategy, and adds the row to those of the session."""
    config, device = session.config, torch.device(session.scale.device)
    mixed = session.model(MIXED, 1)
    items = text_lm.read_split(mixed, prepared.tokenizer, config.split, count=config.passages)
    scores = score_passages(prepared.scorer, items, mixed.batch_size, mixed.segment, device)
    kinds = token_kinds(prepared.corpus, prepared.tokenizer, config.rare)
    data = EvalData(items, scores, kinds, token_classes(items, prepared.tokenizer))

    def read(point: Point, strategy: Strategy) -> None:
        folder = Path(session.model(MIXED if point.train == "mixed" else point.strategy, 1).out) / "transformer"
        model = load_language_model(folder, prepared.scorer, device)
        session.rows.append(asdict(point) | measure(model, strategy, point, config.lm, data))

    return read


def read_learned(session: Session, prepared: Prepared) -> None:
    """Fit a policy to the mixed model, and read with it."""
    folder, count = session.folder / "policy", session.scale.fit_passages
    given = FitConfig(str(folder), passages=count, stream_passages=max(2, count // 3), device=session.scale.device)
    fit_policy(session.model(MIXED, 1).out, given)
    [learned] = strategies({"learned": {"policy": {**LEARNED, "folder": str(folder)}}})
    reader_of(session, prepared)(Point("learned", session.config.native.capacity, 0, "mixed"), learned)
    add_tables(session)


def add_tables(session: Session) -> None:
    """The tables of all that was read and can be compared with the baseline."""
    places = {(row["train"], row["capacity"]) for row in session.rows if row["strategy"] == BASELINE}
    rows = [row for row in session.rows if (row["train"], row["capacity"]) in places]
    if not rows:
        raise RuntimeError(f"{BASELINE} was not read, so nothing can be compared with it")
    summary = summarise(rows, BASELINE)
    values, intervals = tables(summary)
    session.values |= values
    session.intervals |= intervals
    session.values["Reading"] = {
        f"{row['strategy']} @ {row['capacity']}, {row['train']}": {"tokens/s": round(row["tokens_per_second"])}
        for row in summary["rows"]
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=480.0, help="time for all phases (default 480)")
    parser.add_argument("--epochs", type=float, default=4.0, help="most epochs of training (default 4)")
    parser.add_argument("--split", choices=("dev", "test"), default="dev", help="what is read (default dev)")
    parser.add_argument("--winner", default="surprise", help="strategy to train natively (default surprise; or h2o)")
    data_option(parser)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of gpu.json (default runs/gpu)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, save; returns the exit status: 1 where something was skipped or failed."""
    flags = parse(arguments)
    scale = QUICK if flags.quick else FULL
    if scale.device == "cuda" and not torch.cuda.is_available():
        print("gpu.py: no CUDA device here; run it where there is one, or give --quick", file=sys.stderr)
        return 2
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            config = make_config(flags, scale, folder / "models")
            if flags.winner in (BASELINE, COMPRESSIVE):
                raise ValueError(f"--winner {flags.winner} is trained anyway; give another strategy")
            if not flags.quick and not (flags.data / "text" / "train").is_dir():
                raise ValueError(f"{flags.data / 'text'} has no train/ of novels; give their folder by --data")
        except ValueError as error:
            print(f"gpu.py: {error}", file=sys.stderr)
            return 2
        torch._dynamo.config.recompile_limit = 64  # beyond it, what is compiled would silently run uncompiled
        session = Session(flags, scale, config, folder, time.monotonic() + flags.seconds)
        run(session)
    if flags.json:
        print(json.dumps(session.values, indent=2))
    else:
        for heading, table in session.values.items():
            print("\n".join([heading, *(f"  {row}: {columns}" for row, columns in table.items())]))
    return 1 if session.notes else 0


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main())
