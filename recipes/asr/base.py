"""The interface of recognisers: what they get, and what they return."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch

from ...data.base import InputKind
from ...schema import NonNegativeInt, PathText, Validated
from ..engine.task import TrainConfig
from ..speech.text_normalisation import Alphabet


class Letter(NamedTuple):
    """A recognised character with its start and end in seconds."""

    character: str
    start: float
    end: float


@dataclass(frozen=True)
class Utterance:
    """An utterance: its content, its normalised text, and its length in samples or units, as the recogniser reads."""

    name: str
    content: Any
    text: str
    length: int


DecodingMode = Callable[[Sequence[Sequence[Any]]], Iterator[tuple[int, Letter]]]
"""Transcribes recordings. A recording is the contents of consecutive documents.

Yields each letter with its recording's number. Letters of one recording are in order; recordings may be interleaved.
"""


def one_by_one(read: Callable[[Sequence[Any]], Iterator[Letter]]) -> DecodingMode:
    """The decoding mode that transcribes one recording after another with ``read``."""
    return lambda recordings: ((i, letter) for i, contents in enumerate(recordings) for letter in read(contents))


@runtime_checkable
class Transcriber(Protocol):
    """A trained recogniser: its decoding modes by name, the default one first."""

    decoding_modes: dict[str, DecodingMode]


@dataclass(frozen=True)
class Decoding(Validated):
    """How a CTC recogniser turns class probabilities into letters."""

    beam: NonNegativeInt = 0
    """Hypotheses to keep; 0 = greedy, the likeliest class of each frame. A beam needs the extra ``asr``."""
    lexicon: bool = False
    """Whether the beam writes only words of the training texts."""
    lm: PathText | None = None
    """A KenLM file (arpa or binary): of words with ``lexicon``, else of characters, with | for the space."""
    lm_weight: float = 1.0
    """Factor of the language model's score."""
    word_score: float = 0.0
    """Score added for each word, or without ``lexicon`` for each space."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for settings that need a beam."""
        super().__post_init__()
        if not self.beam and (self.lexicon or self.lm is not None):
            raise ValueError("lexicon and lm need a beam; give one, such as beam: 50")


@dataclass(frozen=True)
class TrainingJob:
    """The data and settings that a recogniser is trained with."""

    out: Path
    alphabet: Alphabet
    utterances: Sequence[Utterance]
    recordings: Sequence[Sequence[Utterance]]
    """The same utterances, grouped by recording."""
    batch_size: int
    settings: TrainConfig
    identity: dict[str, Any]
    decoding: Decoding
    evaluate: Callable[[Transcriber], dict[str, float]]
    """Error rates of the default decoding mode on the dev split."""

    @property
    def device(self) -> torch.device:
        """The device to train on."""
        return torch.device(self.settings.device)


@runtime_checkable
class Recogniser(Protocol):
    """The frozen dataclass ``Recogniser`` of a ``recogniser.py`` in a sub-folder; its fields are its YAML keys."""

    input_kind: InputKind
    """The field of a document that it reads."""

    def length(self, content: Any) -> int:
        """The length of a document's content. Raises `UnreadableError` for one that cannot be read to its end."""
        ...

    def check(self, out: Path, decoding: Decoding) -> None:
        """Raise `ValueError` if something that `fit` needs is missing, before ``out`` is created."""
        ...

    def fit(self, job: TrainingJob) -> Transcriber:
        """Train and save in ``job.out`` what is not saved there yet."""
        ...

    def load(self, out: Path, alphabet: Alphabet, decoding: Decoding, device: torch.device) -> Transcriber:
        """Load what `fit` saved.

        Args:
            out: the run folder.
            alphabet: the characters that it writes.
            decoding: how class probabilities become letters; recognisers without CTC refuse a beam.
            device: the device of the networks.

        Returns:
            What writes the letters of recordings, on ``device``.

        Raises:
            ValueError: if a part is missing or damaged, or if this recogniser cannot decode like this.
        """
        ...
