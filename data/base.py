"""What every data source yields: documents, in a fixed order, for one of three splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

Split = Literal["train", "dev", "test"]


@dataclass(frozen=True)
class Document:
    """One document. Memory is emptied between documents.

    ``spans`` marks character ranges that a task measures on their own (the answers of a recall task); empty for prose.
    """

    name: str
    text: str
    spans: tuple[tuple[int, int], ...] = ()


@runtime_checkable
class Source(Protocol):
    """The frozen dataclass ``Source`` of a data file: its fields are its YAML keys."""

    def documents(self, split: Split) -> Iterator[Document]:
        """Stream the documents of ``split``, the same ones in the same order every time."""
        ...
