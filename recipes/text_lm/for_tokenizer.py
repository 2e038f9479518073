"""Scorers for the tokenizers of pretrained models: what `vqmem train-scorer` and `vqmem score --tokenizer` do."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..._version import __version__
from ...artifacts import FRONT_END
from ...console import one_line
from ...tokenizers_.pretrained import FrontEnd, PretrainedTokenizer
from ..engine.config import as_dict, digest, load
from ..engine.lock import locked
from ..lm.text_scorer import Scoring, load_scoring
from .recipe import Config, run

CONFIGS = Path(__file__).parent / "configs"


def configure(
    tokenizer: str,
    data: Path | None = None,
    out: Path | None = None,
    overrides: Sequence[str] = (),
    name: str | None = None,
) -> Config:
    """The config ``name`` for a tokenizer and the text files at ``data``.

    By default it is the shipped ``scorer``, or, where neither ``data`` nor an override says what to read,
    ``scorer_quick``, which reads built-in text.
    """
    reads = data is not None or any(override.startswith(("data=", "data.")) for override in overrides)
    config = load(Config, name or ("scorer" if reads else "scorer_quick"), overrides, folder=CONFIGS)
    config = replace(config, front_end={"name": "pretrained", "path": tokenizer})
    if data is not None:
        given = config.data if isinstance(config.data, dict) else {"name": config.data}
        config = replace(config, data=given | {"path": str(data)})
    return config if out is None else replace(config, out=str(out))


def load_scoring_for(tokenizer: str, model: Path | None, device: torch.device | str = "cpu") -> Scoring:
    """The front-end and scorer for a tokenizer: those of the run ``model``, or of one that is trained on first use.

    Raises `ValueError` where there is no such tokenizer, or ``model`` is of another one: its scores would be of other
    tokens than those asked for. What counts is what the tokenizer does, not what it is called.
    """
    wanted = FrontEnd(tokenizer).fit([])
    folder = _first_use(tokenizer, wanted) if model is None else model
    scoring = load_scoring(folder, device)
    own = scoring.tokenizer
    if not isinstance(own, PretrainedTokenizer) or own.sha256() != wanted.sha256():
        about = json.loads((folder / "front_end" / FRONT_END).read_text(encoding="utf-8"))
        whose = about["fields"].get("path") or about["name"]
        raise ValueError(
            f"{folder} was trained on the tokens of {whose!r}, not on those of {tokenizer!r}; leave out --tokenizer, "
            f"or run `vqmem train-scorer --tokenizer {tokenizer}`"
        )
    return scoring


def _first_use(tokenizer: str, wanted: PretrainedTokenizer) -> Path:
    """The folder of the quick scorer for a tokenizer in the user's cache, trained if it is not there yet.

    It is trained beside its place and renamed into it: it is whole or it is not there. An interrupted training goes on.
    """
    config = configure(tokenizer)
    made_with = as_dict(replace(config, out="", front_end=wanted.sha256()))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vqmem" / "scorers"
    key = digest({"version": __version__, **made_with})
    folder, beside = cache / key, cache / f".{key}"
    if not folder.is_dir():
        name = one_line(tokenizer)
        print(
            f"no --model given: training a small scorer for {name} on built-in text, once (about a minute; kept "
            f"in {one_line(str(folder))}). For scores to rely on: vqmem train-scorer --tokenizer {name} --data TEXTS",
            file=sys.stderr,
        )
        with locked(beside):
            if not folder.is_dir():
                run(replace(config, out=str(beside / "run")))
                shutil.rmtree(beside / "run" / "scorer" / "training", ignore_errors=True)
                (beside / "run").rename(folder)
    return folder
