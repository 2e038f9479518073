"""Compare what memories keep of the same content as text and as speech, and whether scores of words agree."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ...files import atomic_write
from ...models.device import resolve_device
from ..engine.config import as_dict
from ..engine.data_record import documents
from ..engine.distributed import on_main_process, start_processes
from ..engine.lock import locked
from ..engine.run_dir import init_run_dir
from ..lm.corpus import require
from ..reporting.provenance import provenance
from .config import Config
from .content import read_passages
from .correlation import correlations
from .findings import answer
from .memories import compare_memories
from .report import write_report

NON_IDENTITY_KEYS = ("out", "title", "device", "cache")
"""Keys that change no figure."""
RUN_IS = "a comparison of text and speech: {folder}/report.html shows it"
"""Description of a finished run, with the command that uses it."""

__all__ = ["Config", "run"]


def run(config: Config) -> dict[str, Any]:
    """Speak, score and compare, and write the report. Returns the contents of ``summary.json``."""
    start_processes("auto", resolve_device(config.device))
    require(config.data, config.split)
    with locked(Path(config.out)):
        return _run(config)


@on_main_process
def _run(config: Config) -> dict[str, Any]:
    began = time.monotonic()
    init_run_dir(config, NON_IDENTITY_KEYS)
    texts = documents(config.data, config.split, config.out)
    passages = read_passages(config, texts, resolve_device(config.device))
    summary = {
        "title": config.title,
        "split": config.split,
        "passages": len(passages),
        "words": sum(len(passage.words) for passage in passages),
        "seconds_of_content": sum(passage.seconds for passage in passages),
        "text_tokens": sum(len(passage.text_stream) for passage in passages),
        "speech_units": sum(len(passage.speech_stream) for passage in passages),
        "memories": compare_memories(config, passages),
        **correlations(passages, config.seed),
        "config": as_dict(config),
    }
    summary |= {"answer": answer(summary), **provenance(began)}
    atomic_write(Path(config.out) / "summary.json", json.dumps(summary, indent=2) + "\n")
    write_report(summary, Path(config.out) / "report.html")
    return summary
