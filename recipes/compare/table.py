"""Compute the table from the sums of all cells: figures with intervals, and differences from the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .statistics import paired_bootstrap

METRICS = {
    "recall": {"label": "answers recalled", "better": "higher"},
    "bpb": {"label": "bits per byte", "better": "lower"},
    "long_gap_nll": {"label": "loss on long-gap tokens", "unit": "nats", "better": "lower"},
}


def summarise(cells: Sequence[Mapping[str, Any]], baseline: str, size_unit: str = "byte") -> dict[str, Any]:
    """Summarise the lines of ``results.jsonl`` for `write_report`.

    Cells that differ only in the seed become one row. Each row is compared with the baseline at the same capacity and
    ``train``; figures without data (no answers, no long gaps) are left out. ``size_unit`` is the unit of token sizes.
    """
    grouped: dict[tuple[str, int, str], list[Mapping[str, Any]]] = {}
    for cell in cells:
        grouped.setdefault((cell["strategy"], cell["capacity"], cell["train"]), []).append(cell)
    metrics = {name: spec for name, spec in METRICS.items() if any(sum(c["figures"][name][1]) for c in cells)}
    metrics["bpb"] = metrics["bpb"] | {"label": f"bits per {size_unit}"}
    rows = []
    for (strategy, capacity, how), group in grouped.items():
        against = None if strategy == baseline else grouped.get((baseline, capacity, how))
        rows.append(
            {
                "strategy": strategy,
                "capacity": capacity,
                "train": how,
                "memory_bytes": max(cell["memory_bytes"] for cell in group),
                "metrics": {name: _compare(group, against, name) for name in metrics if _size(group, name).sum()},
                "per_seed": {
                    name: [_ratio(cell, name) for cell in group] for name in metrics if _size(group, name).sum()
                },
                "kept": _kept(group),
                "tokens_per_second": float(np.median([cell["tokens_per_second"] for cell in group])),
            }
        )
    first = cells[0]
    return {
        "baseline": baseline,
        "documents": len(first["documents"]),
        "tokens": first["tokens"],
        "bytes": int(sum(first["figures"]["bpb"][1])) if size_unit == "byte" else None,
        "metrics": metrics,
        "rows": rows,
    }


def _compare(
    group: Sequence[Mapping[str, Any]], against: Sequence[Mapping[str, Any]] | None, name: str
) -> dict[str, Any]:
    ours = np.array([cell["figures"][name][0] for cell in group])
    theirs = None if against is None else np.array([cell["figures"][name][0] for cell in against])
    return paired_bootstrap(ours, theirs, _size(group, name), better=METRICS[name]["better"]).to_json()


def _kept(group: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What the memory kept (see `kept_figures`), without what no passage had, or what lines of older versions lack."""
    found = {}
    for name in group[0]["figures"]:
        is_kept = name in ("kept_age", "kept_rarity") or name.startswith("class_")
        if is_kept and all(name in cell["figures"] for cell in group):
            numerators, sizes = np.sum([cell["figures"][name] for cell in group], axis=(0, 2))
            found |= {name.partition("_")[2]: float(numerators / sizes)} if sizes > 0 else {}
    return found


def _size(group: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    return np.array(group[0]["figures"][name][1])


def _ratio(cell: Mapping[str, Any], name: str) -> float:
    numerators, sizes = cell["figures"][name]
    return sum(numerators) / sum(sizes)
