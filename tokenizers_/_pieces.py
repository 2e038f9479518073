"""The characters of each token id, the same for every kind of tokenizer; and token counts of weighted texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ._text import byte_alphabet

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def pieces(tokenizer: Any) -> list[str | None]:
    """The characters of every id; None for special tokens and for ids without a token.

    A word's first piece begins with a space if the word does. Byte-level BPE, SentencePiece with byte fallback and
    WordPiece thus have the same pieces for the same text. Bytes that are no valid UTF-8 are lone surrogates, as of
    ``surrogateescape``.

    Args:
        tokenizer: a tokenizer of `transformers` (fast or slow), a `tokenizers.Tokenizer`, a front-end that wraps one,
            or anything with ``vocab_size`` and ``decode`` of a list of ids.

    Returns:
        One string or None per id, in the order of the ids.
    """
    tokenizer = getattr(tokenizer, "wrapped", tokenizer)
    if not hasattr(tokenizer, "get_vocab"):
        return [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    tokens = {i: token for token, i in tokenizer.get_vocab().items()}
    special = set(getattr(tokenizer, "all_special_ids", ()))
    added = _added_tokens(tokenizer)
    read = _reader([token for i, token in tokens.items() if i not in added])
    found: list[str | None] = [None] * (max(tokens, default=-1) + 1)
    for i, token in tokens.items():
        if i in special or (i in added and added[i].special):
            continue
        found[i] = added[i].content if i in added else read(token)
    return found


def count_tokens(tokenizer: Any, texts: Mapping[str, int], vocab_size: int) -> Float[Tensor, " vocab"]:
    """How often each id occurs if every text occurs as often as its value says.

    A text is encoded behind a letter or a line end, because SentencePiece would put a space before the first text.

    Args:
        tokenizer: as for `pieces`.
        texts: words, numbers, punctuation and white space, each as it stands in running text (`` the``).
        vocab_size: number of ids, at least those of the tokenizer.

    Returns:
        The count of each id, in float64.
    """
    before = ["\n" if text[:1].isalnum() else "a" for text in texts]
    encoded = _encode(tokenizer, [mark + text for mark, text in zip(before, texts, strict=True)])
    marks = {mark: _encode(tokenizer, [mark])[0] for mark in ("\n", "a")}
    ids = [
        row[len(marks[mark]) :] if row[: len(marks[mark])] == marks[mark] else row
        for mark, row in zip(before, encoded, strict=True)
    ]
    weights = np.repeat(np.fromiter(texts.values(), float), [len(row) for row in ids])
    counted = np.bincount(np.concatenate([np.zeros(0, np.int64), *ids]).astype(np.int64), weights, vocab_size)
    return torch.from_numpy(counted)


def _added_tokens(tokenizer: Any) -> dict[int, Any]:
    if hasattr(tokenizer, "get_added_tokens_decoder"):
        return tokenizer.get_added_tokens_decoder()
    return getattr(tokenizer, "added_tokens_decoder", {})


def _reader(tokens: Sequence[str]) -> Callable[[str], str]:
    """The function from token to characters, by the mark that most tokens of the vocabulary begin with."""
    marks = {"Ġ": _read_byte_level, "▁": _read_sentencepiece, "##": _read_wordpiece}
    counts = {
        mark: sum(token.startswith(mark) and token[len(mark) :][:1].isalnum() for token in tokens) for mark in marks
    }
    found = max(counts, key=lambda mark: counts[mark])
    if counts[found]:
        return marks[found]
    return _read_byte_level if "Ġ" in tokens else str  # a byte-level vocabulary without merges has the mark alone


def _read_byte_level(token: str) -> str:
    try:
        return _from_bytes(bytes(_BYTES[character] for character in token))
    except KeyError:  # not of the alphabet, so it stands for itself
        return token


def _read_sentencepiece(token: str) -> str:
    byte = _BYTE.fullmatch(token)
    return _from_bytes(bytes([int(byte[1], 16)])) if byte else token.replace("▁", " ")


def _read_wordpiece(token: str) -> str:
    if token.startswith("##"):
        return token[2:]
    return f" {token}" if token[:1].isalnum() else token


def _from_bytes(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    tokenizer = getattr(tokenizer, "wrapped", tokenizer)
    tokenizer = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if hasattr(tokenizer, "encode_batch_fast"):
        return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    if hasattr(tokenizer, "get_vocab"):
        return tokenizer(texts, add_special_tokens=False)["input_ids"]
    ids_of = getattr(tokenizer, "ids_of", lambda text: tokenizer.encode(text).ids.tolist())
    return [ids_of(text) for text in texts]


_BYTES = byte_alphabet()
