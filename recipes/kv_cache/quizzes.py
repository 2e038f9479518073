"""Quizzes whose texts have a given number of tokens."""

from __future__ import annotations

import random
from typing import Any

from ...registry import build
from .tasks.base import Quiz, Task

TOLERANCE = 0.1
"""How far the tokens of a text may be from those that were asked for, as a share of these."""
TRIES = 12


def make_quiz(name: str, prose: str, tokenizer: Any, length: int, *, label: str = "", seed: int = 0) -> Quiz:
    """Make a quiz whose text has about so many tokens, within a tenth.

    Args:
        name: the task (`vqmem list tasks`).
        prose: the text that haystacks and words are taken from.
        tokenizer: that of the model.
        length: tokens of the text.
        label: quizzes of different labels differ.
        seed: the number of the quiz.

    Returns:
        The quiz.

    Raises:
        ValueError: in one line, where the task has no such text, as it is too short.
    """
    task: Task = build("tasks", name)
    sample = " ".join(task.haystack(prose).split()[:5000])
    words = first = round(length * len(sample.split()) / count_tokens(tokenizer, sample))
    tokens = 0
    for _ in range(TRIES):
        quiz = task.quiz(prose, words, random.Random(f"{label} {name} {first} {seed}"))
        tokens = count_tokens(tokenizer, quiz.text)
        if abs(tokens - length) <= TOLERANCE * length:
            return quiz
        words = max(1, round(words * length / tokens))
    raise ValueError(
        f"needles.texts: no text of the task {name} has about {length} tokens (the nearest tried has {tokens}); give "
        "longer texts or leave the task out"
    )


def count_tokens(tokenizer: Any, text: str) -> int:
    """The tokens of a text, without special ones."""
    return len(tokenizer(text, add_special_tokens=False).input_ids)
