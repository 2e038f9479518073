"""Documents as token streams, cut into passages and read in batches, one segment at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ...data.base import Document, Split
from ...data.reading.files import Skipping
from ...models.transformer_config import LONGEST_SHIFT
from ...registry import build
from ...tokenizers_.base import Tokenizer, input_kind
from ..engine.loader import BatchLoader, shuffled
from ..engine.progress import Bar


@dataclass(frozen=True)
class Passage:
    """A stretch of one document. The memory is empty at its start.

    ``sizes`` is the number of source bytes of each token; ``target_mask`` is true for tokens that a task evaluates
    separately, such as answers.
    """

    name: str
    ids: Int[Tensor, " time"]
    sizes: Int[Tensor, " time"]
    target_mask: Bool[Tensor, " time"]

    @classmethod
    def from_ids(cls, ids: Int[Tensor, " time"], name: str = "") -> Passage:
        """A passage of one byte a token, none of them marked."""
        return cls(name, ids, torch.ones_like(ids), torch.zeros_like(ids, dtype=torch.bool))

    def __len__(self) -> int:
        """The number of tokens."""
        return len(self.ids)

    def __getitem__(self, part: slice) -> Passage:
        """Some of the tokens."""
        return Passage(self.name, self.ids[part], self.sizes[part], self.target_mask[part])


class SegmentBatch(NamedTuple):
    """One segment of every row. ``targets`` are the tokens one step later; where ``valid`` is false both are padding.

    ``is_start`` is true for rows whose passage starts with this segment. ``previous`` are the tokens before the segment
    (-1 before the start of a passage). ``positions`` count from the start of the passage. ``sizes`` and ``target_mask``
    refer to the targets.
    """

    tokens: Int[Tensor, "batch time"]
    targets: Int[Tensor, "batch time"]
    positions: Int[Tensor, "batch time"]
    valid: Bool[Tensor, "batch time"]
    sizes: Int[Tensor, "batch time"]
    target_mask: Bool[Tensor, "batch time"]
    previous: Int[Tensor, "batch before"]
    is_start: Bool[Tensor, " batch"]

    def to(self, device: torch.device | str) -> SegmentBatch:
        """Move the batch to ``device``."""
        return SegmentBatch(*(x.to(device) for x in self))


def passages(
    documents: Iterable[Document], tokenizer: Tokenizer, length: int, limit: int | None = None
) -> list[Passage]:
    """Cut documents into passages of at most ``length`` tokens; a rest of fewer than 2 tokens is dropped.

    Args:
        documents: text or speech; documents that cannot be read are skipped and listed at the end.
        tokenizer: the front-end.
        length: tokens of a passage.
        limit: stop after this many tokens; None reads all.

    Returns:
        The passages in the order of the documents, of 2 tokens or more each.

    Raises:
        ValueError: if no passage has a token to predict.
    """
    cut: list[Passage] = []
    room, skipping = limit, Skipping()
    for document in documents:
        with skipping:
            added = _passages_of(document, tokenizer, length, room)
            cut += added
            room = None if room is None else room - sum(len(passage.ids) for passage in added)
        if room is not None and room <= 0:
            break
    skipping.report()
    if not cut:
        raise ValueError("no document has two tokens or more, so there is nothing to predict; give longer documents")
    return cut


def _passages_of(document: Document, tokenizer: Tokenizer, length: int, room: int | None) -> list[Passage]:
    """Cut one document into passages, up to the one that fills ``room`` tokens."""
    if room is not None:
        # Avoids tokenising a line of 50 MB for its first thousand tokens; on average a token has at most 32 characters.
        document = replace(document, text=document.text[: 32 * room])
    full = encode_document(document, tokenizer)
    begins = range(0, len(full) if room is None else min(room, len(full)), length)
    cut = [replace(full[begin : begin + length], name=f"{full.name}:{begin}") for begin in begins]
    return [passage for passage in cut if len(passage) >= 2]


def encode_document(document: Document, tokenizer: Tokenizer) -> Passage:
    """All tokens of a document; its spans are marked. Raises `ValueError` if the front-end reads what it lacks."""
    stream = tokenizer.encode(document.content(input_kind(tokenizer)))
    target_mask = torch.zeros(len(stream), dtype=torch.bool)
    for start, end in document.spans:
        target_mask |= (stream.starts < end) & (stream.ends > start)
    return Passage(document.name, stream.ids, stream.sizes, target_mask)


def require(data: str | dict[str, Any], split: Split, content: str = "documents") -> None:
    """Raise `ValueError` if a split of a data source has no document. Called before a run writes anything."""
    if next(iter(build("data", data).documents(split)), None) is None:
        raise ValueError(f"the split {split} of the data has no {content} ({data!r}); give data that has some")


class SegmentSampler:
    """Samples a segment for each row, which reads passage after passage; passages are shuffled every epoch.

    Args:
        items: the passages.
        batch_size: rows that are read in parallel.
        length: tokens of a segment.
        seed: of the order.
        rank: process ``rank`` of ``world`` reads every ``world``-th passage of the order.
        world: the number of processes.
    """

    def __init__(
        self, items: Sequence[Passage], batch_size: int, length: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        self.items, self.length, self.seed, self.world = items, length, seed, world
        self.drawn = rank
        self.rows: list[list[int]] = [[self._draw(), 0] for _ in range(batch_size)]

    def next(self) -> list[tuple[Passage, int]]:
        """The passage of every row and the start of its next segment."""
        segments = []
        for row in self.rows:
            if row[1] >= len(self.items[row[0]].ids) - 1:
                row[:] = [self._draw(), 0]
            segments.append((self.items[row[0]], row[1]))
            row[1] += self.length
        return segments

    def state_dict(self) -> dict[str, Any]:
        """The position of every row."""
        return {"drawn": self.drawn, "rows": [list(row) for row in self.rows]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to the position at which `state_dict` was taken."""
        self.drawn, self.rows = state["drawn"], [list(row) for row in state["rows"]]

    def _draw(self) -> int:
        self.drawn += self.world
        return shuffled(len(self.items), self.seed, self.drawn - self.world)


def segment_loader(
    items: Sequence[Passage], batch_size: int, length: int, seed: int, rank: int = 0, world: int = 1
) -> BatchLoader:
    """Endless batches of segments.

    Args:
        items: the passages.
        batch_size: rows that are read in parallel.
        length: tokens of a segment.
        seed: of the order.
        rank: process ``rank`` of ``world`` reads every ``world``-th passage of the order.
        world: the number of processes.

    Returns:
        The loader; a batch has ``batch_size`` rows of at most ``length`` tokens.
    """
    sampler = SegmentSampler(items, batch_size, length, seed, rank, world)
    return BatchLoader(sampler, lambda segments: _batch(segments, length))


def sweep(items: Sequence[Passage], batch_size: int, length: int) -> Iterator[tuple[list[int], SegmentBatch]]:
    """Read every passage once, ``batch_size`` in parallel; yields each segment with the passage indices of its rows."""
    for first in range(0, len(items), batch_size):
        group = list(range(first, min(first + batch_size, len(items))))
        longest = max(len(items[i].ids) for i in group)
        for start in range(0, longest - 1, length):
            yield group, _batch([(items[i], start) for i in group], length)


def sweep_with_bar(
    description: str, items: Sequence[Passage], batch_size: int, length: int
) -> Iterator[tuple[list[int], SegmentBatch]]:
    """`sweep`, showing the tokens read.

    Args:
        description: what is being done.
        items: the passages.
        batch_size: passages that are read in parallel.
        length: tokens of a segment.

    Yields:
        The indices of the passages of each batch, and the batch.
    """
    with Bar(description, sum(len(item.ids) - 1 for item in items), transient=True) as bar:
        for group, batch in sweep(items, batch_size, length):
            yield group, batch
            bar.advance(int(batch.valid.sum()))


def _batch(segments: list[tuple[Passage, int]], length: int) -> SegmentBatch:
    """Copies by numpy, whose calls take a tenth of torch's: a GPU waits for the loader."""
    starts = [start for _, start in segments]
    stops = [max(start, min(start + length, len(passage.ids) - 1)) for passage, start in segments]
    first, shape = segments[0][0], (len(segments), length)
    ids, targets = first.ids.new_zeros(shape), first.ids.new_zeros(shape)
    sizes, target_mask = first.sizes.new_zeros(shape), first.target_mask.new_zeros(shape)
    previous = first.ids.new_full((len(segments), LONGEST_SHIFT), -1)
    columns = ids.numpy(), targets.numpy(), sizes.numpy(), target_mask.numpy()
    for row, ((passage, start), stop) in enumerate(zip(segments, stops, strict=True)):
        tokens, ahead = passage.ids.numpy(), slice(start + 1, stop + 1)
        parts = tokens[start:stop], tokens[ahead], passage.sizes.numpy()[ahead], passage.target_mask.numpy()[ahead]
        for column, part in zip(columns, parts, strict=True):
            column[row, : stop - start] = part
        before = tokens[:start][-LONGEST_SHIFT:]
        previous.numpy()[row, LONGEST_SHIFT - len(before) :] = before
    positions = torch.tensor(starts)[:, None] + torch.arange(length)
    valid = positions < torch.tensor(stops)[:, None]
    is_start = torch.tensor([start == 0 for start in starts])
    return SegmentBatch(ids, targets, positions, valid, sizes, target_mask, previous, is_start)
