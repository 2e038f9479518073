"""The keys of a config, told to people: name, default and what it means, read from the dataclass itself."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import re
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from ...schema import type_name
from .config import as_dict

_ARGUMENT = re.compile(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", re.MULTILINE)


class Key(NamedTuple):
    """One key: dotted name, type in words, default as YAML writes it (empty if there is none), and its docstring."""

    name: str
    type: str
    default: str
    doc: str


def keys(schema: Any) -> Iterator[Key]:
    """Every key of the dataclass ``schema``, nested ones by their dotted names, in the order of the fields."""
    hints, docs = typing.get_type_hints(schema, include_extras=True), _docs(schema)
    for field in dataclasses.fields(schema):
        hint, value = hints[field.name], _default(field)
        if not dataclasses.is_dataclass(hint):
            default = "" if value is dataclasses.MISSING else json.dumps(value, ensure_ascii=False, default=str)
            yield Key(field.name, type_name(hint), default, docs.get(field.name, ""))
            continue
        over = {} if value is dataclasses.MISSING else as_dict(value)
        for key in keys(hint):
            default = json.dumps(_at(over, key.name), ensure_ascii=False) if over else key.default
            yield key._replace(name=f"{field.name}.{key.name}", default=default)


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _at(values: dict[str, Any], name: str) -> Any:
    """The value at a dotted name."""
    for part in name.split("."):
        values = values[part]
    return values


def _docs(schema: Any) -> dict[str, str]:
    """What is said of each field under ``Args:``, or by the string below it (shown by Sphinx and editors too)."""
    found = {}
    for base in schema.__mro__[-2:0:-1]:  # of object there is no source
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
