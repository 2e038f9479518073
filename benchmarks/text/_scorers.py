"""The scorers that `score_meaning` compares, trained once on the same tokens and kept in a folder."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from vqmem.memory.scorer import ScorerModel
from vqmem.recipes.lm.corpus import Passage
from vqmem.recipes.text_lm.recipe import Config, fit_front_end, read_split, train_scorer
from vqmem.registry import build, load, names
from vqmem.tokenizers_.base import Tokenizer

SIZES = (1, 4, 16, 64, 256, 1024)
"""Codebook sizes of the curve; that of the vocabulary ends it."""


class Field(NamedTuple):
    """Scorers by name, the VQ-LMs of the curve by their number of codes, and what they were made with."""

    tokenizer: Tokenizer
    corpus: list[Passage]
    scorers: dict[str, ScorerModel]
    curve: dict[int, ScorerModel]


def train_field(config: Config, sizes: tuple[int, ...] = SIZES) -> Field:
    """Every scorer of the folder ``models/scorers`` and a VQ-LM a codebook size, in subfolders of ``config.out``.

    All read the same tokens in the same order, with the same widths and steps. What has been trained is loaded. The
    unigram is counted on the full training split instead, because it estimates that split's frequencies.
    """
    out = Path(config.out)
    tokenizer = fit_front_end(config)
    corpus = read_split(config, tokenizer, "train", limit=config.train_tokens)
    assert isinstance(config.scorer, dict)
    widths = {name: config.scorer[name] for name in ("dim", "hidden")}

    def trained(name: str, spec: dict[str, Any]) -> ScorerModel:
        return train_scorer(replace(config, scorer=spec, out=str(out / name)), tokenizer, corpus)

    curve = {}
    for codes in sorted({*sizes, config.scorer["codes"], tokenizer.vocab_size}):
        curve[codes] = trained(f"codes-{codes}", config.scorer | {"codes": codes})
    scorers = {"vq_lm": curve[config.scorer["codes"]], "unigram": count(tokenizer, corpus)}
    for name in names("scorers"):
        if name not in scorers:
            known = {field.name for field in fields(load("scorers", name))}
            spec = {key: value for key, value in widths.items() if key in known}
            scorers[name] = trained(name, {"name": name} | spec)
    return Field(tokenizer, corpus, scorers, curve)


def count(tokenizer: Tokenizer, corpus: list[Passage]) -> ScorerModel:
    """The unigram of all training tokens."""
    unigram = build("scorers", "unigram").build(tokenizer.vocab_size)
    tokens = torch.cat([passage.ids for passage in corpus])[None]
    unigram.training_step(tokens, unigram.initial_state(1), torch.ones_like(tokens, dtype=torch.bool))
    return unigram


def training_seconds(folder: Path) -> float:
    """How long the scorer in ``folder`` took to train, by its log; 0 where nothing was trained."""
    log = folder / "scorer" / "training" / "timing.jsonl"
    return sum(json.loads(line)["seconds"] for line in log.read_text().splitlines()) if log.is_file() else 0.0
