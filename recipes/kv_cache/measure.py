"""The run: load the model, measure what is missing in the run's folder, and write summary and report."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...default_scorer import load_default_scorer
from ...files import atomic_write
from ...memory.scorer import load_scorer
from ...models.device import resolve_device
from ...registry import build
from ..engine.config import as_dict, digest, dump, resolve_dtype
from ..engine.progress import Bar
from ..lm.corpus import Passage, passages
from ..reporting.provenance import provenance
from .caches import Caches
from .choice import choose
from .config import Config
from .cost import measure_costs
from .figures import sum_losses
from .host import Host, load_host
from .needles import Asked, Quizzes, ask_all, split_by_full
from .presses import KVZIP, MADE, PREFIX, PRESSES, STREAMING, WINDOW, WRAPPERS, notes, prompt_settings
from .report import write_report
from .settings import FULL, PACKAGED, Setting
from .streams import Streams, sample
from .table import METRICS, full_perplexities, quiz_rows, stream_rows
from .texts import read_texts


@dataclass(frozen=True)
class Bench:
    """The model, what is compared on it, and the text."""

    config: Config
    caches: Caches
    settings: list[Setting]
    presses: list[Setting]
    rarity: torch.Tensor
    """Unigram surprisal of each id, in nats."""
    items: list[Passage]
    prose: str

    @property
    def out(self) -> Path:
        """The folder of the run."""
        return Path(self.config.out)

    def cells(self) -> list[tuple[Setting, int | None]]:
        """Every policy at every capacity, the full cache first."""
        capacities = self.config.capacities
        return [(Setting(FULL), None), *((one, capacity) for capacity in capacities for one in self.settings)]


def measure(config: Config) -> dict[str, Any]:
    """Measure what is missing, and write ``summary.json`` and ``report.html``; returns the summary."""
    began = time.monotonic()
    bench = _prepare(config)
    rows = _measure_streams(bench)
    asked, failed = _ask(bench)
    costs = _measure_costs(bench)
    metrics = {name: about for name, about in METRICS.items() if any(name in row["metrics"] for row in rows)}
    summary: dict[str, Any] = {
        "title": config.title,
        **provenance(began),
        "config": as_dict(config),
        "model": bench.caches.host.name,
        "corpus": json.dumps(config.data) if isinstance(config.data, dict) else config.data,
        "split": None if config.split == "all" else config.split,
        "seeds": [],
        "baseline": config.baseline,
        "tolerance": config.tolerance,
        "documents": len(bench.items),
        "tokens": sum(len(item.ids) for item in bench.items),
        "bytes": None,
        "metrics": metrics,
        "rows": rows,
        "quizzes": _quiz_rows(bench, asked),
        "asked": len(asked),
        "left_out": failed,
        "costs": costs,
        "notes": [_full_perplexities(rows), *_notes(config)],
    }
    summary["choice"] = choose(summary)
    out = Path(config.out)
    atomic_write(out / "config.yaml", dump(config))
    atomic_write(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    with Bar("report", None, transient=True):
        write_report(summary, out / "report.html")
    return summary


def _prepare(config: Config) -> Bench:
    """Read the text, load the model, and check that every cache can be made, before anything is measured."""
    settings = config.settings()
    for name in config.presses:
        if name not in (known := [*MADE, *WRAPPERS, KVZIP.removeprefix(PREFIX)]):
            raise ValueError(f"presses: {name!r} is not one that can be measured; use some of {', '.join(known)}")
    if config.presses and PRESSES and config.streams.chunk <= WINDOW:
        raise ValueError(f"streams.chunk = {config.streams.chunk} must be above {WINDOW}, the window of some presses")
    for name in config.needles.tasks:
        build("tasks", name, "needles.tasks")
    texts = read_texts(config.data, config.split, config.characters)
    device = resolve_device(config.device)
    if config.presses and not PRESSES:
        print(notes()[0], file=sys.stderr)
    host = load_host(config.model, device, resolve_dtype(config.dtype, device))
    packaged = load_default_scorer(host.tokenizer, device, vocab_size=host.vocab_size)
    folders = {setting.scorer for setting in settings if setting.scorer not in (None, PACKAGED)}
    scorers = {PACKAGED: packaged} | {folder: load_scorer(Path(folder), device) for folder in folders if folder}
    caches = Caches(host, scorers, config.sinks)
    presses = [Setting(f"{PREFIX}{name}", press=f"{PREFIX}{name}") for name in config.presses] if PRESSES else []
    caches.check([*settings, *_streaming(presses)], min(config.capacities))
    with Bar("tokens of the text", None, transient=True):
        cut = passages(texts, host.tokenizer, config.streams.length)
    items = sample(cut, config.streams.length, config.streams.passages, config.seed)
    prose = " ".join(document.text for document in texts)
    return Bench(config, caches, settings, presses, packaged.unigram.rarity().cpu(), items, prose)


def _streaming(presses: Sequence[Setting]) -> list[Setting]:
    """The presses that work when slots are missing."""
    return [setting for setting in presses if setting.name in STREAMING]


def _measure_streams(bench: Bench) -> list[dict[str, Any]]:
    """Read the passages; returns the rows of the comparison."""
    config, settings = bench.config, [*bench.settings, *_streaming(bench.presses)]
    streams = Streams(bench.caches, bench.out / "streams", config.streams.batch_size, config.streams.chunk)
    read = streams.read(settings, config.capacities, bench.items)
    rows = []
    with Bar("intervals of the figures", None, transient=True):
        for capacity, found in read.items():
            rarity, rare = bench.rarity.double().numpy(), config.streams.rare
            sums = sum_losses(found, bench.items, rarity, rare=rare, capacity=capacity, baseline=config.baseline)
            rows += stream_rows(sums, found, capacity)
    return rows


def _ask(bench: Bench) -> tuple[list[Asked], dict[str, float]]:
    """Ask the full cache every quiz, and the others those of the tasks at which it does not fail.

    Returns:
        The quizzes of these tasks, and the full cache's score at the others.
    """
    needles = bench.config.needles
    if not needles.quizzes:
        return [], {}
    presses = prompt_settings(bench.config.presses) if PRESSES else []
    settings = [Setting(FULL), *bench.settings, *presses]
    label = f"seed {bench.config.seed}"
    quizzes = Quizzes(needles.tasks, needles.texts, needles.quizzes, needles.shares, label, needles.batch_size)
    folder = bench.out / "needles"
    full = ask_all(bench.caches, settings[:1], quizzes, bench.prose, folder)
    compared, failed = split_by_full(full, needles.threshold)
    return ask_all(bench.caches, settings, replace(quizzes, tasks=compared), bench.prose, folder), failed


def _quiz_rows(bench: Bench, asked: Sequence[Asked]) -> list[dict[str, Any]]:
    """The rows of the quizzes: policies beside the full cache, the baseline and every press."""
    if not asked:
        return []
    policies = [setting.name for setting in bench.settings]
    presses = [name for name in asked[0].found if name not in (FULL, *policies)]
    with Bar("intervals of the scores", None, transient=True):
        return quiz_rows(asked, bench.config.needles.shares, bench.config.baseline, presses)


def _measure_costs(bench: Bench) -> list[dict[str, Any]]:
    """Time one request with each policy, or load what an earlier run measured.

    Presses are left out: some cannot score a pass over a single token.
    """
    costs, host = bench.config.costs, bench.caches.host
    if not costs.prompt:
        return []
    cells = bench.cells()
    key = [[bench.caches.key(*cell) for cell in cells], as_dict(costs), str(host.device), torch.get_num_threads()]
    path = bench.out / "costs" / f"{digest(key)}.json"
    if not path.is_file():
        found = measure_costs(
            host.model,
            {place: bench.caches.make(*cell) for place, cell in enumerate(cells)},
            _prompt(bench, host, costs.prompt),
            costs.chunk,
            costs.answer,
        )
        rows = [
            {"strategy": setting.name, "capacity": capacity, **found[place].to_json()}
            for place, (setting, capacity) in enumerate(cells)
        ]
        atomic_write(path, json.dumps(rows))
    return json.loads(path.read_text(encoding="utf-8"))


def _prompt(bench: Bench, host: Host, length: int) -> torch.Tensor:
    """So many tokens: those of the passages, one after another, again from the start where they end."""
    ids = torch.cat([item.ids for item in bench.items])
    return ids.repeat(-(-length // len(ids)))[None, :length].to(host.device)


def _full_perplexities(rows: Sequence[dict[str, Any]]) -> str:
    """The perplexity of the full cache, which a capacity is compared with."""
    by_capacity = (f"{value:.2f} from token {capacity:,} on" for capacity, value in full_perplexities(rows).items())
    return f"Perplexity of the full cache: {', '.join(by_capacity)}."


def _notes(config: Config) -> list[str]:
    """What readers of the figures have to know."""
    if not config.presses:
        return []
    found = notes()
    one_pass = [name for name in config.presses if f"{PREFIX}{name}" not in STREAMING]
    if PRESSES and one_pass:
        found.append(f"{', '.join(one_pass)} of kvpress want a prompt in one pass, and are in the needles alone.")
    if PRESSES:
        found.append("Costs are of the policies alone: some presses cannot score a token that is decoded.")
    return found
