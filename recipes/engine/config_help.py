"""Descriptions of config keys: as a JSON schema, with which editors complete YAML, and as text."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...registry import ROOT, load, names
from ...schema import type_name

FILE = "schema.json"
"""Next to each ``recipe.py``; ``python -m vqmem.recipes.engine.config_help`` rewrites them."""

_ARGUMENT = re.compile(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", re.MULTILINE)


class Key(NamedTuple):
    """One key: dotted name, type in words, default as YAML writes it (empty if there is none), and its docstring."""

    name: str
    type: str
    default: str
    doc: str


def json_schema(schema: Any) -> dict[str, Any]:
    """The JSON schema of a dataclass; ``x-type`` of a property is its type in words."""
    from pydantic import TypeAdapter

    from .config import as_plain

    hints, docs = typing.get_type_hints(schema, include_extras=True), _docs(schema)
    properties: dict[str, Any] = {}
    for field in dataclasses.fields(schema):
        hint, value = hints[field.name], _default(field)
        made = json_schema(hint) if dataclasses.is_dataclass(hint) else TypeAdapter(hint).json_schema()
        made["x-type"] = type_name(hint)
        if value is not dataclasses.MISSING:
            made["default"] = json.loads(json.dumps(as_plain(value), default=str))
        if field.name in docs:
            made["description"] = docs[field.name]
        properties[field.name] = made
    needed = [name for name, made in properties.items() if "default" not in made]
    return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}


def schema_path(name: str) -> Path:
    """The file of the JSON schema of the recipe ``name``; recipes of other packages have none."""
    return ROOT / "recipes" / name / FILE


def recipe_schema(name: str) -> dict[str, Any]:
    """The JSON schema of the recipe ``name``, from its file if it has one."""
    path = schema_path(name)
    return json.loads(path.read_bytes()) if path.is_file() else json_schema(load("recipes", name).Config)


def keys(schema: Mapping[str, Any]) -> Iterator[Key]:
    """All keys of a JSON schema in the order of the fields; nested keys have dotted names."""
    for name, about in schema["properties"].items():
        if "properties" not in about:
            default = json.dumps(about["default"], ensure_ascii=False) if "default" in about else ""
            yield Key(name, about["x-type"], default, about.get("description", ""))
            continue
        for key in keys(about):
            given = about.get("default", {})
            default = json.dumps(_at(given, key.name), ensure_ascii=False) if given else key.default
            yield key._replace(name=f"{name}.{key.name}", default=default)


def explain(schema: Mapping[str, Any]) -> str:
    """Describe every key of a JSON schema as text, with its default and type."""
    lines = []
    for key in keys(schema):
        default = f" = {key.default}" if key.default else " (needed)"
        lines += [f"  {key.name}{default}    {key.type}", *([f"      {key.doc}"] if key.doc else [])]
    return "\n".join(lines)


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _at(values: dict[str, Any], name: str) -> Any:
    """The value at a dotted name."""
    for part in name.split("."):
        values = values[part]
    return values


def _docs(schema: Any) -> dict[str, str]:
    """The description of each field: under ``Args:``, or in the string below it (as for Sphinx and editors)."""
    found = {}
    for base in schema.__mro__[-2:0:-1]:  # object has no source
        found |= _docs(base) if dataclasses.is_dataclass(base) else {}
    _, _, listed = (inspect.getdoc(schema) or "").partition("\nArgs:\n")
    found |= {name: " ".join(text.split()) for name, text in _ARGUMENT.findall(listed)}
    body = typing.cast(ast.ClassDef, ast.parse(inspect.getsource(schema)).body[0]).body
    for item, after in itertools.pairwise(body):
        if not (isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            found[item.target.id] = " ".join(str(after.value.value).split())
    return found


def write_schemas() -> None:
    """Write the schema of every recipe of the package next to its ``recipe.py``."""
    for name in names("recipes"):
        if (path := schema_path(name)).parent.is_dir():
            text = json.dumps(json_schema(load("recipes", name).Config), indent=1, ensure_ascii=False)
            path.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    write_schemas()
