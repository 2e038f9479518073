"""Compare memory strategies at equal capacity: strategy x capacity x seed, with intervals and a report."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from ...files import atomic_write, file_sha256
from ...registry import build
from ...tokenizers_.base import unit_of_size
from ..engine.config import as_dict, digest, dump
from ..engine.distributed import on_main_process, ranks
from ..engine.grid import run_grid
from ..engine.progress import Bar, model_of
from ..fit_policy.run import require_policy
from ..lm.corpus import require
from ..lm.strategies import strategies
from ..reporting.provenance import provenance
from ..text_lm import recipe as text_lm
from .cells import cells, complete_points, key_of, known_results, release, shown
from .config import Config
from .findings import headline
from .report import write_report
from .table import summarise

__all__ = [
    "ELSEWHERE",
    "RUN_IS",
    "Config",
    "by_document",
    "cells",
    "check",
    "finish",
    "finished",
    "measured",
    "run",
    "train",
]

RUN_IS = (
    "a comparison: {folder}/report.html shows it, and `vqmem generate {folder}/seed-N --prompt TEXT` uses a model of it"
)
"""Describes a run and the commands that use it."""
ELSEWHERE = {"cross_domain": ("cross_domain", "standard"), "cross_domain_quick": ("cross_domain", "quick")}
"""Names of comparisons that another recipe runs, and its config."""


def run(config: Config) -> dict[str, Any]:
    """Train and measure what is missing, and write the report; returns the summary.

    Under ``torchrun`` all processes train, and the first one does the rest.
    """
    began = time.monotonic()
    check(config)
    if ranks()[1] > 1:
        train(config)
    return _compare(config, began)


def train(config: Config) -> None:
    """Train every model; under ``torchrun``, all processes call it."""
    models = [model for seed in config.seeds for model in config.models(seed)]
    for number, model in enumerate(models, start=1):
        with model_of(number, len(models)):
            text_lm.fit(model)


def check(config: Config) -> None:
    """Raise `ValueError` for data, policies and processes with which the comparison could not be run to its end."""
    text_lm.start(config.lm)
    require(config.lm.data, config.split)
    strategies(config.strategies, text_lm.scorer_of(config.lm))
    for seed in config.seeds:
        for folder, model in config.policies(seed).items():
            require_policy(folder, model)


@on_main_process
def _compare(config: Config, began: float) -> dict[str, Any]:
    """Do the cells that are missing and write the report; returns the summary."""
    if summary := finished(config):
        return summary
    try:
        failures = run_grid(cells(config), config)
    finally:
        release()
    made = finish(config, began)
    for error in failures.values():
        raise error
    assert made is not None
    return made


def finished(config: Config) -> dict[str, Any] | None:
    """The summary of a comparison of which nothing is missing; None if something is, or if its config was another."""
    path = Path(config.out) / "summary.json"
    if not (path.is_file() and path.with_name("report.html").is_file()):
        return None
    known = known_results(config)
    if not all(key_of(config, point) in known for seed in config.seeds for point in config.points(seed)):
        return None
    summary = json.loads(path.read_text(encoding="utf-8"))
    return summary if summary.get("key") == _key(config) else None


def finish(config: Config, began: float) -> dict[str, Any] | None:
    """Write summary and report of what was measured with every seed; returns the summary, or None if that is nothing.

    Args:
        config: the comparison.
        began: when it began, by the monotonic clock.
    """
    out, known = Path(config.out), known_results(config)
    rows = [result for _, result in complete_points(config, known)]
    if not rows:
        return None
    counted = unit_of_size(build("front-ends", config.lm.front_end))
    with Bar("intervals of the figures", None, transient=True):
        table = summarise(rows, config.baseline, counted)
    found = shown(config) or {"passage": {}, "scorer": {}}
    summary = table | {
        "title": config.title,
        **provenance(began),
        "config": as_dict(config),
        "corpus": json.dumps(config.lm.data) if isinstance(config.lm.data, dict) else config.lm.data,
        "split": config.split,
        "seeds": list(config.seeds),
        "scorer": found["scorer"] | _codes(config),
        "passage": found["passage"],
        "beside": _beside(config),
        "key": _key(config),
    }
    atomic_write(out / "config.yaml", dump(config))
    atomic_write(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    with Bar("report", None, transient=True):
        write_report(summary, out / "report.html")
    return summary


def measured(config: Config) -> list[dict[str, Any]]:
    """What every point of a finished comparison measured, as in ``results.jsonl``, in the order of the seeds."""
    known = known_results(config)
    return [known[key_of(config, point)] for seed in config.seeds for point in config.points(seed)]


def by_document(config: Config, metric: str) -> dict[int, dict[str, tuple[list[float], list[float]]]]:
    """The mixed models by document: capacity -> strategy -> numerators of a figure, mean over the seeds, and sizes."""
    found: dict[int, dict[str, list[list[list[float]]]]] = {}
    for point, result in complete_points(config, known_results(config)):
        if point.train == "mixed":
            found.setdefault(point.capacity, {}).setdefault(point.strategy, []).append(result["figures"][metric])
    return {
        capacity: {
            strategy: (np.mean([numerators for numerators, _ in seeds], axis=0).tolist(), seeds[0][1])
            for strategy, seeds in strategies.items()
        }
        for capacity, strategies in found.items()
    }


def _key(config: Config) -> str:
    """A hash of everything that the summary shows."""
    beside = Path(config.beside or config.out) / "summary.json"
    other = file_sha256(beside) if config.beside is not None and beside.is_file() else ""
    asked = {name: value for name, value in as_dict(config).items() if name not in ("executor", "address", "gpus")}
    return digest([asked, [key_of(config, point) for seed in config.seeds for point in config.points(seed)], other])


def _beside(config: Config) -> dict[str, Any] | None:
    """What the comparison in ``beside`` found; None if there is none."""
    path = Path(config.beside or config.out) / "summary.json"
    if config.beside is None or not path.is_file():
        return None
    other = json.loads(path.read_text(encoding="utf-8"))
    report = path.with_name("report.html")
    link = Path(os.path.relpath(report, config.out)).as_posix()
    return {"title": other["title"], "headline": headline(other), "report": str(report.resolve()), "link": link}


def _codes(config: Config) -> dict[str, Any]:
    scorer = config.lm.scorer
    return {"codes": scorer["codes"]} if isinstance(scorer, dict) and "codes" in scorer else {}
