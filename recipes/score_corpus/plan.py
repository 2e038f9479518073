"""Which document goes into which shard: a file in the folder of the scores, written before anything is scored.

The plan also records size and sums of each document, so that a run that continues notices other data.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ...data.base import Document
from ...files import atomic_file
from ..engine.data_record import document_entry

PLAN = "documents.jsonl"
"""Name of the file: a line for each document in order, with its name and the number of its shard."""


@dataclass(frozen=True)
class Shard:
    """The number of a shard, counted from 0, and its documents."""

    index: int
    documents: list[Document]


@dataclass(frozen=True)
class ShardSize:
    """A shard ends with the document that reaches one of the two limits."""

    documents: int
    bytes: int


def write_plan(
    documents: Iterable[Document], folder: Path, size: ShardSize, finished: Container[int]
) -> dict[int, int]:
    """Assign documents to shards and write the plan, or compare them with the plan that is there.

    In a plan that is there, a document of an unfinished shard may have changed, as a recording that was mended has.

    Args:
        documents: all documents, in order.
        folder: where the plan is.
        size: of a shard.
        finished: the numbers of the shards that are written.

    Returns:
        The number of documents of each shard.

    Raises:
        ValueError: in one line, for a document that is new, missing or renamed, or that has changed although its shard
            is finished, and where there are no documents.
    """
    path = folder / PLAN
    known = _read(path) if path.is_file() else None
    assignment = _Assignment(size)
    counts: dict[int, int] = {}
    with atomic_file(path) as file:
        for document in documents:
            if known is None:
                entry = document_entry(document, None)
                entry["shard"] = assignment.next(entry["size"])
            else:
                entry = _compared(document, next(known, None), folder, finished)
            counts[entry["shard"]] = counts.get(entry["shard"], 0) + 1
            file.write(json.dumps(entry).encode() + b"\n")
        if known is not None and (missing := next(known, None)) is not None:
            raise _changed(f"{missing['name']!r} is not there any more", folder)
        if not counts:
            raise ValueError("the data has no documents; give other data, or another split")
    return counts


def read_shards(documents: Iterable[Document], folder: Path, finished: Container[int]) -> Iterator[Shard]:
    """Read the documents of the shards that are not finished, a shard at a time.

    Raises `ValueError` if a document has changed since `write_plan`.
    """
    shard: Shard | None = None
    for document, known in zip_longest(documents, _read(folder / PLAN)):
        if document is None or known is None:
            raise ValueError("documents were added or removed while the corpus is scored; give the same command again")
        index = known["shard"]
        if shard is not None and index != shard.index:
            yield shard
            shard = None
        if index in finished:
            continue
        if not _same(document_entry(document, known), known):
            raise ValueError(f"{document.name!r} has changed while the corpus is scored; give the same command again")
        shard = shard or Shard(index, [])
        shard.documents.append(document)
    if shard is not None:
        yield shard


class _Assignment:
    """Assigns documents to shards in order."""

    def __init__(self, size: ShardSize) -> None:
        self.size, self.index, self.documents, self.bytes = size, 0, 0, 0

    def next(self, added: int) -> int:
        """The shard of the next document, which has so many bytes."""
        if self.documents >= self.size.documents or self.bytes >= self.size.bytes:
            self.index, self.documents, self.bytes = self.index + 1, 0, 0
        self.documents, self.bytes = self.documents + 1, self.bytes + added
        return self.index


def _compared(
    document: Document, known: dict[str, Any] | None, folder: Path, finished: Container[int]
) -> dict[str, Any]:
    """The line of a document in a plan that is there."""
    if known is None:
        raise _changed(f"{document.name!r} is one more document", folder)
    entry = document_entry(document, known) | {"shard": known["shard"]}
    if entry["name"] != known["name"]:
        raise _changed(f"there is {document.name!r} where {known['name']!r} was", folder)
    if known["shard"] in finished and not _same(entry, known):
        raise _changed(f"{document.name!r} has changed", folder)
    return entry


def _same(entry: dict[str, Any], known: dict[str, Any]) -> bool:
    """Whether a document is what it was; the time of its file does not count."""
    return all(entry[key] == known[key] for key in ("name", "size", "sum", "file_sum"))


def _changed(what: str, folder: Path) -> ValueError:
    return ValueError(f"{what}, compared with the corpus in {str(folder)!r}; put the old data back, or use another out")


def _read(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)
