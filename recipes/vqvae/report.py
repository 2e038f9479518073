"""The report of a VQ-VAE: recordings and what becomes of them, to hear and to see, and how codes are used."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...artifacts import atomic_write
from ...models.vqvae import VQVAE
from .._page import render, to_bytes

HERE = Path(__file__).parent
BANDS, RANGE = 80, 80.0
"""Mel bands of a spectrogram, and how many dB below the loudest are still told apart."""


class Sample(NamedTuple):
    """A recording that was not trained on."""

    name: str
    waveform: Float[Tensor, " _"]


def write_report(
    path: Path,
    model: VQVAE,
    figures: Mapping[str, Any],
    clips: Sequence[Float[Tensor, " _"]],
    samples: Sequence[Sample],
    config: Mapping[str, Any],
) -> None:
    """Write one self-contained HTML file: ``figures`` by level, use of codes by ``clips``, ``samples`` with players."""
    levels = []
    for number, hop in enumerate(model.config.hops):
        counts = torch.zeros(model.config.codes, dtype=torch.long)
        for clip in clips:
            counts += torch.bincount(_codes(model, clip, number), minlength=model.config.codes)
        rate = model.config.rate / hop
        about = {"hop": hop, "codes_per_second": rate, "bits_per_second": rate * float(np.log2(model.config.codes))}
        usage = counts.sort(descending=True).values.tolist()
        levels.append(about | {"usage": usage, "figures": figures["levels"][f"hop{hop}"]})
    data = {
        "levels": levels,
        "codes": model.config.codes,
        "split": figures["split"],
        "clips": figures["clips"],
        "seconds": sum(map(len, clips)) / model.config.rate,
        "samples": [{"name": sample.name, "versions": _versions(model, sample.waveform)} for sample in samples],
        "config": config,
    }
    page = render(
        HERE / "report.html",
        title="VQ-VAE: speech as codes",
        data=data,
        styles=[HERE / "report.css"],
        scripts=[HERE / "report.js"],
    )
    atomic_write(path, to_bytes(page))


def _codes(model: VQVAE, clip: Float[Tensor, " _"], level: int) -> Tensor:
    return model.encode(clip[None].to(next(model.parameters()).device), level)[0].cpu()


def _versions(model: VQVAE, waveform: Float[Tensor, " _"]) -> list[dict[str, Any]]:
    """The recording itself, and what each level makes of it."""
    device = next(model.parameters()).device
    made = {"original": waveform}
    for level, hop in enumerate(model.config.hops):
        codes = _codes(model, waveform, level)[None].to(device)
        made[f"hop {hop}"] = model.decode(codes, level, len(waveform))[0].cpu()
    rate = model.config.rate
    loudest = float(_mel(waveform, rate).max())
    return [
        {"label": label, "sound": _wav(sound, rate), "picture": _picture(_mel(sound, rate), loudest)}
        for label, sound in made.items()
    ]


def _mel(waveform: Float[Tensor, " _"], rate: int) -> np.ndarray:
    """Power of mel bands by frames of 10 ms, bands first."""
    from torchaudio.transforms import MelSpectrogram

    return MelSpectrogram(rate, n_fft=1024, hop_length=rate // 100, n_mels=BANDS, pad_mode="constant")(waveform).numpy()


def _picture(power: np.ndarray, loudest: float) -> dict[str, Any]:
    """Levels in dB as bytes: 255 is the loudest of the original, 0 is `RANGE` below it or fainter. High bands first."""
    level = 10 * np.log10(np.maximum(power, 1e-12) / max(loudest, 1e-12))
    shades = np.clip(255 * (1 + level / RANGE), 0, 255).astype(np.uint8)[::-1]
    return {"width": shades.shape[1], "height": shades.shape[0], "shades": _base64(shades.tobytes())}


def _wav(waveform: Float[Tensor, " _"], rate: int) -> str:
    """A ``data:`` address of the sound in 16 bits; what is louder than full scale is cut."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, waveform.clamp(-1, 1).numpy(), rate, format="WAV", subtype="PCM_16")
    return f"data:audio/wav;base64,{_base64(file.getvalue())}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
