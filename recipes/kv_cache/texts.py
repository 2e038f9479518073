"""The text that a cache is measured on."""

from __future__ import annotations

from typing import Any

from ...data.base import Document, all_documents
from ...registry import build
from ..engine.progress import progress


def read_texts(data: str | dict[str, Any], split: str, characters: int) -> list[Document]:
    """Read documents until they have so many characters.

    Raises `ValueError` where the data has no text.
    """
    source, found, left = build("data", data), [], characters
    documents = all_documents(source) if split == "all" else source.documents(split)
    for document in progress(documents, None, "documents", transient=True):
        document.content("text")  # raises for a recording
        found.append(document)
        left -= len(document.text)
        if left <= 0:
            break
    if not any(document.text.strip() for document in found):
        raise ValueError(f"the data has no text ({data!r}); give data that has some")
    return found
