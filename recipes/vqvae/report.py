"""The report of a VQ-VAE: players and spectrograms of recordings and reconstructions, and usage of codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...files import atomic_write
from ...models.speech.vqvae import VQVAE
from ..engine.progress import progress
from ..reporting.page import HERE as PAGES
from ..reporting.page import render, to_bytes
from ..reporting.sound import players

HERE = Path(__file__).parent


class Sample(NamedTuple):
    """A held-out recording."""

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
    """Write one self-contained HTML file.

    Args:
        path: the file.
        model: the trained VQ-VAE.
        figures: the contents of ``evaluation.json``.
        clips: waveforms whose codes are counted.
        samples: recordings to show with players.
        config: the config of the run.
    """
    levels = []
    for number, hop in enumerate(model.config.hops):
        counts = torch.zeros(model.config.codes, dtype=torch.long)
        for clip in progress(clips, len(clips), f"usage of codes at hop {hop}", transient=True):
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
        styles=[PAGES / "samples.css", HERE / "report.css"],
        scripts=[PAGES / "samples.js", HERE / "report.js"],
    )
    atomic_write(path, to_bytes(page))


def _codes(model: VQVAE, clip: Float[Tensor, " _"], level: int) -> Tensor:
    return model.encode(clip[None].to(next(model.parameters()).device), level)[0].cpu()


def _versions(model: VQVAE, waveform: Float[Tensor, " _"]) -> list[dict[str, Any]]:
    """The recording, and its reconstruction from each level."""
    device = next(model.parameters()).device
    made = {"original": waveform}
    for level, hop in enumerate(model.config.hops):
        codes = _codes(model, waveform, level)[None].to(device)
        made[f"hop {hop}"] = model.decode(codes, level, len(waveform))[0].cpu()
    return players(made, model.config.rate)
