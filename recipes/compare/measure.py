"""Measure one cell of the comparison: read all passages with one memory, and add up what the figures need."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..engine.progress import Bar
from ..lm.corpus import Passage
from ..lm.language_model import LanguageModel, Reading, Strategy, long_gap, read_passages
from ..text_lm.recipe import Config


@dataclass(frozen=True)
class Cell:
    """One point of the grid."""

    strategy: str
    budget: int
    seed: int
    train: Literal["mixed", "native"]


def rare_tokens(training: Sequence[Passage], vocab_size: int, nats: float) -> Bool[Tensor, " vocab"]:
    """Which tokens have a unigram surprisal of at least ``nats`` in the training passages (add-one smoothing)."""
    counts = torch.bincount(torch.cat([item.ids for item in training]), minlength=vocab_size).double() + 1
    return -(counts / counts.sum()).log() >= nats


def measure(
    model: LanguageModel,
    strategy: Strategy,
    cell: Cell,
    config: Config,
    items: Sequence[Passage],
    scores: Sequence[Float[Tensor, "_ signal"]],
    rare: Bool[Tensor, " vocab"],
    bar: Bar,
) -> dict[str, Any]:
    """Sums for every passage: figure -> ``[numerators, sizes]``; see `figures` for what they are.

    The long gap is the budget plus the segment: further back than any newest-first memory reaches.
    """
    began, read = time.perf_counter(), 0

    def tick(tokens: int) -> None:
        nonlocal read
        read += tokens
        bar.update(read)

    memory = strategy.memory(cell.budget, config.guard)
    readings, held = read_passages(model, strategy, memory, items, scores, config.rows, config.segment, tick)
    reach = cell.budget + config.segment
    sums = [figures(item, reading, rare, reach) for item, reading in zip(items, readings, strict=True)]
    return {
        "documents": [item.name for item in items],
        "tokens": read,
        "figures": {name: [list(column) for column in zip(*(s[name] for s in sums), strict=True)] for name in sums[0]},
        "bytes_held": held,
        "tokens_per_second": read / (time.perf_counter() - began),
    }


def figures(
    item: Passage, reading: Reading, rare: Bool[Tensor, " vocab"], reach: int
) -> dict[str, tuple[float, float]]:
    """Numerator and size of each figure for one passage.

    ``bpb``: bits and bytes; ``nll``: nats and number of tokens; ``long_gap_nll``: those of long-gap tokens; ``recall``:
    right answers among the marked tokens and their number; ``recall_nll``: their nats and number.
    """
    nll, far, marked = reading.nll.double(), long_gap(item.ids, rare, reach), item.marked[1:]
    return {
        "bpb": (float(nll.sum()) / math.log(2), float(item.sizes[1:].sum())),
        "nll": (float(nll.sum()), float(len(nll))),
        "long_gap_nll": (float(nll[far].sum()), float(far.sum())),
        "recall": (float(reading.correct[marked].sum()), float(marked.sum())),
        "recall_nll": (float(nll[marked].sum()), float(marked.sum())),
    }


def trace(
    model: LanguageModel, strategy: Strategy, budget: int, config: Config, item: Passage, scores: Tensor
) -> list[list[int]]:
    """The positions that ``strategy`` holds whole after each segment of ``item``."""
    memory = strategy.memory(budget, config.guard)
    readings, _ = read_passages(model, strategy, memory, [item], [scores], 1, config.segment)
    return readings[0].kept
