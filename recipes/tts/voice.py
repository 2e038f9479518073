"""A trained voice, as it lies in the folder of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...artifacts import load_model
from ...models.details import Details
from ...models.unit_speaker import UnitSpeaker
from ...models.unit_vocoder import UnitVocoder
from ...tokenizers_.hubert_units import UnitTokenizer
from .._folders import loading
from .._units import load_units


class Voice(NamedTuple):
    """What makes units, what says them, what makes sound of them, and what copies of recordings are told besides."""

    tokenizer: UnitTokenizer
    speaker: UnitSpeaker
    vocoder: UnitVocoder
    details: Details | None = None


def load_voice(run: Path, device: torch.device | str = "cpu") -> Voice:
    """The models of a finished run, in eval mode. Raises `ValueError` where one is missing or damaged."""
    kinds = [UnitSpeaker, UnitVocoder, *([Details] if (run / part_of(Details)).is_dir() else [])]
    with loading(run, "voice", "tts"):
        return Voice(load_units(run), *(load_part(run / part_of(kind), kind, device) for kind in kinds))


def part_of(kind: Any) -> str:
    """The folder that a model of a ``kind`` has in that of the run."""
    return kind.kind.removeprefix("unit_")


def load_part(folder: Path, kind: Any, device: torch.device | str) -> Any:
    """A model of a class that has a ``kind``, and makes itself from its fields."""
    return load_model(folder, kind.from_fields, kind=kind.kind, device=device)
