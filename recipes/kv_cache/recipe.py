"""Compare what the bounded cache of your own pretrained model keeps: loss, RULER's tasks, bytes and time."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from ...models.device import resolve_device
from ..engine.distributed import on_main_process, start_processes
from ..engine.lock import locked
from .config import Config

RUN_IS = "a comparison of caches: {folder}/report.html shows it and says what to choose"
"""Describes a run and the commands that use it."""


def run(config: Config) -> dict[str, Any]:
    """Measure what is missing, and write the report; returns the summary."""
    if not config.model:
        raise ValueError("model is not given; give model=FOLDER or the name of a model on the Hugging Face Hub")
    if importlib.util.find_spec("transformers") is None:
        raise ValueError("kv_cache needs transformers; run `pip install 'vqmem[hf]'`")
    start_processes("auto", resolve_device(config.device))
    with locked(Path(config.out)):
        return _run(config)


def by_document(config: Config, metric: str) -> dict[int, dict[str, tuple[list[float], list[float]]]]:
    """A figure of a finished comparison by passage: capacity -> strategy -> numerators and sizes; the loss alone."""
    summary = json.loads((Path(config.out) / "summary.json").read_text(encoding="utf-8"))
    found: dict[int, dict[str, tuple[list[float], list[float]]]] = {}
    for row in summary["rows"]:
        if metric in row["by_document"]:
            numerators, sizes = row["by_document"][metric]
            found.setdefault(row["capacity"], {})[row["strategy"]] = (numerators, sizes)
    return found


@on_main_process
def _run(config: Config) -> dict[str, Any]:
    from .measure import measure  # imports transformers, which is slow and not always installed

    return measure(config)
