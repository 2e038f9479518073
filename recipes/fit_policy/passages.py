"""Passages of texts or recordings, drawn at random."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jaxtyping import Int
from torch import Tensor

from ...data.reading.files import Skipping

_CHARACTERS = 8
"""Characters of text that are tokenised for each token of a passage; more than texts have on average."""


def sample_passages(
    contents: Iterable[Any],
    encode: Callable[[Any], Int[Tensor, " time"]],
    lengths: tuple[int, int],
    count: int,
    seed: int,
) -> list[Int[Tensor, " _time"]]:
    """Draw passages: at a random place of one document after the other, again and again until there are enough.

    A document that is too short or cannot be read is dropped; standard error lists those that cannot be read.

    Args:
        contents: Texts or recordings, one a document. At most ``count`` of them are in memory at a time.
        encode: Makes token ids.
        lengths: The fewest tokens of a passage, and the most; passages of shorter documents are left out.
        count: The number of passages.
        seed: The seed of the drawing.

    Returns:
        The token ids of ``count`` passages, in random order.

    Raises:
        ValueError: No document is long enough, or none can be read.
    """
    drawing = random.Random(seed)
    shortest, length = lengths
    chosen: list[Any] = []
    for seen, content in enumerate(contents, 1):
        if len(chosen) < count:
            chosen.append(content)
        elif (place := drawing.randrange(seen)) < count:  # each document is as likely to stay
            chosen[place] = content
    waiting, passages, skipping = deque(chosen), [], Skipping()
    while waiting and len(passages) < count:
        content = waiting.popleft()
        with skipping:
            ids = _stretch(content, encode, length, drawing)
            if len(ids) >= shortest:
                passages.append(ids)
                waiting.append(content)
    skipping.tried = len(chosen)  # a document that gives several passages counts once
    skipping.report()
    if len(passages) < count:
        raise ValueError(
            f"no document has {shortest} tokens; give longer ones in data=…, or a smaller length or capacity"
        )
    drawing.shuffle(passages)
    return passages


def new_passages(
    passages: Sequence[Int[Tensor, " _"]], fitted: Sequence[Int[Tensor, " _"]]
) -> Sequence[Int[Tensor, " _"]]:
    """Those of ``passages`` that are not among ``fitted``, or the first where all are."""
    seen = {tuple(ids.tolist()) for ids in fitted}
    return [ids for ids in passages if tuple(ids.tolist()) not in seen] or passages[:1]


def _stretch(
    content: Any, encode: Callable[[Any], Int[Tensor, " time"]], length: int, drawing: random.Random
) -> Int[Tensor, " time"]:
    """At most ``length`` tokens from a random place of a document."""
    if isinstance(content, str):
        start = drawing.randrange(max(1, len(content) - _CHARACTERS * length))
        return encode(content[start : start + _CHARACTERS * length])[:length]
    ids = encode(content)
    start = drawing.randrange(max(1, len(ids) - length + 1))
    return ids[start : start + length]
