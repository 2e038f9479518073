r"""Spoken digits (FSDD): utterances right on the official test split, on speakers left out, and what pretraining adds.

    python benchmarks/asr_digits.py [--quick] [--json] [--save] [--runs FOLDER] [--encoder FOLDER] [--seeds N]

Trains what is not in the folder yet, as these do:

    vqmem asr digits out=RUNS/official
    vqmem asr digits out=RUNS/without_NAME train.steps=1000 \
        data.splits='{train: {speaker: [OTHERS]}, dev: {...}, test: {speaker: NAME}}'
    vqmem asr digits out=RUNS/scratch_SEED    seed=SEED recogniser.model='{of ENCODER}' recogniser.filters=0 \
        rows=8 train.steps=600 train.lr=0.002
    vqmem asr digits out=RUNS/pretrained_SEED seed=SEED recogniser.encoder=ENCODER rows=8 train.steps=600 train.lr=0.002

The last two are the same network at the same steps, with the weights of ENCODER, a finished
`vqmem speech_pretraining tiny` on LibriSpeech, and without. Everything was chosen on dev (takes 5 to 9); test splits
are read once, when all is trained. Needs $VQMEM_DATA (default ../shared/data) with speech/fsdd.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from _results import figure, options, present
from vqmem.models.features.hubert import load as load_hubert
from vqmem.recipes._config import as_dict, load
from vqmem.recipes.asr.recipe import Config, Run, evaluate, fit
from vqmem.registry import ROOT

GOAL = 97.0
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
SIDES = ("scratch", "pretrained")
LEFT_OUT = ["train.steps=1000"]
COMPARED = ["rows=8", "train.steps=600", "train.lr=0.002"]
QUICK = ["train.steps=3", "train.eval_every=0", "eval_recordings=20"]


def main() -> None:
    """Train, measure, print, save."""
    parser = options(__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/asr_digits"), help="folder of the runs")
    told = "run of `vqmem speech_pretraining` to start from (default: that of hubert_pnmi.py); left out if not there"
    parser.add_argument("--encoder", type=Path, default=Path("runs/hubert_pnmi"), help=told)
    parser.add_argument("--seeds", type=int, default=3, help="of the comparison with pretraining (default 3)")
    flags = parser.parse_args()
    quick = QUICK if flags.quick else []
    compared = comparison(flags.encoder, 1 if quick else flags.seeds) if flags.encoder.is_dir() else {}
    wanted = {"official": [], **compared, **{f"without_{name}": without(name) for name in SPEAKERS}}
    trained = {name: train(flags.runs / name, [*overrides, *quick]) for name, overrides in wanted.items()}
    found = {name: right(run) for name, run in trained.items()}
    left_out: dict[str, Any] = {name: found[f"without_{name}"] for name in SPEAKERS}
    figures = {
        "utterances right, official split": figure(found["official"], "%", GOAL, ceiling=100.0),
        "utterances right, speaker left out": figure(mean(left_out.values()), "%", 0.0, ceiling=100.0, **left_out),
    }
    if compared:
        means: dict[str, Any] = {
            side: mean(found[name] for name in compared if name.startswith(side)) for side in SIDES
        }
        gain = round(means["pretrained"] - means["scratch"], 2)
        own: dict[str, Any] = {name: found[name] for name in compared}
        figures["gain of pretraining at equal steps"] = figure(gain, "points", 0.0, **means, **own)
    present(
        "asr_digits",
        figures,
        flags,
        title="Recognising spoken digits",
        claim="CTC on waveforms gets 97 % of spoken digits right on the official split (speakers known).",
        measured=(
            "FSDD, 3,000 recordings of six speakers; letters by greedy CTC, right where all letters are. Official: "
            "takes 0 to 4 are test, `vqmem asr digits`, one seed. Left out: all 500 takes of one speaker are test, the "
            "others are trained on, for a quarter of the updates. Ceiling: every utterance right."
        ),
        split="FSDD, test: 300 recordings of the official split, 500 of each speaker left out",
        notes=[
            "Pretraining: the encoder of `vqmem speech_pretraining tiny`, 52 minutes of LibriSpeech, against the same "
            f"network from scratch on the official split, 600 updates of 8 recordings, {flags.seeds} seeds, mean."
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
    return [f"data.splits={json.dumps(splits)}", *LEFT_OUT]


def comparison(encoder: Path, seeds: int) -> dict[str, list[str]]:
    """Runs, and what makes them, with the weights of ``encoder`` and with its network from scratch."""
    _, config = load_hubert(encoder / "model")
    of_side = {
        "scratch": [f"recogniser.model={json.dumps(as_dict(config))}", "recogniser.filters=0"],
        "pretrained": [f"recogniser.encoder={encoder}"],
    }
    return {f"{side}_{seed}": [*of_side[side], f"seed={seed}", *COMPARED] for seed in range(seeds) for side in SIDES}


def train(out: Path, overrides: list[str]) -> Run:
    """The run in ``out``, trained where that has not been done."""
    return fit(load(Config, "digits", [*overrides, f"out={out}"], folder=ROOT / "recipes" / "asr" / "configs"))


def right(run: Run) -> float:
    """Percent of the test utterances without an error."""
    return round(100 * evaluate(run, "test")["ways"]["greedy"]["right"], 2)


def mean(values: Iterable[float]) -> float:
    """The mean, to two places."""
    own = list(values)
    return round(sum(own) / len(own), 2)


if __name__ == "__main__":
    main()
