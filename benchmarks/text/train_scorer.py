"""How long a scorer takes to train on 10 million tokens of a pretrained model's tokenizer.

    python benchmarks/text/train_scorer.py [--quick] [--json] [--save] [--threads N] [--data FOLDER]

The tokenizer is SmolLM2's, 49,152 ids; the config is the one that `vqmem train-scorer --data` runs; the text is books,
since how long a step takes depends on how rare its tokens are. A figure is the wall time of a run of a minute or more
of the training loop, scaled to 10 million tokens: reading, forward, backward, clipping, AdamW. Not counted, and
shown beside it: tokenizing, which grows with the text and not with the steps. ``full softmax`` is the same with a tied
softmax over all ids, run for a few steps. More threads than idle cores make it many times slower: be alone. Needs the
packages that `smollm2.py` names.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from vqmem.benchmarks._results import figure, options, present
from vqmem.benchmarks.kv.smollm2 import FILE, weights
from vqmem.recipes.text_lm.for_tokenizer import configure
from vqmem.recipes.text_lm.recipe import Config, fit_front_end, read_split, train_scorer

GOAL = 30.0
TOKENS = 10_000_000
SECONDS = 75.0
"""How long a run should take; the number of its steps is estimated from a short one."""


def main() -> None:
    """Measure, print, save."""
    parser = options(__doc__)
    default = os.environ.get("VQMEM_DATA", "../shared/data")
    parser.add_argument(
        "--data", default=default, help="folder that holds text/ (default $VQMEM_DATA or ../shared/data)"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    with TemporaryDirectory() as folder:
        figures = measure(Path(folder), Path(flags.data) / "text", flags.quick)
    present(
        "train_scorer",
        figures,
        flags,
        title="Training a scorer for a pretrained model's tokenizer",
        question=(
            "Does a scorer for SmolLM2's tokenizer train on 10 million tokens in less than 30 minutes on two cores?"
        ),
        measured=(
            f"The config `scorer` on the training books, {flags.threads} thread(s), float32: wall time of the training "
            f"loop in a run of {SECONDS:g} s or so, scaled to {TOKENS:,} tokens. `full softmax`: without `cutoffs`."
        ),
    )


def measure(folder: Path, texts: Path, quick: bool) -> dict[str, dict[str, Any]]:
    """Minutes for 10 million tokens, and what stands behind them."""
    config = replace(configure(save_tokenizer(folder / "tokenizer"), texts), device="cpu", out=str(folder / "run"))
    config = replace(config, train_tokens=300_000 if quick else None)
    tokenizer = fit_front_end(config)
    began = time.perf_counter()
    corpus = read_split(config, tokenizer, "train", limit=config.train_tokens)
    tokenizing = (time.perf_counter() - began) / sum(len(passage.ids) for passage in corpus)

    def seconds(name: str, config: Config, steps: int) -> float:
        """Of one step of a fresh run."""
        training = replace(config.scorer_train, steps=steps, save_every=0, log_every=steps, tensorboard=False)
        train_scorer(replace(config, scorer_train=training, out=str(folder / name)), tokenizer, corpus)
        timing = (folder / name / "scorer" / "training" / "timing.jsonl").read_text()
        return json.loads(timing)["seconds"] / steps

    size = config.batch_size * config.segment
    few = 3 if quick else 10
    steps = few if quick else round(SECONDS / seconds("estimate", config, few))
    step = seconds("run", config, steps)
    assert isinstance(config.scorer, dict)
    full = seconds("full", replace(config, scorer=config.scorer | {"cutoffs": []}), few)
    more = {
        "tokens/s": round(size / step),
        "steps": steps,
        "seconds measured": round(steps * step, 1),
        "full softmax tokens/s": round(size / full),
        "tokenizing, minutes": round(TOKENS * tokenizing / 60, 1),
        "vocabulary": tokenizer.vocab_size,
    }
    return {"10 million tokens": figure(round(TOKENS * step / size / 60, 1), "min", GOAL, least=False, **more)}


def save_tokenizer(folder: Path) -> str:
    """SmolLM2's tokenizer, out of the file with its weights, as `AutoTokenizer` reads it from a folder."""
    from transformers import AutoTokenizer

    path = weights()
    AutoTokenizer.from_pretrained(path.parent, gguf_file=FILE).save_pretrained(folder)
    return str(folder)


if __name__ == "__main__":
    main()
