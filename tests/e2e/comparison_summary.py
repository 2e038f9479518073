"""The summary of a comparison with every part that a report can show, at random."""

import numpy as np
from vqmem.recipes.compare.statistics import paired_bootstrap

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "<!--",
    "{{data}}",
    "\u2028",
    "\x1b[31m",
]
PROSE = (
    "Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in my purse, and "
    "nothing particular to interest me on shore, I thought I would sail about a little and see the watery part of the "
    "world.\n"
    "It is a way I have of driving off the spleen and regulating the circulation. 🐋 "
)
STRATEGIES = {
    "fifo": 0.0,
    "random": 0.02,
    "scored surprise": 0.001,
    "scored gain": -0.02,
    "compressive <b>mean</b>": -0.004,
}
SEGMENT, BUDGET = 16, 24


def kept_sets(scores, rng):
    """The tokens of a passage that three simple memories keep after each segment."""
    current = {name: [] for name in ("fifo", "random", "scored gain")}
    kept = {name: [] for name in current}
    for start in range(0, len(scores), SEGMENT):
        for name, memory in current.items():
            seen = memory + list(range(start, min(start + SEGMENT, len(scores))))
            order = {
                "fifo": seen,
                "random": list(rng.permutation(seen)),
                "scored gain": sorted(seen, key=scores.__getitem__),
            }
            current[name] = sorted(int(token) for token in order[name][-BUDGET:])
            kept[name].append(current[name])
    return {name: {"capacity": BUDGET, "segment": SEGMENT, "kept": sets} for name, sets in kept.items()}


def passage(rng):
    tokens = [piece for word in (PROSE * 3).split(" ") for piece in (word, " ")] + HOSTILE
    rarity = rng.gamma(4, 1.2, len(tokens))
    surprise = rarity * rng.uniform(0.2, 1.1, len(tokens))
    signals = {"surprise": surprise.tolist(), "rarity": rarity.tolist(), "gain": (rarity - surprise).tolist()}
    return {"name": "Moby-Dick", "tokens": tokens, "signals": signals, "memories": kept_sets(signals["gain"], rng)}


def rows(rng, seeds, documents):
    """Rows as a comparison gives them: simulated documents, real statistics."""
    sizes = rng.integers(5_000, 20_000, documents).astype(float)
    level = rng.normal(2.3, 0.25, documents)
    made = []
    for train, capacities in (("mixed", (64, 128, 256)), ("native", (128,))):
        for capacity in capacities:
            shared = level - 0.05 * np.log2(capacity / 64) + rng.normal(0, 0.005, (len(seeds), documents))
            bits = {
                name: (shared + effect + rng.normal(0, 0.012, (len(seeds), documents))) * sizes
                for name, effect in STRATEGIES.items()
            }
            for name in STRATEGIES:
                metrics = {
                    metric: paired_bootstrap(
                        bits[name] * scale, None if name == "fifo" else bits["fifo"] * scale, sizes, resamples=500
                    ).to_json()
                    for metric, scale in (("bpb", 1.0), ("long_gap_nll", 3.1))
                }
                made.append(
                    {
                        "strategy": name,
                        "capacity": capacity,
                        "train": train,
                        "memory_bytes": capacity * 2304 + (4096 if name.startswith("comp") else 0),
                        "metrics": metrics,
                        "per_seed": {"bpb": (bits[name].sum(1) / sizes.sum()).tolist()},
                        "tokens_per_second": 41_234.5,
                    }
                )
    return made


def summary(seeds=(0, 1, 2), documents=24):
    rng = np.random.default_rng(0)
    return {
        "title": "Memories compared on <novels> & letters",
        "created": "2025-01-01T12:00:00",
        "command": "vqmem compare demo.yaml note='</script>'",
        "machine": "2 cores, CPU",
        "seconds": 4321.0,
        "config": {"model": {"dim": 256}, "note": "</script><script>alert(2)</script>"},
        "corpus": "Project Gutenberg novels",
        "seeds": list(seeds),
        "baseline": "fifo",
        "split": "test",
        "documents": documents,
        "tokens": 610_000,
        "bytes": 2_300_000,
        "rows": rows(rng, seeds, documents),
        "metrics": {
            "bpb": {"label": "bits per byte", "better": "lower"},
            "long_gap_nll": {"label": "long-gap NLL", "unit": "nats", "better": "lower"},
        },
        "scorer": {
            "rate": 5.21,
            "residual": 3.87,
            "codes": 256,
            "codes_used": 231,
            "dead_codes": 25,
            "nll": float("nan"),
        },
        "passage": passage(rng),
    }
