"""Facts about people, spread through long background text and asked for at its end: the construction of BABILong.

As in BABILong (Kuratov et al., arXiv:2406.10149), sentences in the manner of bAbI (Weston et al., arXiv:1502.05698)
stand between the sentences of a text that has nothing to do with them. Both are made here: the sentences by a
generator, the background from the documents of another source, with the same splits. The newest fact counts. After the
last fact the background continues for at least ``gap`` characters, and questions in random order end the document.

``one_fact``
    People go to places, and a question asks where each of them is.

    ``Mary went to the garden. … Mary moved to the office. … Where is Mary? office``

``two_facts``
    People take objects too, also from each other, and carry them from then on. A question asks where each object is:
    where the one who took it last went last.

    ``John took the apple. … John went to the kitchen. … Where is the apple? kitchen``

No place is the answer to more than half of the questions. The first letters of the places differ. ``spans`` marks
these in the answers, because the others follow from them. The document then asks for everything again in another order;
these answers are close and have spans only in training documents.

Training documents are short and dense more often than not: they have a random share of the background, and a random
number of people and facts; they ask the more often the fewer people there are. Models learn to look back much sooner
from these.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from ..registry import DataSpec, build
from ..schema import NonNegativeInt, PositiveInt, Validated
from .base import Document, Split

Task = Literal["one_fact", "two_facts"]
PEOPLE = ("Mary", "John", "Sandra", "Daniel", "Julie", "Bill", "Fred", "Anna")
OBJECTS = ("apple", "football", "milk", "book", "lamp", "newspaper", "suitcase", "towel")
PLACES = ("bathroom", "cellar", "garden", "hallway", "kitchen", "office")
GOES = ("went to", "moved to", "travelled to", "journeyed to")
TAKES = ("took", "got", "grabbed", "picked up")

_LONGEST_FACT = len("Daniel journeyed to the bathroom. ")
_LONGEST_QUESTION = len("Where is the newspaper? bathroom\n")
_SENTENCE = re.compile(r".{1,300}?(?:[.!?]\s+|\n+)|.{1,300}\s|.{1,300}", re.DOTALL)
"""A sentence or line with the white space after it; a longer one is cut, between words where there are any."""
_MOST_BACKGROUND = 4_000_000
"""Characters of the background that are kept; the documents after them are not read."""


@dataclass(frozen=True)
class Source(Validated):
    """Documents with facts and questions, each a function of its task, seed, split, index and background.

    Args:
        task: one_fact | two_facts.
        source: the background, a source of text: its name, or ``name`` and its keys.
        train_documents: documents of the split train.
        held_out_documents: documents of each of the splits dev and test.
        length: characters of a document of dev or test, up to a sentence or two.
        people: people of a document, and objects of ``two_facts``; 1 to 8.
        facts: facts of a document; at least one a person, and one an object.
        gap: minimum number of characters between the last fact and the first question, in dev and test.
        seed: seed of the generator.
    """

    task: Task = "one_fact"
    source: DataSpec = "builtin_text"
    train_documents: PositiveInt = 2000
    held_out_documents: PositiveInt = 100
    length: int = 2048
    people: Annotated[int, Interval(ge=1, le=8)] = 4
    facts: PositiveInt = 12
    gap: NonNegativeInt = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse facts and documents that do not fit."""
        super().__post_init__()
        if self.facts < (least := self._least_facts(self.people)):
            raise ValueError(
                f"facts = {self.facts} are too few for {self.people} people of the task {self.task}; "
                f"give {least} or more"
            )
        needed = self.gap + _LONGEST_FACT * self.facts + 2 * _LONGEST_QUESTION * self.people
        if self.length < needed:
            raise ValueError(f"facts length {self.length} is too short for {self.facts} facts; give {needed} or more")

    def documents(self, split: Split) -> Iterator[Document]:
        """Generate the documents of ``split``. Raises `ValueError` if the source has too little text."""
        background = _read_background(self.source, split)
        if (size := sum(map(len, background))) < self.length:
            raise ValueError(
                f"the split {split} of the background has {size} characters, too few for facts of length "
                f"{self.length}; give a longer text or a smaller length"
            )
        for index in range(self.train_documents if split == "train" else self.held_out_documents):
            yield self._document(split, index, background)

    def _document(self, split: Split, index: int, background: Sequence[str]) -> Document:
        rng = random.Random(f"{self.task} {self.seed} {split} {index}")
        share = rng.random() ** 3 if split == "train" else 1.0
        people = rng.randint(1, self.people) if split == "train" else self.people
        count = rng.randint(self._least_facts(people), self.facts) if split == "train" else self.facts
        facts, answers = self._story(people, count, rng)
        while max(Counter(answers.values()).values()) > (people + 1) // 2:
            facts, answers = self._story(people, count, rng)
        rounds = 2 * self.people // people
        order = [name for _ in range(rounds) for name in rng.sample(list(answers), people)]
        questions = [f"Where is {name}? {answers[name]}\n" for name in order]
        size = share * (self.length - self.gap - sum(map(len, [*facts, *questions])))
        start = rng.randrange(len(background))
        before = _take(background, start, size)
        gap = _take(background, start + len(before), share * self.gap)
        text = "".join([_spread(facts, before, rng), *gap]) + "\n"
        spans = []
        for number, (name, question) in enumerate(zip(order, questions, strict=True)):
            if split == "train" or number < people:
                at = len(text) + len(f"Where is {name}? ")
                spans.append((at, at + 1))
            text += question
        return Document(f"{self.task}/{self.seed}/{split}/{index}", text, tuple(spans))

    def _least_facts(self, people: int) -> int:
        return people if self.task == "one_fact" else 2 * people

    def _story(self, count: int, fact_count: int, rng: random.Random) -> tuple[list[str], dict[str, str]]:
        """The facts about ``count`` people in order, and where everything that a question names is in the end."""
        people = rng.sample(PEOPLE, count)
        objects = rng.sample(OBJECTS, count) if self.task == "two_facts" else []
        subjects = [*people, *objects]
        subjects = rng.sample(subjects + rng.choices(subjects, k=fact_count - len(subjects)), fact_count)
        places: dict[str, str] = {}
        holders: dict[str, str] = {}
        facts = []
        for subject in subjects:
            if subject in people:
                places[subject] = rng.choice([place for place in PLACES if place != places.get(subject)])
                facts.append(f"{subject} {rng.choice(GOES)} the {places[subject]}. ")
            else:
                holders[subject] = rng.choice([person for person in people if person != holders.get(subject)] or people)
                facts.append(f"{holders[subject]} {rng.choice(TAKES)} the {subject}. ")
        if self.task == "one_fact":
            return facts, places
        return facts, {f"the {name}": places[holder] for name, holder in holders.items()}


def _read_background(source: DataSpec, split: Split) -> list[str]:
    """The sentences of the texts of a split, up to a limit."""
    sentences: list[str] = []
    size = 0
    for document in build("data", source).documents(split):
        text = document.content("text")
        sentences += _SENTENCE.findall(f"{text}\n")
        size += len(text)
        if size >= _MOST_BACKGROUND:
            break
    return sentences


def _take(sentences: Sequence[str], start: int, size: float) -> list[str]:
    """Sentences from ``start`` on, as many as have ``size`` characters; the first one follows the last one."""
    taken: list[str] = []
    while size > 0:
        taken.append(sentences[(start + len(taken)) % len(sentences)])
        size -= len(taken[-1])
    return taken


def _spread(facts: Sequence[str], sentences: Sequence[str], rng: random.Random) -> str:
    """Put facts in order at random places between sentences."""
    places = sorted(rng.choices(range(len(sentences) + 1), k=len(facts)))
    parts: list[str] = []
    start = 0
    for fact, place in zip(facts, places, strict=True):
        parts += [*sentences[start:place], fact]
        start = place
    return "".join([*parts, *sentences[start:]])
