"""The domains of a grid: each is read by a recipe, with a config of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...files import atomic_write
from ...registry import ROOT, UnknownNameError, check_variants, load, names
from ..engine.config import as_dict, digest, from_dict, refuse_placeholders
from ..engine.config import load as load_config
from ..engine.grid import Cell
from .agreement import DocumentFigures

DONE = "cell.json"
"""Written into the folder of a domain whose recipe runs as one cell."""
KEYS = ("recipe", "config")


@dataclass(frozen=True)
class Domain:
    """A domain: its name, the recipe that reads it, and the config of that recipe."""

    name: str
    recipe: str
    config: Any

    def check(self) -> None:
        """Raise `ValueError` for data, models or variants that are missing."""
        refuse_placeholders(self.config)
        check_variants(self.config)
        if hasattr(self._module, "check"):
            self._module.check(self.config)

    def train(self) -> None:
        """Train the models of the domain in all processes that ``torchrun`` started, if its recipe trains any."""
        if hasattr(self._module, "train"):
            self._module.train(self.config)

    def cells(self) -> list[Cell]:
        """The cells of the domain: those of its recipe, or one that runs it."""
        if hasattr(self._module, "cells"):
            return [cell.within(self.name) for cell in self._module.cells(self.config)]
        work = partial(_run, self.recipe, as_dict(self.config))
        return [Cell(f"{self.name}: run", work, is_done=self._is_run, save=self._mark)]

    def finished(self) -> dict[str, Any] | None:
        """The summary of a domain of which nothing is missing."""
        if hasattr(self._module, "finished"):
            return self._module.finished(self.config)
        return self._summary() if self._is_run() else None

    def finish(self, began: float) -> dict[str, Any] | None:
        """The summary of what was measured, and its report; None if that is nothing."""
        if hasattr(self._module, "finish"):
            return self.finished() or self._module.finish(self.config, began)
        return self.finished()

    def figures(self, summary: Mapping[str, Any], capacity: int) -> DocumentFigures | None:
        """The first figure of the summary, by strategy and document, at a capacity; None if the recipe keeps none."""
        metric = next(iter(summary["metrics"]))
        found = self._module.by_document(self.config, metric).get(capacity, {})
        if not found:
            return None
        sizes = np.array(next(iter(found.values()))[1], dtype=np.float64)
        numerators = np.array([values for values, _ in found.values()], dtype=np.float64)
        sign = 1 if summary["metrics"][metric]["better"] == "lower" else -1
        return DocumentFigures(tuple(found), numerators, sizes, sign)

    @property
    def _module(self) -> Any:
        return load("recipes", self.recipe)

    @property
    def _out(self) -> Path:
        return Path(self.config.out)

    def _key(self) -> str:
        return digest([self.recipe, as_dict(self.config)])

    def _is_run(self) -> bool:
        path = self._out / DONE
        return path.is_file() and json.loads(path.read_text(encoding="utf-8")) == {"key": self._key()}

    def _mark(self, result: Any) -> None:
        atomic_write(self._out / DONE, json.dumps({"key": self._key()}))

    def _summary(self) -> dict[str, Any]:
        return json.loads((self._out / "summary.json").read_text(encoding="utf-8"))


def _run(recipe: str, values: dict[str, Any]) -> None:
    module = load("recipes", recipe)
    module.run(from_dict(module.Config, values))


def read_domain(name: str, node: Mapping[str, Any], shared: Mapping[str, Any], out: Path) -> Domain:
    """Make a domain of its line in the config.

    Args:
        name: of the domain.
        node: ``recipe``, ``config`` (a shipped one of the recipe, or a file; without it the recipe's defaults), and
            changes to that config, whose keys may be dotted.
        shared: recipe -> changes that all its domains have; those of the line come after them.
        out: the folder of the grid, in which the domain has one.

    Returns:
        The domain, with its config checked.

    Raises:
        ValueError: in one line, for an unknown recipe, config or key.
    """
    recipe = node.get("recipe")
    if recipe not in names("recipes"):
        raise UnknownNameError(f"recipe of the domain {name!r}:", str(recipe), names("recipes"))
    module = load("recipes", recipe)
    if not hasattr(module, "by_document"):
        able = [one for one in names("recipes") if hasattr(load("recipes", one), "by_document")]
        raise ValueError(f"domains.{name}: recipe {recipe} compares no strategies; use {' or '.join(able)}")
    changes = {**shared.get(recipe, {}), **{key: value for key, value in node.items() if key not in KEYS}}
    changes["out"] = str(out / name)
    overrides = [override for key, value in changes.items() for override in _overrides(key, value)]
    folder = ROOT / "recipes" / recipe / "configs"
    try:
        config = load_config(module.Config, node.get("config"), overrides, folder=folder)
    except ValueError as error:
        raise ValueError(f"domains.{name}: {error}") from None
    return Domain(name, recipe, config)


def _overrides(key: str, value: Any) -> list[str]:
    """A change as ``key=value``; a mapping replaces the one of the config."""
    emptied = [f"{key}={{}}"] if isinstance(value, Mapping) else []
    return [*emptied, f"{key}={json.dumps(value, ensure_ascii=False)}"]
