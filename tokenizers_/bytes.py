"""One token per UTF-8 byte: 256 ids, no training, any language."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ._text import stream_of
from .base import Stream


@dataclass(frozen=True)
class FrontEnd:
    """No keys: the id is the byte."""

    def fit(self, texts: Iterable[str]) -> ByteTokenizer:
        """There is nothing to learn; ``texts`` are not read."""
        return ByteTokenizer()

    def load(self, folder: Path) -> ByteTokenizer:
        """There is nothing to read."""
        return ByteTokenizer()


class ByteTokenizer:
    """Bytes as ids. All bytes of a character have the offsets of that character, so that spans are never empty."""

    vocab_size = 256

    def encode(self, text: str) -> Stream:
        """The bytes of ``text``; every size is 1. Raises `UnicodeEncodeError` (a `ValueError`) on lone surrogates."""
        data = np.frombuffer(text.encode(), dtype=np.uint8)
        return stream_of(text, torch.from_numpy(data.astype(np.int64)), torch.ones(len(data), dtype=torch.int32))

    def ids_of(self, text: str) -> list[int]:
        """The ids of `encode` alone, for counting many short texts."""
        return list(text.encode())

    def decode(self, ids: list[int]) -> str:
        """The text of the bytes, with U+FFFD for invalid UTF-8."""
        return bytes(ids).decode(errors="replace")

    def save(self, folder: Path) -> None:
        """There is nothing to write."""
