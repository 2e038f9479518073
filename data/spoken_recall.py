"""Spoken words recalled later, in units of speech: pairs are said early, and their values are asked for late.

The speech twin of ``mqar``. A document is the speech of one speaker, made of recordings of single words, such as the
ten digits. A tone announces a pair: a key word and, right after it, a value word. Words that nobody asks for stand
alone after a pause. At least ``gap`` runs of units after the last pair, the keys are said again in random order, each
after a tone, and the value follows as before. ``spans`` marks the first ``marked`` runs of the values, in seconds,
because the others follow from them: few words begin alike. Where a value begins with the unit that the key ends in, the
two are one run, which is not marked. Every key is then asked for again in another order; these answers are a few words
back and have spans only in training documents. With ``~`` for the tone:

    ``four ~seven three nine three ~two nine … five one four … ~two nine ~seven three ~seven three ~two nine``

The words of the keys of a document occur in it as keys alone. Values and the other words are drawn from the rest.
The recordings of the values of pairs are never among the other words.

``copy``
    A question repeats the recordings of its pair: the answer has the same units.

``take``
    A question uses other recordings of both words by the same speaker: the answer has to be recognised.

A recording is encoded once, by itself, so that its units are the same everywhere. Unit 0 is the pause and unit 1 the
tone, both absent from recordings, whose units are numbered from 2.

All dev and test documents have this form. Training documents are short and dense more often than not: they have a
random share of the other words and of the gap, and a random number of keys, for which they ask the more often the fewer
there are. Models learn to look back much sooner from these.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from typing import Any, Literal, NamedTuple

from ..registry import DataSpec, FrontEndSpec, build
from ..schema import NonNegativeInt, PositiveInt, Validated
from .base import Document, Split, take_evenly
from .reading.files import Skipping

PAUSE, TONE, FIRST_UNIT = 0, 1, 2
"""The units of a pause and of a tone, and what the units of recordings are numbered from."""
_A_SECOND = 50
"""Units a second."""
_BREAK = 5
"""Frames of a pause and of a tone."""


class Take(NamedTuple):
    """One recording of a word: its units, 50 a second, and its number of runs of one unit."""

    units: tuple[int, ...]
    runs: int


Words = dict[str, list[Take]]
"""The recordings of each word of a speaker."""


@dataclass(frozen=True)
class Source(Validated):
    """Documents of spoken pairs and questions, each a function of its keys, split, index and the recordings.

    Lengths count runs of one unit, which are the tokens of a front-end that deduplicates. Only words that a speaker
    said often enough are used, and only speakers with two such words more than there are pairs. Recordings of a word
    that have the same units count once.

    Args:
        recordings: a source of recordings (or units) with the word of each as its text, and the speaker if it is known;
            its splits are those of the documents.
        units: the front-end that encodes recordings; if it is fitted, then on those of train.
        answer: copy | take: whether a question repeats the recordings of its pair or uses others.
        train_documents: documents of the split train.
        held_out_documents: documents of each of the splits dev and test.
        pairs: pairs of a document.
        marked: first runs of a value that count as the answer.
        others: other words among the pairs.
        gap: minimum number of runs between the last pair and the first question, in dev and test.
        takes: maximum number of recordings of a word by a speaker, taken evenly; 0 = all.
        seed: seed of the generator.
    """

    recordings: DataSpec = "spoken_words"
    units: FrontEndSpec = field(default_factory=lambda: {"name": "hubert_units", "fitted": "packaged"})
    answer: Literal["copy", "take"] = "copy"
    train_documents: PositiveInt = 4000
    held_out_documents: PositiveInt = 100
    pairs: PositiveInt = 4
    marked: PositiveInt = 2
    others: NonNegativeInt = 4
    gap: NonNegativeInt = 256
    takes: NonNegativeInt = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a front-end of another kind, and too few recordings of a word."""
        super().__post_init__()
        front_end = build("front-ends", self.units)
        if getattr(front_end, "input_kind", "") != "audio" or getattr(front_end, "size_unit", "") != "frame":
            raise ValueError(
                f"units = {self.units!r} is not a front-end that makes 50 units a second of audio; give hubert_units"
            )
        if 0 < self.takes < self._least_takes():
            raise ValueError(
                f"takes = {self.takes} recordings of a word are fewer than the {self._least_takes()} that "
                f"{self.pairs} pairs need; give as many, or 0 for all"
            )

    def documents(self, split: Split) -> Iterator[Document]:
        """Generate the documents of ``split``. Raises `ValueError` if no speaker said enough words often enough."""
        found = _read_words(*(json.dumps(spec, sort_keys=True) for spec in (self.recordings, self.units)), split)
        speakers = list(filter(None, (self._usable(words) for words in found.values())))
        if not speakers:
            raise ValueError(
                f"no speaker of the split {split} has {self.pairs + 2} words with {self._least_takes()} recordings of "
                f"each, which spoken_recall needs for {self.pairs} pairs; give other recordings or fewer pairs"
            )
        for index in range(self.train_documents if split == "train" else self.held_out_documents):
            yield self._document(split, index, speakers)

    def _least_takes(self) -> int:
        """Recordings of a word so that two words have more than there are pairs, and a question has another one."""
        return max(2, self.pairs // 2 + 1)

    def _usable(self, words: Words) -> Words | None:
        """The words that a speaker said often enough; None if they are too few."""
        enough = {word: take_evenly(takes, self.takes or None) for word, takes in words.items()}
        enough = {word: takes for word, takes in enough.items() if len(takes) >= self._least_takes()}
        return enough if len(enough) >= self.pairs + 2 else None

    def _document(self, split: Split, index: int, speakers: list[Words]) -> Document:
        rng = random.Random(f"{self.answer} {self.seed} {split} {index}")
        share = rng.random() ** 3 if split == "train" else 1.0
        words = rng.choice(speakers)
        keys = rng.sample(list(words), rng.randint(1, self.pairs) if split == "train" else self.pairs)
        rest = [word for word in words if word not in keys]
        values = {key: rng.choice(rest) for key in keys}
        stated = {key: (rng.choice(words[key]), rng.choice(words[values[key]])) for key in keys}
        said = [value for _, value in stated.values()]
        unasked = [take for word in rest for take in words[word] if not any(take is value for value in said)]

        speech = _Speech()
        places: list[str | None] = [*keys, *[None] * round(share * self.others)]
        for key in rng.sample(places, len(places)):
            if key is None:
                speech.say(rng.choice(unasked))
            else:
                speech.say_pair(*stated[key])
        end = speech.runs + round(share * self.gap)
        while speech.runs < end:
            speech.say(rng.choice(unasked))
        rounds = 4 * self.pairs // len(keys) if split == "train" else 2
        spans = []
        for key in (key for _ in range(rounds) for key in rng.sample(keys, len(keys))):
            pair = stated[key]
            if self.answer == "take":
                pair = _other(words[key], pair[0], rng), _other(words[values[key]], pair[1], rng)
            start, end = speech.say_pair(*pair)
            first_runs = [len(list(run)) for _, run in groupby(speech.units[start:end])][: self.marked]
            spans.append((start / _A_SECOND, (start + sum(first_runs)) / _A_SECOND))
        name = f"spoken_{self.answer}/{self.seed}/{split}/{index}"
        marked = spans if split == "train" else spans[: len(keys)]
        return Document(name, spans=tuple(marked), units=tuple(speech.units))


class _Speech:
    """Units of what was said so far, and their number of runs."""

    def __init__(self) -> None:
        self.units: list[int] = []
        self.runs = 0

    def say(self, take: Take) -> None:
        """Say a word after a pause."""
        self._add((PAUSE,) * _BREAK, 1)
        self._add(take.units, take.runs)

    def say_pair(self, key: Take, value: Take) -> tuple[int, int]:
        """Say a pair after a tone; returns the frames at which the runs of its value start and end."""
        self._add((TONE,) * _BREAK, 1)
        self._add(key.units, key.runs)
        start = len(self.units)
        if key.units[-1] == value.units[0]:
            start += next(i for i, unit in enumerate(value.units) if unit != value.units[0])
            self.runs -= 1
        self._add(value.units, value.runs)
        return start, len(self.units)

    def _add(self, units: Sequence[int], runs: int) -> None:
        self.units += units
        self.runs += runs


def _other(takes: list[Take], than: Take, rng: random.Random) -> Take:
    """Draw another recording of a word."""
    return rng.choice([take for take in takes if take is not than])


@lru_cache(maxsize=6)
def _read_words(recordings: str, units: str, split: Split) -> dict[str, Words]:
    """The recordings of ``split`` by speaker and word, encoded; specs are JSON. A process encodes a recording once.

    Recordings of one unit throughout are left out: nothing is said in them. So are those with the units of another
    recording of the word: they would not be another recording for ``take``.
    """
    source = build("data", json.loads(recordings))
    front_end: Any = None
    found: dict[str, Words] = {}
    skipping = Skipping()
    for document in source.documents(split):
        if not document.text:
            raise ValueError(f"{document.name!r} has no text, the word that is said; give recordings with texts")
        if not document.units:
            front_end = front_end or _front_end(recordings, units)
        with skipping:
            ids = document.units
            if not ids:
                stream = front_end.encode(document.content("audio"))
                ids = stream.ids.repeat_interleave(stream.sizes).tolist()
            take = Take(tuple(FIRST_UNIT + unit for unit in ids), sum(1 for _ in groupby(ids)))
            takes = found.setdefault(document.speaker, {}).setdefault(document.text, [])
            if take.runs > 1 and take not in takes:
                takes.append(take)
    skipping.report()
    return found


@lru_cache(maxsize=2)
def _front_end(recordings: str, units: str) -> Any:
    """The front-end for recordings; clusters are fitted on those of train, unless it has them."""
    training = (document.content("audio") for document in build("data", json.loads(recordings)).documents("train"))
    return build("front-ends", json.loads(units)).fit(training)
