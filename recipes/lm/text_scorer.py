"""Load a scorer of text and its front-end, from a run folder or from the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...artifacts import read_config
from ...folders import loading
from ...memory.scorer import load_scorer, signals_of
from ...registry import ROOT
from ...tokenizers_.base import Tokenizer, input_kind, load_tokenizer

CHUNK = 1024
"""Tokens scored at once. With more, logits are so large that malloc has their memory cleared anew each time."""
PACKAGED = ROOT / "models" / "pretrained" / "english"
"""The scorer in the package; its ``README.md`` documents the training data and command."""


class Scoring(NamedTuple):
    """A front-end and the scorer that was trained on its tokens."""

    tokenizer: Tokenizer
    scorer: Any
    device: torch.device | str


def load_scoring(folder: Path | None = None, device: torch.device | str = "cpu") -> Scoring:
    """Load the front-end and scorer of a run of ``vqmem text_lm``, or of the packaged model.

    Raises `ValueError` in one line if a part is missing, damaged or of another architecture, or if the two belong to
    different runs.
    """
    folder = PACKAGED if folder is None else folder
    with loading(folder, "scorer", "text_lm"):
        tokenizer = load_tokenizer(folder / "front_end")
        fields = read_config(folder / "scorer", "scorers")["fields"]
    if fields.get("vocab_size") != tokenizer.vocab_size:
        raise ValueError(
            f"{folder}: the front-end has {tokenizer.vocab_size} ids and the scorer {fields.get('vocab_size')}; "
            "they belong to different runs; copy both from one run"
        )
    return Scoring(tokenizer, load_scorer(folder, device), device)


@torch.no_grad()
def score_ids(ids: Int[Tensor, " time"], scoring: Scoring) -> Float[Tensor, "time signal"]:
    """The signals of a document's tokens, on the CPU. They are scored `CHUNK` at a time, with the state passed on."""
    scorer = scoring.scorer
    state, parts = scorer.initial_state(1), [torch.zeros(0, len(signals_of(scorer)))]
    for part in ids.split(CHUNK):
        signals, state = scorer.score(part[None].to(scoring.device), state)
        parts.append(signals[0].cpu())
    return torch.cat(parts)


def require_text(tokenizer: Tokenizer) -> None:
    """Raise `ValueError` if the front-end of a run does not read text."""
    if input_kind(tokenizer) != "text":
        raise ValueError(f"this run reads {input_kind(tokenizer)}, not text; give one that was trained on text")
