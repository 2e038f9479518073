"""The tokenizer of a pretrained model: any fast `AutoTokenizer`, from a local folder or the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.reading.files import did_you_mean, local_path
from ..schema import PathText
from ._text import cut
from .base import Stream

_PIECE = 1 << 20  # characters; longer than a chapter of a book, so that few texts are cut


@dataclass(frozen=True)
class FrontEnd:
    """A pretrained tokenizer, unchanged and without special tokens.

    Args:
        path: folder or hub name, as for `AutoTokenizer.from_pretrained`.
    """

    path: PathText = ""

    def fit(self, texts: Iterable[str]) -> PretrainedTokenizer:
        """Load the tokenizer; ``texts`` are not read. Raises `ValueError` if there is none or it has no offsets."""
        if not self.path:
            raise ValueError("front-end pretrained has no path; give `path: FOLDER_OR_HUB_NAME`")
        return PretrainedTokenizer(_read(self.path))

    def load(self, folder: Path) -> PretrainedTokenizer:
        """Read what `PretrainedTokenizer.save` wrote; ``path`` need not exist any more."""
        return PretrainedTokenizer(_read(str(folder)))


class PretrainedTokenizer:
    """A fast tokenizer of `transformers`, with spans that always tile the text.

    Characters that the tokenizer leaves out (mostly spaces) belong to the next token. Sizes therefore sum to the bytes
    of the text, even for tokenizers that lose case or spaces and do not `decode` the same text. If several tokens share
    a character, the first has its bytes and the others are empty.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Wrap a fast tokenizer of `transformers`."""
        self.wrapped = tokenizer
        # Not its length: the ids of some tokenizers have gaps.
        self.vocab_size = max(tokenizer.get_vocab().values()) + 1

    def encode(self, text: str) -> Stream:
        """Tokens of ``text``; there may be none, as for blank text.

        A text of more than 2^20 characters is encoded in pieces, cut before a word (see `cut`).
        """
        ids, ends, shift = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)], 0
        for piece in cut(text, _PIECE):
            encoding = self.wrapped(piece, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            if encoding["input_ids"]:
                ids.append(np.array(encoding["input_ids"], dtype=np.int64))
                offsets = np.array(encoding["offset_mapping"], dtype=np.int32)
                ends.append(offsets[:, 1] + np.int32(shift))
            shift += len(piece)
        stops = np.maximum.accumulate(np.concatenate(ends))
        stops[-1:] = len(text)
        starts = np.concatenate([np.zeros(min(1, len(stops)), np.int32), stops[:-1]])
        bytes_before = np.concatenate([[0], np.cumsum(_utf8_lengths(text))]).astype(np.int32)
        sizes = bytes_before[stops] - bytes_before[starts]
        return Stream(torch.from_numpy(np.concatenate(ids)), *map(torch.from_numpy, (starts, stops, sizes)))

    def decode(self, ids: list[int]) -> str:
        """The text of the tokens, special ones included."""
        return self.wrapped.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def sha256(self) -> str:
        """SHA-256 of everything that determines the ids of a text, independent of the tokenizer's name and place."""
        parts = json.loads(self.wrapped.backend_tokenizer.to_str())
        kept = {name: parts[name] for name in ("normalizer", "pre_tokenizer", "model", "added_tokens")}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Copy the files of the tokenizer."""
        self.wrapped.save_pretrained(str(folder))


def _read(path: str) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ValueError("front-end pretrained needs transformers; run `pip install 'vqmem[hf]'`") from error
    path = str(local_path(path) or path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        hint = "" if Path(path).exists() else did_you_mean(path)
        hint = hint or "give a folder or a hub name that has one"
        raise ValueError(f"no tokenizer at {path!r} ({reason}); {hint}") from error
    if not tokenizer.is_fast:
        raise ValueError(f"the tokenizer at {path!r} gives no offsets; give one with a tokenizer.json (a fast one)")
    return tokenizer


def _utf8_lengths(text: str) -> np.ndarray:
    """The number of UTF-8 bytes of each character."""
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    starts = np.flatnonzero((data & 0xC0) != 0x80)
    return np.diff(starts, append=len(data))
