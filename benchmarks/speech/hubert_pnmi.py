"""How much the units of a tiny HuBERT, trained here for minutes, say about phones: PNMI by layer, against MFCC units.

    python benchmarks/speech/hubert_pnmi.py [--quick] [--json] [--save] [--threads N] [--data FOLDER] [--run FOLDER]

The run is `vqmem speech_pretraining tiny`: LibriSpeech train-clean-100 as far as it is there (52 minutes), without
the held-out speakers, on whom everything was chosen, also the layer. Then, on LibriSpeech test-other, 100 clusters
of each layer are fitted on five speakers and read on the other five, and the other way round; a figure is the mean of
both. A recogniser labelled the phones (`_phones.py`). Interrupted, the same command goes on. Minutes of training are of
processor time: other programs on the machine do not change it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from vqmem.benchmarks._results import figure, options, present
from vqmem.benchmarks.speech._phones import label
from vqmem.data.base import Document
from vqmem.files import atomic_write
from vqmem.models.speech.hubert import HubertConfig
from vqmem.recipes.engine.config import load
from vqmem.recipes.speech_pretraining import recipe
from vqmem.recipes.speech_pretraining.labels import Labels, read_labels
from vqmem.recipes.speech_pretraining.quality import unit_quality
from vqmem.registry import ROOT, build

GOAL = 0.24
MINUTES = 40.0
"""Of processor time: two cores for 20 minutes."""
CLUSTERS = 100


def main() -> None:
    """Train, measure, print, save."""
    parser = options(__doc__)
    default = os.environ.get("VQMEM_DATA", "../shared/data")
    parser.add_argument("--data", default=default, help="folder that holds speech/ (default $VQMEM_DATA)")
    parser.add_argument("--run", type=Path, default=Path("runs/hubert_pnmi"), help="where to train")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    os.environ["VQMEM_DATA"] = flags.data
    quick = ["train.steps=20", "train.warmup=5", "train.eval_every=0"] if flags.quick else []
    folder = ROOT / "recipes" / "speech_pretraining" / "configs"
    config = load(recipe.Config, "tiny", [f"out={flags.run}", *quick], folder=folder)
    dev = label(build("data", config.data).documents("dev"), flags.run.parent / f"{flags.run.name}_dev.tsv")
    chosen, there, minutes = train(replace(config, labels=str(dev)))
    assert isinstance(config.data, dict)
    other = config.data | {"where": {"path": "librispeech_test_other/*"}, "splits": {"test": {"path": "*"}}}
    documents = list(build("data", other).documents("test"))
    labels = read_labels(label(documents, flags.run.parent / f"{flags.run.name}_test.tsv"))
    assert isinstance(config.targets, dict)
    found = {
        "MFCC": both_ways(documents, labels, "mfcc39"),
        "MFCC normalised and averaged, the targets": both_ways(documents, labels, config.targets["features"]),
    }
    for layer in range(1, config.model.encoder_num_layers + 1):
        features = {"name": "hubert", "folder": str(flags.run), "layer": layer}
        found[f"layer {layer}"] = both_ways(documents, labels, features)
    more = {f"{name}, {key.replace('_', ' ')}": round(x, 4) for name, of in found.items() for key, x in of.items()}
    figures = {
        f"PNMI of {chosen}, chosen on held-out speakers": figure(round(found[chosen]["pnmi"], 4), "", GOAL) | more,
        "processor minutes of training": figure(
            round(minutes, 1), "min", MINUTES, least=False, steps=config.train.steps
        ),
    }
    present(
        "hubert_pnmi",
        figures,
        flags,
        title="What the units of a tiny HuBERT say about phones",
        question=(
            "Trained for 20 minutes on two cores, do 100 clusters of its best layer reach a PNMI of 0.24 (MFCC: 0.181)?"
        ),
        measured=(
            "The config `tiny` of `vqmem speech_pretraining`, one iteration. LibriSpeech test-other, 10 speakers in "
            "the order of their numbers: clusters fitted on five and read on the other five, and the other way round, "
            "mean of both. Phones by a machine (hama 1.7), moved by 3 frames."
        ),
        history=[
            "The layer was chosen on held-out speakers of train-clean-100, before those of test-other were read. "
            f"There, with clusters fitted on 64 recordings of its other speakers, its PNMI is {there:.3f}.",
            "The minutes are those of training and of evaluations by layer during it and after it.",
            "The speakers of test-other had been read once before, when targets were units of plain MFCC: 0.219 there, "
            "0.251 on those held out.",
        ],
    )


def train(config: recipe.Config) -> tuple[str, float, float]:
    """Which layer is best on held-out speakers, its PNMI there, and the processor minutes of training."""
    clock = Path(config.out).parent / f"{Path(config.out).name}_minutes.json"
    minutes, done = json.loads(clock.read_text()) if clock.is_file() else 0.0, Path(config.out) / "evaluation.json"
    if not done.is_file():
        began = time.process_time()
        try:
            recipe.run(config)
        finally:
            minutes += (time.process_time() - began) / 60
            atomic_write(clock, json.dumps(minutes))
    layers = json.loads(done.read_text())["layers"]
    best = max(layers, key=lambda layer: layers[layer]["pnmi"])
    return best.replace("_", " "), layers[best]["pnmi"], minutes


def both_ways(documents: Sequence[Document], labels: dict[str, Labels], features: Any) -> dict[str, float]:
    """Figures of units fitted on half of the speakers and read on the others: means of both ways, and each PNMI."""
    front_end = build("front-ends", {"name": "hubert_units", "features": features, "clusters": CLUSTERS})
    speakers = sorted({document.speaker for document in documents}, key=int)
    halves = [
        [document for document in documents if (speakers.index(document.speaker) < len(speakers) // 2) == first]
        for first in (True, False)
    ]
    ways = []
    for fit, read in (halves, halves[::-1]):
        tokenizer = front_end.fit(document.content("audio") for document in fit)
        units = {document.name: tokenizer.encode(document.content("audio")).ids for document in read}
        ways.append(unit_quality(units, labels, HubertConfig()))
    means = {key: (ways[0][key] + ways[1][key]) / 2 for key in ways[0]}
    return means | {"pnmi_one_way": ways[0]["pnmi"], "pnmi_other_way": ways[1]["pnmi"]}


if __name__ == "__main__":
    main()
