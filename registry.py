"""Find the variants: each policy, scorer, front-end, compression, data source and recipe is one file, its name.

Variants are listed by reading their folder and described by the first line of their docstring. They are imported only
when they are loaded. Packages outside register under the entry-point group ``vqmem.<kind>``.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.metadata
import pkgutil
import sys
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from .schema import UnknownNameError, coerce, shown

ROOT = Path(__file__).parent


@dataclass(frozen=True)
class Kind:
    """A folder of variants, and the name of the class that each of its files defines."""

    folder: str
    symbol: str
    leaf: str = ""
    """The module that a sub-package must have to be a variant; empty if a variant is itself a module."""


KINDS = {
    "policies": Kind("memory/policies", "Policy"),
    "compressions": Kind("memory/compression", "Compression"),
    "scorers": Kind("models/scorers", "Scorer"),
    "front-ends": Kind("tokenizers_", "FrontEnd"),
    "features": Kind("models/features", "Features"),
    "codecs": Kind("models/codecs", "Codec"),
    "data": Kind("data", "Source"),
    "recognisers": Kind("recipes/asr", "Recogniser", leaf="recogniser"),
    "tasks": Kind("recipes/kv_cache/tasks", "Task"),
    "recipes": Kind("recipes", "Config", leaf="recipe"),
}


@dataclass(frozen=True)
class VariantOf:
    """Marks the type of a field that contains the YAML form of a variant of ``kind``."""

    kind: str


DataSpec = Annotated[str | dict[str, Any], VariantOf("data")]
FeaturesSpec = Annotated[str | dict[str, Any], VariantOf("features")]
FrontEndSpec = Annotated[str | dict[str, Any], VariantOf("front-ends")]
RecogniserSpec = Annotated[str | dict[str, Any], VariantOf("recognisers")]
ScorerSpec = Annotated[str | dict[str, Any], VariantOf("scorers")]


def names(kind: str) -> list[str]:
    """The sorted names of all variants of ``kind``, found by listing the folder and the entry points."""
    return sorted({*_local(_kind(kind)), *_entry_points(kind)})


def load(kind: str, name: str) -> Any:
    """Import the class (or, for a recipe, the module) that variant ``name`` defines.

    Raises:
        UnknownNameError: there is no such variant.
        ValueError: the variant is broken; the message names its file or package.
    """
    spec, point = _kind(kind), _entry_points(kind).get(name)
    if point is None and not _is_local(spec, name):
        raise UnknownNameError(_singular(kind), name, names(kind))
    where = _path(spec, name) if point is None else f"{point.value} of the package {_package(point)}"
    try:
        if point is not None:
            found = point.load()
        else:
            leaf = f".{spec.leaf}" if spec.leaf else ""
            found = importlib.import_module(f"{__package__}.{spec.folder.replace('/', '.')}.{name}{leaf}")
            found = found if kind == "recipes" else getattr(found, spec.symbol)
        schema = found.Config if kind == "recipes" else found
    except (Exception, SystemExit) as error:  # importing a file may raise anything
        raise ValueError(f"{_singular(kind)} {name!r} is broken: {where}: {_reason(error)}") from error
    if not dataclasses.is_dataclass(schema):
        raise ValueError(f"{_singular(kind)} {name!r} is broken: {where}: its {spec.symbol} is not a dataclass")
    return found


def describe(kind: str, name: str) -> str:
    """The first docstring line of variant ``name``, read from its source without importing it, or its `fault`."""
    spec, point = _kind(kind), _entry_points(kind).get(name)
    if point is not None:
        return f"from the package {point.value}"
    path = _path(spec, name)
    try:
        doc = ast.get_docstring(ast.parse(path.read_bytes()))
    except (SyntaxError, ValueError, OSError):
        return fault(kind, name)
    return (doc or f"(no docstring in {path})").strip().split("\n")[0]


def fault(kind: str, name: str) -> str:
    """What the source of variant ``name`` shows to be wrong, without importing it; empty if nothing."""
    spec = _kind(kind)
    if name in _entry_points(kind):
        return ""
    path = _path(spec, name)
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError) as error:
        return f"broken: {path}: {_reason(error)}"
    bound = {_binds(node): node for node in ast.walk(tree)}
    if spec.symbol not in bound:
        return f"broken: {path}: it defines no {spec.symbol}"
    node = bound[spec.symbol]
    if isinstance(node, ast.ClassDef) and not node.bases and not node.decorator_list:
        return f"broken: {path}: its {spec.symbol} is not a dataclass"
    return ""


def _binds(node: ast.AST) -> str | None:
    """The name that a node of the syntax tree binds."""
    if isinstance(node, ast.alias):
        return node.asname or node.name
    if isinstance(node, ast.Name):
        return node.id if isinstance(node.ctx, ast.Store) else None
    return node.name if isinstance(node, (ast.ClassDef, ast.FunctionDef)) else None


def build(kind: str, spec: Any, key: str | None = None) -> Any:
    """Make a variant from its YAML form: a name, or a mapping of ``name`` and its fields.

    >>> build("policies", {"name": "scored", "rarity": 2.0})  # doctest: +SKIP

    Args:
        kind: one of `KINDS`.
        spec: the YAML form.
        key: the dotted key that ``spec`` has in a config, for errors; None is the variant's name.

    Raises:
        ValueError: in one line, for an unknown variant and for fields that it does not take.
    """
    fields = dict(spec) if isinstance(spec, Mapping) else {"name": spec}
    name = fields.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(
            f"{_singular(kind)} {shown(spec)} has no name; add `name: ...` (one of {', '.join(names(kind))})"
        )
    return coerce(load(kind, name), fields, name if key is None else key)


def check_variants(config: Any, key: str = "") -> None:
    """Build every variant that the fields of ``config`` describe, nested ones included; raises as `build` does.

    Loading a config does not do this: a finished run can be used where the package of its data source is missing.
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value, path = getattr(config, field.name), f"{key}.{field.name}" if key else field.name
        for note in getattr(hints[field.name], "__metadata__", ()):
            if isinstance(note, VariantOf):
                check_variants(build(note.kind, value, path), path)
        if dataclasses.is_dataclass(value):
            check_variants(value, path)


def _kind(kind: str) -> Kind:
    if kind not in KINDS:
        raise UnknownNameError("kind", kind, list(KINDS))
    return KINDS[kind]


def _local(spec: Kind) -> list[str]:
    return [
        module.name
        for module in pkgutil.iter_modules([str(ROOT / spec.folder)])
        if module.ispkg == bool(spec.leaf) and _is_local(spec, module.name)
    ]


def _is_local(spec: Kind, name: str) -> bool:
    return name.isidentifier() and not name.startswith("_") and name != "base" and _path(spec, name).is_file()


def _path(spec: Kind, name: str) -> Path:
    return ROOT / spec.folder / (f"{name}/{spec.leaf}.py" if spec.leaf else f"{name}.py")


def _reason(error: BaseException) -> str:
    """What is wrong, in one line."""
    if isinstance(error, SyntaxError):
        return f"{error.msg} (line {error.lineno})"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _singular(kind: str) -> str:
    return {"policies": "policy", "data": "data source", "features": "kind of features"}.get(kind, kind.rstrip("s"))


@cache  # reading what is installed takes 20 ms, and configs build variants thousands of times
def _entry_points(kind: str) -> dict[str, importlib.metadata.EntryPoint]:
    """The entry points of ``kind`` by name. Those that would replace another variant are ignored, and named once."""
    found: dict[str, importlib.metadata.EntryPoint] = {}
    local = _local(KINDS[kind])
    points = importlib.metadata.entry_points(group=f"vqmem.{kind}")
    for point in sorted(points, key=lambda point: (point.name, _package(point))):
        if point.name not in local and point.name not in found:
            found[point.name] = point
        elif point.name in local or point != found[point.name]:
            first = "vqmem itself" if point.name in local else f"the package {_package(found[point.name])}"
            print(
                f"vqmem: the {_singular(kind)} {point.name!r} of the package {_package(point)} is ignored, as {first} "
                "has one of that name; rename its entry point",
                file=sys.stderr,
            )
    return found


def _package(point: importlib.metadata.EntryPoint) -> str:
    return (point.dist and point.dist.name) or point.value.split(":")[0]
