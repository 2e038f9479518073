"""Quizzes about texts of which a share is kept: every setting answers the same ones, and answers are kept on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ...files import atomic_write
from ..compare.statistics import paired_bootstrap
from ..engine.config import digest
from ..engine.progress import Bar
from .asking import Asking
from .caches import Caches
from .figures import RESAMPLES
from .quizzes import make_quiz
from .settings import FULL, Setting
from .tasks.base import Quiz


@dataclass(frozen=True)
class Quizzes:
    """Which quizzes are asked."""

    tasks: Sequence[str]
    """Names of tasks (`vqmem list tasks`)."""
    texts: Sequence[int]
    """About how many tokens a text has, within a tenth."""
    count: int
    """Quizzes of each task and length; their seeds are 0, 1, …"""
    shares: Sequence[float]
    """Shares of a text's tokens that are kept."""
    label: str = ""
    """Quizzes of different labels differ, even where they need no prose."""
    batch_size: int = 8
    """Settings that answer a quiz in parallel."""


@dataclass(frozen=True)
class Asked:
    """One quiz, and how each setting answered it."""

    task: str
    length: int
    """About how many tokens its text was to have."""
    tokens: int
    """How many it has."""
    found: dict[str, list[float]]
    """By setting the score of its answer, at each share kept."""


def ask_all(caches: Caches, settings: Sequence[Setting], quizzes: Quizzes, prose: str, folder: Path) -> list[Asked]:
    """Ask every setting every quiz.

    Args:
        caches: makes the caches.
        settings: the settings to compare.
        quizzes: what to ask.
        prose: the text that haystacks are cut from.
        folder: the folder of the answers; those that are there are not asked for again.

    Returns:
        The quizzes with their answers, lengths and tasks in turns, so that what a stopped run has done is of all kinds.
    """
    seeds = [
        (seed, length, name) for seed in range(quizzes.count) for length in quizzes.texts for name in quizzes.tasks
    ]
    asked = []
    with Bar("asking quizzes", len(seeds)) as bar:
        for seed, length, name in seeds:
            quiz = make_quiz(name, prose, caches.host.tokenizer.wrapped, length, label=quizzes.label, seed=seed)
            path = folder / f"{digest([quiz, list(quizzes.shares)])}.json"
            tokens, found = _answered(caches, settings, quiz, quizzes, path)
            asked.append(Asked(name, length, tokens, found))
            bar.advance(1)
    return asked


def _answered(
    caches: Caches, settings: Sequence[Setting], quiz: Quiz, quizzes: Quizzes, path: Path
) -> tuple[int, dict[str, list[float]]]:
    """Ask settings one quiz, or load the answers that an earlier run saved."""
    keys = {setting.name: digest(caches.key(setting, 0)) for setting in settings}
    known: dict[str, Any] = (
        json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"tokens": 0, "found": {}}
    )
    missing = [setting for setting in settings if keys[setting.name] not in known["found"]]
    if missing:
        known["tokens"], scores = ask(caches, missing, quiz, quizzes.shares, quizzes.batch_size)
        known["found"] |= {keys[name]: row for name, row in scores.items()}
        atomic_write(path, json.dumps(known))
    return known["tokens"], {name: known["found"][key] for name, key in keys.items()}


def ask(
    caches: Caches, settings: Sequence[Setting], quiz: Quiz, shares: Sequence[float], batch_size: int = 1
) -> tuple[int, dict[str, list[float]]]:
    """Let settings read the text of a quiz, keep a share of it, and answer.

    The text is read in one pass, and nothing is evicted after it.

    Args:
        caches: makes the caches.
        settings: the settings.
        quiz: the text and the question.
        shares: shares of the text's tokens to keep.
        batch_size: settings that answer in parallel.

    Returns:
        The tokens of the text, and for each setting the score of the answer at each share.
    """
    asking = Asking(caches, quiz, batch_size)
    answers = asking.answers(settings, shares)
    decode = caches.host.tokenizer.wrapped.decode
    scores = {name: [quiz.score(decode(tokens)) for tokens in found] for name, found in answers.items()}
    return asking.reading.ids.shape[1], scores


Hits = Mapping[tuple[str, int], Mapping[str, Float[np.ndarray, " quiz"]]]
"""By task and length, then by setting: how well each quiz was answered, from 0 to 100."""


def hits_at(asked: Sequence[Asked], share: int) -> dict[tuple[str, int], dict[str, Float[np.ndarray, " quiz"]]]:
    """The answers at one of the shares kept, by its place."""
    found: dict[tuple[str, int], dict[str, list[float]]] = {}
    for one in asked:
        group = found.setdefault((one.task, one.length), {})
        for name, scores in one.found.items():
            group.setdefault(name, []).append(100.0 * scores[share])
    return {key: {name: np.array(row) for name, row in group.items()} for key, group in found.items()}


def split_by_full(asked: Sequence[Asked], threshold: float) -> tuple[list[str], dict[str, float]]:
    """Tell tasks that can be compared from those at which the full cache fails.

    Args:
        asked: quizzes that the full cache answered.
        threshold: the least mean score of the full cache, in %, at which it does not fail.

    Returns:
        The tasks to compare, and the full cache's score in % at the others.
    """
    groups: dict[str, list[float]] = {}
    for one in asked:
        groups.setdefault(one.task, []).append(100.0 * one.found[FULL][0])
    means = {task: round(sum(scores) / len(scores), 1) for task, scores in groups.items()}
    failed = {task: mean for task, mean in means.items() if mean < threshold}
    return [task for task in means if task not in failed], failed


def join_hits(hits: Hits) -> dict[str, Float[np.ndarray, " all"]]:
    """The scores of each setting at all quizzes."""
    names = next(iter(hits.values()))
    return {name: np.concatenate([found[name] for found in hits.values()]) for name in names}


def quiz_columns(hits: Hits) -> dict[str, dict[str, float]]:
    """The mean score of each setting in %, by task, by length and of all."""
    columns = list(dict.fromkeys([key[0] for key in hits] + [key[1] for key in hits]))
    return {
        name: {
            column if isinstance(column, str) else f"{column} tokens": round(
                float(np.concatenate([found[name] for key, found in hits.items() if column in key]).mean()), 1
            )
            for column in columns
        }
        | {"all": round(float(scores.mean()), 1)}
        for name, scores in join_hits(hits).items()
    }


def compare_scores(ours: Float[np.ndarray, " quiz"], theirs: Float[np.ndarray, " quiz"]) -> dict[str, Any]:
    """The difference of two settings at the same quizzes, in points, with its interval over quizzes and its verdict."""
    one = paired_bootstrap(ours[None], theirs[None], np.ones(len(ours)), better="higher", resamples=RESAMPLES)
    ends = {"low": one.difference_low, "high": one.difference_high}
    rounded = {name: None if end is None else round(end, 1) for name, end in ends.items()}
    return {"difference": round(one.difference, 1), **rounded, "verdict": one.verdict}


def quiz_table(hits: Hits, against: str) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, list[float]]]]:
    """Scores in % by task, by length and of all, and the difference from a setting.

    Args:
        hits: the answers; see `hits_at`.
        against: the setting to compare with.

    Returns:
        Rows by setting, and the intervals of the differences.
    """
    values, intervals, scores = quiz_columns(hits), {}, join_hits(hits)
    for name, row in values.items():
        row[f"all - {against}"] = 0.0
        if name != against:
            one = compare_scores(scores[name], scores[against])
            row[f"all - {against}"] = one["difference"]
            if one["low"] is not None:
                intervals[name] = {f"all - {against}": [one["low"], one["high"]]}
    return values, intervals
