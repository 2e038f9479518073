"""HuBERT units of LJSpeech to text by a language model with a bounded memory: character error rate by memory.

    python benchmarks/asr_units.py [--quick] [--json] [--save] [--run FOLDER]

Trains the config of `vqmem asr ljspeech_units` with these memories, drawn anew every few segments:

    recogniser.budgets=[64,128,256]   recogniser.strategies='{fifo: ..., scored: ...}'

256 slots (some 8 s of speech, beside the segment) are the largest memory here; 64 and 128 are 25 and 50 % of it.
Chapters of the test split are read as one recording each. The ceiling beside them is the aligner, which reads every
utterance whole and both ways. The best memory is chosen on dev. Needs $VQMEM_DATA (default ../shared/data) with
speech/hubert100_ljspeech.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from _results import figure, options, present
from vqmem.artifacts import atomic_write
from vqmem.recipes._config import load
from vqmem.recipes.asr.recipe import Config, Run, evaluate, fit
from vqmem.recipes.asr.utterances import read, recordings
from vqmem.registry import ROOT

GOAL = 20.0
HOURS = 2.0
FAST = 5.0
"""Times as fast as real time."""
UNITS = 50
"""A second."""
FULL = 256
"""Slots of the largest memory."""
MEMORIES = {"fifo": {"policy": "fifo"}, "scored": {"policy": {"name": "scored", "surprise": 1.0}}}
QUICK = ["recogniser.aligner.train.steps=20", "recogniser.scorer_train.steps=2", "train.steps=20", "train.eval_every=0"]
QUICK += ["eval_recordings=1", "joint=''", "recogniser.shape.layers=1", "recogniser.shape.dim=32"]


def main() -> None:
    """Train, measure, print, save."""
    parser = options(__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/asr_units"), help="folder of the run")
    flags = parser.parse_args()
    overrides = [
        f"recogniser.strategies={json.dumps(MEMORIES)}",
        f"recogniser.budgets={[FULL // 4, FULL // 2, FULL]}",
        *(QUICK if flags.quick else []),
    ]
    folder = ROOT / "recipes" / "asr" / "configs"
    run, hours = trained(load(Config, "ljspeech_units", [*overrides, f"out={flags.run}"], folder=folder))
    dev = rates(run, "dev")
    test = dev if flags.quick else rates(run, "test")
    best = min((way for way in dev if "@" in way), key=dev.__getitem__)
    full = min(test[f"{name}@{FULL}"] for name in MEMORIES)
    lost = {way: round(value - full, 2) for way, value in test.items() if "@" in way and not way.endswith(f"@{FULL}")}
    figures = {
        "character error rate": figure(test[best], "%", GOAL, least=False, memory=best, **test),
        "lost at a quarter of the slots": figure(
            min(value for way, value in lost.items() if way.endswith(f"@{FULL // 4}")),
            "points",
            1.0,
            least=False,
            **lost,
        ),
        "real time": figure(round(speed(run, best), 1), "x", FAST),
        "hours of processor time, training": figure(round(hours, 2), "h", 2 * HOURS, least=False),
    }
    present(
        "asr_units",
        figures,
        flags,
        title="Units to text with a bounded memory",
        claim="HuBERT units of LJSpeech become text at a character error rate of 20 % after two hours on two cores.",
        measured=(
            "Fit on 2.2 hours, chapters of the test split read as one recording each, character error rate over all. "
            "`whole (CTC)` stands beside it: the aligner, which reads each utterance whole, in both directions. Real "
            "time: one recording alone, with the best memory."
        ),
        notes=["One seed. Processor time is that of two cores for two hours at most."],
    )


def trained(config: Config) -> tuple[Run, float]:
    """The run, and how many hours of processor time it took to train, over all times it was started."""
    clock = Path(config.out).parent / f"{Path(config.out).name}_hours.json"
    hours, began = json.loads(clock.read_text()) if clock.is_file() else 0.0, time.process_time()
    done = (Path(config.out) / "transformer" / "config.json").is_file()
    try:
        run = fit(config)
    finally:
        if not done:
            hours += (time.process_time() - began) / 3600
            atomic_write(clock, json.dumps(hours))
    return run, hours


def speed(run: Run, way: str) -> float:
    """Seconds of speech that are read a second, of the first recording of dev, alone."""
    utterances, _ = read(run.config.data, "dev", run.recogniser, Path(run.config.out) / "utterances")
    recording = recordings(utterances, run.config.joint)[0]
    began = time.perf_counter()
    for _ in run.transcriber.ways[way]([[utterance.content for utterance in recording]]):
        pass
    return sum(utterance.length for utterance in recording) / UNITS / (time.perf_counter() - began)


def rates(run: Run, split: Any) -> dict[str, float]:
    """Character error rate of every way, in percent."""
    return {way: round(100 * own["cer"], 2) for way, own in evaluate(run, split)["ways"].items()}


if __name__ == "__main__":
    main()
