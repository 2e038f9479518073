"""Score the documents of a shard and write its parquet file, at once or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ...data.base import Document, InputKind
from ...data.reading.files import UnreadableError
from ...files import atomic_file
from ...models.device import resolve_device
from .plan import Shard, read_shards
from .scorer import DocumentScorer
from .source import SplitName, read_documents

ROW_GROUP = 1 << 17
"""Tokens of a row group; as many are in memory at a time."""


@dataclass(frozen=True)
class Job:
    """What a worker has to know; all paths are as from the folder ``here``.

    ``scorer`` is the fingerprint of the scorer in the folder ``model``, which reads documents of ``kind``; ``finished``
    are the shards that were written before.
    """

    data: str | dict[str, Any]
    split: SplitName
    out: Path
    model: Path
    kind: InputKind
    scorer: str
    device: str
    threads: int
    here: Path
    finished: frozenset[int] = field(default_factory=frozenset)

    def shards(self) -> Iterator[Shard]:
        """Read the documents of the shards that are to be scored. Raises as `read_shards` does."""
        return read_shards(read_documents(self.data, self.split), self.out, self.finished)


@dataclass(frozen=True)
class Outcome:
    """What became of a shard: the documents and tokens written, or the reason why a document cannot be read."""

    index: int
    documents: int = 0
    tokens: int = 0
    unreadable: str = ""


def shard_path(folder: Path, index: int) -> Path:
    """The file of a shard."""
    return folder / f"shard-{index:05d}.parquet"


def finished_shards(folder: Path, scorer: str) -> dict[int, int]:
    """The number of tokens of every shard that is written.

    Raises `ValueError` in one line for a damaged shard, and for one of another scorer than that of the fingerprint
    ``scorer``.
    """
    tokens = {}
    for path in sorted(folder.glob("shard-*.parquet")):
        try:
            about = pq.read_metadata(path)
        except (pa.ArrowInvalid, OSError) as error:
            reason = str(error).split("\n")[0]
            raise ValueError(
                f"{str(path)!r} is damaged ({reason}); delete it and give the same command again"
            ) from None
        if (about.metadata or {}).get(b"vqmem.scorer", b"").decode() != scorer:
            raise ValueError(f"{folder} contains scores of another model; use another out, or give the old model")
        tokens[int(path.stem.removeprefix("shard-"))] = about.num_rows
    return tokens


class ShardScorer:
    """Scores shards. The scorer is loaded for the first of them and kept."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @cached_property
    def scorer(self) -> DocumentScorer:
        """The scorer of the job."""
        job = self.job
        return DocumentScorer(job.model, job.kind, resolve_device(job.device), job.scorer)

    def __call__(self, shard: Shard, on_document: Callable[[], None] = lambda: None) -> Outcome:
        """Score a shard, unless it is written already, and call ``on_document`` after each of its documents.

        Raises `ValueError` and ``OSError`` in one line for what concerns more than one document.
        """
        path = shard_path(self.job.out, shard.index)
        if path.is_file():  # by an earlier attempt of a worker that died before it could report
            return Outcome(shard.index, len(shard.documents), pq.read_metadata(path).num_rows)
        try:
            tokens = _write(path, self.scorer.schema, self._tables(shard.documents, on_document))
        except UnreadableError as error:
            return Outcome(shard.index, unreadable=str(error))
        return Outcome(shard.index, len(shard.documents), tokens)

    def _tables(self, documents: Iterable[Document], on_document: Callable[[], None]) -> Iterator[pa.Table]:
        for document in documents:
            try:
                yield from self.scorer.score(document)
            except UnreadableError:
                raise
            except ValueError as error:
                raise ValueError(f"document {document.name!r}: {error}") from error
            on_document()


def score_in_process(job: Job, on_document: Callable[[], None]) -> Iterator[Outcome]:
    """Score the shards of a job in this process, one after the other.

    ``on_document`` is called after each document. Raises `ValueError` and ``OSError`` as `ShardScorer` does.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(job.threads)
    try:
        scorer = ShardScorer(job)
        for shard in job.shards():
            yield scorer(shard, on_document)
    finally:
        torch.set_num_threads(threads)


def _write(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Write a parquet file in row groups of bounded size; returns the number of rows."""
    rows, pending, waiting = 0, [], 0
    with atomic_file(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for table in tables:
            pending.append(table)
            rows, waiting = rows + len(table), waiting + len(table)
            if waiting >= ROW_GROUP:
                writer.write_table(pa.concat_tables(pending), ROW_GROUP)
                pending, waiting = [], 0
        if pending:
            writer.write_table(pa.concat_tables(pending), ROW_GROUP)
    return rows
