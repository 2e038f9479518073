"""What a task is, and the parts that tasks share.

Hsieh et al., RULER (arXiv:2404.06654). The text is read, and the question comes at the end. Prose is the user's text
here, where RULER takes essays; words are those of the prose, and keys of needles in prose are of the lists below. Where
RULER shows a solved example first (vt and cwe), there is none here.
"""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Callable
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
Kind = Literal["number", "uuid"]
Draw = Callable[[random.Random], str]
"""Draws a string."""
ANSWER_TOKENS = {"number": 16, "uuid": 48}
"""Most tokens of one value."""
SEVERAL_TOKENS = 64
"""Most tokens of an answer with several values, where RULER allows 128: what misses them repeats itself to the end."""
NEEDLE = "One of the special magic {kind}s for {key} is: {value}."
ONE = (
    "A special magic {kind} is hidden within the following text. Make sure to memorize it. I will quiz you about the "
    "{kind} afterwards.\n",
    "\nWhat is the special magic {kind} for {keys} mentioned in the provided text?",
    " The special magic {kind} for {keys} mentioned in the provided text is",
)
"""Instruction, question and beginning of the answer where one value is asked for."""
SEVERAL = (
    "Some special magic {kind}s are hidden within the following text. Make sure to memorize them. I will quiz you "
    "about the {kind}s afterwards.\n",
    "\nWhat are all the special magic {kind}s for {keys} mentioned in the provided text?",
    " The special magic {kind}s for {keys} mentioned in the provided text are",
)
LOOKED_AT = 1_000_000
"""Characters of the prose that words are taken from."""


@dataclass(frozen=True)
class Quiz:
    """What is read before anything is asked, what is then asked, and what the answer must contain."""

    text: str
    question: str
    answer: str
    """How the answer begins."""
    values: tuple[str, ...]
    """The strings that are expected in an answer."""
    tokens: int
    """Most tokens of the answer."""
    any_of: bool = False
    """Whether the values are forms of one answer, of which any will do."""

    def score(self, answer: str) -> float:
        """The share of the values that an answer contains, in any case; with ``any_of``, 1 where it contains one."""
        found = [value.lower() in answer.lower() for value in self.values]
        return float(any(found)) if self.any_of else sum(found) / len(found)


@runtime_checkable
class Task(Protocol):
    """The frozen dataclass ``Task`` of a task's file."""

    def haystack(self, prose: str) -> str:
        """A sample of what most of the text consists of; a number of tokens is converted to words with it."""
        ...

    def quiz(self, prose: str, words: int, rng: random.Random) -> Quiz:
        """Make a quiz.

        Args:
            prose: the text from which haystacks and words are taken; some tasks do without.
            words: the approximate length of the haystack; the quiz is made again with another one until the number of
                tokens fits.
            rng: draws all that is random.

        Returns:
            The quiz.
        """
        ...


def noise_sentences(words: int) -> list[str]:
    """The repeated phrase."""
    return [NOISE] * (words // len(NOISE.split()))


def prose_sentences(prose: str, words: int, rng: random.Random) -> list[str]:
    """The sentences of a stretch of prose that begins at a random word; prose that is too short is repeated."""
    every = prose.split()
    start = rng.randrange(max(1, len(every) - words))
    stretch = (every * -(-words // len(every)))[start : start + words]
    return [f"{part}." for part in " ".join(stretch).split(". ")]


def distinct(draw: Draw, count: int, rng: random.Random) -> list[str]:
    """Draw until there are so many different strings."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[draw(rng)] = None
    return list(found)


def made_up_word(rng: random.Random) -> str:
    """Three syllables."""
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(3))


def words_of(prose: str, count: int, rng: random.Random) -> list[str]:
    """So many different words of 5 to 9 letters: of the prose, and made up where it has too few."""
    every = {word for word in re.findall(r"[^\W\d_]+", prose[:LOOKED_AT]) if word.islower() and 5 <= len(word) <= 9}
    found = dict.fromkeys(rng.sample(sorted(every), min(count, len(every))))
    while len(found) < count:
        found[made_up_word(rng)] = None
    return list(found)


def named_key(rng: random.Random) -> str:
    """A key of the lists above."""
    return f"{rng.choice(ADJECTIVES)}-{rng.choice(NOUNS)}"


def random_uuid(rng: random.Random) -> str:
    """A UUID, as a key or a value."""
    return str(uuid.UUID(int=rng.getrandbits(128)))


def random_number(rng: random.Random) -> str:
    """A number of seven digits."""
    return str(rng.randint(1_000_000, 9_999_999))


def hide(needles: list[str], sentences: list[str], rng: random.Random) -> None:
    """Insert needles into a list of sentences at random depths, in their order."""
    depths = sorted(rng.randrange(40) for _ in needles)
    places = [round(depth / 39 * len(sentences)) for depth in depths]
    for place, needle in reversed(list(zip(places, needles, strict=True))):
        sentences.insert(place, needle)


@dataclass(frozen=True)
class Needles:
    """Sentences that each give a value for a key, and the question for some of the values."""

    kind: Kind = "number"
    """What a value is."""
    keys: int = 1
    """Keys that have values."""
    values: int = 1
    """Values of each key."""
    queries: int = 1
    """Keys that are asked for."""
    draw_key: Draw = named_key

    def hidden_in(self, sentences: list[str], joint: str, rng: random.Random) -> Quiz:
        """Hide the needles at random places.

        Args:
            sentences: the haystack; may be empty, as the needles can be many.
            joint: what joins the sentences.
            rng: draws the needles and their places.

        Returns:
            The quiz; the values of the keys that are asked for are expected.
        """
        keys = distinct(self.draw_key, self.keys, rng)
        values = distinct(random_number if self.kind == "number" else random_uuid, self.keys * self.values, rng)
        every = [
            NEEDLE.format(kind=self.kind, key=keys[n // self.values], value=value) for n, value in enumerate(values)
        ]
        rng.shuffle(every)
        text = list(sentences)
        hide(every, text, rng)
        count = self.queries * self.values
        forms = ONE if count == 1 else SEVERAL
        instruction, question, answer = (
            form.format(kind=self.kind, keys=", ".join(keys[: self.queries])) for form in forms
        )
        most = ANSWER_TOKENS[self.kind] if count == 1 else SEVERAL_TOKENS
        return Quiz(instruction + joint.join(text), question, answer, tuple(values[:count]), most)
