"""How well a voice is learnt: units and durations on held-out sentences, and spectra of copies."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.speech.details import Details
from ...models.speech.unit_speaker import Sentence, UnitSpeaker
from ...models.speech.unit_vocoder import UnitVocoder, Wave, log_mel
from .clips import Clip, batches
from .voice import Voice

ROWS = 8
"""Sentences evaluated side by side."""


def evaluate(voice: Voice, clips: Sequence[Clip], held_out: Sequence[Sentence]) -> dict[str, Any]:
    """The figures of both models."""
    copies = vocoder_figures(voice.vocoder, clips, voice.details)
    return {"vocoder": copies, "speaker": speaker_figures(voice.speaker, held_out)}


@torch.no_grad()
def speaker_figures(model: UnitSpeaker, held_out: Sequence[Sentence]) -> dict[str, float]:
    """Of units foretold from those before them and the text; empty where no held-out recording has a text.

    ``perplexity`` and ``accuracy`` of steps (a unit, or that a letter is done), ``duration_error`` in frames of 20 ms,
    ``duration_perplexity``.
    """
    sums, steps, runs = [0.0] * 4, 0, 0
    for batch in batches(model, held_out, ROWS):
        batch = type(batch)(*(x.to(model.letters.weight.device) for x in batch))
        told = model.training_step(batch).metrics
        real = (int(batch.real.sum()), int((batch.frames > 0).sum()))
        steps, runs = steps + real[0], runs + real[1]
        keys = {"nll": real[0], "accuracy": real[0], "duration_nll": real[1], "duration_error": real[1]}
        sums = [old + told[key] * weight for old, (key, weight) in zip(sums, keys.items(), strict=True)]
    if not steps:
        return {}
    return {
        "perplexity": math.exp(sums[0] / steps),
        "accuracy": sums[1] / steps,
        "duration_perplexity": math.exp(sums[2] / runs),
        "duration_error": sums[3] / runs,
    }


@torch.no_grad()
def vocoder_figures(model: UnitVocoder, clips: Sequence[Clip], details: Details | None = None) -> dict[str, float]:
    """Mean absolute differences of log mel magnitudes (nats) between recordings and their copies from units.

    ``harmonic_mel_error`` and ``griffin_lim_mel_error`` by the two ways of making sound, from units alone;
    ``told_mel_error``, where letters are told too; ``detailed_mel_error``, from units and details by Griffin-Lim;
    ``mean_mel_error`` where every column is the mean of the recording's: what a vocoder that heard no unit could reach.
    """
    sums: defaultdict[str, float] = defaultdict(float)
    columns = 0
    device = model.device
    for clip in clips:
        units, around = clip.units.to(device), clip.beside.to(device)
        made = {
            "harmonic": copy(model, units, wave="harmonic"),
            "griffin_lim": copy(model, units, wave="griffin_lim"),
            "told": copy(model, units, around, wave="harmonic"),
        }
        if details is not None:
            made["detailed"] = detailed(model, details, clip)
        target = log_mel(clip.waveform[None] / model.size.scale)
        mels = {name: log_mel(x[None] / model.size.scale) for name, x in made.items()}
        mels["mean"] = target.mean(1, keepdim=True)
        for name, mel in mels.items():
            sums[name] += float((mel - target).abs().mean(2).sum())
        columns += target.shape[1]
    return {f"{name}_mel_error": total / columns for name, total in sums.items()}


def lacking(model: UnitVocoder, clip: Clip) -> Float[Tensor, "columns band"]:
    """What the log mel spectrogram of a recording has beyond that of its units."""
    return model.lacking(clip.units[None].to(model.device), clip.waveform[None].to(model.device))[0]


def detailed(model: UnitVocoder, details: Details, clip: Clip, books: int | None = None) -> Float[Tensor, " samples"]:
    """A copy of a recording from its units and the codes of their details: all of them, or the first ``books``."""
    told = details.decode(details.encode(lacking(model, clip))[:, :books])
    return model.speak(clip.units[None].to(model.device), details=told[None])[0].cpu()


def copy(
    model: UnitVocoder, units: Tensor, around: Tensor | None = None, wave: Wave | None = None
) -> Float[Tensor, " samples"]:
    """What units sound like, with the letters around them or without, on the CPU."""
    return model.speak(units[None], None if around is None else around[None], wave)[0].cpu()
