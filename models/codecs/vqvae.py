"""The VQ-VAE that `vqmem vqvae` trains: codes at several rates, and back to a waveform."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...artifacts import load_model
from ..speech.vqvae import VQVAE


@dataclass(frozen=True)
class Codec:
    """Loads a trained VQ-VAE."""

    def load(self, folder: Path) -> VQVAE:
        """The model in ``folder``. Raises `ValueError` if it is missing, damaged or of another kind."""
        return load_model(folder, VQVAE.from_fields, kind=VQVAE.kind)
