"""What the presets of the cache keep in streams, beside the newest tokens and expected attention alone.

    python benchmarks/kv/presets.py [--quick] [--json] [--save] [--data FOLDER] [--run FOLDER] [--passages N]
        [--policy FOLDER]

Reads dev passages of 2,048 tokens of novels, general text and an encyclopedia with SmolLM2-135M through 128 slots, 64
tokens at a time. Nothing is trained; losses are kept in the run's folder, so that a stopped run goes on. ``--policy``
measures a policy that `vqmem fit_policy` fitted for this model too. It needs what `smollm2.py` names. On a CPU, set
MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from vqmem.benchmarks._results import figure, options, present
from vqmem.benchmarks.kv._bench import NEWEST, RARE, SINKS
from vqmem.benchmarks.kv.smollm2 import load_smollm2
from vqmem.default_scorer import load_default_scorer
from vqmem.memory.huggingface.groups import SHARES
from vqmem.recipes.kv_cache.caches import Caches
from vqmem.recipes.kv_cache.figures import sum_losses, table
from vqmem.recipes.kv_cache.settings import FULL, PACKAGED, Setting
from vqmem.recipes.kv_cache.streams import Streams, sample
from vqmem.recipes.lm.corpus import Passage

CAPACITY, LENGTH, BATCH_SIZE = 128, 2048, 4
EXPECTED, ATTENTION, STREAM = "expected attention", "stream, attention part alone", "stream"
HALF = {"share": "head", "recent": (CAPACITY - SINKS) // 2}
SETTINGS = [
    Setting(FULL),
    Setting(NEWEST, {"name": NEWEST}),
    Setting(EXPECTED, {"name": "weighted", "score": 0.0, "expected": 1.0}, options=HALF),
    Setting(ATTENTION, "stream"),
    Setting(STREAM, "stream", PACKAGED),
    Setting("stream, a set a layer", "stream", PACKAGED, options={"share": "layer"}),
]
DOMAINS = {"novels": "dev", "general": "general/dev", "encyclopedia": "encyclopedia/dev"}
"""The folders of each domain in the folder ``text`` of the data."""


def main() -> None:
    """Measure, print, save."""
    parser = options(__doc__)
    default = os.environ.get("VQMEM_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=default, help="folder that holds text/ (default $VQMEM_DATA)")
    parser.add_argument("--run", type=Path, default="runs/presets_benchmark", help="folder where losses are kept")
    parser.add_argument("--passages", type=int, default=8, help="passages of each domain (default 8)")
    parser.add_argument("--policy", metavar="FOLDER", help="a policy of `vqmem fit_policy` for this model")
    flags = parser.parse_args()
    settings = SETTINGS if flags.policy is None else [*SETTINGS, *fitted(flags.policy)]
    torch.set_num_threads(1)
    lm = load_smollm2(torch.bfloat16)
    scorer = load_default_scorer(lm.tokenizer, vocab_size=lm.model.config.vocab_size)
    streams = Streams(Caches(lm.host, {PACKAGED: scorer}, SINKS), flags.run, BATCH_SIZE)
    rarity = scorer.unigram.rarity().double().numpy()
    figures: dict[str, Any] = {}
    tables: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    count = 2 if flags.quick else flags.passages
    for domain, folder in DOMAINS.items():
        chosen = sample([*passages(flags.data / "text" / folder, lm.tokenizer)], LENGTH, count)
        found = streams.read(settings, [CAPACITY], chosen)[CAPACITY]
        read = sum_losses(found, chosen, rarity, rare=RARE, capacity=CAPACITY, baseline=NEWEST)
        tables[domain], intervals[domain] = table(read)
        more = 100 * (read.closed(STREAM)[0] - read.closed(EXPECTED)[0])
        figures[f"gap closed, {domain}: stream over expected attention"] = figure(round(more, 1), "points", 0.0)
        less = read.mean(EXPECTED) - read.mean(STREAM)
        figures[f"loss, {domain}: stream under expected attention"] = figure(round(less, 4), "nats", 0.0)
    present(
        "presets",
        figures,
        flags,
        title="The preset of the cache, without anything trained for the model",
        question="Does the preset keep more of what matters in streams than expected attention alone?",
        measured=(
            f"SmolLM2-135M-Instruct (4-bit weights, computed in bfloat16) reads {count} dev passages a domain, each of "
            f"{LENGTH} tokens, 64 at a time, through {CAPACITY} slots with {SINKS} sinks; each head of keys keeps its "
            f"tokens, unless said. `{EXPECTED}` guards the newest half, presets the newest 32. NLL in nats over the "
            f"tokens after the first {CAPACITY}; long-gap tokens have a unigram surprisal above {RARE:g} nats and were "
            "last seen further back than there are slots."
        ),
        effect=("novels", STREAM, "gap closed, %"),
        split="dev",
        seeds=[0],
        tables=tables,
        intervals=intervals,
    )


def fitted(policy: str) -> list[Setting]:
    """The settings of a fitted policy: alone, and beside the score for each share."""
    shares = [Setting(f"learned, a set a {share}", policy, PACKAGED, options={"share": share}) for share in SHARES]
    return [Setting("learned, without a score", policy), *shares]


def passages(folder: Path, tokenizer: Any) -> Iterator[Passage]:
    """All passages of full length of the texts in a folder."""
    for path in sorted(folder.iterdir()):
        ids = torch.tensor(tokenizer(path.read_text(encoding="utf-8"))["input_ids"])
        for start in range(0, len(ids) - LENGTH + 1, LENGTH):
            part = ids[start : start + LENGTH]
            yield Passage(f"{path.name}:{start}", part, torch.ones_like(part), torch.ones_like(part, dtype=torch.bool))


if __name__ == "__main__":
    main()
