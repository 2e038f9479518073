"""Transcription by the unit language model: letters between chunks of units, with a bounded memory."""

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
"""Maximum number of letters per unit, so that writing ends whatever the model predicts."""
Turns = Generator[tuple[list[int], list[Letter]], Float[Tensor, " vocab"], list[Letter]]
"""Yields the tokens to read next and the finished letters; receives the logits after them; returns the last letters."""


def write(
    reader: Reader, codes: Interleaving, alphabet: Alphabet, streams: Sequence[Stream]
) -> Iterator[tuple[int, Letter]]:
    """Transcribe ``streams`` as one batch by greedy decoding.

    The letters of a chunk are spread evenly over its units, without the look-ahead, so times are exact to a chunk.

    Args:
        reader: the language model with its memory.
        codes: the interleaving of units and letters.
        alphabet: the letters.
        streams: the units of each recording.

    Yields:
        Each letter with the number of its stream.
    """
    turns = [_turns(codes, alphabet, stream) for stream in streams]
    waiting = [next(turn)[0] for turn in turns]
    reading = reader.start(len(streams))
    device = reading.previous.device
    while any(waiting):
        count = min(len(tokens) for tokens in waiting if tokens)
        # Rows of a batch have one length: streams that have ended read on, and their logits are ignored.
        tokens = [pending[:count] or [codes.switch] * count for pending in waiting]
        logits, reading = reader.read(torch.tensor(tokens, device=device), reading)
        logits = logits.cpu()
        for row, pending in enumerate(waiting):
            waiting[row] = pending[count:]
            if pending and not waiting[row]:
                letters: list[Letter]
                try:
                    waiting[row], letters = turns[row].send(logits[row])
                except StopIteration as ended:
                    letters = ended.value
                yield from ((row, letter) for letter in letters)


def _turns(codes: Interleaving, alphabet: Alphabet, stream: Stream) -> Turns:
    """The turns of one stream: read a chunk, write its letters one by one, read the next chunk."""
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
    """Spread ``letters`` over the units ``first`` to ``end``, which may lie before the first unit."""
    begin, stop = (_second(stream, place) for place in (first, end))
    each = (stop - begin) / max(1, len(letters))
    for i, letter in enumerate(letters):
        yield Letter(alphabet.characters[letter], begin + i * each, begin + (i + 1) * each)


def _second(stream: Stream, place: int) -> float:
    """The start of the unit ``place`` in seconds."""
    if place <= 0:
        return 0.0
    return float(stream.starts[place] if place < len(stream) else stream.ends[-1])
