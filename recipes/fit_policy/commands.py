"""The command `vqmem fit_policy`."""

from __future__ import annotations

import argparse

from ...cli_base import Command, file_name
from ...console import visible


def _arguments(parser: argparse.ArgumentParser) -> None:
    given = "a model of transformers (a folder, a hub name or a GGUF file), or the folder of a run of `vqmem text_lm`"
    parser.add_argument("model", type=file_name, metavar="MODEL", help=given)
    parser.add_argument("overrides", metavar="key=value", nargs="*", default=[], help="keys below, such as passages=24")


def _run(args: argparse.Namespace) -> None:
    from ...registry import check_variants
    from ..engine.config import load
    from .run import Config, format_summary, run

    config = load(Config, None, args.overrides)
    check_variants(config)
    print(visible(format_summary(args.model, config, run(args.model, config))))


def _keys() -> str:
    from ..engine.config_help import explain, json_schema
    from .run import Config

    return f"\n\nkeys, with their defaults and types:\n{explain(json_schema(Config))}"


COMMANDS = {
    "fit_policy": Command(
        "fit what a memory keeps to a trained model, from the attention that it pays; minutes, no training",
        _arguments,
        _run,
        """\
examples:
  vqmem fit_policy HuggingFaceTB/SmolLM2-135M data='{name: text_files, path: my_texts}' out=runs/policy
  vqmem fit_policy ./my_model                                # built-in text, for a first look
  vqmem fit_policy runs/novels_lm out=runs/novels_lm/policy  # a memory transformer, on the data of its run
MODEL is one of two kinds. For a model of transformers VQMemCache(model, tokenizer, capacity=256, policy="runs/policy")
keeps what the policy ranks highest, beside a share of the score. For the memory transformer of a run of `vqmem text_lm`
or `vqmem compare` (a folder seed-N), on text or on units of speech, a strategy does:
  vqmem text_lm runs/novels_lm/config.yaml out=runs/novels_lm \\
    eval_strategies.mine='{policy: {name: weighted, learned: 1.0, folder: "{run}/policy", score: 0.2}}'
The score weighs surprise; the line that the command prints weighs what the scorer of your run gives. `vqmem compare`
takes the same in its strategies, where {run} is the folder of each seed's model, and fits by itself what is not there.
Give text like what the model will read: each document gives as many passages as any other.

The model reads passages of which nothing is evicted. A linear regression learns, from keys and their squares, the
logarithm of the greatest attention weight that later queries pay to each: for each head of keys, for each layer and for
the model, or for all layers of a memory transformer, which share their slots. Further passages are read with bounded
slots, and a second regression weighs that prediction beside signals of the slots that compete. Memory does not grow
with the text. Signals `expected`, `observed` and `usage` add to the cost of reading. Where a memory transformer mostly
reads its newest tokens, the mean attention of the next segment is the better guide, and where it reads nothing else the
age is. What loses least on the bounded passages is taken (ahead=auto). Attention and losses weigh tokens as the run's
training does (off_target_weight).

On a CPU, MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592 saves up to half
of the time, and can take several times the memory.""",
        _keys,
    )
}
