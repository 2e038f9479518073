"""What every data source yields: documents, in a fixed order, for one of three splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from ._audio import Audio

Reads = Literal["text", "audio", "units"]
"""What of a document a front-end reads: the name of the field."""

Split = Literal["train", "dev", "test"]


@dataclass(frozen=True)
class Document:
    """One document: a text, a recording (with what is said in it, where that is known), or units made of one elsewhere.

    Memory is emptied between documents. ``spans`` marks ranges that a task measures on their own (the answers of a
    recall task), in characters of a text and seconds of speech; empty for prose.
    """

    name: str
    text: str = ""
    spans: tuple[tuple[int, int], ...] | tuple[tuple[float, float], ...] = ()
    audio: Audio | None = None
    units: tuple[int, ...] = ()
    speaker: str = ""

    def content(self, reads: Reads) -> Any:
        """What a front-end that ``reads`` it is given. Raises `ValueError` where this document does not have it."""
        found = getattr(self, reads)
        nothing = self.audio is None and not self.units  # then it is a text, which may be empty
        if not found and not (reads == "text" and nothing):
            raise ValueError(
                f"the front-end reads {reads}, which document {self.name!r} has not; "
                "give another data source or front-end"
            )
        return found


@runtime_checkable
class Source(Protocol):
    """The frozen dataclass ``Source`` of a data file: its fields are its YAML keys."""

    def documents(self, split: Split) -> Iterator[Document]:
        """Stream the documents of ``split``, the same ones in the same order every time."""
        ...
