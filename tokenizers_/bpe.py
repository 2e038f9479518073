"""Byte-level BPE learnt from the corpus by Hugging Face `tokenizers`; lossless for any text."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Interval
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ..schema import NonNegativeInt, Validated
from ._text import byte_alphabet, cut, stream_of
from .base import Stream

_FILE = "tokenizer.json"
_WORD = 1 << 10  # maximum length of a word to learn from: a merge takes time in proportion to it
_BATCH = 32  # pieces encoded at once, in as many threads as there are cores


@dataclass(frozen=True)
class FrontEnd(Validated):
    """Byte-pair encoding (Sennrich et al., 1508.07909) over bytes with GPT-2's word splitting, as in GPT-2.

    Args:
        vocab_size: number of ids, at least 256 (the bytes); a small corpus may yield fewer.
        train_bytes: how many bytes of the training texts to learn the merges from, the first ones; 0 = all.
    """

    vocab_size: Annotated[int, Interval(ge=256)] = 4096
    train_bytes: NonNegativeInt = 0

    def fit(self, texts: Iterable[str]) -> BPETokenizer:
        """Learn the merges. The same texts give the same merges, whatever the number of threads."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        # A list, because `tokenizers` would change the errors of an iterator.
        tokenizer.train_from_iterator(_limited(list(texts), self.train_bytes), trainer)
        return BPETokenizer(tokenizer)

    def load(self, folder: Path) -> BPETokenizer:
        """Read ``tokenizer.json``. Raises `ValueError` if it is missing or damaged."""
        path = Path(folder) / _FILE
        if not path.is_file():
            raise ValueError(f"no {_FILE} in {str(folder)!r}; was the run saved with the bpe front-end?")
        try:
            return BPETokenizer(Tokenizer.from_file(str(path)))
        except Exception as error:  # `tokenizers` raises bare Exception
            raise ValueError(f"{str(path)!r} is damaged ({error}); train or copy it again") from error


class BPETokenizer:
    """A trained byte-level BPE. Tokens that share a character share its offsets."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Tabulate the bytes of every token of a byte-level ``tokenizer``."""
        self.wrapped = tokenizer
        self.vocab_size = tokenizer.get_vocab_size()
        byte_of = byte_alphabet()
        tokens = [tokenizer.id_to_token(i) or "" for i in range(self.vocab_size)]
        self._bytes = [bytes(byte_of[character] for character in token) for token in tokens]
        self._sizes = np.array([len(data) for data in self._bytes], dtype=np.int32)

    def encode(self, text: str) -> Stream:
        """Tokens of ``text``, encoded in bounded memory, in pieces that begin with a word (see `cut`)."""
        pieces = cut(text)
        parts = [np.zeros(0, dtype=np.int64)]
        while batch := list(itertools.islice(pieces, _BATCH)):
            encodings = self.wrapped.encode_batch_fast(batch, add_special_tokens=False)
            parts += [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]
        ids = np.concatenate(parts)
        return stream_of(text, torch.from_numpy(ids), torch.from_numpy(self._sizes[ids]))

    def decode(self, ids: list[int]) -> str:
        """The text that the tokens' bytes spell, with U+FFFD where they are not valid UTF-8."""
        return b"".join(self._bytes[i] for i in ids).decode(errors="replace")

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``, which Hugging Face reads too."""
        self.wrapped.save(str(Path(folder) / _FILE))


def _limited(texts: Iterable[str], limit: int) -> Iterator[str]:
    """Yield the texts in pieces, up to ``limit`` bytes; 0 = all."""
    used = 0
    for text in texts:
        for piece in cut(text, _WORD):
            if limit and used >= limit:
                return
            used += len(piece.encode())
            yield piece
