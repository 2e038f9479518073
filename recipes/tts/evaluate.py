"""How well a voice is learnt: units and durations on held-out sentences, and spectra of copies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.unit_speaker import Sentence, UnitSpeaker
from ...models.unit_vocoder import UnitVocoder, Wave, log_mel
from .clips import Clip, batches
from .voice import Voice

ROWS = 8
"""Sentences evaluated side by side."""


def evaluate(voice: Voice, clips: Sequence[Clip], held_out: Sequence[Sentence]) -> dict[str, Any]:
    """The figures of both models."""
    return {"vocoder": vocoder_figures(voice.vocoder, clips), "speaker": speaker_figures(voice.speaker, held_out)}


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
def vocoder_figures(model: UnitVocoder, clips: Sequence[Clip]) -> dict[str, float]:
    """Mean absolute differences of log mel magnitudes (nats) between recordings and their copies from units.

    ``harmonic_mel_error`` and ``griffin_lim_mel_error`` by the two ways of making sound, from units alone;
    ``told_mel_error``, where letters are told too; ``mean_mel_error`` where every column is the mean of the
    recording's: what a vocoder that heard no unit could reach.
    """
    waves: tuple[Wave, ...] = ("harmonic", "griffin_lim")
    sums, columns = dict.fromkeys([*waves, "told", "mean"], 0.0), 0
    device = model.window.device
    for clip in clips:
        target = log_mel(clip.waveform[None] / model.size.scale)
        made: dict[str, Tensor] = {wave: copy(model, clip.units.to(device), wave) for wave in waves}
        made["told"] = model.speak(clip.units[None].to(device), clip.beside[None].to(device))[0].cpu()
        mels: dict[str, Tensor] = {wave: log_mel(x[None] / model.size.scale) for wave, x in made.items()}
        mels["mean"] = target.mean(1, keepdim=True)
        for name, mel in mels.items():
            sums[name] += float((mel - target).abs().mean(2).sum())
        columns += target.shape[1]
    return {f"{name}_mel_error": total / columns for name, total in sums.items()}


def copy(model: UnitVocoder, units: Tensor, wave: Wave | None = None) -> Float[Tensor, " samples"]:
    """What units alone sound like, on the CPU."""
    return model.speak(units[None], wave=wave)[0].cpu()
