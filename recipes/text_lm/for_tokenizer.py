"""Scorers for the tokenizers of pretrained models, for `vqmem train-scorer` and `vqmem score --tokenizer`."""

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
    """Build the config for training a scorer on a tokenizer.

    Args:
        tokenizer: name or folder, as `AutoTokenizer` takes it.
        data: text file or folder; default: the data of the config.
        out: folder of the run; default: that of the config.
        overrides: ``key=value`` changes.
        name: a config. Default: ``scorer``, or ``scorer_quick`` (built-in text) if neither ``data`` nor an override
            gives the data.

    Returns:
        The config, with the tokenizer as its front-end.
    """
    reads = data is not None or any(override.startswith(("data=", "data.")) for override in overrides)
    config = load(Config, name or ("scorer" if reads else "scorer_quick"), overrides, folder=CONFIGS)
    config = replace(config, front_end={"name": "pretrained", "path": tokenizer})
    if data is not None:
        given = config.data if isinstance(config.data, dict) else {"name": config.data}
        config = replace(config, data=given | {"path": str(data)})
    return config if out is None else replace(config, out=str(out))


def load_scoring_for(tokenizer: str, model: Path | None, device: torch.device | str = "cpu") -> Scoring:
    """Load the front-end and scorer for a tokenizer: from the run ``model``, or from one that is trained on first use.

    Raises `ValueError` if the tokenizer does not exist, or if ``model`` was trained on another tokenizer, whose tokens
    would differ. Tokenizers are compared by what they do, not by name.
    """
    wanted = FrontEnd(tokenizer).fit([])
    folder = _first_use(tokenizer, wanted) if model is None else model
    scoring = load_scoring(folder, device)
    trained_on = scoring.tokenizer
    if not isinstance(trained_on, PretrainedTokenizer) or trained_on.sha256() != wanted.sha256():
        about = json.loads((folder / "front_end" / FRONT_END).read_text(encoding="utf-8"))
        whose = about["fields"].get("path") or about["name"]
        raise ValueError(
            f"{folder} was trained on the tokens of {whose!r}, not on those of {tokenizer!r}; leave out --tokenizer, "
            f"or run `vqmem train-scorer --tokenizer {tokenizer}`"
        )
    return scoring


def _first_use(tokenizer: str, wanted: PretrainedTokenizer) -> Path:
    """The folder of the quick scorer for a tokenizer in the user's cache; the scorer is trained if it does not exist.

    It is trained in a temporary folder, which is then renamed, so that the cache never contains an unfinished scorer.
    The next call continues an interrupted training.
    """
    config = configure(tokenizer)
    made_with = as_dict(replace(config, out="", front_end=wanted.sha256()))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vqmem" / "scorers"
    key = digest({"version": __version__, **made_with})
    folder, unfinished = cache / key, cache / f".{key}"
    if not folder.is_dir():
        name = one_line(tokenizer)
        print(
            f"no --model given: training a small scorer for {name} on built-in text, once (about a minute; kept "
            f"in {one_line(str(folder))}). For scores to rely on: vqmem train-scorer --tokenizer {name} --data TEXTS",
            file=sys.stderr,
        )
        with locked(unfinished):
            if not folder.is_dir():
                run(replace(config, out=str(unfinished / "run")))
                shutil.rmtree(unfinished / "run" / "scorer" / "training", ignore_errors=True)
                (unfinished / "run").rename(folder)
    return folder
