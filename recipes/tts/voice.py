"""A trained voice, as it lies in the folder of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from ...artifacts import load_model
from ...folders import loading
from ...models.speech.details import Details
from ...models.speech.unit_speaker import UnitSpeaker
from ...models.speech.unit_vocoder import UnitVocoder
from ...tokenizers_.hubert_units import UnitTokenizer
from ..speech.units import load_units


class Voice(NamedTuple):
    """What makes units, what says them, what makes sound of them, and what copies of recordings are told besides.

    ``language`` is that in which numbers and abbreviations are read (see `read_aloud`).
    """

    tokenizer: UnitTokenizer
    speaker: UnitSpeaker
    vocoder: UnitVocoder
    details: Details | None = None
    language: str = "en"


def load_voice(run: Path, device: torch.device | str = "cpu") -> Voice:
    """The models of a finished run, in eval mode. Raises `ValueError` where one is missing or damaged."""
    kinds = [UnitSpeaker, UnitVocoder, *([Details] if (run / part_of(Details)).is_dir() else [])]
    with loading(run, "voice", "tts"):
        parts = [load_part(run / part_of(kind), kind, device) for kind in kinds]
        return Voice(load_units(run), *parts)._replace(language=_language(run))


def _language(run: Path) -> str:
    """What the config of a run says; of one that was made before there was the key, its default."""
    path = run / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return config.get("language", Voice._field_defaults["language"])
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged; run `vqmem tts` with the config and out={run} again") from error


def part_of(kind: Any) -> str:
    """The folder that a model of a ``kind`` has in that of the run."""
    return kind.kind.removeprefix("unit_")


def load_part(folder: Path, kind: Any, device: torch.device | str) -> Any:
    """A model of a class that has a ``kind``, and makes itself from its fields."""
    return load_model(folder, kind.from_fields, kind=kind.kind, device=device)
