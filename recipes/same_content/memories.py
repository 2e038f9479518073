"""Read passages through memories of both modalities, and compare the words that they keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ...memory.bank import Memory
from ..engine.progress import progress
from .agreement import CRITERIA, KeptWords, Overlap, agreement, overlaps
from .config import Config
from .content import SpokenPassage
from .strategies import ContentStrategy, read_strategies
from .streams import NO_WORD, TokenStream


@dataclass(frozen=True)
class Schedule:
    """When the memories of a passage evict, and when they are looked at.

    Args:
        stops: seconds at which the segments end; the last one is infinite, so that every token is read.
        moments: indices of the segments after which the memories are compared, in order.
        seconds: the second of the passage at each of these moments.
    """

    stops: list[float]
    moments: list[int]
    seconds: list[float]


def schedule(seconds: float, segment: float, moments: int) -> Schedule:
    """The schedule of a passage.

    Args:
        seconds: its length.
        segment: seconds of a segment.
        moments: number of moments, evenly spaced over the second half, the last one at the end.

    Returns:
        The schedule.
    """
    segments = math.ceil(seconds / segment)
    stops = [segment * index for index in range(1, segments)] + [math.inf]
    places = [round(segments * (1 + (index + 1) / moments) / 2) - 1 for index in range(moments)]
    return Schedule(stops, places, [min(stops[place], seconds) for place in places])


def compare_memories(config: Config, passages: Sequence[SpokenPassage]) -> list[dict[str, Any]]:
    """Compare the memories of both modalities for each strategy, capacity and criterion of a kept word.

    Args:
        config: the run.
        passages: the passages.

    Returns:
        A row each, with the figures of `agreement`.

    Raises:
        ValueError: a passage is too short for the capacities or the moments.
    """
    _require_length(config, passages)
    chosen = read_strategies(config.strategies)
    cells = [(one, capacity) for capacity in config.capacities for one in chosen]
    counts: dict[tuple[str, float, str], list[Overlap]] = {}
    for strategy, capacity in progress(cells, len(cells), "memories", transient=True):
        kept = kept_words(config, passages, strategy, capacity)
        for criterion, least in CRITERIA.items():
            words = [KeptWords(text >= least, speech >= least, ages) for text, speech, ages in kept]
            counts[strategy.name, capacity, criterion] = overlaps(words)
    controls = {one.name: next((c.name for c in chosen if c.is_control_of(one)), None) for one in chosen}
    rows = []
    for (name, capacity, criterion), count in counts.items():
        control = controls[name]
        shuffled = None if control is None else counts[control, capacity, criterion]
        key = {"strategy": name, "capacity": capacity, "criterion": criterion}
        rows.append(key | agreement(count, shuffled, config.seed))
    return rows


def kept_words(
    config: Config, passages: Sequence[SpokenPassage], strategy: ContentStrategy, capacity: float
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Read all passages through a memory of each modality.

    Args:
        config: the run.
        passages: the passages.
        strategy: decides which tokens stay.
        capacity: seconds of content; a memory has as many slots as the passages have tokens in so many seconds.

    Returns:
        For each passage the shares of every word that the memories of text and speech keep, and the seconds since it
        was spoken, ``[moment, word]`` each.
    """
    plans = [schedule(one.seconds, config.segment, config.moments) for one in passages]
    word_counts = [len(one.words) for one in passages]
    total = sum(one.seconds for one in passages)
    sides = []
    for side, streams in enumerate(zip(*((one.text_stream, one.speech_stream) for one in passages), strict=True)):
        rate = sum(map(len, streams)) / total
        memory = Memory(max(1, round(capacity * rate)), strategy.policy_for(rate))
        if strategy.shuffle:
            streams = [one.shuffled(config.seed + 2 * number + side) for number, one in enumerate(streams)]
        sides.append(kept_shares(streams, memory, plans, word_counts))
    ages = [
        np.array(plan.seconds)[:, None] - np.array([word.end for word in one.words])
        for one, plan in zip(passages, plans, strict=True)
    ]
    return list(zip(*sides, ages, strict=True))


def kept_shares(
    streams: Sequence[TokenStream], memory: Memory, plans: Sequence[Schedule], word_counts: Sequence[int]
) -> list[Float[np.ndarray, "moment word"]]:
    """Read passages through a memory, side by side, and note how much of each word it keeps.

    Args:
        streams: the tokens of each passage.
        memory: the memory, empty at first.
        plans: the schedule of each passage.
        word_counts: the number of words of each passage.

    Returns:
        For each passage, the share of the tokens of each word that the memory keeps at each moment.
    """
    ids, signals = (
        pad_sequence([getattr(one, name) for one in streams], batch_first=True) for name in ("ids", "signals")
    )
    read = _tokens_read(streams, plans)
    state = memory.empty((ids,), streams[0].signal_names)
    shares: list[list[np.ndarray]] = [[] for _ in streams]
    before = torch.zeros_like(read[0])
    for index, after in enumerate(read):
        width = int((after - before).max())
        # Rows with fewer new tokens are padded in front, so that the last position is that of the newest token.
        positions = after[:, None] + torch.arange(-width, 0)
        is_new = positions >= before[:, None]
        places = positions.clamp(min=0)
        tokens, scores = ids.gather(1, places), signals.take_along_dim(places[..., None], dim=1)
        if width:
            state = memory.write(state, (tokens,), tokens, positions, scores, is_new).state
        before = after
        for row, plan in enumerate(plans):
            if index in plan.moments:
                kept = state.slots.positions[row, state.slots.valid[row]]
                shares[row].append(_share_of_words(streams[row], kept, word_counts[row]))
    return [np.stack(one) for one in shares]


def _tokens_read(streams: Sequence[TokenStream], plans: Sequence[Schedule]) -> list[Int[Tensor, " batch"]]:
    """The number of tokens of each passage that are read by the end of each segment."""
    longest = max(len(plan.stops) for plan in plans)
    counts = []
    for stream, plan in zip(streams, plans, strict=True):
        stops = plan.stops + [math.inf] * (longest - len(plan.stops))
        counts.append(torch.searchsorted(stream.ends, torch.tensor(stops, dtype=stream.ends.dtype), right=True))
    return list(torch.stack(counts, dim=1))


def _share_of_words(stream: TokenStream, kept: Int[Tensor, " kept"], count: int) -> Float[np.ndarray, " word"]:
    words = stream.words[kept]
    sizes = stream.word_sizes(count).clamp(min=1)
    return (torch.bincount(words[words != NO_WORD], minlength=count) / sizes).double().numpy()


def _require_length(config: Config, passages: Sequence[SpokenPassage]) -> None:
    shortest = min(passage.seconds for passage in passages)
    if max(config.capacities) > shortest / 2:
        raise ValueError(
            f"capacities={list(config.capacities)} exceed half of the shortest passage, which lasts {shortest:.0f} s; "
            "give longer passages by chars, or lower capacities"
        )
    if config.moments * config.segment > shortest / 2:
        raise ValueError(
            f"moments={config.moments} at distances of segment={config.segment:g} s exceed half of the shortest "
            f"passage, which lasts {shortest:.0f} s; give fewer moments, or a shorter segment"
        )
