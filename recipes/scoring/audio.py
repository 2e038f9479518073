"""Score a recording, unit by unit or frame by frame: what `vqmem score` does with one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...data._audio import Audio
from ...folders import loading
from ...memory.scorer import SIGNALS, signals_of
from ...models.speech.frame_scorer import FrameScorer, is_frame_scorer, load_frame_scorer
from ...registry import ROOT
from ...tokenizers_._frames import FRAMES_A_SECOND, Extractor, stream_frames
from ...tokenizers_.base import input_kind
from ..lm.text_scorer import Scoring, load_scoring

PACKAGED = ROOT / "models" / "pretrained" / "speech"
"""The scorer of recordings that comes with the package; ``README.md`` in it says what it was trained on, and how."""


class AudioScores(NamedTuple):
    """The scores of a recording, a row for each unit or frame in the order of time.

    ``starts`` and ``ends`` are seconds, ``signals`` are in the order of `SIGNALS` and in nats (of frames: nats a
    dimension). ``ids`` are the units, or None for frames, ``codes`` those of the bottleneck, or None without one, and
    ``given`` the signals that the scorer gives.
    """

    starts: Float[Tensor, " time"]
    ends: Float[Tensor, " time"]
    signals: Float[Tensor, "time signal"]
    ids: Int[Tensor, " time"] | None
    codes: Int[Tensor, " time"] | Int[Tensor, "time groups"] | None
    given: tuple[str, ...] = SIGNALS

    def slice(self, start: int, stop: int) -> AudioScores:
        """The rows ``start`` to ``stop``; times still count from the start of the recording."""
        part = slice(start, stop)
        ids, codes = (None if column is None else column[part] for column in (self.ids, self.codes))
        return AudioScores(self.starts[part], self.ends[part], self.signals[part], ids, codes, self.given)


AudioScorer = Callable[[Audio], AudioScores]


def score_audio(audio: Audio, model_folder: Path | None = None, device: torch.device | str = "cpu") -> AudioScores:
    """The scores of one recording by the run in ``model_folder``, or by the packaged model; see `load_audio_scorer`."""
    return load_audio_scorer(model_folder, device)(audio)


def load_audio_scorer(folder: Path | None = None, device: torch.device | str = "cpu") -> AudioScorer:
    """What scores recordings: a run of ``vqmem text_lm`` on speech or of ``vqmem frame_scorer``, or the packaged model.

    Recordings are read and scored a stretch at a time, in memory that grows by the scores alone; the stretches do not
    change them. Raises `ValueError` in one line where a part of the run is missing or damaged, and for a run on text.
    What is returned raises `UnreadableError` for a recording as `Audio.stream` does, and for one shorter than a frame.
    """
    folder = PACKAGED if folder is None else Path(folder)
    with loading(folder, "scorer", "text_lm", "frame_scorer"):
        if is_frame_scorer(folder):
            scorer = load_frame_scorer(folder, device)
            return partial(_score_frames, scorer, scorer.extractor(), device)
        scoring = load_scoring(folder, device)
    if (reads := input_kind(scoring.tokenizer)) != "audio":
        raise ValueError(f"the run {str(folder)!r} reads {reads}, not recordings; give one that was trained on them")
    return partial(_score_units, scoring)


@torch.no_grad()
def _score_units(scoring: Scoring, audio: Audio) -> AudioScores:
    stream, scorer = scoring.tokenizer.encode(audio), scoring.scorer
    ids = stream.ids[None].to(scoring.device)
    signals, _ = scorer.score(ids, scorer.initial_state(1))
    codes = scorer.codes(ids)[0].cpu() if hasattr(scorer, "codes") else None
    return AudioScores(stream.starts, stream.ends, signals[0].cpu(), stream.ids, codes, signals_of(scorer))


@torch.no_grad()
def _score_frames(scorer: FrameScorer, extractor: Extractor, device: torch.device | str, audio: Audio) -> AudioScores:
    state, signals, codes = scorer.initial_state(1), [], []
    for frames in stream_frames(audio.stream(), extractor, audio.name):
        part = frames[None].to(device)
        scores, state = scorer.score(part, state)
        signals.append(scores[0].cpu())
        codes.append(scorer.codes(part)[0].cpu())
    times = torch.arange(1 + sum(map(len, signals)), dtype=torch.float64) / FRAMES_A_SECOND
    return AudioScores(times[:-1], times[1:], torch.cat(signals), None, torch.cat(codes))
