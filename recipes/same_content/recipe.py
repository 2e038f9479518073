"""Compare what memories keep of the same content as text and as speech, and whether scores of words agree."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...files import atomic_write
from ...memory.bank import Memory
from ..engine.config import as_dict, resolve_device
from ..engine.data_record import documents
from ..engine.distributed import on_main_process, start_processes
from ..engine.lock import locked
from ..engine.progress import progress
from ..engine.run_dir import init_run_dir
from ..lm.corpus import require
from ..reporting.provenance import provenance
from .agreement import CRITERIA, KeptWords, Overlap, agreement, overlaps
from .config import Config
from .content import SpokenPassage, read_passages
from .correlation import correlations
from .findings import answer
from .report import write_report
from .strategies import ContentStrategy, kept_shares, read_strategies

NON_IDENTITY_KEYS = ("out", "title", "device", "cache")
"""Keys that change no figure."""
RUN_IS = "a comparison of text and speech: {folder}/report.html shows it"
"""Description of a finished run, with the command that uses it."""

__all__ = ["Config", "run"]


def run(config: Config) -> dict[str, Any]:
    """Speak, score and compare, and write the report. Returns the contents of ``summary.json``."""
    start_processes("auto", resolve_device(config.device))
    require(config.data, config.split)
    with locked(Path(config.out)):
        return _run(config)


@on_main_process
def _run(config: Config) -> dict[str, Any]:
    began = time.monotonic()
    init_run_dir(config, NON_IDENTITY_KEYS)
    texts = documents(config.data, config.split, config.out)
    passages = read_passages(config, texts, resolve_device(config.device))
    summary = {
        "title": config.title,
        "split": config.split,
        "passages": len(passages),
        "words": sum(len(passage.words) for passage in passages),
        "seconds_of_content": sum(passage.seconds for passage in passages),
        "text_tokens": sum(len(passage.text_stream) for passage in passages),
        "speech_units": sum(len(passage.speech_stream) for passage in passages),
        "memories": compare_memories(config, passages),
        **correlations(passages, config.seed),
        "config": as_dict(config),
    }
    summary |= {"answer": answer(summary), **provenance(began)}
    atomic_write(Path(config.out) / "summary.json", json.dumps(summary, indent=2) + "\n")
    write_report(summary, Path(config.out) / "report.html")
    return summary


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
        kept = [_kept_words(config, passage, strategy, capacity, number) for number, passage in enumerate(passages)]
        for criterion in CRITERIA:
            counts[strategy.name, capacity, criterion] = overlaps([one[criterion] for one in kept])
    controls = {one.name: next((c.name for c in chosen if c.is_control_of(one)), None) for one in chosen}
    rows = []
    for (name, capacity, criterion), count in counts.items():
        control = controls[name]
        shuffled = None if control is None else counts[control, capacity, criterion]
        key = {"strategy": name, "capacity": capacity, "criterion": criterion}
        rows.append(key | agreement(count, shuffled, config.seed))
    return rows


def _kept_words(
    config: Config, passage: SpokenPassage, strategy: ContentStrategy, capacity: float, number: int
) -> dict[str, KeptWords]:
    """The words that both memories keep of passage ``number``, by criterion."""
    segments = math.ceil(passage.seconds / config.segment)
    stops = [config.segment * index for index in range(1, segments)] + [math.inf]
    moments = [round(segments * (1 + (index + 1) / config.moments) / 2) - 1 for index in range(config.moments)]
    shares = []
    for side, stream in enumerate((passage.text_stream, passage.speech_stream)):
        rate = len(stream) / passage.seconds
        memory = Memory(max(1, round(capacity * rate)), strategy.policy_for(rate))
        scored = stream.shuffled(config.seed + 2 * number + side) if strategy.shuffle else stream
        shares.append(kept_shares(scored, memory, stops, moments, len(passage.words)).numpy())
    ends = np.array([word.end for word in passage.words])
    ages = np.array([[min(stops[moment], passage.seconds)] for moment in moments]) - ends
    text, speech = shares
    return {name: KeptWords(text >= least, speech >= least, ages) for name, least in CRITERIA.items()}


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
