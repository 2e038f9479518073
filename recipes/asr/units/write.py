"""Letters written between chunks of units, with a memory that does not grow."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ....tokenizers_.base import Stream
from ...lm.decoder import Reader
from ...speech.text_normalisation import Alphabet
from ..base import Letter
from .interleave import Interleaving

MOST = 2
"""Letters a unit that are written at most, so that writing ends whatever the model says."""
Turns = Generator[tuple[list[int], list[Letter]], Float[Tensor, " vocab"], list[Letter]]
"""Gives the tokens to read next and the letters that were finished; takes the logits after them; ends with letters."""


def write(
    reader: Reader, codes: Interleaving, alphabet: Alphabet, streams: Sequence[Stream]
) -> Iterator[tuple[int, Letter]]:
    """What ``reader`` writes while it reads ``streams`` side by side: each letter with its stream's number.

    It writes the likeliest letter each time. Letters of a chunk are spread evenly over its units, less the look-ahead:
    their times are as exact as a chunk.
    """
    turns = [_turns(codes, alphabet, stream) for stream in streams]
    waiting = [next(turn)[0] for turn in turns]
    reading = reader.start(len(streams))
    device = reading.last.device
    while any(waiting):
        count = min(len(tokens) for tokens in waiting if tokens)
        # A stream that has ended reads on, anything, as rows are of one length; nothing is made of it.
        tokens = [own[:count] or [codes.switch] * count for own in waiting]
        logits, reading = reader.read(torch.tensor(tokens, device=device), reading)
        logits = logits.cpu()
        for row, own in enumerate(waiting):
            waiting[row] = own[count:]
            if own and not waiting[row]:
                letters: list[Letter]
                try:
                    waiting[row], letters = turns[row].send(logits[row])
                except StopIteration as ended:
                    letters = ended.value
                yield from ((row, letter) for letter in letters)


def _turns(codes: Interleaving, alphabet: Alphabet, stream: Stream) -> Turns:
    """The turns of one stream: a chunk is read, its letters are written one by one, and the next is read."""
    before: list[int] = []
    finished: list[Letter] = []
    for start, stop in codes.chunks(len(stream), codes.chunk):
        last = stop == len(stream)
        read = [*before, *stream.ids[start:stop].tolist(), *([codes.end] if last else [])]
        logits = yield read, finished
        letters: list[int] = []
        while (best := int(logits[codes.units : codes.end].argmax())) != codes.letters:
            letters.append(best)
            if len(letters) == MOST * (stop - start + codes.lookahead):
                break
            logits = yield [codes.units + best], []
        ends = stop if last else stop - codes.lookahead
        finished = list(_timed(letters, alphabet, stream, start - codes.lookahead, ends))
        before = [codes.switch]
    return finished


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
