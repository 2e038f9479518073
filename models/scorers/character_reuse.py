"""The probability that a token occurs again soon, from its characters: one model for every tokenizer."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...schema import PositiveInt, ShareBelowOne, Validated
from ...tokenizers_._pieces import count_tokens, pieces
from ..host import on_host, to_device
from . import reuse
from .reuse import Reuse

FEATURES = 64
"""The most n-grams and shape features of a token that count, the first ones."""
MOST_SPECIAL = 0.05
"""The most that special tokens together add to all counts, as a share of them."""
SHARED = ("gaps", "counts", "lstm", "head")
"""The parts of a `Reuse` that do not depend on the vocabulary."""
BEGIN, END = "\2", "\3"
"""Marks of the first and last character of a piece."""


@dataclass(frozen=True)
class Scorer(Validated):
    """The scorer `reuse`, whose embedding of a token is the mean of vectors of its character n-grams.

    The n-grams are hashed into ``buckets`` vectors (fastText, 1607.04606). The rest is that of `reuse`.
    """

    dim: PositiveInt = 64
    """Width of the embedding."""
    hidden: PositiveInt = 128
    """Width of the LSTM."""
    horizon: PositiveInt = 1024
    """Number of following tokens in which a token may occur again; see `reuse`."""
    dropout: ShareBelowOne = 0.1
    """Share of tokens that training replaces by unknown ones."""
    buckets: PositiveInt = 1 << 14
    """Number of vectors."""
    signals: ClassVar[tuple[str, ...]] = reuse.Scorer.signals
    policy: ClassVar[Mapping[str, Any]] = reuse.Scorer.policy

    def build(self, vocab_size: int) -> Reuse:
        """An untrained `Reuse` of tokens without characters; see `build_for`."""
        return self._model(torch.zeros(vocab_size, FEATURES, dtype=torch.int32))

    def build_for(self, tokenizer: Any) -> Reuse:
        """An untrained `Reuse` that reads the characters of a tokenizer's tokens."""
        return self._model(features(pieces(tokenizer), self.buckets))

    def convert(self, trained: Reuse, tokenizer: Any, texts: Mapping[str, int], vocab_size: int | None) -> Reuse:
        """An ordinary `Reuse` for another tokenizer: its embeddings are computed once, its frequencies counted.

        A special token is as rare as the tokens of a text on average, so that its frequency neither keeps nor evicts
        it; many are rarer, so that together they do not change the frequencies of the others.

        Args:
            trained: a trained model of `build_for` (of any tokenizer).
            tokenizer: as for `pieces`.
            texts: pieces of text and how often each occurs; see `count_tokens`.
            vocab_size: number of ids of the model, if it is more than those of the tokenizer.

        Returns:
            The model for ``tokenizer``, in eval mode, with one trainable embedding per id.

        Raises:
            ValueError: if ``vocab_size`` is less than the tokenizer needs.
        """
        found = pieces(tokenizer)
        size = len(found) if vocab_size is None else vocab_size
        if size < len(found):
            raise ValueError(f"vocab_size={size} is less than the {len(found)} ids of the tokenizer")
        assert isinstance(trained.embed, CharacterEmbedding)
        table = torch.zeros(size, self.dim)
        table[: len(found)] = trained.embed.vectors(features(found, self.buckets)).detach()
        model = Reuse(size, self._reuse(), nn.Embedding.from_pretrained(table, freeze=False))
        shared = {name: tensor for name, tensor in trained.state_dict().items() if name.startswith(SHARED)}
        model.load_state_dict(shared, strict=False)
        model.unigram.counts = _with_special_tokens(count_tokens(tokenizer, texts, size), found)
        return model.eval()

    def _model(self, numbers: Int[Tensor, "token feature"]) -> Reuse:
        return Reuse(len(numbers), self._reuse(), CharacterEmbedding(numbers, self.dim, self.buckets))

    def _reuse(self) -> reuse.Scorer:
        return reuse.Scorer(self.dim, self.hidden, self.horizon, self.dropout)


def _with_special_tokens(counts: Float[Tensor, " vocab"], found: Sequence[str | None]) -> Float[Tensor, " vocab"]:
    """``counts`` with those of the pieces that are None; see `Scorer.convert`."""
    special = torch.tensor([i for i, piece in enumerate(found) if piece is None], dtype=torch.long)
    total = counts.sum().clamp(min=1)
    average = torch.special.entr(counts / total).sum().neg().exp()
    return counts.index_fill(0, special, float(total * average.clamp(max=MOST_SPECIAL / max(1, len(special)))))


class CharacterEmbedding(nn.Module):
    """From ids to the mean of the vectors of their features; zeros for a token without characters."""

    features: Tensor

    def __init__(self, numbers: Int[Tensor, "token feature"], dim: int, buckets: int) -> None:
        """Zero vectors for the features of each id, as `features` numbers them."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(buckets + 1, dim))
        self.register_buffer("features", numbers)

    def forward(self, tokens: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time dim"]:
        """The embedding of each token; each distinct one is computed once."""
        ids, index = (to_device(x, tokens.device) for x in torch.unique(on_host(tokens), return_inverse=True))
        return self.vectors(self.features[ids])[index]

    def vectors(self, features: Int[Tensor, "token feature"]) -> Float[Tensor, "token dim"]:
        """The mean of the vectors of each row of features, where 0 is none."""
        return F.embedding_bag(features.long(), self.weight, mode="mean", padding_idx=0)


def features(found: Sequence[str | None], buckets: int) -> Int[Tensor, "token feature"]:
    """The features of each piece by number, from 1 on, and 0 behind the last."""

    @cache
    def bucket(feature: str) -> int:
        return 1 + zlib.crc32(feature.encode(errors="surrogateescape")) % buckets

    rows = np.zeros((len(found), FEATURES), np.int32)
    for row, piece in zip(rows, found, strict=True):
        if piece:
            numbers = [bucket(feature) for feature in features_of(piece)[:FEATURES]]
            row[: len(numbers)] = numbers
    return torch.from_numpy(rows)


def features_of(piece: str) -> list[str]:
    """The features of a piece as text: its shape, the whole piece, and its n-grams of 2 to 4 characters.

    The space before a word belongs to the shape and the whole piece alone.
    """
    word = piece[1:] if piece.startswith(" ") and len(piece) > 1 else piece
    marked = BEGIN + word + END
    grams = [marked[i : i + n] for n in (2, 3, 4) for i in range(len(marked) - n + 1)]
    shape = [
        f"{END}{name}"
        for name in (_case(word), _kind(word), str(min(len(word), 12)), f"space {len(word) < len(piece)}")
    ]
    return [*shape, f"{END}{END}{piece}", *grams]


def _case(word: str) -> str:
    if word.islower() or word.isupper():
        return "lower" if word.islower() else "upper" if len(word) > 1 else "capital"
    return "capital" if word.istitle() else "mixed" if word.lower() != word.upper() else "no case"


def _kind(word: str) -> str:
    for name, test in (
        ("letters", str.isalpha),
        ("digits", str.isdigit),
        ("both", str.isalnum),
        ("blank", str.isspace),
    ):
        if test(word):
            return name
    return "other with letters" if any(map(str.isalnum, word)) else "other"
