"""What every data source promises, for each one that listing the folder finds."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import soundfile
from vqmem.data.base import Document
from vqmem.registry import build, load, names

SPLITS = ("train", "dev", "test")


@cache
def corpus() -> str:
    """A folder that text_files and hub can read: twelve files and thirty rows."""
    folder = Path(mkdtemp())
    for i in range(12):
        (folder / f"{i}.txt").write_text(f"document {i}\n" * 20, encoding="utf-8")
    rows = [json.dumps({"text": f"row {i}"}) for i in range(30)]
    (folder / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    units = [json.dumps({"id": f"u{i}", "units": [i, i, 3]}) for i in range(30)]
    (folder / "units.jsonl").write_text("\n".join(units), encoding="utf-8")
    units = [json.dumps({"id": f"c{i}", "units": [j * j * i % 97 for j in range(450)]}) for i in range(1, 21)]
    (folder / "phrases.jsonl").write_text("\n".join(units), encoding="utf-8")
    units = [json.dumps({"id": f"w{i}", "units": [i % 19, i + 20], "text": f"word {i % 3}"}) for i in range(600)]
    (folder / "words.jsonl").write_text("\n".join(units), encoding="utf-8")
    for i in range(12):
        soundfile.write(folder / f"{i}.wav", np.sin(np.arange(800 + i) / (i + 1)), 8000)
    return str(folder)


def source(name: str):
    fields = {
        "text_files": {"path": corpus()},
        "hub": {"path": f"{corpus()}/rows.jsonl"},
        "audio_files": {"path": corpus()},
        "spoken_text": {"cache": f"{corpus()}-spoken", "limit": 3},
        "spoken_words": {"cache": f"{corpus()}-spoken", "words": ["one", "two"], "voices": ["en-us"]},
        "spoken_recall": {
            "recordings": {"name": "unit_files", "path": f"{corpus()}/words.jsonl"},
            **{"pairs": 1, "train_documents": 10, "held_out_documents": 5},
        },
        "unit_files": {"path": f"{corpus()}/units.jsonl"},
        "repeated_phrases": {
            "source": {"name": "unit_files", "path": f"{corpus()}/phrases.jsonl"},
            **{"length": 200, "gap": 80, "phrase": 16, "cue": 4, "phrases": 1},
            **{"train_documents": 10, "held_out_documents": 5},
        },
        "recall": {"train_documents": 20, "held_out_documents": 5},
        "mqar": {"train_documents": 20, "held_out_documents": 5},
        "facts": {"train_documents": 20, "held_out_documents": 5},
    }
    return build("data", {"name": name, **fields.get(name, {})})


def documents(name: str) -> dict[str, list[Document]]:
    return {split: list(source(name).documents(split)) for split in SPLITS}


@pytest.mark.parametrize("name", names("data"))
def test_same_documents_in_the_same_order(name: str) -> None:
    assert documents(name) == documents(name)


@pytest.mark.parametrize("name", names("data"))
def test_splits_are_disjoint_and_not_empty(name: str) -> None:
    splits = documents(name)
    every = [document for split in SPLITS for document in splits[split]]
    assert all(splits.values())
    assert all(document.name and (document.text or document.audio or document.units) for document in every)
    assert len({document.name for document in every}) == len(every)
    assert len({(document.text, document.audio, document.units) for document in every}) == len(every)


@pytest.mark.parametrize("name", names("data"))
def test_recordings_are_opened_when_they_are_read(name: str) -> None:
    for document in source(name).documents("dev"):
        if document.audio is not None:
            samples = document.audio.read()
            assert samples.ndim == 1
            assert 0 < samples.abs().max() <= 1.5


@pytest.mark.parametrize("name", names("data"))
def test_spans_lie_within_the_document(name: str) -> None:
    for document in source(name).documents("dev"):
        end = len(document.text) if document.text else len(document.units) / 50
        assert all(0 <= start < stop <= end for start, stop in document.spans)


@pytest.mark.parametrize("name", names("data"))
def test_keys_have_defaults_and_the_class_is_frozen(name: str) -> None:
    with pytest.raises(AttributeError):
        load("data", name)().anything = 1
