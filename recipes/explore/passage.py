"""Tokens of a text, or pieces of a recording, with their scores: what the page of `vqmem explore` shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...console import one_line
from ...data.reading.audio import RATE, Audio
from ...memory.scorer import signals_of
from ..lm.text_scorer import Scoring, require_text
from ..scoring.audio import AudioScorer, AudioScores
from ..scoring.text import score_tokens

SECONDS = 120.0
"""The longest recording: what a browser draws at an acceptable speed."""


@dataclass(frozen=True)
class Clip:
    """A recording, and the times of its pieces in seconds."""

    waveform: Float[Tensor, " _"]
    scores: AudioScores

    def kept(self, positions: Iterable[int]) -> Float[Tensor, " _"]:
        """What is heard if only the pieces at ``positions`` are kept."""
        times = zip(self.scores.starts.tolist(), self.scores.ends.tolist(), strict=True)
        edges = [(round(start * RATE), round(end * RATE)) for start, end in times]
        return torch.cat([self.waveform[:0], *(self.waveform[slice(*edges[i])] for i in positions)])


@dataclass(frozen=True)
class Passage:
    """Tokens with their scores.

    Args:
        name: of the file, or of the text.
        tokens: what is shown of each token.
        ids: their ids; of frames the first code.
        names: the signals.
        scores: their values, in nats.
        clip: the recording; None for a text.
    """

    name: str
    tokens: list[str]
    ids: Int[Tensor, " time"]
    names: tuple[str, ...]
    scores: Float[Tensor, "time signal"]
    clip: Clip | None = None

    @property
    def unit(self) -> str:
        """What its tokens are called."""
        return "tokens" if self.clip is None else "pieces of sound"

    @property
    def signals(self) -> dict[str, list[float]]:
        """The values of each signal, rounded for the page."""
        return {name: [round(x, 4) for x in self.scores[:, i].tolist()] for i, name in enumerate(self.names)}


def read_passage(text: str, name: str, scoring: Scoring, most: int) -> Passage:
    """Score a text.

    Args:
        text: the text.
        name: what the page calls it.
        scoring: its front-end and scorer.
        most: the characters that it may have.

    Returns:
        Its tokens with their scores.

    Raises:
        ValueError: in one line, for a text without tokens or a longer one, and for a scorer of something else.
    """
    if not text.strip():
        raise ValueError("there is no text; paste some, or give a file with words")
    if len(text) > most:
        raise ValueError(f"{one_line(name)} has {len(text):,} characters, and at most {most:,} can be shown here")
    require_text(scoring.tokenizer)
    parts = list(score_tokens(text, scoring))
    if not parts:
        raise ValueError(f"the tokenizer finds no token in {one_line(name)}; give other text, or mend its files")
    return Passage(
        name,
        [token for part in parts for token in part.texts],
        torch.cat([part.ids for part in parts]),
        signals_of(scoring.scorer),
        torch.cat([part.signals for part in parts]),
    )


def hear_passage(file: Path, name: str, scorer: AudioScorer) -> Passage:
    """Score a recording. Raises `ValueError` in one line for what is no recording, or too long."""
    audio = Audio(str(file))
    if (seconds := audio.seconds()) > SECONDS:
        raise ValueError(f"{one_line(name)} is {seconds:.0f} s long, and at most {SECONDS:.0f} s can be shown")
    scores = scorer(audio)
    codes = scores.ids if scores.codes is None or scores.ids is not None else scores.codes
    assert codes is not None
    ids = codes if codes.ndim == 1 else codes[:, 0]
    waveform = torch.cat(list(audio.stream()))
    tokens = [f"{start:.2f} s" for start in scores.starts.tolist()]
    return Passage(name, tokens, ids.long(), scores.given, scores.signals, Clip(waveform, scores))
