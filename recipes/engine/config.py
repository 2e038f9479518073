"""Configs: a YAML file and ``key=value`` overrides, merged over a frozen dataclass, with errors that name the fix.

The dataclass is the schema: its fields are the keys, their types are checked, nested dataclasses are nested mappings.
The field of a variant is typed ``dict[str, Any]`` or ``str | dict[str, Any]`` and left open: which keys it takes
is known only to the file of the variant, and `vqmem.registry.build` checks them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ...files import missing_file
from ...schema import RenamedKeyError, UnknownNameError, coerce

T = TypeVar("T")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Without float16, which needs loss scaling."""
PLACEHOLDER = "MY_FOLDER"
"""Stands in the shipped configs for a path that the user has to give."""


def load(schema: type[T], path: str | Path | None, overrides: Iterable[str] = (), *, folder: Path | None = None) -> T:
    """Build an instance of ``schema`` from its defaults, then the YAML file, then the ``key=value`` overrides in order.

    Interpolations (``${other.key}``) are resolved. A variant loses its old keys if it gets another ``name``, or if an
    override gives it in full (``data={name: hub, path: x}``); ``data.where={}`` empties a mapping.

    Args:
        schema: a dataclass.
        path: a file, or the bare name of one in ``folder``; ``None`` takes the defaults.
        overrides: ``key=value`` with dotted keys.
        folder: the configs that the recipe ships.

    Returns:
        The config, checked and with all its fields.

    Raises:
        ValueError: in one line, for a missing or malformed file, an override without ``=``, an unknown key or a value
            of the wrong type.
    """
    merged = _defaults(schema)
    if path is not None:
        merged = _merge(merged, _read(_find(Path(path), folder)), schema)
    for override in overrides:
        merged = _merge(merged, _parse(override), schema)
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(merged), resolve=True)
    except OmegaConfBaseException as error:
        raise ValueError(f"config: {_first_line(error)}") from None
    try:
        return from_dict(schema, typing.cast("dict[str, Any]", resolved))
    except RenamedKeyError as error:
        overridden = [override.partition("=")[0].strip() for override in overrides]
        in_file = path is not None and not any(f"{error.old}.".startswith(f"{key}.") for key in overridden)
        raise ValueError(f"{path}: {error}" if in_file else str(error)) from None


def from_dict(schema: type[T], values: Mapping[str, Any]) -> T:
    """Build an instance of ``schema`` from a plain mapping, such as `as_dict` returns. Raises as `load` does."""
    return coerce(schema, dict(values), "")


def as_dict(config: Any) -> dict[str, Any]:
    """``config`` as JSON-able values: dataclasses are dicts, tuples lists, paths strings."""
    return typing.cast("dict[str, Any]", as_plain(config))


def refuse_placeholders(config: Any) -> None:
    """Raise ``ValueError`` for a key whose value is still `PLACEHOLDER`, which stands for data of the user."""
    for key, value in flat(as_dict(config)).items():
        if isinstance(value, str) and value.startswith(PLACEHOLDER) and not Path(value).exists():
            raise ValueError(f"{key} is not given: {value} stands for your data; give {key}=FILE_OR_FOLDER")


def dump(config: Any) -> str:
    """``config`` as YAML, which `load` turns into an equal value."""
    return OmegaConf.to_yaml(OmegaConf.create(as_dict(config)))


def digest(config: Any) -> str:
    """A hash of ``config``: the first twelve hex digits of SHA-256 over canonical JSON."""
    text = json.dumps(as_plain(config), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into one with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


MAY_CHANGE = {"log_every", "save_every", "device", "tensorboard", "workers"}
"""Keys that may differ between the runs that start and resume a training."""


def lasting(values: Mapping[str, Any]) -> dict[str, Any]:
    """The dotted keys that must stay the same when a run continues.

    Steps may be added to a training, and data may move: its content is compared, not its location.
    """
    steps = {key for key in values if key.endswith("steps") and f"{key.removesuffix('steps')}accumulate" in values}
    free = {key for key in values if key.split(".")[-1] in MAY_CHANGE or is_place(key)}
    return {key: value for key, value in values.items() if key not in steps | free}


def is_place(key: str) -> bool:
    """Whether a dotted key says where data is."""
    return key.startswith("data.") and key.split(".")[-1] in ("path", "cache")


def refuse_changes(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` with the dotted keys that differ between the run in ``folder`` (``old``) and ``new``."""
    changed = [f"{key} {old.get(key)} -> {new.get(key)}" for key in {**old, **new} if old.get(key) != new.get(key)]
    if changed:
        raise ValueError(
            f"{folder} contains another run ({'; '.join(changed[:4])}); use another folder or delete this one"
        )


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The autocast type for ``name``; ``auto`` is bfloat16 on a GPU that supports it and float32 elsewhere.

    Raises ``ValueError`` for an unknown name.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if name not in DTYPES:
        raise UnknownNameError("dtype", name, ["auto", *DTYPES])
    return DTYPES[name]


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    """A context of mixed precision in ``dtype``; for float32 it does nothing."""
    return contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


# --- reading -------------------------------------------------------------------------------------------------------


def _find(path: Path, folder: Path | None) -> Path:
    named = [] if folder is None else [folder / path, folder / f"{path}.yaml"]
    for candidate in (path, *named):
        if candidate.is_file():
            return candidate
    if path.is_dir():
        hint = ", such as the config.yaml in it" if (path / "config.yaml").is_file() else ""
        raise ValueError(f"config {str(path)!r} is a folder; give a YAML file{hint}")
    if folder is not None and path.parent == Path("."):
        known = sorted({file.stem for file in folder.glob("*.yaml")} | {file.name for file in Path(".").glob("*.yaml")})
        raise UnknownNameError("config", str(path), known)
    raise missing_file("config", path)


def _read(path: Path) -> dict[str, Any]:
    try:
        node = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{path}{where}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML: {_first_line(error)}") from None
    except OmegaConfBaseException as error:
        raise ValueError(f"{path}: {_first_line(error)}") from None
    except OSError:  # raised by OmegaConf for a file with one bare word or number
        raise ValueError(f"{path}: a config is a mapping of keys to values") from None
    if not isinstance(node, dict):
        raise ValueError(f"{path}: a config is a mapping of keys to values, not a list")
    return typing.cast("dict[str, Any]", node)


def _parse(override: str) -> dict[str, Any]:
    """Parse an override into nested mappings; a full variant, as in ``data={name: hub}``, becomes a `_Replacement`."""
    key, equals, _ = override.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"override {override!r} is not key=value; write for example train.steps=100")
    try:
        node = OmegaConf.to_container(OmegaConf.from_dotlist([override]), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"override {override!r}: {_first_line(error)}") from None
    except UnicodeEncodeError:  # file names on the command line may contain bytes that are not UTF-8
        raise ValueError(f"override {override!r} is not UTF-8, as YAML must be; rename the file or folder") from None
    return typing.cast("dict[str, Any]", _in_full(node, key.count(".") + 1))


def _in_full(node: Any, depth: int) -> Any:
    """Turn the mapping that lies ``depth`` keys below ``node`` into a `_Replacement` if it has a ``name``."""
    if not isinstance(node, dict):
        return node
    if depth:
        return {key: _in_full(value, depth - 1) for key, value in node.items()}
    return _Replacement(node) if "name" in node else node


def _defaults(schema: Any) -> dict[str, Any]:
    """The defaults of ``schema``; required keys are absent."""
    values: dict[str, Any] = {}
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        if field.default is not dataclasses.MISSING:
            values[field.name] = as_plain(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            values[field.name] = as_plain(field.default_factory())
        elif dataclasses.is_dataclass(hints[field.name]):
            values[field.name] = _defaults(hints[field.name])
    return values


class _Replacement(dict[str, Any]):
    """A mapping that replaces an older one instead of being merged into it."""


def _merge(base: Any, over: Any, hint: Any = None) -> Any:
    """Merge ``over`` into ``base``.

    Where no dataclass defines the keys, a mapping replaces ``base`` if it has another ``name``, has no keys, or is a
    `_Replacement`.
    """
    if not isinstance(over, dict):
        return over
    closed = dataclasses.is_dataclass(hint)
    if not closed and (not over or isinstance(over, _Replacement)):
        return dict(over)
    if isinstance(base, str) and not closed:
        base = {"name": base}
    if not isinstance(base, dict) or (not closed and "name" in over and over["name"] != base.get("name")):
        base = {}
    hints = typing.get_type_hints(hint) if closed else {}
    return base | {key: _merge(base.get(key), value, hints.get(key)) for key, value in over.items()}


def as_plain(value: Any) -> Any:
    """Convert dataclasses to dicts, tuples to lists and paths to strings, recursively."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
