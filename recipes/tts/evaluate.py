"""Evaluate a voice: units and durations of held-out sentences, and spectra of copies."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.speech.mel_rvq import MelRVQ
from ...models.speech.unit_speaker import SpokenSentence, UnitSpeaker
from ...models.speech.unit_vocoder import UnitVocoder, Wave, log_mel
from ..engine.progress import progress
from .clips import VoiceClip, batches
from .voice import Voice

EVAL_BATCH_SIZE = 8
"""Sentences in a batch of the evaluation."""


def evaluate(voice: Voice, clips: Sequence[VoiceClip], held_out: Sequence[SpokenSentence]) -> dict[str, Any]:
    """The figures of vocoder and speaker."""
    copies = vocoder_figures(voice.vocoder, clips, voice.rvq)
    return {"vocoder": copies, "speaker": speaker_figures(voice.speaker, held_out)}


@torch.no_grad()
def speaker_figures(model: UnitSpeaker, held_out: Sequence[SpokenSentence]) -> dict[str, float]:
    """How well the speaker predicts units from earlier units and the text; empty if no held-out recording has a text.

    ``perplexity`` and ``accuracy`` are of steps (a unit, or the end of a letter); ``duration_error`` is in frames of
    20 ms, and ``duration_perplexity`` that of the predicted durations.
    """
    sums: defaultdict[str, float] = defaultdict(float)
    steps = runs = 0
    total = -(-len(held_out) // EVAL_BATCH_SIZE)
    for batch in progress(batches(model, held_out, EVAL_BATCH_SIZE), total, "evaluating the speaker", transient=True):
        batch = type(batch)(*(x.to(model.letters.weight.device) for x in batch))
        metrics = {name: float(metric) for name, metric in model.training_step(batch).metrics.items()}
        batch_steps = int(batch.real.sum())
        batch_runs = int((batch.frames > 0).sum())
        for key in ("nll", "accuracy"):
            sums[key] += metrics[key] * batch_steps
        for key in ("duration_nll", "duration_error"):
            sums[key] += metrics[key] * batch_runs
        steps += batch_steps
        runs += batch_runs
    if not steps:
        return {}
    return {
        "perplexity": math.exp(sums["nll"] / steps),
        "accuracy": sums["accuracy"] / steps,
        "duration_perplexity": math.exp(sums["duration_nll"] / runs),
        "duration_error": sums["duration_error"] / runs,
    }


@torch.no_grad()
def vocoder_figures(model: UnitVocoder, clips: Sequence[VoiceClip], rvq: MelRVQ | None = None) -> dict[str, float]:
    """Mean absolute differences of log mel magnitudes (nats) between recordings and their copies from units.

    ``harmonic_mel_error`` and ``griffin_lim_mel_error``: the two kinds of synthesis from units alone.
    ``mel_error_with_text``: harmonic synthesis from units and letters. ``rvq_mel_error``: Griffin-Lim from units and
    the codes of the residual. ``mean_mel_error``: every column is the mean of the recording, as without any unit.
    """
    sums: defaultdict[str, float] = defaultdict(float)
    columns = 0
    device = model.device
    for clip in progress(clips, len(clips), "evaluating the vocoder", transient=True):
        units = clip.units.to(device)
        windows = clip.letter_windows.to(device)
        made = {
            "harmonic_mel_error": copy(model, units, wave="harmonic"),
            "griffin_lim_mel_error": copy(model, units, wave="griffin_lim"),
            "mel_error_with_text": copy(model, units, windows, wave="harmonic"),
        }
        if rvq is not None:
            made["rvq_mel_error"] = rvq_copy(model, rvq, clip)
        target = log_mel(clip.waveform[None] / model.size.scale)
        mels = {name: log_mel(x[None] / model.size.scale) for name, x in made.items()}
        mels["mean_mel_error"] = target.mean(1, keepdim=True)
        for name, mel in mels.items():
            sums[name] += float((mel - target).abs().mean(2).sum())
        columns += target.shape[1]
    return {name: total / columns for name, total in sums.items()}


def mel_residual(model: UnitVocoder, clip: VoiceClip) -> Float[Tensor, "columns band"]:
    """The log mel spectrogram of a recording minus the one that the vocoder predicts from its units."""
    return model.mel_residual(clip.units[None].to(model.device), clip.waveform[None].to(model.device))[0]


def rvq_copy(
    model: UnitVocoder, rvq: MelRVQ, clip: VoiceClip, num_quantizers: int | None = None
) -> Float[Tensor, " samples"]:
    """Copy a recording by Griffin-Lim, from its units and the RVQ codes of its residual.

    Args:
        model: the vocoder.
        rvq: the residual quantiser of mel spectrograms.
        clip: the recording with its units.
        num_quantizers: codes of each frame to use, from the first on; None uses all.

    Returns:
        The copy at 16 kHz, on the CPU.
    """
    residual = rvq.decode(rvq.encode(mel_residual(model, clip))[:, :num_quantizers])
    return model.speak(clip.units[None].to(model.device), mel_residual=residual[None])[0].cpu()


def copy(
    model: UnitVocoder, units: Tensor, windows: Tensor | None = None, wave: Wave | None = None
) -> Float[Tensor, " samples"]:
    """Synthesise units with a vocoder.

    Args:
        model: the vocoder.
        units: the units, one every 20 ms, ``[units]``.
        windows: the letters around each unit, ``[units, window]``; None synthesises from units alone.
        wave: the kind of synthesis; None takes that of the config.

    Returns:
        The waveform at 16 kHz, on the CPU.
    """
    return model.speak(units[None], None if windows is None else windows[None], wave)[0].cpu()
