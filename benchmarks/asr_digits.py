"""Spoken digits (FSDD): utterances right on the official test split, on speakers left out, and what pretraining adds.

    python benchmarks/asr_digits.py [--quick] [--json] [--save] [--runs FOLDER] [--encoder FOLDER]

Trains what is not in the folder yet, as these do:

    vqmem asr digits out=RUNS/official
    vqmem asr digits out=RUNS/without_NAME data.splits='{train: {speaker: [OTHERS]}, dev: {...}, test: {speaker: NAME}}'
    vqmem asr digits out=RUNS/scratch_SEED    seed=SEED recogniser.model='{of ENCODER}'
    vqmem asr digits out=RUNS/pretrained_SEED seed=SEED recogniser.encoder=ENCODER

The last two are the same network at the same steps, with the weights of ENCODER, a finished
`vqmem speech_pretraining tiny` on LibriSpeech, and without. Everything was chosen on dev (takes 5 to 9); test splits
are read once. Needs $VQMEM_DATA (default ../shared/data) with speech/fsdd.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from _results import figure, options, present
from vqmem.models.features.hubert import load as load_hubert
from vqmem.recipes._config import as_dict, load
from vqmem.recipes.asr.recipe import Config, evaluate, fit
from vqmem.registry import ROOT

GOAL = 97.0
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
SEEDS = (0, 1, 2)
QUICK = ["train.steps=3", "train.eval_every=0", "eval_recordings=20"]


def main() -> None:
    """Train, measure, print, save."""
    parser = options(__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/asr_digits"), help="folder of the runs")
    told = "run of `vqmem speech_pretraining` to start from (default: that of hubert_pnmi.py)"
    parser.add_argument("--encoder", type=Path, default=Path("runs/hubert_pnmi"), help=told)
    flags = parser.parse_args()
    quick = QUICK if flags.quick else []
    official = right(flags.runs / "official", quick)
    left_out = {name: right(flags.runs / f"without_{name}", [*without(name), *quick]) for name in SPEAKERS}
    figures = {
        "utterances right, official split": figure(official, "%", GOAL),
        "utterances right, speaker left out": figure(mean(left_out.values()), "%", 0.0, least=True, **left_out),
    }
    if flags.encoder.is_dir():
        figures["gain of pretraining at equal steps"] = pretraining(flags.runs, flags.encoder, quick)
    present(
        "asr_digits",
        figures,
        flags,
        title="Recognising spoken digits",
        claim="CTC on waveforms gets 97 % of spoken digits right on the official split (speakers known).",
        measured=(
            "FSDD, 3,000 recordings of six speakers; letters by greedy CTC, right where all letters are. Official: "
            "takes 0 to 4 are test. Left out: all takes of one are test, the others are trained on. Ceiling: "
            "every utterance right."
        ),
        notes=[
            "Pretraining: the encoder of `vqmem speech_pretraining tiny`, 52 minutes of LibriSpeech, mean of seeds."
        ],
    )


def without(speaker: str) -> list[str]:
    """Overrides that leave ``speaker`` out of training; takes 5 to 9 of the others are dev."""
    others = [name for name in SPEAKERS if name != speaker]
    splits = {
        "train": {"speaker": others, "path": ["*_[0-4].wav", "*_[1-4][0-9].wav"]},
        "dev": {"speaker": others, "path": "*_[5-9].wav"},
        "test": {"speaker": speaker},
    }
    return [f"data.splits={json.dumps(splits)}"]


def pretraining(runs: Path, encoder: Path, quick: list[str]) -> dict[str, Any]:
    """Points that the weights of ``encoder`` add to the share of utterances right, and what both reach by seed."""
    _, config = load_hubert(encoder / "model")
    sides = {
        "scratch": f"recogniser.model={json.dumps(as_dict(config))}",
        "pretrained": f"recogniser.encoder={encoder}",
    }
    found = {
        f"{side}, seed {seed}": right(runs / f"{side}_{seed}", [override, f"seed={seed}", *quick])
        for side, override in sides.items()
        for seed in (SEEDS[:1] if quick else SEEDS)
    }
    means = {side: mean(value for key, value in found.items() if key.startswith(side)) for side in sides}
    return figure(round(means["pretrained"] - means["scratch"], 2), "points", 0.0, least=True, **means, **found)


def right(out: Path, overrides: list[str]) -> float:
    """Percent of the test utterances without an error."""
    config = load(Config, "digits", [*overrides, f"out={out}"], folder=ROOT / "recipes" / "asr" / "configs")
    return round(100 * evaluate(fit(config), "test")["ways"]["greedy"]["right"], 2)


def mean(values: Any) -> float:
    """The mean, to two places."""
    own = list(values)
    return round(sum(own) / len(own), 2)


if __name__ == "__main__":
    main()
