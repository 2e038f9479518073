"""Units of speech with copied phrases, whose first occurrence is out of reach for a memory that keeps the newest."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import Annotated, NamedTuple

from annotated_types import Interval

from ..registry import DataSpec, build
from ..schema import NonNegativeInt, PositiveInt, Share, Validated
from .base import Document, Split

_A_SECOND = 50
"""Units a second."""


class UnitRun(NamedTuple):
    """A unit and its number of consecutive frames."""

    unit: int
    frames: int


@dataclass(frozen=True)
class Source(Validated):
    """Streams made of the documents of another source of units, with the same splits.

    All lengths count runs of one unit, which are the tokens of a front-end that deduplicates. Speech continues from
    document to document of that source. If two adjacent runs have the same unit, one of them is left out.

    A document of dev and test is speech that repeats ``phrases`` excerpts, each after at least ``gap`` runs and after
    half a phrase of new speech. ``spans`` marks the second occurrence except for its first ``cue`` runs, which announce
    it: only a model that still keeps the first occurrence predicts the rest. Nothing marks the first occurrence, and
    all places are drawn uniformly, because a memory that keeps the oldest tokens would win if phrases stood near the
    beginning. Document i begins in the i-th document of the source, so that documents overlap little.

    Documents of train have at most this length, and short ones are more frequent. They mix excerpts of earlier speech
    with new speech, densely in most documents and rarely in others, from any distance, but near more often than far: a
    model learns to look back if that mostly pays, and hardly at all if one token in six is a repetition.

    Args:
        source: a source of units: its name, or ``name`` and its keys.
        train_documents: documents of the split train.
        held_out_documents: documents of each of the splits dev and test.
        length: runs of a document.
        phrases: repeated excerpts in a document of dev and test.
        phrase: runs of an excerpt, plus or minus a quarter.
        cue: first runs of a second occurrence, which are outside of ``spans``.
        gap: minimum number of runs between the two occurrences in dev, test and training documents that are not dense.
        dense: share of the training documents with excerpts throughout.
        seed: seed of the generator.
    """

    source: DataSpec = field(default_factory=lambda: {"name": "unit_files"})
    train_documents: PositiveInt = 4000
    held_out_documents: PositiveInt = 48
    length: int = 2048
    phrases: PositiveInt = 6
    phrase: Annotated[int, Interval(ge=8)] = 32
    cue: NonNegativeInt = 8
    gap: NonNegativeInt = 576
    dense: Share = 0.6
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse documents that do not fit."""
        super().__post_init__()
        if self.cue >= 3 * self.phrase // 4:
            raise ValueError(
                f"repeated_phrases cue {self.cue} does not fit; give less than three quarters of phrase {self.phrase}"
            )
        needed = self.gap + 4 * self.phrases * (5 * self.phrase // 4 + self.phrase // 2)
        if self.length < needed:
            raise ValueError(
                f"repeated_phrases length {self.length} is too short for {self.phrases} phrases; give {needed} or more"
            )

    def documents(self, split: Split) -> Iterator[Document]:
        """Generate the documents of ``split``. Raises `ValueError` if the source has too little speech."""
        chapters = [
            [UnitRun(unit, len(list(same))) for unit, same in groupby(document.content("units"))]
            for document in build("data", self.source).documents(split)
        ]
        if (runs := sum(map(len, chapters))) < 2 * self.length:
            raise ValueError(
                f"the split {split} has {runs} runs of units, too few for repeated_phrases of length {self.length}; "
                f"give {2 * self.length} or a smaller length"
            )
        for index in range(self.train_documents if split == "train" else self.held_out_documents):
            rng = random.Random(f"{self.seed} {split} {index}")
            speech = _Speech(chapters, index, rng)
            dense = split == "train" and rng.random() < self.dense
            runs, target_spans = (self._dense if dense else self._once)(speech, rng)
            times = [0]
            for run in runs:
                times.append(times[-1] + run.frames)
            spans = tuple((times[start] / _A_SECOND, times[stop] / _A_SECOND) for start, stop in target_spans)
            units = tuple(chain.from_iterable([run.unit] * run.frames for run in runs))
            yield Document(f"repeated/{self.seed}/{split}/{index}", spans=spans, units=units)

    def _once(self, speech: _Speech, rng: random.Random) -> tuple[list[UnitRun], list[tuple[int, int]]]:
        """Repeat excerpts once, at places drawn uniformly; also return the ranges to predict."""
        runs: list[UnitRun] = []
        target_spans = []
        for second, first, size in self._places(rng):
            # The first unit of the excerpt is not known before all speech up to it exists.
            runs += speech.take(second - 1 - len(runs), runs)
            excerpt = runs[first : first + size]
            runs += [*speech.take(1, runs, excerpt[0].unit), *excerpt]
            target_spans.append((second + self.cue, second + size))
        return runs + speech.take(self.length - len(runs), runs), target_spans

    def _places(self, rng: random.Random) -> list[tuple[int, int, int]]:
        """Second place, first place and size of each excerpt, in the order of the second place.

        At least half a phrase lies between any two occurrences; places are drawn until this holds.
        """
        between = self.phrase // 2
        while True:
            places: list[tuple[int, int, int]] = []
            taken: list[tuple[int, int]] = []
            for _ in range(100 * self.phrases):
                size = self._size(rng)
                first = rng.randint(0, self.length - self.gap - 2 * size)
                second = rng.randint(first + size + self.gap, self.length - size)
                spans = [(at - between, at + size) for at in (first, second)]
                if spans[1][0] >= first + size and all(a[1] <= b[0] or b[1] <= a[0] for a in spans for b in taken):
                    places.append((second, first, size))
                    taken += spans
                if len(places) == self.phrases:
                    return sorted(places)

    def _dense(self, speech: _Speech, rng: random.Random) -> tuple[list[UnitRun], list[tuple[int, int]]]:
        """Alternate new speech and excerpts of earlier speech; the logarithm of their distance is uniform."""
        near = self.phrase // 3
        length = max(3 * self.phrase, round(rng.random() ** 2 * self.length))
        between = round(near * (length / near) ** rng.random() ** 4)
        runs, target_spans = speech.take(near, []), []
        while len(runs) < length:
            start = len(runs) - round(near * (len(runs) / near) ** rng.random())
            excerpt = runs[start : start + self._size(rng)]
            runs += speech.take(rng.randint(1, between), runs, excerpt[0].unit)
            target_spans.append((len(runs) + self.cue, min(len(runs) + len(excerpt), length)))
            runs += excerpt
        return runs[:length], [(start, stop) for start, stop in target_spans if start < stop]

    def _size(self, rng: random.Random) -> int:
        return rng.randint(3 * self.phrase // 4, 5 * self.phrase // 4)


class _Speech:
    """The speech of all chapters: one of them from a random place on, then the others in random order."""

    def __init__(self, chapters: Sequence[Sequence[UnitRun]], first: int, rng: random.Random) -> None:
        chapter = chapters[first % len(chapters)]
        others = [other for other in chapters if other is not chapter]
        start = rng.randrange(len(chapter))
        self.runs = chain(chapter[start:], *rng.sample(others, len(others)), chapter[:start])

    def take(self, count: int, before: Sequence[UnitRun], following: int | None = None) -> list[UnitRun]:
        """The next ``count`` runs, for the place between ``before`` and the unit ``following``; neighbours differ."""
        taken: list[UnitRun] = []
        last = before[-1].unit if before else None
        while len(taken) < count:
            run = next(self.runs)
            if run.unit != last and (len(taken) < count - 1 or run.unit != following):
                taken.append(run)
                last = run.unit
        return taken
