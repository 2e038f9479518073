"""The report of a voice: players and spectrograms of held-out recordings, their copies and their spoken texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...data.base import take_evenly
from ...files import atomic_write
from ...models.speech.unit_vocoder import RATE, griffin_lim, log_mel
from ..engine.progress import progress
from ..reporting.page import HERE as PAGES
from ..reporting.page import render, to_bytes
from ..reporting.sound import players
from .clips import VoiceClip
from .evaluate import copy, rvq_copy
from .speak import Manner, pieces, speak
from .text import plain
from .voice import Voice

HERE = Path(__file__).parent


def write_report(
    path: Path,
    voice: Voice,
    figures: Mapping[str, Any],
    clips: Sequence[VoiceClip],
    samples: int,
    config: Mapping[str, Any],
) -> None:
    """Write one self-contained HTML file.

    Args:
        path: the file.
        voice: the trained voice.
        figures: the contents of ``evaluation.json``.
        clips: held-out recordings.
        samples: how many of the clips with a text to show with players.
        config: the config of the run.
    """
    shown = take_evenly([clip for clip in clips if plain(clip.text)], samples) if samples else []
    data = {
        "figures": figures,
        "units": voice.tokenizer.vocab_size,
        "letters": voice.speaker.alphabet,
        "samples": [
            {"name": clip.name, "text": clip.text, "versions": players(versions(voice, clip), RATE)}
            for clip in progress(shown, len(shown), "samples of the report", transient=True)
        ],
        "config": config,
    }
    page = render(
        HERE / "report.html",
        title="A voice: text to units to speech",
        data=data,
        styles=[PAGES / "samples.css"],
        scripts=[PAGES / "samples.js", HERE / "report.js"],
    )
    atomic_write(path, to_bytes(page))


def versions(voice: Voice, clip: VoiceClip) -> dict[str, Float[Tensor, " _"]]:
    """A recording, its copies from less and less information, and its text, spoken if the voice can spell it."""
    model, rvq = voice.vocoder, voice.rvq
    units = clip.units.to(model.device)
    windows = clip.letter_windows.to(model.device)
    scale = model.size.scale
    num_quantizers = rvq.config.num_quantizers if rvq else 0
    exact = griffin_lim(log_mel(clip.waveform[None] / scale), model.config.iterations)[0] * scale
    shown = dict.fromkeys(number for number in (num_quantizers, num_quantizers // 2) if number)
    return {
        "recording": clip.waveform,
        "its mel spectrogram": exact,
        **{f"its units and {number} RVQ codes": rvq_copy(model, rvq, clip, number) for number in shown if rvq},
        "its units": copy(model, units),
        "its units and letters": copy(model, units, windows),
        **({"its text": torch.cat(list(speak(voice, clip.text, Manner())))} if pieces(voice, clip.text) else {}),
    }
