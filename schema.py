"""Check plain values against types: what makes dataclasses of YAML, with errors that name the key and the fix."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import math
import operator
import os
import re
import types
import typing
from collections.abc import Container
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Interval

PathText = Annotated[str, "path"]
"""The text of a path; `coerce` expands it. A name on a hub may stand in its place."""

PositiveInt = Annotated[int, Interval(ge=1)]
TwoOrMore = Annotated[int, Interval(ge=2)]
NonNegativeInt = Annotated[int, Interval(ge=0)]
PositiveFloat = Annotated[float, Interval(gt=0)]
NonNegativeFloat = Annotated[float, Interval(ge=0)]
Share = Annotated[float, Interval(ge=0, le=1)]
ShareBelowOne = Annotated[float, Interval(ge=0, lt=1)]
Temperature = Annotated[float, Interval(ge=0, lt=math.inf)]
Seed = Annotated[int, Interval(ge=0, lt=2**63)]

_LIMITS = {
    "ge": ("at least", operator.ge),
    "gt": ("above", operator.gt),
    "le": ("at most", operator.le),
    "lt": ("below", operator.lt),
}


class Validated:
    """Base of dataclasses whose fields have a range or choices in their type, as in ``capacity: PositiveInt = 128``."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a value that its type does not allow."""
        for name, hint in _hints(type(self)).items():
            _check_range(hint, getattr(self, name), name)


RENAMED_KEYS = {
    "books": "num_quantizers",
    "budget": "capacity",
    "budgets": "capacities",
    "details": "rvq",
    "hold": "resample_every",
    "rows": "batch_size",
    "unmasked_weight": "off_target_weight",
    "untold": "unit_only_prob",
    "vocoder_rows": "vocoder_batch_size",
    "worst": "worst_utterances",
}
"""Old names of keys, wherever a key of the new name stands beside them."""


NOT_SUGGESTED = "not_suggested"
"""Key of a dataclass field's metadata: errors do not suggest the field, because something else sets it."""


class UnknownNameError(ValueError):
    """A name that no variant, key or file answers to; the message gives the nearest matches."""

    def __init__(self, what: str, name: str, known: list[str]) -> None:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(sorted(known))}"
        super().__init__(f"unknown {what} {name!r}; {hint}")


class UnknownKeyError(UnknownNameError):
    """A key that a dataclass does not have."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__("key", name, known)
        self.name, self.known = name, known

    def below(self, key: str) -> UnknownKeyError:
        """The same error where the dataclass is at the dotted ``key``."""
        return UnknownKeyError(_dotted(key, self.name), [_dotted(key, known) for known in self.known])


class RenamedKeyError(ValueError):
    """A key has another name since a release."""

    def __init__(self, old: str, new: str) -> None:
        super().__init__(f"the config key {old} is called {new} now; rename it")
        self.old, self.new = old, new

    def below(self, key: str) -> RenamedKeyError:
        """The same error where the dataclass is at the dotted ``key``."""
        return RenamedKeyError(_dotted(key, self.old), _dotted(key, self.new))


def expand(path: str) -> str:
    """``path`` with ``~`` and ``~user`` replaced by home folders, as shells do.

    Raises ``ValueError`` for a folder of a user who is not known, unless there is a folder of that very name.
    """
    expanded = os.path.expanduser(path)
    user, slash, _ = expanded.partition("/")
    if expanded.startswith("~") and slash and not os.path.isdir(user):
        raise ValueError(f"{path!r}: there is no user {user[1:]!r}; give another path, or ./{path} for that very name")
    return expanded


def coerce(hint: Any, value: Any, key: str) -> Any:
    """``value`` as the type ``hint``; ``key`` is its dotted place, for the error. Raises ``ValueError`` in one line."""
    if dataclasses.is_dataclass(hint):
        return _make(hint, value, key)
    if hint == PathText:
        return _coerce_path(value, key)
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return coerce(args[0], value, key)
    if origin in (typing.Union, types.UnionType):
        return _coerce_union(hint, args, value, key)
    if origin is Literal:
        if value not in args:
            raise _wrong(key, value, hint)
        return value
    if origin in (list, tuple) and isinstance(value, (list, tuple)):
        fixed = origin is tuple and args[-1] is not Ellipsis
        if fixed and len(args) != len(value):
            raise _wrong(key, value, hint)
        parts = args if fixed else [args[0]] * len(value)
        return origin(
            coerce(part, item, f"{key}[{i}]") for i, (part, item) in enumerate(zip(parts, value, strict=True))
        )
    if (origin or hint) is dict and isinstance(value, dict):
        name_hint, part = args or (Any, Any)
        return {
            coerce(name_hint, name, f"a key of {key}"): coerce(part, item, f"{key}.{name}")
            for name, item in value.items()
        }
    return _coerce_leaf(hint, value, key)


def _coerce_path(value: Any, key: str) -> str:
    if value == [None]:  # what YAML makes of a bare dash
        value = "-"
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise _wrong(key, value, PathText)
    path = str(value)
    if path == "-":
        raise ValueError(f"{key} = '-' would be standard input or output; give a path")
    return expand(path)


def _coerce_leaf(hint: Any, value: Any, key: str) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is Any or (hint in (list, tuple) and isinstance(value, list)):
        return value
    if hint is float and number:
        return float(value)
    if hint is int and number and math.isfinite(value) and value == int(value):  # 1e4 is a float to YAML
        return int(value)
    if hint is str and number:
        return str(value)
    if hint is Path and isinstance(value, str):
        return Path(expand(value))
    if isinstance(hint, type) and hint in (bool, str, type(None)) and isinstance(value, hint):
        return value
    raise _wrong(key, value, hint)


def _coerce_union(hint: Any, args: tuple[Any, ...], value: Any, key: str) -> Any:
    """The first member that takes ``value`` as it is, else the first that can be made of it (``1`` for a float)."""
    nested = [part for part in args if dataclasses.is_dataclass(part)]
    if isinstance(value, dict) and len(nested) == 1:  # its error says more than the union's
        return coerce(nested[0], value, key)
    exact = [part for part in args if isinstance(part, type) and type(value) is part]
    for part in [*exact, *args]:
        with contextlib.suppress(ValueError):
            return coerce(part, value, key)
    raise _wrong(key, value, hint)


def _make(schema: Any, value: Any, key: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(key or "config", value, schema)
    hints = _hints(schema)
    fields = {field.name: field for field in dataclasses.fields(schema) if field.init}
    for name in value:
        if name not in fields and RENAMED_KEYS.get(name) in fields:
            raise RenamedKeyError(_dotted(key, name), _dotted(key, RENAMED_KEYS[name]))
        if name not in fields:
            below = [path for path in _keys(schema, key) if path.split(".")[-1] == name]
            raise UnknownKeyError(_dotted(key, name), below or [_dotted(key, known) for known in _suggested(schema)])
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise ValueError(f"config needs the key {_dotted(key, name)} ({type_name(hints[name])})")
    made = {name: coerce(hints[name], item, _dotted(key, name)) for name, item in value.items()}
    try:
        return schema(**made)
    except (RenamedKeyError, UnknownKeyError) as error:  # of a variant that the dataclass makes
        raise error.below(key) from None
    except ValueError as error:  # what the dataclass itself checks
        raise ValueError(_located(str(error), key, fields)) from None


def _located(message: str, key: str, fields: Container[str]) -> str:
    """The ``message`` of a dataclass at ``key``: a dotted key where it begins with a field, as in "steps = 0 must"."""
    begins_with_field = re.split(r"\W", message)[0] in fields
    return message if not key else f"{key}.{message}" if begins_with_field else f"{key}: {message}"


def _keys(schema: Any, key: str) -> list[str]:
    """The dotted names of the keys of ``schema`` that errors suggest, nested ones included."""
    hints = _hints(schema)
    paths = {name: _dotted(key, name) for name in _suggested(schema)}
    nested = [_keys(hints[name], path) for name, path in paths.items() if dataclasses.is_dataclass(hints[name])]
    return [*paths.values(), *(path for part in nested for path in part)]


def _suggested(schema: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(schema) if field.init and NOT_SUGGESTED not in field.metadata]


@functools.cache
def _hints(schema: Any) -> dict[str, Any]:
    return typing.get_type_hints(schema, include_extras=True)


def _check_range(hint: Any, value: Any, key: str, otherwise: str = "") -> None:
    """Compare ``value``, or its items, with the `Interval` or `Literal` in ``hint``; None passes."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal and value not in args:
        raise _wrong(key, value, hint)
    if origin is Annotated and isinstance(interval := args[1], Interval):
        bounds = {name: bound for name in _LIMITS if (bound := getattr(interval, name)) is not None}
        if not all(_LIMITS[name][1](value, bound) for name, bound in bounds.items()):
            limits = " and ".join(f"{_LIMITS[name][0]} {bound}" for name, bound in bounds.items())
            raise ValueError(f"{key} = {value} must be {limits}{otherwise}")
    elif origin in (typing.Union, types.UnionType) and value is not None:
        for part in args:
            _check_range(part, value, key, ", or null" if type(None) in args else "")
    elif isinstance(value, (list, tuple)) and args:
        for number, item in enumerate(value):
            _check_range(args[0], item, f"{key}[{number}]")


def shown(value: Any) -> str:
    """``value`` for an error message: on one line, and not long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 200 else f"{text[:200]} …"


def _wrong(key: str, value: Any, hint: Any) -> ValueError:
    close: list[str] = []
    if get_origin(hint) is Literal:
        close = difflib.get_close_matches(str(value), [str(arg) for arg in get_args(hint)], n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return ValueError(f"{key} = {shown(value)} is not {type_name(hint)}{meant}")


def type_name(hint: Any) -> str:
    """What a key of type ``hint`` takes, in words."""
    if hint == PathText:
        return "a path"
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return type_name(args[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_name(part) for part in args)
    if origin is Literal:
        return "one of " + ", ".join(str(arg) for arg in args)
    if origin in (list, tuple):
        inner = ", ".join(type_name(arg) for arg in args if arg is not Ellipsis)
        size = f"{len(args)} values" if origin is tuple and Ellipsis not in args else "values"
        return f"a list of {size} ({inner})"
    if (origin or hint) is dict or dataclasses.is_dataclass(hint):
        return "a mapping"
    plain = {int: "an integer", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    return plain.get(hint, "null" if hint is type(None) else str(hint))


def _dotted(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)
