"""Measure one point of the grid: read all passages with one memory and sum the figures."""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

from jaxtyping import Bool
from torch import Tensor

from ..lm.corpus import Passage
from ..lm.language_model import LanguageModel, PassageReading, PassageScores, long_gap, read_passages
from ..lm.strategies import Strategy
from ..text_lm.recipe import Config
from .classes import TokenClasses
from .config import Point
from .kinds import TokenKinds, kept_figures


class EvalData(NamedTuple):
    """The data that the models of a seed are measured on.

    Args:
        items: the passages to read.
        scores: their scores; see `score_passages`.
        kinds: of all tokens; see `token_kinds`.
        classes: of the tokens of each passage; see `token_classes`.
    """

    items: list[Passage]
    scores: PassageScores
    kinds: TokenKinds
    classes: list[TokenClasses]


def measure(model: LanguageModel, strategy: Strategy, point: Point, config: Config, data: EvalData) -> dict[str, Any]:
    """Measure a point of the grid.

    Args:
        model: the language model.
        strategy: the strategy of the point.
        point: gives the capacity. A gap is long if it exceeds the capacity plus the segment, the reach of a
            memory that keeps the newest tokens.
        config: of the model.
        data: what is read.

    Returns:
        Passage names, figure -> ``[numerators, sizes]`` by passage (see `figures` and `kept_figures`), peak bytes per
        row and speed.
    """
    items, scores, kinds, classes = data
    began, read = time.perf_counter(), sum(len(item.ids) - 1 for item in items)
    memory = strategy.memory(point.capacity, config.guard)
    what = f"{point.strategy}@{point.capacity} {point.train}"
    readings, peak_bytes = read_passages(
        model, strategy, memory, items, scores, config.batch_size, config.segment, what
    )
    reach = point.capacity + config.segment
    sums = [
        figures(item, reading, kinds.rare, reach)
        | kept_figures(kinds.rarity[item.ids], of_class, reading.kept, config.segment)
        for item, reading, of_class in zip(items, readings, classes, strict=True)
    ]
    return {
        "documents": [item.name for item in items],
        "tokens": read,
        "figures": {name: [list(column) for column in zip(*(s[name] for s in sums), strict=True)] for name in sums[0]},
        "memory_bytes": peak_bytes,
        "tokens_per_second": read / (time.perf_counter() - began),
    }


def figures(
    item: Passage, reading: PassageReading, rare: Bool[Tensor, " vocab"], reach: int
) -> dict[str, tuple[float, float]]:
    """Compute the figures of one passage.

    ``bpb``: bits and bytes; ``nll``: nats and number of tokens; ``long_gap_nll``: the same for long-gap tokens;
    ``recall``: correct answers and number of tokens in ``target_mask``; ``recall_nll``: nats and number of these.

    Args:
        item: the passage.
        reading: the losses on it.
        rare: whether each token is rare; see `TokenKinds`.
        reach: tokens since the last occurrence that a gap must exceed to be long.

    Returns:
        The numerator and the size of each figure.
    """
    nll = reading.nll.double()
    far, answers = long_gap(item.ids, rare, reach), item.target_mask[1:]
    return {
        "bpb": (float(nll.sum()) / math.log(2), float(item.sizes[1:].sum())),
        "nll": (float(nll.sum()), float(len(nll))),
        "long_gap_nll": (float(nll[far].sum()), float(far.sum())),
        "recall": (float(reading.correct[answers].sum()), float(answers.sum())),
        "recall_nll": (float(nll[answers].sum()), float(answers.sum())),
    }


def trace(
    model: LanguageModel, strategy: Strategy, capacity: int, config: Config, item: Passage, scores: PassageScores
) -> list[list[int]]:
    """Trace which tokens a strategy keeps uncompressed.

    Args:
        model: the language model.
        strategy: the strategy.
        capacity: slots of its memory.
        config: of the model.
        item: the passage to read.
        scores: its scores; see `score_passages`.

    Returns:
        The kept positions after each segment.
    """
    memory = strategy.memory(capacity, config.guard)
    readings, _ = read_passages(model, strategy, memory, [item], scores, 1, config.segment)
    return readings[0].kept
