"""Fit speech units: cluster features of recordings, and measure how evenly the units are used."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...data.reading.files import Skipping
from ...files import atomic_write
from ...registry import DataSpec, FeaturesSpec, build
from ...schema import PathText
from ...tokenizers_.base import Tokenizer
from ..engine.data_record import documents
from ..engine.distributed import on_main_process, start_processes
from ..engine.front_end import load_or_fit
from ..engine.lock import locked
from ..engine.run_dir import init_run_dir
from ..lm.corpus import require

RUN_IS = "speech units: `vqmem units FILE --model {folder}` uses them"
"""Description of a finished run, with the command that uses it."""


@dataclass(frozen=True)
class Config:
    """A clustering of features. `vqmem units --model OUT` uses it, and so does ``front_end`` of a run of text_lm."""

    out: PathText = "runs/fit_units"
    """Folder of the result; units that are there are loaded, not fitted again."""
    data: DataSpec = "spoken_text"
    """Data source with recordings: a name, or ``name`` and its keys (`vqmem list data NAME`)."""
    features: FeaturesSpec = "mfcc39"
    """Features to cluster: a name, or ``name`` and its keys (`vqmem list features NAME`)."""
    clusters: int = 100
    """Number of units."""
    seed: int = 0
    """Seed of the choice of frames and of the clustering."""
    fit_frames: int = 200_000
    """Maximum number of frames to cluster (50 a second), sampled evenly from the training split."""
    deduplicate: bool = False
    """Whether a run of one unit is one token."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for settings that the front-end refuses."""
        build("front-ends", self.front_end, key="")

    @property
    def front_end(self) -> dict[str, Any]:
        """The front-end that these keys describe."""
        keys = ("features", "clusters", "seed", "fit_frames", "deduplicate")
        return {"name": "hubert_units", **{key: getattr(self, key) for key in keys}}


def run(config: Config) -> dict[str, Any]:
    """Fit and save the units, or load them, and evaluate on dev. Returns the contents of ``evaluation.json``."""
    start_processes("auto", torch.device("cpu"))
    require(config.data, "dev", "recordings")
    with locked(Path(config.out)):
        return _run(config)


@on_main_process
def _run(config: Config) -> dict[str, Any]:
    out = Path(config.out)
    init_run_dir(config, ("out",))
    given = (document.content("audio") for document in documents(config.data, "train", config.out))
    figures = evaluate(config, load_or_fit(config.front_end, given, out / "front_end"))
    atomic_write(out / "evaluation.json", json.dumps(figures, indent=2) + "\n")
    return figures


def evaluate(config: Config, tokenizer: Tokenizer) -> dict[str, Any]:
    """Usage of units on dev: how many occur, the perplexity of their frequencies, and the mean length of runs."""
    counts, runs, skipping = torch.zeros(tokenizer.vocab_size, dtype=torch.long), 0, Skipping()
    for document in documents(config.data, "dev", config.out):
        with skipping:
            stream = tokenizer.encode(document.content("audio"))
            counts += torch.bincount(stream.ids, stream.sizes, minlength=tokenizer.vocab_size).long()
            runs += len(stream.ids.unique_consecutive())
    skipping.report()
    total = int(counts.sum())
    if not total:
        raise ValueError(f"the split dev of {config.data!r} has no recording; give data that has some")
    shares = counts[counts > 0].double() / total
    return {
        "split": "dev",
        "frames": total,
        "units_used": int((counts > 0).sum()),
        "perplexity": math.exp(float(-(shares * shares.log()).sum())),
        "frames_a_run": total / runs,
    }
