"""Small corpora for the tests of `vqmem score_corpus`, and what is in a folder of scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import soundfile
from vqmem.data.reading.audio import RATE
from vqmem.recipes.score_corpus.run import Config, Summary, run
from vqmem.recipes.score_corpus.source import parse_data


def write_texts(folder: Path) -> Path:
    """Seven texts of 40 to 280 characters."""
    folder.mkdir()
    for i in range(7):
        lines = (f"The whale number {j} of document {i}, naïve 🐋.\n" for j in range(i + 1))
        (folder / f"{i}.txt").write_text("".join(lines), encoding="utf-8")
    return folder


def write_recordings(folder: Path) -> Path:
    """Five recordings of half a second or less."""
    folder.mkdir()
    for i in range(5):
        noise = np.random.default_rng(i).standard_normal(RATE // 4 + 1000 * i) * 0.1
        soundfile.write(folder / f"{i}.wav", noise, RATE)
    return folder


def score(data: Any, out: Path, **keys: Any) -> Summary:
    data = parse_data(str(data)) if isinstance(data, Path) else data
    return run(Config(str(out), data, **{"shard_documents": 2, **keys}))


def files(out: Path) -> dict[str, bytes]:
    """The shards, and every temporary file."""
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name.startswith(("shard", ".vqmem"))}


def columns(out: Path, document: str) -> dict[str, list]:
    """The rows of a document, which must be in one shard."""
    found = [
        table for path in out.glob("*.parquet") if document in (table := pq.read_table(path))["document"].to_pylist()
    ]
    assert len(found) == 1
    rows = [row for row in found[0].to_pylist() if row["document"] == document]
    return {name: [row[name] for row in rows] for name in found[0].column_names}


def names(out: Path) -> list[list[str]]:
    """The documents of each shard, one for each uninterrupted stretch of its rows."""
    found = []
    for path in sorted(out.glob("*.parquet")):
        every = pq.read_table(path)["document"].to_pylist()
        found.append([name for i, name in enumerate(every) if i == 0 or every[i - 1] != name])
    return found
