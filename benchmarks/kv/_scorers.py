"""The scorers of SmolLM2's tokens that `kv_cache` uses: a count of the train books, and those trained on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from vqmem.artifacts import CONFIG
from vqmem.benchmarks.text._scorers import count, training_seconds
from vqmem.benchmarks.text.train_scorer import save_tokenizer
from vqmem.memory.scorer import ScorerModel
from vqmem.models.unigram import Unigram
from vqmem.recipes.text_lm.for_tokenizer import configure
from vqmem.recipes.text_lm.recipe import Config, fit_front_end, read_split, train_scorer
from vqmem.registry import build


class Scorers(NamedTuple):
    """All of them, and the config and seconds of the VQ-LM's training."""

    unigram: Unigram
    vq_lm: ScorerModel
    reuse: ScorerModel
    config: Config
    seconds: float


def scorers(folder: Path, texts: Path, steps: int) -> Scorers:
    """All scorers, kept in ``folder``: counted and trained on ``texts/train`` where that has not been done."""
    tokenizer = folder / "tokenizer"
    name = str(tokenizer) if tokenizer.is_dir() else save_tokenizer(tokenizer)
    config = configure(name, texts, folder / "vq_lm", ["device=cpu", f"scorer_train.steps={steps}"])
    others = configure(name, texts, folder / "reuse", ["device=cpu"], "reuse")
    others = replace(others, scorer_train=replace(others.scorer_train, steps=min(steps, others.scorer_train.steps)))
    counts, front_end = folder / "counts.npy", fit_front_end(config)
    done = counts.is_file() and all((Path(one.out) / "scorer" / CONFIG).is_file() for one in (config, others))
    corpus = [] if done else read_split(config, front_end, "train")
    unigram = build("scorers", "unigram").build(front_end.vocab_size) if done else count(front_end, corpus)
    assert isinstance(unigram, Unigram)
    if done:
        unigram.counts = torch.from_numpy(np.load(counts))
    else:
        np.save(counts, unigram.counts.numpy())
    vq_lm = train_scorer(config, front_end, corpus)
    reuse = train_scorer(others, front_end, corpus)
    return Scorers(unigram, vq_lm, reuse, config, training_seconds(Path(config.out)))
