"""What the text front-ends share: where each byte's character lies, and safe places to cut a very long text."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from .base import Stream

PIECE = 1 << 16
"""Characters handed to a tokenizer at once, so that a 50 MB line costs no more memory at a time than a page does."""

# One space or newline between two characters that are surely not white space, in Python and in Rust alike: every
# pre-tokenizer in use (GPT-2's and its descendants) starts a new word at it, so that cutting before it changes nothing.
_WORD_START = re.compile(r"(?<=[!-~\w])[ \n](?=[!-~\w])")


def cut(text: str, limit: int = PIECE) -> Iterator[str]:
    """Pieces of at most ``limit`` characters which concatenate to ``text``, cut before the last word that fits.

    Where ``limit`` characters hold no safe place (base64, scripts without spaces), the cut is at ``limit`` exactly. It
    depends on the text alone, so that tokens stay deterministic; the word that is cut there becomes two.
    """
    start = 0
    while len(text) - start > limit:
        stop = start + limit
        # Words are short: look in the last thousand characters, then in all of them.
        for begin in (max(start + 1, stop - 1024), start + 1):
            places = [match.start() for match in _WORD_START.finditer(text, begin, stop + 1)]
            if places:
                stop = min(places[-1], stop)
                break
        yield text[start:stop]
        start = stop
    if start < len(text):
        yield text[start:]


def stream_of(text: str, ids: Int[Tensor, " time"], sizes: Int[Tensor, " time"]) -> Stream:
    """The stream of tokens which are consecutive runs of ``sizes`` UTF-8 bytes of ``text``.

    A token's span covers every character it holds a byte of: tokens that share a character share its offsets.
    """
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    character = np.cumsum((data & 0xC0) != 0x80, dtype=np.int32) - 1  # continuation bytes are 10xxxxxx
    stops = np.cumsum(sizes.numpy(), dtype=np.int64)
    assert (stops[-1] if len(stops) else 0) == len(data), "the tokens do not cover the text"
    starts = character[stops - sizes.numpy()]
    ends = character[stops - 1] + 1
    return Stream(ids, torch.from_numpy(starts), torch.from_numpy(ends), sizes)
