"""Multi-query associative recall: key-value pairs stated early and asked for late, some of them out of date by then.

The task of Zoology (Arora et al., arXiv:2312.04927), as text, with a gap between the pairs and the questions. Keys are
capital letters and values small ones, both drawn at random, so that the pair alone determines the value. ``Gq``
assigns the value q to the key G, ``?Gq`` asks for it. Pairs stand in random order at random places in filler, which
continues for at least ``gap`` characters after the last pair. The document then asks for every key in random order.
``spans`` marks these answers. It asks for them again in another order; these answers are a few characters back and have
spans only in training documents.

All dev and test documents have this form. Training documents are short and dense more often than not: they have a
random share of the filler and of the useless pairs, and a random number of keys. Models learn to look back much sooner
from these than from documents where one character in fifty matters. For ``recall`` they ask the more often the fewer
keys there are. For ``forgetting`` more of them are long, the number of stale values is random too, and they ask once:
answers that can be copied from an earlier question teach nothing about age.

``recall``
    Each key is assigned once.

    ``70324Kc2951Gq08 … 6314480 … ?Gq?Kc?Kc?Gq``

``forgetting``
    Each key is assigned ``stale`` times with other values before, and its newest value is the answer. ``#Rx`` marks a
    pair that no question asks for; there are ``unasked`` of these, half of them in the gap. A memory that keeps every
    pair fills up with useless ones.

    ``70Gq#Rx24Kc2951Gd08 … 63#Mb80 … ?Gd?Kc?Kc?Gd``
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from ..schema import NonNegativeInt, PositiveInt, Validated
from .base import Document, Split

Task = Literal["recall", "forgetting"]
_KEYS = string.ascii_uppercase
_VALUES = string.ascii_lowercase
_FILLER = string.digits
_PAIR, _MARKED, _QUESTION = len("Gq"), len("#Gq"), len("?Gq")


@dataclass(frozen=True)
class Source(Validated):
    """Documents of key-value pairs and questions, each a function of its task, seed, split and index.

    Args:
        task: recall | forgetting.
        train_documents: documents of the split train.
        held_out_documents: documents of each of the splits dev and test.
        length: characters of a document of dev or test; filler takes up what pairs and questions leave.
        pairs: keys that are asked for, 1 to 24.
        stale: earlier assignments of each key, for ``forgetting``.
        unasked: marked pairs that no question asks for, for ``forgetting``.
        gap: minimum number of characters between the last asked pair and the first question, in dev and test.
        seed: seed of the generator.
    """

    task: Task = "recall"
    train_documents: PositiveInt = 4000
    held_out_documents: PositiveInt = 100
    length: int = 448
    pairs: Annotated[int, Interval(ge=1, le=24)] = 8
    stale: NonNegativeInt = 4
    unasked: NonNegativeInt = 24
    gap: NonNegativeInt = 208
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse documents that do not fit."""
        super().__post_init__()
        stale, unasked = (self.stale, self.unasked) if self.task == "forgetting" else (0, 0)
        before = _PAIR * self.pairs * (1 + stale) + _MARKED * (unasked - unasked // 2)
        needed = before + max(self.gap, _MARKED * (unasked // 2)) + 2 * _QUESTION * self.pairs
        if self.length < needed:
            raise ValueError(
                f"mqar length {self.length} is too short for {self.pairs} pairs of the task {self.task}; "
                f"give {needed} or more"
            )

    def documents(self, split: Split) -> Iterator[Document]:
        """Generate the documents of ``split``; ``spans`` mark the answers, in dev and test of the first round."""
        for index in range(self.train_documents if split == "train" else self.held_out_documents):
            yield self._document(split, index)

    def _document(self, split: Split, index: int) -> Document:
        rng = random.Random(f"{self.task} {self.seed} {split} {index}")
        forgetting = self.task == "forgetting"
        share = rng.random() ** (1.5 if forgetting else 3) if split == "train" else 1.0
        keys = rng.sample(_KEYS, rng.randint(1, self.pairs) if split == "train" else self.pairs)
        stale = unasked = 0
        if forgetting:
            stale = rng.randint(0, self.stale) if split == "train" else self.stale
            unasked = round(share * self.unasked)
        assigned = rng.sample(keys * (1 + stale), len(keys) * (1 + stale))
        newest: dict[str, str] = {}
        statements = []
        for key in assigned:
            newest[key] = rng.choice([value for value in _VALUES if value != newest.get(key)])
            statements.append(f"{key}{newest[key]}")
        others = [key for key in _KEYS if key not in newest]
        marked = [f"#{rng.choice(others)}{rng.choice(_VALUES)}" for _ in range(unasked)]
        statements = _interleaved(statements, marked[unasked // 2 :], rng)
        training_rounds = 1 if forgetting else 4 * self.pairs // len(keys)
        rounds = training_rounds if split == "train" else 2
        questions = [f"?{key}{newest[key]}" for _ in range(rounds) for key in rng.sample(keys, len(keys))]
        room = round(share * (self.length - self.gap - _QUESTION * len(questions)))
        before = _with_filler(statements, room, rng) + _with_filler(
            marked[: unasked // 2], round(share * self.gap), rng
        )
        answers = len(questions) if split == "train" else len(keys)
        values = [len(before) + _QUESTION * i + 2 for i in range(answers)]
        spans = tuple((at, at + 1) for at in values)
        return Document(f"{self.task}/{self.seed}/{split}/{index}", before + "".join(questions), spans)


def _interleaved(first: Sequence[str], second: Sequence[str], rng: random.Random) -> list[str]:
    """Merge two sequences at random; each stays in order."""
    takes_first = rng.sample([True] * len(first) + [False] * len(second), len(first) + len(second))
    parts = {True: iter(first), False: iter(second)}
    return [next(parts[choice]) for choice in takes_first]


def _with_filler(items: Sequence[str], length: int, rng: random.Random) -> str:
    """Put ``items`` in order at random places in filler, which extends the text to ``length``."""
    filler = rng.choices(_FILLER, k=max(0, length - sum(map(len, items))))
    places = sorted(rng.choices(range(len(filler) + 1), k=len(items)))
    parts: list[str] = []
    start = 0
    for item, place in zip(items, places, strict=True):
        parts += [*filler[start:place], item]
        start = place
    return "".join([*parts, *filler[start:]])
