"""Units of speech in which phrases come again, copied, beyond the reach of a memory that keeps the newest."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import Any, NamedTuple

from ..registry import build
from .base import Document, Split

_A_SECOND = 50
"""Units a second."""


class Run(NamedTuple):
    """A unit and how often it is said in a row."""

    unit: int
    frames: int


@dataclass(frozen=True)
class Source:
    """Streams made of the documents of another source of units, whose splits they keep.

    All lengths count runs of one unit: tokens of a front-end that deduplicates. Speech goes on from document to
    document of that source; where two pieces meet, a run is left out rather than joined to its like.

    A document of dev and test is one stretch of speech in which ``phrases`` excerpts are said a second time, after at
    least ``gap`` runs, whatever the phrase, and half a phrase of new speech or more. ``spans`` marks the second
    occurrence but for its first ``cue`` runs, which tell what is coming: whoever foretells the rest must still hold the
    first. Nothing says at the first occurrence that it will be needed, and where it stands tells little: all places are
    drawn evenly, since a memory that keeps the oldest would win where phrases were said near the beginning. Document i
    begins in the i-th document of the source, so that they overlap little.

    Documents of train are up to as long, more often short than long. Throughout them, excerpts of what was said stand
    in new speech, densely in most documents and rarely in others, from any distance but near more often than far: a
    model learns to look back where that mostly pays, and hardly at all where one token in six comes again.

    Args:
        source: a source of units: its name, or ``name`` and its keys.
        train_documents: documents of the split train.
        held_out_documents: documents of each of the splits dev and test.
        length: runs of a document.
        phrases: excerpts that come again in a document of dev and test.
        phrase: runs of an excerpt, a quarter more or less.
        cue: first runs of a second occurrence that are not marked.
        gap: least number of runs between the two occurrences, in dev, test and what is not dense.
        dense: share of the training documents in which excerpts come again throughout.
        seed: of what is drawn.
    """

    source: str | dict[str, Any] = field(default_factory=lambda: {"name": "unit_files"})
    train_documents: int = 4000
    held_out_documents: int = 48
    length: int = 2048
    phrases: int = 6
    phrase: int = 32
    cue: int = 8
    gap: int = 576
    dense: float = 0.6
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse documents that do not fit."""
        for name in ("train_documents", "held_out_documents", "phrases"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"repeated_phrases {name} {value} is too small; give 1 or more")
        if self.phrase < 8 or not 0 <= self.cue < 3 * self.phrase // 4:
            raise ValueError(
                f"repeated_phrases phrase {self.phrase} and cue {self.cue} do not fit; "
                "give a phrase of 8 or more and a cue of less than three quarters of it"
            )
        if not 0 <= self.dense <= 1:
            raise ValueError(f"repeated_phrases dense {self.dense} is no share; give 0 to 1")
        if self.gap < 0:
            raise ValueError(f"repeated_phrases gap {self.gap} is negative; give 0 or more")
        needed = self.gap + 4 * self.phrases * (5 * self.phrase // 4 + self.phrase // 2)
        if self.length < needed:
            raise ValueError(
                f"repeated_phrases length {self.length} holds no {self.phrases} phrases; give {needed} or more"
            )

    def documents(self, split: Split) -> Iterator[Document]:
        """Generate the documents of ``split``. Raises `ValueError` where the source has too little speech in it."""
        chapters = [
            [Run(unit, len(list(same))) for unit, same in groupby(document.content("units"))]
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
            runs, marked = (self._dense if dense else self._once)(speech, rng)
            times = [0]
            for run in runs:
                times.append(times[-1] + run.frames)
            spans = tuple((times[start] / _A_SECOND, times[stop] / _A_SECOND) for start, stop in marked)
            units = tuple(chain.from_iterable([run.unit] * run.frames for run in runs))
            yield Document(f"repeated/{self.seed}/{split}/{index}", spans=spans, units=units)

    def _once(self, speech: _Speech, rng: random.Random) -> tuple[list[Run], list[tuple[int, int]]]:
        """Excerpts that come again once, at places drawn evenly; and where they do."""
        runs: list[Run] = []
        marked = []
        for second, first, size in self._places(rng):
            # The excerpt's first unit is not known before all that lies between has been said.
            runs += speech.take(second - 1 - len(runs), runs)
            excerpt = runs[first : first + size]
            runs += [*speech.take(1, runs, excerpt[0].unit), *excerpt]
            marked.append((second + self.cue, second + size))
        return runs + speech.take(self.length - len(runs), runs), marked

    def _places(self, rng: random.Random) -> list[tuple[int, int, int]]:
        """Where excerpts are said again, where at first, and how long they are, in the order of the first of these.

        No occurrence touches another, and half a phrase lies between them: drawn anew until it is so.
        """
        between = self.phrase // 2
        while True:
            places: list[tuple[int, int, int]] = []
            taken: list[tuple[int, int]] = []
            for _ in range(100 * self.phrases):
                size = self._size(rng)
                first = rng.randint(0, self.length - self.gap - 2 * size)
                second = rng.randint(first + size + self.gap, self.length - size)
                own = [(at - between, at + size) for at in (first, second)]
                if own[1][0] >= first + size and all(a[1] <= b[0] or b[1] <= a[0] for a in own for b in taken):
                    places.append((second, first, size))
                    taken += own
                if len(places) == self.phrases:
                    return sorted(places)

    def _dense(self, speech: _Speech, rng: random.Random) -> tuple[list[Run], list[tuple[int, int]]]:
        """Speech and excerpts of what was said by turns; the logarithm of their distance is uniform."""
        near = self.phrase // 3
        length = max(3 * self.phrase, round(rng.random() ** 2 * self.length))
        between = round(near * (length / near) ** rng.random() ** 4)
        runs, marked = speech.take(near, []), []
        while len(runs) < length:
            start = len(runs) - round(near * (len(runs) / near) ** rng.random())
            excerpt = runs[start : start + self._size(rng)]
            runs += speech.take(rng.randint(1, between), runs, excerpt[0].unit)
            marked.append((len(runs) + self.cue, min(len(runs) + len(excerpt), length)))
            runs += excerpt
        return runs[:length], [(start, stop) for start, stop in marked if start < stop]

    def _size(self, rng: random.Random) -> int:
        return rng.randint(3 * self.phrase // 4, 5 * self.phrase // 4)


class _Speech:
    """The speech of all chapters, from a random place in one of them on, then that of the others in random order."""

    def __init__(self, chapters: Sequence[Sequence[Run]], first: int, rng: random.Random) -> None:
        own = chapters[first % len(chapters)]
        others = [chapter for chapter in chapters if chapter is not own]
        start = rng.randrange(len(own))
        self.runs = chain(own[start:], *rng.sample(others, len(others)), own[:start])

    def take(self, count: int, said: Sequence[Run], following: int | None = None) -> list[Run]:
        """The next runs, to stand between ``said`` and a run of the unit ``following``; none is like its neighbour."""
        taken: list[Run] = []
        before = said[-1].unit if said else None
        while len(taken) < count:
            run = next(self.runs)
            if run.unit != before and (len(taken) < count - 1 or run.unit != following):
                taken.append(run)
                before = run.unit
        return taken
