"""A trained voice, as it lies in the folder of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...artifacts import load_model
from ...models.unit_speaker import UnitSpeaker
from ...models.unit_vocoder import UnitVocoder
from ...tokenizers_.hubert_units import UnitTokenizer
from .._units import load_units


class Voice(NamedTuple):
    """What makes units, what says them, and what makes sound of them."""

    tokenizer: UnitTokenizer
    speaker: UnitSpeaker
    vocoder: UnitVocoder


def load_voice(run: Path, device: torch.device | str = "cpu") -> Voice:
    """The models of a finished run, in eval mode. Raises `ValueError` where one is missing or damaged."""
    models = (load_part(run / of.kind.removeprefix("unit_"), of, device) for of in (UnitSpeaker, UnitVocoder))
    return Voice(load_units(run), *models)


def load_part(folder: Path, kind: Any, device: torch.device | str) -> Any:
    """A model of a class that has a ``kind``, and makes itself from its fields."""
    return load_model(folder, kind.from_fields, kind=kind.kind, device=device)
