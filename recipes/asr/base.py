"""What every recogniser of the recipe is given, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch

from ...data.base import InputKind
from ...schema import PathText
from ..engine.task import TrainConfig
from ..speech.text_normalisation import Alphabet


class Letter(NamedTuple):
    """A character that was recognised, and where, in seconds."""

    character: str
    start: float
    end: float


@dataclass(frozen=True)
class Utterance:
    """Something said, its normalised text, and its length in what the recogniser reads (samples, units)."""

    name: str
    content: Any
    text: str
    length: int


Way = Callable[[Sequence[Sequence[Any]]], Iterator[tuple[int, Letter]]]
"""Transcribes recordings, each the contents of documents that follow one another.

A letter comes with its recording's number; the letters of a recording come in order, those of several may be mixed.
"""


def one_by_one(read: Callable[[Sequence[Any]], Iterator[Letter]]) -> Way:
    """The way that reads one recording after another by ``read``."""
    return lambda recordings: ((i, letter) for i, contents in enumerate(recordings) for letter in read(contents))


@runtime_checkable
class Transcriber(Protocol):
    """A trained recogniser. ``ways`` are the ways in which it can read, by name, the one to use first."""

    ways: dict[str, Way]


@dataclass(frozen=True)
class Decoding:
    """How a CTC recogniser makes letters of its classes."""

    beam: int = 0
    """Hypotheses that are kept; 0 takes the likeliest class of each frame. More needs the extra ``asr``."""
    lexicon: bool = False
    """Whether the beam writes words of the training texts only."""
    lm: PathText | None = None
    """A KenLM file (arpa or binary): of words where ``lexicon`` is set, else of characters, with | for the space."""
    lm_weight: float = 1.0
    """What the language model's score is multiplied by."""
    word_score: float = 0.0
    """What a word, or without ``lexicon`` a space, is worth."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for settings that only a beam has."""
        if self.beam < 0:
            raise ValueError(f"beam = {self.beam} is negative; give 0 for the likeliest class of each frame")
        if not self.beam and (self.lexicon or self.lm is not None):
            raise ValueError("lexicon and lm need a beam; give one, such as beam: 50")


@dataclass(frozen=True)
class Job:
    """What a recogniser is trained on, and how."""

    out: Path
    alphabet: Alphabet
    utterances: Sequence[Utterance]
    recordings: Sequence[Sequence[Utterance]]
    """The same, those together that belong to one recording."""
    rows: int
    settings: TrainConfig
    identity: dict[str, Any]
    decoding: Decoding
    evaluate: Callable[[Transcriber], dict[str, float]]
    """Figures of the first of its ways on the dev split."""

    @property
    def device(self) -> torch.device:
        """Where to train."""
        return torch.device(self.settings.device)


@runtime_checkable
class Recogniser(Protocol):
    """The frozen dataclass ``Recogniser`` of a file in ``recognisers/``: its fields are its YAML keys."""

    reads: InputKind
    """Which field of a document it reads."""

    def length(self, content: Any) -> int:
        """How long a document's content is. Raises `UnreadableError` for one that cannot be read to its end."""
        ...

    def check(self, out: Path, decoding: Decoding) -> None:
        """Raise `ValueError` for what `fit` will need and not find, before ``out`` is made and anything is trained."""
        ...

    def fit(self, job: Job) -> Transcriber:
        """Train and save in ``job.out`` what is not there yet."""
        ...

    def load(self, out: Path, alphabet: Alphabet, decoding: Decoding, device: torch.device) -> Transcriber:
        """What `fit` saved. Raises `ValueError` where a part is missing or damaged, or cannot decode so."""
        ...
