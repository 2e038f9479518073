"""Load a trained voice from the folder of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from ...artifacts import load_model
from ...folders import loading
from ...models.speech.mel_rvq import MelRVQ
from ...models.speech.unit_speaker import UnitSpeaker
from ...models.speech.unit_vocoder import UnitVocoder
from ...tokenizers_.hubert_units import UnitTokenizer
from ..speech.units import load_units


class Voice(NamedTuple):
    """The tokenizer of units, the speaker, the vocoder, and the residual quantiser for copies of recordings.

    ``language`` is the language of numbers and abbreviations (see `read_aloud`).
    """

    tokenizer: UnitTokenizer
    speaker: UnitSpeaker
    vocoder: UnitVocoder
    rvq: MelRVQ | None = None
    language: str = "en"


def load_voice(run: Path, device: torch.device | str = "cpu") -> Voice:
    """Load the models of a finished run, in eval mode. Raises `ValueError` if one is missing or damaged."""
    with loading(run, "voice", "tts"):
        speaker, vocoder = (load_part(run / part_of(kind), kind, device) for kind in (UnitSpeaker, UnitVocoder))
        return Voice(load_units(run), speaker, vocoder, _load_rvq(run, device), _language(run))


def _load_rvq(run: Path, device: torch.device | str) -> MelRVQ | None:
    """The residual quantiser of a run; None if it has none. Runs of version 0.1 call its folder ``details``."""
    if (folder := run / "details").is_dir():
        return load_model(folder, MelRVQ.from_fields, kind="unit_details", device=device)
    folder = run / part_of(MelRVQ)
    return load_part(folder, MelRVQ, device) if folder.is_dir() else None


def _language(run: Path) -> str:
    """The language in the config of a run; the default for runs older than this key."""
    path = run / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return config.get("language", Voice._field_defaults["language"])
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged; run `vqmem tts` with the config and out={run} again") from error


def part_of(kind: Any) -> str:
    """The name of the folder of a model class in the folder of a run."""
    return kind.kind.removeprefix("unit_")


def load_part(folder: Path, kind: Any, device: torch.device | str) -> Any:
    """Load a model of a class that has ``kind`` and ``from_fields``."""
    return load_model(folder, kind.from_fields, kind=kind.kind, device=device)
