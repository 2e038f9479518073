"""Shared by the text front-ends: character offsets of bytes, and safe places to cut very long texts."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from .base import Stream

PIECE = 1 << 16
"""Characters that a tokenizer gets at once, so that a line of 50 MB needs no more memory than a page."""

# One space or newline between two characters that are no white space in Python or in Rust. All pre-tokenizers in use
# (GPT-2's and its descendants) start a new word there, so that cutting before it changes nothing.
_WORD_START = re.compile(r"(?<=[!-~\w])[ \n](?=[!-~\w])")


def cut(text: str, limit: int = PIECE) -> Iterator[str]:
    """Yield pieces of at most ``limit`` characters which concatenate to ``text``, cut before the last word that fits.

    If ``limit`` characters contain no safe place (base64, scripts without spaces), the cut is at ``limit`` exactly and
    splits the word in two. The cut depends only on the text, so that tokens are deterministic.
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
    """The stream of tokens that consist of ``sizes`` consecutive UTF-8 bytes of ``text``.

    The span of a token covers all characters that it has bytes of: tokens that share a character share its offsets.
    """
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    character = np.cumsum((data & 0xC0) != 0x80, dtype=np.int32) - 1  # continuation bytes are 10xxxxxx
    stops = np.cumsum(sizes.numpy(), dtype=np.int64)
    assert (stops[-1] if len(stops) else 0) == len(data), "the tokens do not cover the text"
    starts = character[stops - sizes.numpy()]
    ends = character[stops - 1] + 1
    return Stream(ids, torch.from_numpy(starts), torch.from_numpy(ends), sizes)


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character for each byte: printable Latin-1 stands for itself, the others are from 256 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}
