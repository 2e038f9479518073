"""Read a text or a recording into scored tokens, for the page of `vqmem explore`."""

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
from ...models.speech.frame_scorer import is_frame_scorer
from ..lm.text_scorer import Scoring, load_scoring, require_text
from ..scoring.audio import AudioScores, load_audio_scorer
from ..scoring.text import score_tokens
from ..text_lm.recipe import Run, load_run

CHARACTERS, SECONDS = 50_000, 120.0
"""The longest text and the longest recording: what a browser draws at an acceptable speed."""
CHARACTERS_TO_READ = 12_000
"""The longest text that a language model reads again and again."""


@dataclass(frozen=True)
class Clip:
    """A recording, and the times of its pieces in seconds."""

    waveform: Float[Tensor, " _"]
    scores: AudioScores


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
        run: the language model that can read the passage; None without one.
    """

    name: str
    tokens: list[str]
    ids: Int[Tensor, " time"]
    names: tuple[str, ...]
    scores: Float[Tensor, "time signal"]
    clip: Clip | None = None
    run: Run | None = None

    @property
    def unit(self) -> str:
        """What its tokens are called."""
        return "tokens" if self.clip is None else "pieces of sound"

    @property
    def signals(self) -> dict[str, list[float]]:
        """The values of each signal, rounded for the page."""
        return {name: [round(x, 4) for x in self.scores[:, i].tolist()] for i, name in enumerate(self.names)}


def read_passage(text: str, name: str, model: Path | None = None) -> Passage:
    """Score a text with a run of `vqmem text_lm`, or with the packaged scorer. The run's language model can read it.

    Raises `ValueError` in one line for an empty or too long text, and for a model that cannot be used.
    """
    if not text.strip():
        raise ValueError("there is no text; paste some, or give a file with words")
    reads = model is not None and (model / "transformer").is_dir()
    if len(text) > (most := CHARACTERS_TO_READ if reads else CHARACTERS):
        about = " with a language model" if reads else ""
        raise ValueError(f"{one_line(name)} has {len(text):,} characters, and at most {most:,} can be shown{about}")
    run = load_run(model) if model is not None and reads else None
    scoring = load_scoring(model) if run is None else Scoring(run.tokenizer, run.scorer, "cpu")
    require_text(scoring.tokenizer)
    parts = list(score_tokens(text, scoring))
    return Passage(
        name,
        [token for part in parts for token in part.texts],
        torch.cat([part.ids for part in parts]),
        signals_of(scoring.scorer),
        torch.cat([part.signals for part in parts]),
        run=run,
    )


def hear_passage(file: Path, name: str, model: Path | None = None) -> Passage:
    """Score a recording with a run of `vqmem text_lm` on speech or `vqmem frame_scorer`, or with the packaged scorer.

    Raises `ValueError` in one line for what is no recording, or too long, and for a model that cannot be used.
    """
    audio = Audio(str(file))
    if (seconds := audio.seconds()) > SECONDS:
        raise ValueError(f"{one_line(name)} is {seconds:.0f} s long, and at most {SECONDS:.0f} s can be shown")
    scorer = load_audio_scorer(model)
    scores = scorer(audio)
    codes = scores.ids if scores.codes is None or scores.ids is not None else scores.codes
    assert codes is not None
    ids = codes if codes.ndim == 1 else codes[:, 0]
    waveform = torch.cat(list(audio.stream()))
    tokens = [f"{start:.2f} s" for start in scores.starts.tolist()]
    return Passage(name, tokens, ids.long(), scores.given, scores.signals, Clip(waveform, scores))


def signals_of_model(model: Path | None) -> tuple[str, ...]:
    """The signals of a run's scorer, or of the packaged ones. Raises `ValueError` for a model that cannot be used."""
    if model is not None and is_frame_scorer(model):
        return load_audio_scorer(model).signals
    return signals_of(load_scoring(model).scorer)


def kept_sound(clip: Clip, positions: Iterable[int]) -> Float[Tensor, " _"]:
    """What is heard of a recording if only the pieces at ``positions`` are kept."""
    edges = [(round(clip.scores.starts[i].item() * RATE), round(clip.scores.ends[i].item() * RATE)) for i in positions]
    return torch.cat([clip.waveform[:0], *(clip.waveform[start:end] for start, end in edges)])
