"""Score a recording by unit or by frame, for `vqmem score`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...data.reading.audio import Audio
from ...folders import loading
from ...memory.scorer import signals_of
from ...models.speech.frame_scorer import FrameScorer, is_frame_scorer, load_frame_scorer
from ...registry import ROOT
from ...tokenizers_.base import input_kind
from ...tokenizers_.speech.frames import FRAMES_A_SECOND, Extractor, stream_frames
from ..lm.text_scorer import Scoring, load_scoring, score_ids

PACKAGED = ROOT / "models" / "pretrained" / "speech"
"""The scorer of recordings in the package; its ``README.md`` documents the training."""


class AudioScores(NamedTuple):
    """The scores of a recording: one row per unit or frame, in temporal order.

    ``starts`` and ``ends`` are seconds. ``signals`` are those of the scorer, in nats (for frames: nats per dimension),
    and ``given`` their names. ``ids`` are the units, None for frames. ``codes`` are those of the bottleneck, None
    without one.
    """

    starts: Float[Tensor, " time"]
    ends: Float[Tensor, " time"]
    signals: Float[Tensor, "time signal"]
    ids: Int[Tensor, " time"] | None
    codes: Int[Tensor, " time"] | Int[Tensor, "time groups"] | None
    given: tuple[str, ...]

    def signal(self, name: str) -> Float[Tensor, " time"]:
        """The column of the signal ``name``."""
        return self.signals[:, self.given.index(name)]

    def slice(self, start: int, stop: int) -> AudioScores:
        """The rows ``start`` to ``stop``; times remain relative to the start of the recording."""
        part = slice(start, stop)
        ids, codes = (None if column is None else column[part] for column in (self.ids, self.codes))
        return AudioScores(self.starts[part], self.ends[part], self.signals[part], ids, codes, self.given)


class AudioScorer(NamedTuple):
    """A scorer of recordings, which is called with one, and the names of the signals that it gives."""

    signals: tuple[str, ...]
    score: Callable[[Audio], AudioScores]

    def __call__(self, audio: Audio) -> AudioScores:
        """Score a recording. Raises `UnreadableError` as `Audio.stream` does, and for one shorter than a frame."""
        return self.score(audio)


def score_audio(audio: Audio, model_folder: Path | None = None, device: torch.device | str = "cpu") -> AudioScores:
    """Score a recording with the run in ``model_folder``, or with the packaged model; see `load_audio_scorer`."""
    return load_audio_scorer(model_folder, device)(audio)


def load_audio_scorer(folder: Path | None = None, device: torch.device | str = "cpu") -> AudioScorer:
    """Load a scorer of recordings: a run of ``vqmem text_lm`` on speech or ``vqmem frame_scorer``, or the packaged one.

    Recordings are read and scored in chunks, so that only the scores need memory; the chunks do not change the scores.
    Raises `ValueError` in one line if a part of the run is missing or damaged, and for a run on text.
    """
    folder = PACKAGED if folder is None else Path(folder)
    with loading(folder, "scorer", "text_lm", "frame_scorer"):
        if is_frame_scorer(folder):
            scorer = load_frame_scorer(folder, device)
            return AudioScorer(signals_of(scorer), partial(_score_frames, scorer, scorer.extractor(), device))
        scoring = load_scoring(folder, device)
    if (reads := input_kind(scoring.tokenizer)) != "audio":
        raise ValueError(f"the run {str(folder)!r} reads {reads}, not recordings; give one that was trained on them")
    return AudioScorer(signals_of(scoring.scorer), partial(_score_units, scoring))


@torch.no_grad()
def _score_units(scoring: Scoring, audio: Audio) -> AudioScores:
    stream, scorer = scoring.tokenizer.encode(audio), scoring.scorer
    codes = scorer.codes(stream.ids[None].to(scoring.device))[0].cpu() if hasattr(scorer, "codes") else None
    signals = score_ids(stream.ids, scoring)
    return AudioScores(stream.starts, stream.ends, signals, stream.ids, codes, signals_of(scorer))


@torch.no_grad()
def _score_frames(scorer: FrameScorer, extractor: Extractor, device: torch.device | str, audio: Audio) -> AudioScores:
    state, signals, codes = scorer.initial_state(1), [], []
    for frames in stream_frames(audio.stream(), extractor, audio.name):
        part = frames[None].to(device)
        scores, state = scorer.score(part, state)
        signals.append(scores[0].cpu())
        codes.append(scorer.codes(part)[0].cpu())
    times = torch.arange(1 + sum(map(len, signals)), dtype=torch.float64) / FRAMES_A_SECOND
    return AudioScores(times[:-1], times[1:], torch.cat(signals), None, torch.cat(codes), signals_of(scorer))
