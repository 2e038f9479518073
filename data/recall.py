"""Synthetic recall: facts stated early and queried late, out of reach for a memory that keeps the newest tokens.

A document states ``facts`` facts, each a key and a value, continues with at least ``gap`` characters of filler, and
then asks for every fact in random order. ``spans`` marks the value in each question: only a model that has kept the
fact predicts it. The document then asks for the facts again in another order; these answers are a few characters back
and have spans only in training documents.

All dev and test documents have this form. Training documents have a random share of the filler (and junk), more often
small than large: models learn to look back much sooner from dense facts than from documents where one character in
fifty matters.

Three tasks show when keeping surprising tokens is right and when it is wrong:

``surprising_needed``
    Each key (A to L) has three possible values: a, b or c for A, d, e or f for B, … 7, 8 or 9 for L. ``@e;`` states the
    value of B, ``?Be;`` asks for it. Keys, values and places are random. The filler repeats one pattern, which costs
    next to nothing to predict. The tokens to keep are surprising: a memory by surprise should win.

    ``[<(=)>][<(=)>]@e;[<(=)>] … [<(=)>]@8;[<(=)>] … [<(=)>]?L8;?Be;``

``predictable_needed``
    Filler is random characters with the highest possible surprise. The facts come in the order of their keys, and a
    value is ``y`` or ``n``, repeated: at most one bit, then none. The tokens to keep are the least surprising of all: a
    memory by surprise should lose even to a random one. (A memory by `gain` may win: within the noise the fact's
    characters are rare, and the context predicts them.)

    ``.0rcxgz @Ayyyy;@Bnnnn;$wi7%gx … ?Bn;?Ay;``

``surprising_useless``
    As ``surprising_needed``, but with eight times as many ``#e;`` among the facts and in the gap, equally random, for
    keys that no question asks for. A memory that keeps all surprising tokens spends its slots on them; one that has
    learnt the meaning of the marker does not.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from annotated_types import Interval

from ..schema import NonNegativeInt, Validated
from .base import Document, Split

T = TypeVar("T")
Task = Literal["surprising_needed", "predictable_needed", "surprising_useless"]
_KEYS = string.ascii_uppercase[:12]
_VALUES = {key: (string.ascii_lowercase + string.digits)[3 * i : 3 * i + 3] for i, key in enumerate(_KEYS)}
_NOISE = "".join(sorted({*map(chr, range(0x21, 0x7F))} - set("@?;#yn" + string.ascii_uppercase)))
_WORD = 7  # length of the words of noise: a marker can only follow a space, so that it is not very surprising
_JUNK = 8  # facts without a question for each fact with one


@dataclass(frozen=True)
class Source(Validated):
    """Recall documents, each a function of its task, seed, split and index.

    Args:
        task: surprising_needed | predictable_needed | surprising_useless.
        train_documents: documents of the split train.
        held_out_documents: documents of each of the splits dev and test.
        length: characters of a document, or a few more; filler among the facts takes up the rest.
        facts: facts of a document, 1 to 8.
        gap: minimum number of characters between the last fact and the first question, in dev and test.
        seed: seed of the generator.
    """

    task: Task = "surprising_needed"
    train_documents: int = 2000
    held_out_documents: int = 100
    length: int = 512
    facts: Annotated[int, Interval(ge=1, le=8)] = 6
    gap: NonNegativeInt = 300
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse documents that do not fit."""
        super().__post_init__()
        if self.length < (needed := self.gap + 32 * self.facts):
            raise ValueError(f"recall length {self.length} is too short for {self.facts} facts; give {needed} or more")

    def documents(self, split: Split) -> Iterator[Document]:
        """Generate the documents of ``split``; ``spans`` are the answers, in dev and test of the first round."""
        for index in range(self.train_documents if split == "train" else self.held_out_documents):
            yield self._document(split, index)

    def _document(self, split: Split, index: int) -> Document:
        rng = random.Random(f"{self.task} {self.seed} {split} {index}")
        noise = self.task == "predictable_needed"
        stretch = rng.random() ** 2 if split == "train" else 1.0
        keys = list(_KEYS[: self.facts]) if noise else rng.sample(_KEYS, self.facts)
        facts = [(key, rng.choice("yn" if noise else _VALUES[key])) for key in keys]
        statements = [f"@{key}{value * 4};" if noise else f"@{value};" for key, value in facts]
        junk: list[str] = []
        if self.task == "surprising_useless":
            others = [value for key in _KEYS if key not in keys for value in _VALUES[key]]
            junk = [f"#{rng.choice(others)};" for _ in range(round(stretch * _JUNK * self.facts))]
            statements = _shuffled([*statements, *junk[::2]], rng)
        questions = [f"?{key}{value};" for key, value in [*_shuffled(facts, rng), *_shuffled(facts, rng)]]
        gap = round(stretch * self.gap)
        room = round(stretch * (self.length - self.gap - sum(map(len, questions))))
        filler = _noise if noise else _pattern
        before = _with_filler(statements, room, filler, rng) + _with_filler(junk[1::2], gap, filler, rng)
        answers = len(questions) if split == "train" else self.facts
        spans = tuple((at, at + 1) for at in range(len(before) + 2, len(before) + 2 + 4 * answers, 4))
        return Document(f"{self.task}/{self.seed}/{split}/{index}", before + "".join(questions), spans)


def _with_filler(items: list[str], length: int, filler: Callable[[random.Random], str], rng: random.Random) -> str:
    """Put ``items`` in order at random places in filler, which extends the text to ``length`` or more."""
    size = len(filler(random.Random(0)))
    units = max(1, -(-(length - sum(map(len, items))) // size))
    places = sorted(rng.choices(range(units), k=len(items)))
    parts = []
    for unit in range(units):
        parts += [item for item, place in zip(items, places, strict=True) if place == unit]
        parts.append(filler(rng))
    return "".join(parts)


def _pattern(rng: random.Random) -> str:
    return "[<(=)>]"


def _noise(rng: random.Random) -> str:
    return "".join(rng.choices(_NOISE, k=_WORD)) + " "


def _shuffled(items: list[T], rng: random.Random) -> list[T]:
    return rng.sample(items, len(items))
