"""Perplexity of language models of HuBERT units on the test chapters of LJSpeech, by memory.

    python benchmarks/speech/unit_lm.py [--quick] [--json] [--save] [--runs FOLDER]

Trains what is not in the folder yet, as these do:

    vqmem text_lm units out=FOLDER/frames
    vqmem text_lm units out=FOLDER/runs_SEED seed=SEED front_end.deduplicate=true shape.dropout=0.2 train.steps=2200

A figure is the perplexity a token, a frame of 20 ms or a run of one unit, of the memory that was best on dev; chapters
are streams of up to ``passage`` tokens. Runs are half as many; the mean of the probabilities of two
models, which differ only in their seed, predicts them; each takes a core about a quarter of an hour. The goals lie
below 4-grams fitted on the same utterances: 4.47 and 6.30. Needs $VQMEM_DATA (default ../shared/data) with
speech/hubert100_ljspeech.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from vqmem.benchmarks._results import figure, options, present
from vqmem.data.base import Split
from vqmem.models.device import resolve_device
from vqmem.recipes.engine.config import load
from vqmem.recipes.lm.language_model import read_passages, score_passages
from vqmem.recipes.lm.strategies import strategies
from vqmem.recipes.text_lm.for_tokenizer import CONFIGS
from vqmem.recipes.text_lm.recipe import Config, Run, fit, read_split

RUNS = ["front_end.deduplicate=true", "shape.dropout=0.2", "train.steps=2200"]
"""There are half as many tokens without repeats: 0.1 and 1,500 updates overfitted them, on dev."""
QUICK = [
    "scorer_train.steps=5",
    "train.steps=5",
    "train.eval_every=0",
    "train_tokens=20000",
    "eval_passages=2",
    "capacities=[64]",
]


class Wanted(NamedTuple):
    """A figure: its goal, and for each model that it averages, by folder, the overrides of the config ``units``."""

    goal: float
    models: dict[str, list[str]]


WANTED = {
    "frames": Wanted(4.1, {"frames": []}),
    "runs": Wanted(5.5, {f"runs_{seed}": [*RUNS, f"seed={seed}"] for seed in (0, 1)}),
}


def main() -> None:
    """Train, measure, print, save."""
    parser = options(__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/unit_lm"), help="folder of the runs")
    flags = parser.parse_args()
    figures = {name: measure(flags.runs, wanted, flags.quick) for name, wanted in WANTED.items()}
    present(
        "unit_lm",
        figures,
        flags,
        title="Language models of HuBERT units",
        question="Do transformers with a bounded memory predict HuBERT units better than 4-grams (4.47 and 6.30)?",
        measured=(
            "Perplexity a token on the test chapters of LJSpeech, by the memory that was best on dev. Runs: the mean "
            "of the probabilities of two models that differ in their seed, a quarter of an hour on a core each."
        ),
        split="HuBERT units of LJSpeech, test (50 chapters)",
        history=[
            "The test split of runs was read three times: with one model with the settings of the one of frames, which "
            "overfitted (5.66), with one of those shown here (5.65), and by the mean of two. All were chosen on dev."
        ],
    )


def measure(folder: Path, wanted: Wanted, quick: bool) -> dict[str, Any]:
    """Test perplexity of the memory that was best on dev, and of the others with as many slots."""
    runs = [trained(folder / name, [*changes, *(QUICK if quick else [])]) for name, changes in wanted.models.items()]
    memories = [
        (s.name, capacity) for s in strategies(runs[0].config.strategies) for capacity in runs[0].config.capacities
    ]
    dev = perplexities(runs, "dev", memories)
    best, slots = min(memories, key=lambda memory: dev[memory][0])
    test = perplexities(runs, "test", [memory for memory in memories if memory[1] == slots])
    more = {f"{name}@{slots}": round(mean, 3) for (name, _), (mean, _) in test.items()}
    mean, alone = test[best, slots]
    if len(runs) > 1:
        more |= {f"{name} alone": round(value, 3) for name, value in zip(wanted.models, alone, strict=True)}
    return figure(round(mean, 3), "perplexity", wanted.goal, least=False, memory=f"{best}@{slots}", **more)


def trained(out: Path, changes: list[str]) -> Run:
    """The finished run in ``out``."""
    return fit(load(Config, "units", [f"out={out}", *changes], folder=CONFIGS))


def perplexities(
    runs: list[Run], split: Split, memories: list[tuple[str, int]]
) -> dict[tuple[str, int], tuple[float, list[float]]]:
    """By memory: the perplexity of the mean of the runs' probabilities, and that of each run."""
    nll = torch.stack([losses(run, split, memories) for run in runs])
    mean = -(torch.logsumexp(-nll, 0) - math.log(len(runs))).mean(-1)
    alone = nll.mean(-1).exp().T.tolist()
    return dict(zip(memories, zip(mean.exp().tolist(), alone, strict=True), strict=True))


def losses(run: Run, split: Split, memories: list[tuple[str, int]]) -> Float[Tensor, "memory time"]:
    """Nats of every token of ``split`` but the first of each passage, by memory."""
    config = run.config
    items = read_split(config, run.tokenizer, split, count=config.eval_passages)
    scores = score_passages(run.scorer, items, config.batch_size, config.segment, resolve_device(config.device))
    by_name = {strategy.name: strategy for strategy in strategies(config.strategies)}
    rows = []
    for name, capacity in memories:
        memory = by_name[name].memory(capacity, config.guard)
        readings, _ = read_passages(run.model, by_name[name], memory, items, scores, config.batch_size, config.segment)
        rows.append(torch.cat([reading.nll.double() for reading in readings]))
    return torch.stack(rows)


if __name__ == "__main__":
    main()
