"""Whether a score peaks where phones begin: F1 within 20 ms, against a spectral change and shuffled scores.

    python benchmarks/speech/phone_boundaries.py [--quick] [--json] [--save] [--data FOLDER] [--runs FOLDER] [--steps N]

Scorers are trained as these do (seeds 0, 1 and 2), with fewer updates, on speakers of LibriSpeech train-clean-100 whose
number does not end in 7:

    vqmem text_lm speech               a VQ-LM on units, 50 a second
    vqmem frame_scorer librispeech     one on frames of MFCC

Peaks are picked with the prominence, distance and lag that give the best F1 on the held-out speakers, for each method
by itself over the same grid, and read once on the 100 clips of LibriSpeech test-other. A recogniser
labelled the phones (`_phones.py`; `hama` 1.7 must be importable), and a boundary is the beginning of a phone.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from vqmem.benchmarks._results import Result, figure, options, show, write_result
from vqmem.benchmarks.speech._boundaries import Picking, choose, counts, even, figures, intervals, pick
from vqmem.benchmarks.speech._phones import FRAME, label
from vqmem.data.base import Document
from vqmem.recipes.engine import config as _config
from vqmem.recipes.frame_scorer import recipe as frame_scorer
from vqmem.recipes.scoring.audio import AudioScorer, load_audio_scorer
from vqmem.recipes.text_lm import recipe as text_lm
from vqmem.registry import ROOT, build
from vqmem.tokenizers_.speech.frames import stream_frames

SEEDS = (0, 1, 2)
BASELINE, EVEN = "MFCC change", "evenly spaced"
SHUFFLED = "shuffled"
BREAK = "<wb>"
"""What the recogniser says between words."""


def main() -> None:
    """Train, choose on dev, read test, print, save."""
    parser = options(__doc__)
    default = os.environ.get("VQMEM_DATA", "../shared/data")
    parser.add_argument("--data", default=default, help="folder that holds speech/ (default $VQMEM_DATA)")
    parser.add_argument("--runs", type=Path, default=Path("runs/phone_boundaries"), help="folder of the runs")
    parser.add_argument("--steps", type=int, default=600, help="updates of each scorer")
    flags = parser.parse_args()
    os.environ["VQMEM_DATA"] = flags.data
    seeds = SEEDS[:1] if flags.quick else SEEDS
    steps = 20 if flags.quick else flags.steps
    scorers = {
        "units": [units_scorer(flags.runs, seed, steps) for seed in seeds],
        "frames": [frames_scorer(flags.runs, seed, steps) for seed in seeds],
    }
    dev, test = (split(flags, name, 8 if flags.quick else None) for name in ("dev", "test"))
    few = "_quick" if flags.quick else ""
    truths = {
        name: starts(documents, flags.runs / f"{name}{few}.tsv") for name, documents in (("dev", dev), ("test", test))
    }
    curves = {name: all_curves(scorers, documents, len(seeds)) for name, documents in (("dev", dev), ("test", test))}
    pickings = {method: choose(truths["dev"], of) for method, of in curves["dev"].items()}
    counted = {
        method: np.stack([counts(truths["test"], [pick(curve, pickings[method]) for curve in seed]) for seed in of])
        for method, of in curves["test"].items()
    }
    rate = sum(map(len, truths["dev"])) / sum(len(curve) * FRAME for curve in curves["dev"][BASELINE][0])
    spaced = [even(len(curve) * FRAME, rate) for curve in curves["test"][BASELINE][0]]
    counted[EVEN] = counts(truths["test"], spaced)[None]
    report(
        flags, counted, pickings, list(seeds), steps, f"{sum(map(len, truths['test']))} boundaries of {len(test)} clips"
    )


def split(flags: argparse.Namespace, name: str, limit: int | None) -> list[Document]:
    """The held-out speakers of train-clean-100 as dev, test-other as test."""
    where = {
        "dev": {"path": "librispeech_train_clean_100/*", "speaker": "*7"},
        "test": {"path": "librispeech_test_other/*"},
    }
    source = {"name": "audio_files", "path": f"{flags.data}/speech", "splits": {name: where[name]}}
    return list(build("data", source).documents(name))[:limit]


def starts(documents: Sequence[Document], path: Path) -> list[list[float]]:
    """When phones begin, in each recording."""
    lines = [line.split("\t") for line in label(documents, path).read_text(encoding="utf-8").splitlines()[1:]]
    names = {name for name, *_ in lines}
    if missing := [document.name for document in documents if document.name not in names]:
        raise ValueError(f"{str(path)!r} has no phones of {missing[0]!r}; delete it to label the recordings again")
    found: dict[str, list[float]] = {document.name: [] for document in documents}
    for name, start, _, phone in lines:
        if phone != BREAK and name in found:
            found[name].append(float(start))
    return list(found.values())


def units_scorer(runs: Path, seed: int, steps: int) -> AudioScorer:
    """A VQ-LM on units, trained unless it is there."""
    overrides = [f"seed={seed}", f"scorer_train.steps={steps}", "scorer_train.eval_every=0"]
    folder = runs / f"units-{steps}-{seed}"
    path = ROOT / "recipes" / "text_lm" / "configs"
    text_lm.fit_scorer(_config.load(text_lm.Config, "speech", [f"out={folder}", *overrides], folder=path))
    return load_audio_scorer(folder)


def frames_scorer(runs: Path, seed: int, steps: int) -> AudioScorer:
    """A VQ-LM on frames, trained unless it is there."""
    overrides = [f"seed={seed}", f"train.steps={steps}", "train.eval_every=0", "eval_clips=1"]
    folder = runs / f"frames-{steps}-{seed}"
    path = ROOT / "recipes" / "frame_scorer" / "configs"
    frame_scorer.run(_config.load(frame_scorer.Config, "librispeech", [f"out={folder}", *overrides], folder=path))
    return load_audio_scorer(folder)


def all_curves(
    scorers: dict[str, list[AudioScorer]], documents: Sequence[Document], seeds: int
) -> dict[str, list[list[np.ndarray]]]:
    """The curves whose peaks are picked, by method, seed and recording; the baseline has one seed."""
    extractor = build("features", "mfcc39").build()
    curves: dict[str, list[list[np.ndarray]]] = {BASELINE: [[]]}
    for document in documents:
        audio = document.content("audio")
        frames = torch.cat(list(stream_frames(audio.stream(), extractor, document.name)))
        curves[BASELINE][0].append(change(frames))
        for kind, of in scorers.items():
            for seed, scorer in enumerate(of):
                scores = scorer(audio)
                columns = {name: scores.signal(name).double().numpy() for name in scores.given}
                random = np.random.default_rng([seed, len(scores.signals)])
                columns[f"surprise, {SHUFFLED}"] = random.permutation(columns["surprise"])
                for name, column in columns.items():
                    rows = curves.setdefault(f"{name} of {kind}", [[] for _ in range(seeds)])
                    rows[seed].append(column)
    return curves


def change(frames: Float[Tensor, "frames 39"]) -> Float[np.ndarray, " frames"]:
    """How fast the cepstra change: the norm of their deltas, in standard deviations of each cepstrum in the clip."""
    cepstra, deltas = frames[:, :13].double(), frames[:, 13:26].double()
    return (deltas / cepstra.std(0).clamp(min=1e-6)).norm(dim=1).numpy()


def report(
    flags: argparse.Namespace,
    counted: dict[str, np.ndarray],
    pickings: dict[str, Picking],
    seeds: list[int],
    steps: int,
    split: str,
) -> None:
    """Print the figures and, with ``--save``, write the result.

    Args:
        flags: the parsed flags of the benchmark.
        counted: matched, true and found boundaries on test, ``[seeds, clips, 3]``, by method.
        pickings: how each method picks peaks, as chosen on dev.
        seeds: the seeds of the scorers.
        steps: training steps of each scorer.
        split: the number of boundaries and clips that were read.
    """
    scored = [name for name in pickings if name != BASELINE and SHUFFLED not in name]
    rivals = [BASELINE, *(name for name in pickings if SHUFFLED in name), EVEN]
    f1_ends, apart = intervals(counted, rivals)
    table: dict[str, dict[str, Any]] = {
        name: {key: round(x, 4) for key, x in figures(of.sum((0, 1))).items()} for name, of in counted.items()
    }
    for name, of in counted.items():
        table[name]["F1 by seed"] = ", ".join(f"{figures(one.sum(0))['F1']:.4f}" for one in of)
    differences = {
        name: {f"against {rival}": round(table[name]["F1"] - table[rival]["F1"], 4) for rival in apart[name]}
        for name in scored
    }
    chosen = {name: picking._asdict() for name, picking in pickings.items()}
    best = max(scored, key=lambda name: table[name]["F1"])
    show({name: figure(table[name]["F1"], "F1", table[BASELINE]["F1"], **table[name]) for name in scored}, flags)
    if not flags.save:
        return
    write_result(
        "phone_boundaries",
        Result(
            title="Whether a score peaks where phones begin",
            question=(
                "Do peaks of a score find the beginnings of phones, within 20 ms, better than peaks of spectral "
                "change and than the same scores shuffled?"
            ),
            answer=" ".join(answer(name, apart[name], table) for name in dict.fromkeys([best, *scored])),
            measured=(
                f"VQ-LMs on units and on frames of MFCC, {steps} updates each, on LibriSpeech train-clean-100 less the "
                "speakers whose number ends in 7; on those, prominence, distance and lag of peaks were chosen for each "
                "method by F1, from the same grid. Spectral change is the norm of the deltas of 13 MFCC, in standard "
                "deviations of the clip. Evenly spaced boundaries come at the rate of phones on those speakers. A "
                "found boundary is matched with one true one at most. Phones by a machine (hama 1.7), moved by 3 "
                "frames; a boundary is the beginning of one."
            ),
            values={
                "Boundaries on test-other": table,
                "Differences of F1": differences,
                "Peaks, chosen on held-out speakers (standard deviations; frames of 20 ms)": chosen,
            },
            split=f"LibriSpeech test-other: {split}",
            seeds=seeds,
            intervals={
                "Boundaries on test-other": {name: {"F1": ends} for name, ends in f1_ends.items()},
                "Differences of F1": {
                    name: {f"against {rival}": ends for rival, ends in apart[name].items()} for name in scored
                },
            },
            interval_kind="95 %, bootstrap over clips, 10,000 times, paired for differences; counts summed over seeds",
            command=f"python benchmarks/speech/phone_boundaries.py --steps {steps} --save",
            effect=["Differences of F1", best, f"against {BASELINE}"],
            notes=[
                "The recogniser works on frames of 20 ms and is itself late by about three of them: an F1 near 1 is "
                "out of reach for anybody, and a lag of a frame or two says nothing of a method.",
            ],
        ),
    )


def answer(name: str, apart: dict[str, list[float]], table: dict[str, dict[str, Any]]) -> str:
    """A sentence that compares one method with spectral change and with shuffled scores."""
    words = {
        rival: "above" if low > 0 else "below" if high < 0 else "no different from"
        for rival, (low, high) in apart.items()
    }
    control = f"surprise, {SHUFFLED} of {name.rpartition(' of ')[2]}"
    change, shuffled = f"{words[BASELINE]} spectral change", f"{words[control]} shuffled scores"
    return f"{name[0].upper()}{name[1:]}: F1 {table[name]['F1']:.3f}, {change}, {shuffled}."


if __name__ == "__main__":
    main()
