"""How many tokens a second the VQ-LM scores, against SmolLM2-135M's surprisal of the same text.

    python benchmarks/speed/scorer.py [--quick] [--json] [--save] [--threads N]

Both read the same passage, each with its tokenizer, and take turns in one run; a figure is the ratio of their best
times, a token of each or for the same text. The VQ-LM has the sizes of recipes/text_lm/configs/novels.yaml and random
weights, which cost the same as trained ones, and gives all three signals. Needs the packages that `smollm2.py` names.
"""

from __future__ import annotations

from pydoc_data.topics import topics
from typing import Any

import torch
from vqmem.benchmarks._results import figure, present
from vqmem.benchmarks.kv.smollm2 import load_smollm2
from vqmem.benchmarks.speed._training import parse, take_turns
from vqmem.registry import build

GOAL = 30.0
CHARACTERS = 8000
"""Of the passage: some 2,000 tokens of either model."""
SCORER = {"name": "vq_lm", "dim": 128, "hidden": 256, "codes": 64}


def main() -> None:
    """Measure, print, save."""
    flags, clock = parse(__doc__)
    rounds = 2 if flags.quick else 6
    text = "\n".join(topics.values())
    tokenizer = build("front-ends", {"name": "bpe", "vocab_size": 4096}).fit([text])
    passage = text[: CHARACTERS // 4 if flags.quick else CHARACTERS]
    ours = tokenizer.encode(passage).ids[None]
    scorer = build("scorers", SCORER).build(tokenizer.vocab_size)
    figures = {}
    for dtype in (torch.float32, torch.bfloat16):
        peer = load_smollm2(dtype)
        theirs, _ = peer.encode(passage)
        sides = {
            "ours": lambda: scorer.score(ours, scorer.initial_state(1)),
            "peer": lambda peer=peer, theirs=theirs: peer.surprisal(theirs),
        }
        # The first round warms up.
        seconds = {name: min(times[1:]) for name, times in take_turns(sides, rounds, clock).items()}
        speeds = {"ours": ours.numel() / seconds["ours"], "peer": len(theirs) / seconds["peer"]}
        more: dict[str, Any] = {f"{name} tokens/s": round(speed) for name, speed in speeds.items()}
        name = f"SmolLM2 in {str(dtype).removeprefix('torch.')}"
        figures[f"tokens a second, {name}"] = figure(round(speeds["ours"] / speeds["peer"], 1), "x", GOAL, **more)
        figures[f"the same text, {name}"] = figure(round(seconds["peer"] / seconds["ours"], 1), "x", GOAL)
    present(
        "scorer_speed",
        figures,
        flags,
        title="Scoring speed against SmolLM2-135M",
        question=(
            "Is scoring a stream with the VQ-LM at least 30 times as fast as taking SmolLM2-135M's surprisal of it?"
        ),
        measured=(
            f"{CHARACTERS} characters of Python's documentation as one stream, {flags.threads} thread(s); best of "
            f"{rounds - 1} turns a side. Each side counts its tokens."
        ),
        notes=[
            "SmolLM2's 4-bit weights are read to the type named; an engine that computes in 4 bits would be faster."
        ],
    )


if __name__ == "__main__":
    main()
