"""What a task is, and the parts that tasks share.

Hsieh et al., RULER (arXiv:2404.06654). A sentence gives a value for a key, in the midst of a repeated phrase or of
prose; the question comes at the end. Prose is the user's text here, where RULER takes essays, and keys are of the lists
below.
"""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
ADJECTIVES = (
    "ancient",
    "brave",
    "careless",
    "distant",
    "eager",
    "faithful",
    "gloomy",
    "hollow",
    "icy",
    "jolly",
    "lively",
)
NOUNS = ("anchor", "basket", "candle", "donkey", "engine", "feather", "garden", "hammer", "island", "jacket", "kettle")
INSTRUCTION = (
    "A special magic {kind} is hidden within the following text. Make sure to memorize it. I will quiz you about the "
    "{kind} afterwards.\n"
)
NEEDLE = "One of the special magic {kind}s for {key} is: {value}."
QUESTION = "\nWhat is the special magic {kind} for {key} mentioned in the provided text?"
ANSWER = " The special magic {kind} for {key} mentioned in the provided text is"
ANSWER_TOKENS = {"number": 16, "uuid": 48}
Kind = Literal["number", "uuid"]


@dataclass(frozen=True)
class Quiz:
    """What is read before anything is asked, what is then asked, and what the answer must contain."""

    text: str
    question: str
    answer: str
    """How the answer begins."""
    values: tuple[str, ...]
    """The score of an answer is the share of these that it contains."""
    tokens: int
    """Most tokens of the answer."""


@runtime_checkable
class Task(Protocol):
    """The frozen dataclass ``Task`` of a task's file."""

    def haystack(self, prose: str) -> str:
        """A sample of what most of the text consists of; a number of tokens is converted to words with it."""
        ...

    def quiz(self, prose: str, words: int, rng: random.Random) -> Quiz:
        """Make a quiz.

        Args:
            prose: the text from which a haystack is cut at a random place; unused by tasks whose haystack is noise.
            words: the approximate length of the haystack.
            rng: draws all that is random.

        Returns:
            The quiz.
        """
        ...


def noise_sentences(words: int) -> list[str]:
    """The repeated phrase."""
    return [NOISE] * (words // len(NOISE.split()))


def prose_sentences(prose: str, words: int, rng: random.Random) -> list[str]:
    """The sentences of a stretch of prose that begins at a random word."""
    every = prose.split()
    start = rng.randrange(max(1, len(every) - words))
    return [f"{part}." for part in " ".join(every[start : start + words]).split(". ")]


def single_needle(kind: Kind, sentences: list[str], joint: str, rng: random.Random) -> Quiz:
    """Hide one needle at a random place.

    Args:
        kind: what the value is.
        sentences: the haystack; the needle is inserted into this list.
        joint: what joins the sentences.
        rng: draws the needle and its place.

    Returns:
        The quiz; its answer is the value of the needle.
    """
    key = f"{rng.choice(ADJECTIVES)}-{rng.choice(NOUNS)}"
    value = str(rng.randint(1_000_000, 9_999_999)) if kind == "number" else str(uuid.UUID(int=rng.getrandbits(128)))
    sentences.insert(round(rng.randrange(40) / 39 * len(sentences)), NEEDLE.format(kind=kind, key=key, value=value))
    question, answer = (form.format(kind=kind, key=key) for form in (QUESTION, ANSWER))
    text = INSTRUCTION.format(kind=kind) + joint.join(sentences)
    return Quiz(text, question, answer, (value,), ANSWER_TOKENS[kind])
