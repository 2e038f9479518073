"""Find the variants: every policy, scorer, front-end, compression, data source and recipe is one file, named by itself.

A variant is listed by reading its folder and described by the first line of its docstring, without importing it; it is
imported only when it is loaded. Packages outside register under the entry-point group ``vqmem.<kind>``.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import pkgutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .schema import UnknownNameError, coerce

ROOT = Path(__file__).parent


@dataclass(frozen=True)
class Kind:
    """A folder of variants and the name of the class each of its files defines."""

    folder: str
    symbol: str
    packages: bool = False
    """Whether a variant is a sub-package holding ``recipe.py`` rather than a module."""


KINDS = {
    "policies": Kind("memory/policies", "Policy"),
    "compressions": Kind("memory/compression", "Compression"),
    "scorers": Kind("models/scorers", "Scorer"),
    "front-ends": Kind("tokenizers_", "FrontEnd"),
    "features": Kind("models/features", "Features"),
    "data": Kind("data", "Source"),
    "recognisers": Kind("recipes/asr/recognisers", "Recogniser"),
    "recipes": Kind("recipes", "Config", packages=True),
}


def names(kind: str) -> list[str]:
    """The sorted names of all variants of ``kind``, found by listing the folder and the entry points."""
    spec = _kind(kind)
    local = [
        module.name
        for module in pkgutil.iter_modules([str(ROOT / spec.folder)])
        if module.ispkg == spec.packages and not module.name.startswith("_") and module.name != "base"
    ]
    return sorted({*local, *_entry_points(kind)})


def load(kind: str, name: str) -> Any:
    """The class (or, for a recipe, the module) that variant ``name`` defines. Raises `UnknownNameError`."""
    outside = _entry_points(kind)
    if name in outside:
        return outside[name].load()
    if name not in names(kind):
        raise UnknownNameError(_singular(kind), name, names(kind))
    spec = _kind(kind)
    module = importlib.import_module(f"{__package__}.{spec.folder.replace('/', '.')}.{name}{_leaf(spec)}")
    return module if spec.packages else getattr(module, spec.symbol)


def describe(kind: str, name: str) -> str:
    """The first docstring line of variant ``name``, read from its source without importing it."""
    outside = _entry_points(kind)
    if name in outside:
        return f"from the package {outside[name].value}"
    spec = _kind(kind)
    path = ROOT / spec.folder / (f"{name}/recipe.py" if spec.packages else f"{name}.py")
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return doc.strip().split("\n")[0]


def build(kind: str, spec: str | dict[str, Any]) -> Any:
    """Make a variant from its YAML form: a name, or a mapping of ``name`` and its fields.

    >>> build("policies", {"name": "scored", "rarity": 2.0})  # doctest: +SKIP
    """
    fields = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = fields.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"{_singular(kind)} {spec!r} has no name; add `name: ...` (one of {', '.join(names(kind))})")
    return coerce(load(kind, name), fields, name)


def _kind(kind: str) -> Kind:
    if kind not in KINDS:
        raise UnknownNameError("kind", kind, list(KINDS))
    return KINDS[kind]


def _leaf(spec: Kind) -> str:
    return ".recipe" if spec.packages else ""


def _singular(kind: str) -> str:
    return {"policies": "policy", "data": "data source", "features": "kind of features"}.get(kind, kind.rstrip("s"))


@cache  # reading what is installed takes 20 ms, and configs build variants thousands of times
def _entry_points(kind: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=f"vqmem.{kind}")}
