"""Quizzes about texts of which a share is kept: every setting answers the same ones, and answers are kept on disk."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ...files import atomic_write
from ...memory.huggingface.cache_argument import cache_argument
from ..compare.statistics import paired_bootstrap
from ..engine.config import digest
from ..engine.progress import Bar
from .answers import answer, prompt, stop_rule
from .caches import Caches
from .figures import RESAMPLES
from .kvzip import KVZIP, hiding, zip_text
from .presses import seeded
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
    source = hashlib.sha256(prose.encode(errors="surrogatepass")).hexdigest()[:12]
    seeds = [
        (seed, length, name) for seed in range(quizzes.count) for length in quizzes.texts for name in quizzes.tasks
    ]
    asked = []
    with Bar("asking quizzes", len(seeds)) as bar:
        for seed, length, name in seeds:
            quiz = make_quiz(name, prose, caches.host.tokenizer.wrapped, length, label=quizzes.label, seed=seed)
            path = folder / f"{digest([name, length, seed, quizzes.label, source, list(quizzes.shares)])}.json"
            tokens, found = _answered(caches, settings, quiz, quizzes.shares, path)
            asked.append(Asked(name, length, tokens, found))
            bar.advance(1)
    return asked


def _answered(
    caches: Caches, settings: Sequence[Setting], quiz: Quiz, shares: Sequence[float], path: Path
) -> tuple[int, dict[str, list[float]]]:
    """Ask settings one quiz, or load the answers that an earlier run saved."""
    keys = {setting.name: digest(caches.key(setting, 0)) for setting in settings}
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"tokens": 0, "found": {}}
    for setting in settings:
        if keys[setting.name] not in known["found"]:
            known["tokens"], scores = seeded(lambda setting=setting: ask(caches, setting, quiz, shares))
            known["found"][keys[setting.name]] = scores
            atomic_write(path, json.dumps(known))
    return known["tokens"], {name: known["found"][key] for name, key in keys.items()}


@torch.no_grad()
def ask(caches: Caches, setting: Setting, quiz: Quiz, shares: Sequence[float]) -> tuple[int, list[float]]:
    """Let a setting read the text of a quiz, keep a share of it, and answer.

    The text is read in one pass, and nothing is evicted after it.

    Args:
        caches: makes the caches.
        setting: the setting.
        quiz: the text and the question.
        shares: shares of the text's tokens to keep; the text is read again for each.

    Returns:
        The tokens of the text, and for each share the score of the answer.
    """
    model, tokenizer = caches.host.model, caches.host.tokenizer.wrapped
    text, question = (ids.to(caches.host.device) for ids in prompt(tokenizer, quiz))
    size, room = text.shape[1], question.shape[1] + quiz.tokens + 1
    is_over = stop_rule(tokenizer, quiz.values, quiz.tokens, quiz.any_of)

    def score(cache: Any) -> float:
        return quiz.score(tokenizer.decode(answer(model, cache, question, most=quiz.tokens, is_over=is_over)))

    if setting.press == KVZIP:
        full, hidden = zip_text(model, tokenizer, text, shares)
        scores = []
        for some in hidden:
            with hiding(model, some):
                scores.append(score(copy.deepcopy(full)))
        return size, scores
    scores = []
    for share in shares[:1] if setting.is_full else shares:
        count = round(share * size)
        if count + room > size and not setting.is_full:
            raise ValueError(
                f"a text of {size} tokens is too short for a share of {share}: {room} more come with the question; "
                "give longer texts or smaller shares"
            )
        cache = caches.make(setting, count, block=room, streaming=False)
        model(text, **cache_argument(cache), logits_to_keep=1)
        scores.append(score(cache))
    return size, scores * len(shares) if setting.is_full else scores


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


def quiz_table(hits: Hits, against: str) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, list[float]]]]:
    """Scores in % by task, by length and of all, and the difference from a setting.

    Args:
        hits: the answers; see `hits_at`.
        against: the setting to compare with.

    Returns:
        Rows by setting, and the intervals of the differences.
    """
    values, intervals = {}, {}
    columns = list(dict.fromkeys([key[0] for key in hits] + [key[1] for key in hits]))
    names = list(next(iter(hits.values())))
    joined = {name: np.concatenate([found[name] for found in hits.values()])[None] for name in names}
    for name in names:
        base = None if name == against else joined[against]
        one = paired_bootstrap(joined[name], base, np.ones(joined[name].shape[1]), better="higher", resamples=RESAMPLES)
        values[name] = {
            column if isinstance(column, str) else f"{column} tokens": round(
                float(np.concatenate([found[name] for key, found in hits.items() if column in key]).mean()), 1
            )
            for column in columns
        }
        values[name] |= {"all": round(one.value, 1), f"all - {against}": round(one.difference, 1)}
        if name != against and one.difference_low is not None and one.difference_high is not None:
            ends = [round(one.difference_low, 1), round(one.difference_high, 1)]
            intervals[name] = {f"all - {against}": ends}
    return values, intervals
