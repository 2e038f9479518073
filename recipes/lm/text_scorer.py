"""A scorer of text with the front-end whose tokens it reads, from the folder of a run or from the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...artifacts import read_config
from ...folders import loading
from ...memory.scorer import load_scorer
from ...registry import ROOT
from ...tokenizers_.base import Tokenizer, input_kind, load_tokenizer

PACKAGED = ROOT / "models" / "pretrained" / "english"
"""The scorer that comes with the package; ``README.md`` in it says what it was trained on, and by which command."""


class Scoring(NamedTuple):
    """A front-end and the scorer that was trained on its tokens."""

    tokenizer: Tokenizer
    scorer: Any
    device: torch.device | str


def load_scoring(folder: Path | None = None, device: torch.device | str = "cpu") -> Scoring:
    """The front-end and scorer of a run of ``vqmem text_lm``, or of the packaged model.

    Raises `ValueError` in one line where a part is missing (naming the nearest), damaged, of another architecture, or
    where the two belong to different runs.
    """
    folder = PACKAGED if folder is None else folder
    with loading(folder, "scorer", "text_lm"):
        tokenizer = load_tokenizer(folder / "front_end")
        fields = read_config(folder / "scorer", "scorers")["fields"]
    if fields.get("vocab_size") != tokenizer.vocab_size:
        raise ValueError(
            f"{folder}: the front-end has {tokenizer.vocab_size} ids and the scorer {fields.get('vocab_size')}; "
            "they are of different runs, copy both from one"
        )
    return Scoring(tokenizer, load_scorer(folder, device), device)


def require_text(tokenizer: Tokenizer) -> None:
    """Raise `ValueError` where the front-end of a run reads something else than text."""
    if input_kind(tokenizer) != "text":
        raise ValueError(f"this run reads {input_kind(tokenizer)}, not text; give one that was trained on text")
