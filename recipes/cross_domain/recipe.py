"""Compare strategies across domains: text, code, dialogue, speech and pretrained models, in one grid and one report."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...files import atomic_write
from ...schema import PathText
from ..engine.config import as_dict, dump
from ..engine.distributed import on_main_process, ranks
from ..engine.grid import Cell, GridConfig, reason, run_grid
from ..engine.lock import locked
from ..engine.progress import Bar
from ..reporting.provenance import provenance
from .domains import Domain, read_domain
from .report import write_report
from .table import summarise

RUN_IS = "a comparison across domains: {folder}/report.html shows it"
"""Describes a run and the commands that use it."""

LEAVES_OUT = True
"""A domain whose data is missing is listed and left out, so that its placeholder does not refuse the others."""


@dataclass(frozen=True)
class Config(GridConfig):
    """A grid of domains, each of which a recipe reads with a folder of its own below ``out``."""

    out: PathText = "runs/cross_domain"
    """Folder of the grid; with the same folder it continues where it stopped."""
    title: str = "What should a memory keep, in text and in speech?"
    """Heading of the report."""
    domains: dict[str, Any] = field(default_factory=dict)
    """Domain -> ``recipe`` (compare, kv_cache), ``config``, a shipped one or a file, and changes to it."""
    shared: dict[str, Any] = field(default_factory=dict)
    """Recipe -> changes to the configs of all its domains; those of a domain come after them."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for a grid without domains, and for configs that the recipes refuse."""
        super().__post_init__()
        if not self.domains:
            raise ValueError("domains is empty; name at least one, as in {novels: {recipe: compare, config: novels}}")
        for name, node in self.domains.items():
            if not isinstance(node, Mapping) or "recipe" not in node:
                raise ValueError(f"domains.{name}={node!r} has no recipe; give {{recipe: compare, config: novels}}")
        self.read()

    def read(self) -> list[Domain]:
        """The domains with their configs."""
        return [read_domain(name, node, self.shared, Path(self.out)) for name, node in self.domains.items()]


def run(config: Config) -> dict[str, Any]:
    """Do the cells of all domains that are missing, and write the report; returns the summary.

    Under ``torchrun`` all processes train the models, and the first one does the rest. Cells that fail are listed in
    the summary as ``failed``, and domains whose data or model is missing as ``left_out``. Neither stops the others.

    Raises:
        ValueError: in one line, if nothing could be measured.
    """
    with locked(Path(config.out)):
        domains = config.read()
        if ranks()[1] > 1:
            for domain in domains:
                with contextlib.suppress(ValueError):  # the first process lists it
                    domain.check()
                    domain.train()
        return _run(config, domains)


@on_main_process
def _run(config: Config, domains: list[Domain]) -> dict[str, Any]:
    began = time.monotonic()
    return _finish(config, domains, *_run_cells(config, domains), began)


def _run_cells(config: Config, domains: list[Domain]) -> tuple[dict[str, str], dict[str, str]]:
    """Returns domain -> why it is left out, and cell -> why it failed."""
    left_out: dict[str, str] = {}
    cells: list[Cell] = []
    for domain in domains:
        try:
            domain.check()
            cells += [] if domain.finished() else domain.cells()
        except ValueError as error:
            left_out[domain.name] = reason(error)
    return left_out, {name: reason(error) for name, error in run_grid(cells, config).items()}


def _finish(
    config: Config, domains: list[Domain], left_out: dict[str, str], failed: dict[str, str], began: float
) -> dict[str, Any]:
    out = Path(config.out)
    done = [domain for domain in domains if domain.name not in left_out]
    found = [(domain, summary) for domain in done if (summary := domain.finish(began))]
    missing = {"left_out": left_out, "failed": failed}
    if not found:
        reasons = "; ".join(f"{name}: {why}" for name, why in (left_out | failed).items())
        raise ValueError(f"nothing was measured: {reasons}")
    with Bar("agreement of the domains", None, transient=True):
        table = summarise(found, out)
    summary = {"title": config.title, **provenance(began), "config": as_dict(config), **table, **missing}
    atomic_write(out / "config.yaml", dump(config))
    atomic_write(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    write_report(summary, out / "report.html")
    return summary
