"""The scorer that comes with the package and serves every tokenizer, because it reads the characters of tokens."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from .artifacts import load_model, read_config
from .files import missing_file
from .registry import build

FOLDER = Path(__file__).parent / "models" / "pretrained" / "any_tokenizer"
FREQUENCIES = "frequencies.json.gz"
"""The file with pieces of text and how often each occurs in the training texts."""

_made: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()


def load_default_scorer(tokenizer: Any, device: torch.device | str = "cpu", vocab_size: int | None = None) -> Any:
    """The packaged scorer for a tokenizer: a `ScorerModel` in eval mode that needs no training.

    It is a scorer ``reuse``. It takes some seconds to make; the same tokenizer then gives the same scorer again.

    Args:
        tokenizer: a tokenizer of `transformers` (fast or slow), a `tokenizers.Tokenizer`, or a front-end of text.
        device: where the scorer is put.
        vocab_size: number of ids of the model, if it has more than the tokenizer. The others have no characters.

    Returns:
        The scorer, on ``device`` and in eval mode.

    Raises:
        ValueError: if ``vocab_size`` is less than the tokenizer needs, or the file of the scorer is damaged.
    """
    try:
        made = _made.setdefault(tokenizer, {})
    except TypeError:  # a `tokenizers.Tokenizer` allows no weak references
        made = {}
    # A tokenizer may get more tokens.
    key = str(device), vocab_size, len(tokenizer) if hasattr(tokenizer, "__len__") else None
    if key not in made:
        made[key] = make_scorer(FOLDER, tokenizer, vocab_size).to(device)
    return made[key]


def make_scorer(folder: Path, tokenizer: Any, vocab_size: int | None = None) -> Any:
    """The scorer for a tokenizer from the weights and frequencies in ``folder``; see `load_default_scorer`."""
    fields = read_config(folder / "scorer", "scorers")["fields"]
    spec = build("scorers", fields["scorer"])
    frequencies = read_frequencies(folder, fields["frequencies_sha256"])
    with torch.random.fork_rng(devices=[]):  # the weights that are replaced are drawn; a user's seed is not ours
        trained = load_model(folder / "scorer", lambda given: spec.build(given["vocab_size"]))
        return spec.convert(trained, tokenizer, frequencies, vocab_size)


def read_frequencies(folder: Path, sha256: str) -> dict[str, int]:
    """Pieces of text and how often each occurs. Raises `ValueError` if the file is missing or damaged."""
    path = folder / FREQUENCIES
    if not path.is_file():
        raise missing_file("file", path)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{path} is damaged: its SHA-256 is not the one in the scorer's config; copy it again")
    return dict(zip(*json.loads(gzip.decompress(data)), strict=True))
