"""What `vqmem score_corpus` reads: a data source by its name, by its keys, or by the path of its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml

from ...data._tables import table_format
from ...data.audio_files import find_manifest
from ...data.base import Document, all_documents
from ...data.reading.audio import is_recording
from ...data.reading.files import files_below, require_path
from ...folders import AUDIO_SUFFIXES
from ...registry import build, names

SplitName = Literal["all", "train", "dev", "test"]


def parse_data(text: str) -> str | dict[str, Any]:
    """Parse the argument DATA to the YAML form of a data source.

    A mapping in braces is taken as it is, and the name of a data source before a file of that name. A recording, a
    table of recordings and a folder with any of these become ``audio_files``, other files and folders ``text_files``.

    Raises `ValueError` for a mapping that is not YAML, and for a path that does not exist.
    """
    if text.lstrip().startswith("{"):
        try:
            spec = yaml.safe_load(text)
        except yaml.YAMLError as error:
            reason = (
                error.problem if isinstance(error, yaml.MarkedYAMLError) else "it has a character that YAML forbids"
            )
            raise ValueError(f"DATA {text} is not valid YAML: {reason}; write it as {{name: hub, path: X}}") from None
        return spec
    if text in names("data"):
        return text
    try:
        path = require_path(text)
    except ValueError as error:
        raise ValueError(f"{error}; DATA is a path or a data source (`vqmem list data`)") from None
    return {"name": "audio_files" if _has_recordings(path) else "text_files", "path": text}


def _has_recordings(path: Path) -> bool:
    if path.is_file():
        return is_recording(path) or table_format(path) not in ("", ".txt")
    if find_manifest(path) is not None:
        return True
    return any(file.suffix.lower() in AUDIO_SUFFIXES for file in files_below(path))


def read_documents(data: str | dict[str, Any], split: SplitName) -> Iterator[Document]:
    """Stream the documents of a split, or all of them uncut. Raises `ValueError` as the data source does."""
    source = build("data", data)
    return all_documents(source) if split == "all" else source.documents(split)
