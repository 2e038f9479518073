"""Model folders on disk: ``model.safetensors`` beside ``config.json``, written atomically and checked when read.

Nothing here is ever unpickled. ``config.json`` holds the kind of model, the fields that rebuild it, the SHA-256 of the
weights and, as ``own_sha256``, the SHA-256 of its other keys. Errors therefore distinguish a damaged file from a file
of another architecture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ._version import __version__
from .files import atomic_write, missing_file
from .sketch import build_sketch

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
FRONT_END = "front_end.json"
"""The file that every folder of a saved front-end has."""
SEAL = "own_sha256"
"""The key of a sealed JSON file whose value is the SHA-256 of all other keys."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write ``tensors`` as safetensors, atomically, and return the SHA-256 of the file."""
    data = to_safetensors({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()})
    atomic_write(path, data)
    return hashlib.sha256(data).hexdigest()


def read_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """Read what `write_tensors` wrote. Raises ``ValueError`` when the file is missing or its SHA-256 is another."""
    if not path.is_file():
        raise missing_file("file", path)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{path} is damaged: its SHA-256 is not the one recorded when it was written; make it again")
    try:
        return parse_safetensors(data)
    except Exception as error:  # a header that its sum confirms may still hold anything
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise ValueError(f"{path} does not contain tensors ({reason}); make it again") from error


def seal(values: Mapping[str, Any]) -> dict[str, Any]:
    """Add to JSON-able ``values`` their SHA-256, which `read_sealed` checks."""
    plain = json.loads(json.dumps(dict(values)))  # as they will be read: tuples are lists, keys are strings
    return plain | {SEAL: _own_sha256(plain)}


def read_sealed(path: Path) -> dict[str, Any]:
    """Read the JSON of values that `seal` made. Raises ``ValueError`` in one line if the file has changed.

    A file without the sum is refused too: otherwise damage to that key would switch the check off.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(values, dict) or values.get(SEAL) != _own_sha256(values):
        raise ValueError(
            f"{path} is damaged or was edited: its {SEAL} is not the SHA-256 of its other keys; copy or make it again"
        )
    return values


def _own_sha256(values: Mapping[str, Any]) -> str:
    text = json.dumps({key: values[key] for key in values if key != SEAL}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def save_model(folder: Path, kind: str, fields: Mapping[str, Any], module: nn.Module) -> None:
    """Save ``module`` so that `load_model` can rebuild it.

    Tied weights are stored once, under the first of their names; ``config.json`` maps the other names to it.

    Args:
        folder: where ``config.json`` and ``model.safetensors`` are written.
        kind: the architecture, such as ``"scorers/vq_lm"``.
        fields: the JSON-able values from which the module is rebuilt.
        module: the module whose weights and buffers are saved.
    """
    tensors, tied = _untie({name: full_tensor(tensor) for name, tensor in module.state_dict(keep_vars=True).items()})
    config = {"kind": kind, "fields": dict(fields), "version": __version__, "tied": tied}
    text = json.dumps(config)  # fail on what JSON cannot hold before anything is written
    (folder / CONFIG).unlink(missing_ok=True)  # a folder without it is unfinished
    config = seal(json.loads(text) | {"sha256": write_tensors(folder / WEIGHTS, tensors)})
    atomic_write(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def read_config(folder: Path, kind: str | None = None) -> dict[str, Any]:
    """The ``config.json`` of a model folder: keys ``kind``, ``fields``, ``version``, ``tied``, ``sha256`` and its seal.

    Raises ``ValueError`` if it is missing, damaged, edited, not the config of a model, or of another ``kind``. The kind
    ``scorers`` includes every kind that begins with ``scorers/``.
    """
    if not folder.is_dir():
        raise missing_file("model folder", folder)
    path = folder / CONFIG
    if not path.is_file():
        raise missing_file("model config", path)
    config = read_sealed(path)
    wanted = {"kind": str, "fields": dict, "tied": dict, "sha256": str}
    if not all(isinstance(config.get(key), of) for key, of in wanted.items()):
        raise ValueError(f"{path} does not describe a model of vqmem: it needs the keys {', '.join(wanted)}")
    if kind is not None and kind not in (config["kind"], config["kind"].split("/")[0]):
        raise ValueError(f"{folder} contains a model of kind {config['kind']!r}, but {kind!r} is wanted")
    return config


def load_model(
    folder: Path,
    builder: Callable[[dict[str, Any]], M],
    *,
    kind: str | None = None,
    device: torch.device | str = "cpu",
) -> M:
    """Rebuild the model in ``folder``, in eval mode.

    A module whose parameters had other names in earlier versions lists them in ``renamed_weights``: old -> new prefix.

    Args:
        folder: the folder that `save_model` wrote.
        builder: makes the untrained module from the ``fields`` of the config.
        kind: the kind that the folder must have; None = any.
        device: where the model is put.

    Returns:
        The module with its weights.

    Raises:
        ValueError: in one line, if a file is missing or damaged, the kind is another, the fields are not those of the
            kind, or the weights do not fit (with the names of missing, unexpected and mis-shaped weights).
    """
    config = read_config(folder, kind)
    tensors = read_tensors(folder / WEIGHTS, config["sha256"])
    try:
        tensors |= {name: tensors[first] for name, first in config["tied"].items()}
        module, real = build_sketch(builder, config["fields"], tensors)
    except ValueError:
        raise
    except Exception as error:  # whatever a sealed file may hold
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise ValueError(f"{folder / CONFIG} does not describe a {config['kind']} ({reason}); make it again") from error
    tensors = rename_keys(tensors, getattr(module, "renamed_weights", {}))
    source = f"{folder} ({config['kind']})"
    _compare(module, tensors, source)
    if not real:
        module = builder(config["fields"])
    load_weights(module, tensors, source)
    return module.to(device).eval()


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy ``tensors`` into ``module``, whose names and shapes must be the same. Raises ``ValueError`` in one line."""
    _compare(module, tensors, source)
    module.load_state_dict(dict(tensors))


def _compare(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    wanted = module.state_dict()
    shapes = [
        f"{name} {list(tensors[name].shape)} for {list(wanted[name].shape)}"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    faults = {
        "missing": [name for name in wanted if name not in tensors],
        "unexpected": sorted(tensors.keys() - wanted.keys()),
        "of another shape": shapes,
    }
    if any(faults.values()):
        reasons = "; ".join(f"{fault}: {_few(names)}" for fault, names in faults.items() if names)
        raise ValueError(f"the weights of {source} are of another architecture than {type(module).__name__}: {reasons}")


def rename_keys(values: Mapping[str, T], renamed: Mapping[str, str]) -> dict[str, T]:
    """``values`` with new names for the keys, or for the parts of keys before the first dot, that ``renamed`` has.

    >>> rename_keys({"said.weight": 1, "head": 2}, {"said": "unit_embed"})
    {'unit_embed.weight': 1, 'head': 2}
    """
    parts = {key: key.partition(".") for key in values}
    return {f"{renamed.get(head, head)}{dot}{rest}": values[key] for key, (head, dot, rest) in parts.items()}


def full_tensor(tensor: Tensor) -> Tensor:
    """``tensor``, gathered if it is sharded over processes, which must all call this together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _untie(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Keep one name for each distinct tensor; the second value maps every other name to it."""
    first: dict[tuple[Any, ...], str] = {}
    tied: dict[str, str] = {}
    for name, tensor in tensors.items():
        storage = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and storage in first:
            tied[name] = first[storage]
        else:
            first[storage] = name
    return {name: tensor for name, tensor in tensors.items() if name not in tied}, tied


def _few(names: list[str], limit: int = 4) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
