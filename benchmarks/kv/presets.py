"""What the cache keeps of streams by default, beside what it can without a fit, and the presses of kvpress.

    python benchmarks/kv/presets.py [--quick] [--json] [--save] [--split dev|test] [--data FOLDER] [--run FOLDER]
        [--passages N] [--capacities N ...] [--domains NAME ...] [--presses NAME ...]

Reads passages of 2,048 tokens of several kinds of text with SmolLM2-135M, 64 tokens at a time. `auto` is the packaged
policy that `vqmem fit_policy` fitted for this model. Losses are kept in the run's folder, so that a stopped run goes
on. The presses need kvpress, which needs `transformers` below 5.3; the model needs what `smollm2.py` names.
"""

from __future__ import annotations

import csv
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from vqmem.benchmarks._results import figure, options, present
from vqmem.benchmarks.kv._bench import NEWEST, RARE, SINKS
from vqmem.benchmarks.kv.smollm2 import load_smollm2, reading_options
from vqmem.default_scorer import load_default_scorer
from vqmem.memory.huggingface.packaged import PACKAGED as FITTED
from vqmem.memory.huggingface.presets import fitted_preset
from vqmem.recipes.compare.statistics import paired_bootstrap
from vqmem.recipes.engine.config import DTYPES
from vqmem.recipes.kv_cache.caches import Caches
from vqmem.recipes.kv_cache.figures import RESAMPLES, Sums, sum_losses, table
from vqmem.recipes.kv_cache.presses import PREFIX, STREAMING, notes
from vqmem.recipes.kv_cache.settings import FULL, PACKAGED, Setting
from vqmem.recipes.kv_cache.streams import Streams, sample
from vqmem.recipes.lm.corpus import Passage

LENGTH, BATCH_SIZE = 2048, 4
EXPECTED, STREAM, AUTO, ALONE = "expected attention", "stream", "auto", "auto, without a score"
RARITY, BY_LAYER, BY_MODEL = "auto, rarity in place of reuse", "auto, a set a layer", "auto, one set for the model"
COUNTS = "unigram"
FIT = fitted_preset(FITTED)
EVERYWHERE = [
    Setting(FULL),
    Setting(NEWEST, {"name": NEWEST}),
    Setting(EXPECTED, {"name": "weighted", "score": 0.0, "expected": 1.0}, options={"share": "head"}),
    Setting(ALONE, AUTO),
    Setting(AUTO, AUTO, PACKAGED),
]
"""Settings at every capacity. The one of expected attention guards the newest half."""
SETTINGS = [
    *EVERYWHERE,
    Setting(BY_LAYER, AUTO, PACKAGED, options={"share": "layer"}),
    Setting(BY_MODEL, AUTO, PACKAGED, options={"share": "model"}),
    Setting(
        RARITY,
        {**FIT.policy, "surprise": 0.0, "rarity": 1.0},
        COUNTS,
        options={"share": FIT.share, "recent": FIT.recent, "block": FIT.block},
    ),
    Setting(STREAM, STREAM, PACKAGED),
]
"""Those at the first capacity."""
LEADING = ["ExpectedAttention", "KeyDiff", "ObservedAttention", "SnapKV", "Cap", "TOVA"]
"""The presses that did best in novels at 128 slots; unless others are named, they are read at the other capacities."""
FOLDERS = {
    "dev": {"novels": "dev", "encyclopedia": "encyclopedia/dev", "general": "general/dev", "dialogue": "dialogue/dev"},
    "test": {
        "novels": "fresh",
        "encyclopedia (dev)": "encyclopedia/dev",
        "general": "general/test",
        "dialogue": "dialogue/test",
    },
}
"""The folders of each domain in the folder ``text`` of the data; code is Python's standard library."""
GERMAN = "kerstin_de"
"""The recordings whose transcripts show how a policy that was fitted on English serves another language."""
CODE = {"dev": "*.py", "test": "*/*.py"}
"""Code to choose on, a third of it, and code that nothing was fitted or chosen on."""
GOALS = {
    "novels": {AUTO: (85.0, -0.065), BY_LAYER: (80.0, None), BY_MODEL: (65.0, -0.04), STREAM: (65.0, None)},
    "encyclopedia": {AUTO: (70.0, -0.165), BY_LAYER: (60.0, None), STREAM: (43.0, None)},
    "general": {AUTO: (72.0, -0.10), BY_LAYER: (65.0, None), STREAM: (48.0, None)},
    "code": {AUTO: (60.0, -0.06), BY_LAYER: (55.0, None), STREAM: (43.0, None)},
}
"""At the first capacity: least share of the gap to close, in %, and most loss beside the newest tokens, in nats."""


def main() -> None:
    """Measure, print, save."""
    parser = options(__doc__)
    reading_options(parser, "runs/presets_benchmark", FOLDERS)
    parser.add_argument("--passages", type=int, default=8, help="passages of each domain (default 8)")
    parser.add_argument(
        "--capacities", type=int, nargs="+", default=[128, 256, 512], help="slots (default 128 256 512)"
    )
    parser.add_argument("--presses", nargs="*", help="such as KeyDiff (default all, then the best)")
    parser.add_argument("--domains", nargs="+", help="kinds of text, such as novels or code (default all)")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    lm = load_smollm2(DTYPES[flags.dtype])
    scorer = load_default_scorer(lm.tokenizer, vocab_size=lm.model.config.vocab_size)
    streams = Streams(Caches(lm.host, {PACKAGED: scorer, COUNTS: scorer.unigram}, SINKS), flags.run, BATCH_SIZE)
    rarity = scorer.unigram.rarity().double().numpy()
    figures: dict[str, Any] = {}
    tables: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    count, capacities = (2, flags.capacities[:1]) if flags.quick else (flags.passages, flags.capacities)
    for domain, items in domains(flags.data, flags.split, lm.tokenizer).items():
        if flags.domains and domain.split()[0] not in flags.domains:
            continue
        chosen = sample([*items], LENGTH, count)
        for capacity in capacities:
            first = capacity == capacities[0]
            named = LEADING if flags.presses is None and not first else flags.presses
            settings = [*(SETTINGS if first else EVERYWHERE), *presses(named)]
            found = streams.read(settings, [capacity], chosen)[capacity]
            read = sum_losses(found, chosen, rarity, rare=RARE, capacity=capacity, baseline=NEWEST)
            place = f"{domain}, {capacity} slots"
            tables[place], intervals[place] = table(read)
            figures |= paired(read, place)
            if capacity == capacities[0]:
                figures |= against_goals(tables[place], intervals[place], domain)
    present(
        "presets",
        figures,
        flags,
        title="What the cache keeps of streams by default",
        question="Does a fitted policy with a score keep more than attention alone, in every kind of text?",
        measured=(
            f"SmolLM2-135M-Instruct (4-bit weights, computed in {flags.dtype}) reads {count} passages a domain, each "
            f"of {LENGTH} tokens, 64 at a time, through {', '.join(map(str, capacities))} slots with {SINKS} sinks; "
            f"each head of keys keeps its tokens, unless said. `{EXPECTED}` and presses guard the newest half, presets "
            "the newest 32. NLL in nats over the tokens after the first ones that fit; long-gap tokens have a unigram "
            f"surprisal above {RARE:g} nats and were last seen further back than there are slots."
        ),
        notes=notes(),
        effect=(f"novels, {capacities[0]} slots", AUTO, "gap closed, %"),
        split=flags.split,
        seeds=[0],
        tables=tables,
        intervals=intervals,
        interval_kind="95 %, paired bootstrap over passages",
    )


def presses(chosen: list[str] | None) -> list[Setting]:
    """The ``chosen`` presses that work in streams, or all, where kvpress is installed."""
    names = [name for name in STREAMING if chosen is None or name.removeprefix(PREFIX) in chosen]
    return [Setting(name, press=name) for name in names]


def paired(read: Sums, place: str) -> dict[str, Any]:
    """The losses of the default less those of others, in nats, with intervals; below 0 is better.

    Args:
        read: the losses of all settings at one capacity.
        place: the domain and the capacity.

    Returns:
        Figures: beside other policies, and, with and without a fit, beside the presses of the least loss.
    """
    found = {}
    measures = {"long-gap loss": (read.far, read.far_tokens), "loss": (read.nats, read.tokens)}
    for measure, (sums, tokens) in measures.items():
        pressed = [name for name in sums if name.startswith(PREFIX)]
        pairs = [(AUTO, name, name) for name in (ALONE, RARITY, EXPECTED) if name in sums]
        if pressed:
            best = min(pressed, key=lambda name: sums[name].sum())
            pairs += [(ours, "the best press", best) for ours in (AUTO, STREAM) if ours in sums]
        for ours, label, rival in pairs:
            one = paired_bootstrap(sums[ours][None], sums[rival][None], tokens, resamples=RESAMPLES)
            more: dict[str, Any] = {"row": rival} if label != rival else {}
            if one.difference_low is not None:
                more |= {"low": one.difference_low, "high": one.difference_high}
            goal = 0.0 if label == "the best press" or (measure == "long-gap loss" and label != EXPECTED) else None
            found[f"{place}: {measure}, {ours} - {label}"] = figure(
                round(one.difference, 4), "nats", goal, least=False, **more
            )
    return found


def against_goals(rows: dict[str, Any], ends: dict[str, Any], domain: str) -> dict[str, Any]:
    """The figures of a domain with their goals.

    Args:
        rows: by setting the figures.
        ends: by setting the ends of their intervals.
        domain: the kind of text.

    Returns:
        Figures, none where no goal is set.
    """
    found = {}
    for name, goals in GOALS.get(domain.split()[0], {}).items():
        kinds = (("gap closed, %", "%", True), (f"NLL - {NEWEST}", "nats", False))
        for (key, unit, least), goal in zip(kinds, goals, strict=True):
            if goal is not None:
                low, high = ends[name].get(key, (None, None))
                found[f"{domain}, {name}: {key}"] = figure(rows[name][key], unit, goal, least=least, low=low, high=high)
    return found


def domains(data: Path, split: str, tokenizer: Any) -> dict[str, Iterator[Passage]]:
    """The passages of each domain; German is for dev."""
    texts = data / "text"
    found = {name: passages(sorted((texts / folder).iterdir()), tokenizer) for name, folder in FOLDERS[split].items()}
    if split == "dev":
        found["german"] = cut("transcripts", transcripts(data / "speech" / "manifest.tsv"), tokenizer)
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob(CODE[split]))
    unseen = [path for path in files if "site-packages" not in path.parts and "test" not in path.parts]
    return found | {"code": passages(unseen[::3] if split == "dev" else unseen, tokenizer)}


def passages(paths: list[Path], tokenizer: Any) -> Iterator[Passage]:
    """All passages of full length of texts."""
    for path in paths:
        yield from cut(path.name, path.read_text(encoding="utf-8", errors="ignore"), tokenizer)


def cut(name: str, text: str, tokenizer: Any) -> Iterator[Passage]:
    """All passages of full length of a text."""
    ids = torch.tensor(tokenizer(text)["input_ids"])
    for start in range(0, len(ids) - LENGTH + 1, LENGTH):
        part = ids[start : start + LENGTH]
        yield Passage(f"{name}:{start}", part, torch.ones_like(part), torch.ones_like(part, dtype=torch.bool))


def transcripts(manifest: Path) -> str:
    """The sentences of the German recordings, one a line."""
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return "\n".join(row["text"] for row in rows if row["path"].startswith(GERMAN))


if __name__ == "__main__":
    main()
