"""Fit speech units: cluster features of recordings, and say how evenly the units are used."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...artifacts import FRONT_END
from ...data._reading import Skipping
from ...files import atomic_write
from ...registry import build
from ...schema import PathText
from ...tokenizers_.base import Tokenizer, load_tokenizer, save_tokenizer
from ..engine.data_record import documents
from ..engine.distributed import on_main_process, start_processes
from ..engine.lock import locked
from ..engine.progress import progress
from ..engine.run_dir import init_run_dir
from ..lm.corpus import require

RUN_IS = "speech units: `vqmem units FILE --model {folder}` uses them"
"""What a run is, and which command uses it."""


@dataclass(frozen=True)
class Config:
    """A clustering of features. `vqmem units --model OUT` uses it, and so does ``front_end`` of a run of text_lm."""

    out: PathText = "runs/fit_units"
    """Folder of the result; given again, nothing is fitted anew."""
    data: str | dict[str, Any] = "spoken_text"
    """Data source with recordings: a name, or ``name`` and its keys (`vqmem list data NAME`)."""
    features: str | dict[str, Any] = "mfcc39"
    """What is clustered: a name, or ``name`` and its keys (`vqmem list features NAME`)."""
    clusters: int = 100
    """How many units."""
    seed: int = 0
    """Of the choice of frames and of the clustering."""
    fit_frames: int = 200_000
    """Cluster so many frames at most (50 a second), drawn evenly from all of train."""
    deduplicate: bool = False
    """Whether a run of one unit is one token."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for what the front-end refuses."""
        build("front-ends", self.front_end)

    @property
    def front_end(self) -> dict[str, Any]:
        """The front-end that these keys amount to."""
        keys = ("features", "clusters", "seed", "fit_frames", "deduplicate")
        return {"name": "hubert_units", **{key: getattr(self, key) for key in keys}}


def run(config: Config) -> dict[str, Any]:
    """Fit on train and save in ``front_end/``, or load what is there; gives what ``evaluation.json`` says of dev."""
    start_processes("auto", torch.device("cpu"))
    require(config.data, "dev", "recordings")
    with locked(Path(config.out)):
        return _run(config)


@on_main_process
def _run(config: Config) -> dict[str, Any]:
    out = Path(config.out)
    init_run_dir(config, ("out",))
    figures = evaluate(config, _fitted(config, out / "front_end"))
    atomic_write(out / "evaluation.json", json.dumps(figures, indent=2) + "\n")
    return figures


def evaluate(config: Config, tokenizer: Tokenizer) -> dict[str, Any]:
    """How dev's frames fall on the units: how many are used, how evenly (perplexity of their counts), in what runs."""
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


def _fitted(config: Config, folder: Path) -> Tokenizer:
    if (folder / FRONT_END).is_file():
        return load_tokenizer(folder)
    given = progress(documents(config.data, "train", config.out), None, "recordings")
    tokenizer = build("front-ends", config.front_end).fit(document.content("audio") for document in given)
    save_tokenizer(tokenizer, config.front_end, folder)
    return tokenizer
