"""Passages of texts or recordings, drawn at random."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from ...data.base import Document, InputKind
from ...data.reading.files import Skipping
from ..lm.corpus import Passage

_CHARACTERS = 8
"""Characters of text that are tokenised for each token of a passage; more than texts have on average."""


def sample_passages(
    documents: Iterable[Document],
    kind: InputKind,
    encode: Callable[[Document], Passage],
    lengths: tuple[int, int],
    count: int,
    seed: int,
) -> list[Passage]:
    """Draw passages: at a random place of one document after the other, again and again until there are enough.

    A document that is too short or cannot be read is dropped; standard error lists those that cannot be read.

    Args:
        documents: At most ``count`` of them are in memory at a time.
        kind: What is read of them.
        encode: Makes the tokens of a document.
        lengths: The fewest tokens of a passage, and the most; passages of shorter documents are left out.
        count: The number of passages.
        seed: The seed of the drawing.

    Returns:
        ``count`` passages, in random order.

    Raises:
        ValueError: No document is long enough, or none can be read.
    """
    drawing = random.Random(seed)
    shortest, length = lengths
    chosen: list[Document] = []
    for seen, document in enumerate(documents, 1):
        if len(chosen) < count:
            chosen.append(document)
        elif (place := drawing.randrange(seen)) < count:  # each document is as likely to stay
            chosen[place] = document
    waiting, passages, skipping = deque(chosen), [], Skipping()
    while waiting and len(passages) < count:
        document = waiting.popleft()
        with skipping:
            passage = _stretch(document, kind, encode, length, drawing)
            if len(passage) >= shortest:
                passages.append(passage)
                waiting.append(document)
    skipping.tried = len(chosen)  # a document that gives several passages counts once
    skipping.report()
    if len(passages) < count:
        raise ValueError(
            f"no document has {shortest} tokens; give longer ones in data=…, or a smaller length or capacity"
        )
    drawing.shuffle(passages)
    return passages


def new_passages(passages: Sequence[Passage], fitted: Sequence[Passage]) -> Sequence[Passage]:
    """Those of ``passages`` that are not among ``fitted``, or the first where all are."""
    seen = {tuple(passage.ids.tolist()) for passage in fitted}
    return [passage for passage in passages if tuple(passage.ids.tolist()) not in seen] or passages[:1]


def _stretch(
    document: Document, kind: InputKind, encode: Callable[[Document], Passage], length: int, drawing: random.Random
) -> Passage:
    """At most ``length`` tokens from a random place of a document."""
    if kind == "text":
        start = drawing.randrange(max(1, len(document.text) - _CHARACTERS * length))
        spans = tuple((begin - start, end - start) for begin, end in document.spans)
        text = document.text[start : start + _CHARACTERS * length]
        return encode(replace(document, text=text, spans=spans))[:length]
    passage = encode(document)
    start = drawing.randrange(max(1, len(passage) - length + 1))
    return passage[start : start + length]
