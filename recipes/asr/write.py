"""Letters written between chunks of units, with a memory that does not grow."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ...tokenizers_.base import Stream
from .._letters import Alphabet
from .._reader import Reader
from .base import Letter
from .interleave import Interleaving

MOST = 2
"""Letters a unit that are written at most, so that writing ends whatever the model says."""


def write(reader: Reader, codes: Interleaving, alphabet: Alphabet, stream: Stream) -> Iterator[Letter]:
    """What ``reader`` writes while it reads ``stream``, the likeliest letter each time.

    Letters of a chunk are spread evenly over its units, less the look-ahead: their times are as exact as a chunk.
    """
    reading, before = reader.start(), []
    device = reading.last.device
    for start, stop in codes.chunks(len(stream), codes.chunk):
        last = stop == len(stream)
        read = [*before, *stream.ids[start:stop].tolist(), *([codes.end] if last else [])]
        logits, reading = reader.read(torch.tensor(read, device=device), reading)
        letters: list[int] = []
        while (best := int(logits[codes.units : codes.end].argmax())) != codes.letters:
            letters.append(best)
            if len(letters) == MOST * (stop - start + codes.lookahead):
                break
            logits, reading = reader.read(torch.tensor([codes.units + best], device=device), reading)
        ends = stop if last else stop - codes.lookahead
        yield from _timed(letters, alphabet, stream, start - codes.lookahead, ends)
        before = [codes.switch]


def _timed(letters: list[int], alphabet: Alphabet, stream: Stream, first: int, end: int) -> Iterator[Letter]:
    """``letters`` spread over the units ``first`` to ``end``, which may lie before the first of all."""
    begin, stop = (_second(stream, place) for place in (first, end))
    each = (stop - begin) / max(1, len(letters))
    for i, letter in enumerate(letters):
        yield Letter(alphabet.characters[letter], begin + i * each, begin + (i + 1) * each)


def _second(stream: Stream, place: int) -> float:
    """When the unit ``place`` begins."""
    if place <= 0:
        return 0.0
    return float(stream.starts[place] if place < len(stream) else stream.ends[-1])
