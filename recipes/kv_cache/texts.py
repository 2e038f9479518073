"""The text that a cache is measured on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...data.base import Document, Split
from ...registry import build
from ..engine.progress import progress

SPLITS: tuple[Split, ...] = ("train", "dev", "test")


def read_texts(data: str | dict[str, Any], split: str, characters: int) -> list[Document]:
    """Read documents until they have so many characters.

    Raises `ValueError` where the data has no text.
    """
    found, left = [], characters
    for document in progress(_documents(data, split), None, "documents", transient=True):
        document.content("text")  # raises for a recording
        found.append(document)
        left -= len(document.text)
        if left <= 0:
            break
    if not any(document.text.strip() for document in found):
        raise ValueError(f"the data has no text ({data!r}); give data that has some")
    return found


def _documents(data: str | dict[str, Any], split: str) -> Iterator[Document]:
    source = build("data", data)
    for part in SPLITS:
        if split in ("all", part):
            yield from source.documents(part)
