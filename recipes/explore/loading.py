"""Loads what reads passages, by what the folder of the model is."""

from __future__ import annotations

import json
from pathlib import Path

from ...files import missing_file
from ..text_lm.recipe import load_run
from .readers import Reader, RunReader, ScoreReader


def load_reader(model: Path | None) -> Reader:
    """Load what reads passages.

    Args:
        model: a model of `transformers`, a run of `vqmem text_lm`, that of another scorer, or None for those of the
            package.

    Returns:
        The reader.

    Raises:
        ValueError: in one line for a folder that is none of these, or damaged.
    """
    if model is not None and not model.exists():
        raise missing_file("model", model, otherwise="give a model of transformers, or a run of `vqmem text_lm`")
    if model is not None and _is_pretrained(model):
        from .host_reader import HostReader  # needs transformers

        return HostReader.load(model)
    if model is not None and (model / "transformer").is_dir():
        return RunReader(model, run=load_run(model))
    reader = ScoreReader(model)
    _ = reader.signals  # raises for a model that cannot be used
    return reader


def _is_pretrained(model: Path) -> bool:
    try:
        return model.suffix == ".gguf" or "model_type" in json.loads((model / "config.json").read_bytes())
    except (OSError, ValueError, TypeError):
        return False
