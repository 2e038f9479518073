"""The documents that every data source yields, in a fixed order, for one of three splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, get_args, runtime_checkable

from .reading.audio import Audio

InputKind = Literal["text", "audio", "units"]
"""The field of a document that a front-end reads."""

T = TypeVar("T")

Split = Literal["train", "dev", "test"]


@dataclass(frozen=True)
class Document:
    """One document: a text, a recording (with its transcript, if it is known), or speech units.

    Memory is emptied between documents. ``spans`` marks ranges that a task measures separately, and that training may
    weigh (``off_target_weight``): the answers of a recall task, in characters of a text or seconds of speech; it is
    empty for prose.
    """

    name: str
    text: str = ""
    spans: tuple[tuple[int, int], ...] | tuple[tuple[float, float], ...] = ()
    audio: Audio | None = None
    units: tuple[int, ...] = ()
    speaker: str = ""

    def content(self, kind: InputKind) -> Any:
        """The field that a front-end reads. Raises `ValueError` if this document does not have it."""
        found = getattr(self, kind)
        is_text = self.audio is None and not self.units  # a text may be empty
        if not found and not (kind == "text" and is_text):
            raise ValueError(
                f"the front-end reads {kind}, which document {self.name!r} does not have; "
                "give another data source or front-end"
            )
        return found


@runtime_checkable
class Source(Protocol):
    """The frozen dataclass ``Source`` of a data file: its fields are its YAML keys."""

    def documents(self, split: Split) -> Iterator[Document]:
        """Stream the documents of ``split``, the same ones in the same order every time."""
        ...


def all_documents(source: Source) -> Iterator[Document]:
    """Stream every document of ``source`` uncut: its method ``all_documents``, or the documents of its three splits.

    A source has that method if its splits may be parts of documents.
    """
    if hasattr(source, "all_documents"):
        yield from source.all_documents()  # pyright: ignore[reportAttributeAccessIssue]
        return
    for split in get_args(Split):
        yield from source.documents(split)


def take_evenly(items: Sequence[T], count: int | None) -> list[T]:
    """At most ``count`` of the items, at even distances, so that every part is represented; None = all."""
    if count is None or count >= len(items):
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]
