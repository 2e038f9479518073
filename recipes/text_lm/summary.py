"""The summary that `vqmem text_lm` prints at its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...memory.scorer import SIGNALS, policy_of
from ...registry import build
from ...tokenizers_.base import input_kind, output_kind
from .recipe import Config


def format_summary(config: Config, figures: dict[str, Any]) -> str:
    """Format the figures of ``evaluation.json`` in a few lines, with the next commands to try."""
    lines = [f"on the {figures['split']} split:"]
    if scorer := figures["scorer"]:
        nats = [name for name in SIGNALS if name in scorer]
        more = [name for name in scorer if name not in (*SIGNALS, "rate", "residual")]
        if nats:
            lines.append("  scorer, nats per token: " + ", ".join(f"{name} {scorer[name]:.3f}" for name in nats))
        lines.append("  scorer: " + ", ".join(f"{name.replace('_', ' ')} {scorer[name]:.4g}" for name in more))
    memories, front_end = figures["memories"], build("front-ends", config.front_end)
    width = max(map(len, memories), default=0)
    for name, memory in memories.items():
        ((bits, value),) = ((key, value) for key, value in memory.items() if key.startswith("bits_per_"))
        lines.append(
            f"  {name:{width}}  {value:.4f} bits a {bits.removeprefix('bits_per_')}, "
            f"perplexity {memory['perplexity']:.2f} a token, {memory['memory_bytes']:,} bytes of memory a row"
        )
    out = Path(config.out)
    lines.append(f"saved in {out}/")
    if input_kind(front_end) != "units":
        lines += ["now try", f"  vqmem score FILE --model {out}"]
    if output_kind(front_end) == "audio" and memories:
        lines.append(f"  vqmem generate {out} --prompt FILE -o out.wav")
    if input_kind(front_end) != "text":
        return "\n".join(lines)
    if not memories and isinstance(config.front_end, dict) and config.front_end["name"] == "pretrained":
        policy = json.dumps(policy_of(build("scorers", config.scorer)))
        lines += [
            "and in Python, for a model with this tokenizer,",
            "  from vqmem import VQMemCache, load_scorer",
            f'  cache = VQMemCache(model, capacity=512, policy={policy}, scorer=load_scorer("{out}"))',
        ]
    if memories:
        lines.append(f'  vqmem generate {out} --prompt "Once upon a time"')
    return "\n".join(lines)
