"""Caches in files: a prefix is read and compressed once, and continued by many."""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from ...files import atomic_write, missing_file
from ...registry import names
from ..bank import Memory, State
from ..fingerprint import fingerprint
from ..policy import Policy, variant_name
from .presets import Preset
from .signals import QueryState
from .state import CacheState, PendingTokens
from .supported_models import placement

FORMAT = "vqmem cache 2"


def policy_spec(policy: Policy) -> dict[str, Any]:
    """The YAML form of a policy. Raises `ValueError` for one that no file of the package defines."""
    name = variant_name(policy)
    if name not in names("policies") or not is_dataclass(policy):
        raise ValueError(f"policy {name} has no name in `vqmem list policies`, by which a file could describe it")
    return {"name": name} | asdict(policy)


def preset_of_memories(usual: Memory, prompt: Memory) -> Preset:
    """The preset of a cache that usually evicts by the one memory, and by the other after a long first pass."""
    made, longer = (Preset(policy_spec(memory.policy), memory.guard.recent) for memory in (usual, prompt))
    return replace(made, prompt=longer)


def _read_policy(spec: dict[str, Any]) -> Preset | dict[str, Any]:
    """The argument ``policy`` of a cache, from its values in a file."""
    if "name" in spec:
        return spec
    made, prompt = (Preset(one["policy"], one["recent"]) for one in (spec, spec["prompt"]))
    return replace(made, prompt=prompt)


def write(path: Path, arguments: dict[str, Any], model: nn.Module, scorer: Any, state: CacheState, layers: Any) -> None:
    """Write a cache into one file, in full or not at all.

    Args:
        path: A safetensors file.
        arguments: What makes an equal empty cache: JSON-able values, and a policy or a `Preset`.
        model: The model, unwrapped; its fingerprint is written.
        scorer: The scorer, whose fingerprint is written; None where there is none.
        state: The bookkeeping.
        layers: The layers of the cache.
    """
    tensors = {f"memory.{name}": x for name, x in state.memory.state_dict().items()}
    tensors |= {"seen": state.seen, "shift": state.shift}
    if state.pending:
        tensors |= {f"pending.{name}": x for name, x in state.pending_tokens()[0]._asdict().items()}
    tensors |= {f"scorer.{i}": x for i, x in enumerate(tree_flatten(state.scorer)[0]) if x is not None}
    for index, layer in enumerate(layers):
        tensors |= {f"layers.{index}.keys": layer.keys, f"layers.{index}.values": layer.values}
    for index, queries in enumerate(state.queries):
        parts = {"hidden": queries.hidden, "valid": queries.valid}
        named = {name: torch.cat(pending, dim=1) for name, pending in parts.items() if pending}
        named |= {name: x for name in ("total", "mean", "second") if (x := getattr(queries, name)) is not None}
        tensors |= {f"queries.{index}.{name}": x for name, x in named.items()}
    policy = arguments["policy"]
    spec = asdict(policy) if isinstance(policy, Preset) else policy_spec(policy)
    about = {
        "arguments": arguments | {"policy": spec},
        "read": layers[0].seen,
        "slots": layers[0].size,
        "model": fingerprint(model),
        "scorer": None if scorer is None else fingerprint(scorer),
    }
    contents = {name: x.detach().contiguous().cpu() for name, x in tensors.items()}
    atomic_write(path, safetensors.torch.save(contents, {"format": FORMAT, "about": json.dumps(about)}))


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `write` wrote: the arguments and fingerprints, and the tensors. Raises `ValueError` in one line."""
    if not path.is_file():
        raise missing_file("file", path, "*.safetensors")
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("format") == "vqmem cache 1":
                raise ValueError(
                    f"{path} was saved by an earlier version, whose scores had no names; read the text again and save "
                    "that cache"
                )
            if about.get("format") != FORMAT:
                raise ValueError(f"{path} has no cache; give a file that VQMemCache.save wrote")
            stored = list(file.keys())  # it cannot be iterated itself
            made = json.loads(about["about"])
            made["arguments"]["policy"] = _read_policy(made["arguments"]["policy"])
            return made, {name: file.get_tensor(name) for name in stored}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error}); save the cache again") from None


def restore(
    tensors: dict[str, Tensor], seen: int, size: int, initial: CacheState, layers: Any, model: Any
) -> CacheState:
    """Fill the ``layers`` and return the bookkeeping.

    Args:
        tensors: What `read` returned.
        seen: The tokens that were read, padding included.
        size: The slots that are allocated.
        initial: The state of an empty cache of the same batch size.
        layers: The empty layers of the cache.
        model: The model, unwrapped.

    Returns:
        The bookkeeping of the cache, as it was saved.

    Raises:
        ValueError: The model has another type of weights than the saved keys.
    """
    dtype, device = placement(model)
    tensors = {name: x.to(device) for name, x in tensors.items()}
    kept = tensors["layers.0.keys"].dtype
    if kept not in (dtype, torch.uint8):
        raise ValueError(f"the cache was saved with {kept} and the model is in {dtype} now; load the model in {kept}")
    for index, layer in enumerate(layers):
        keys, values = (tensors[f"layers.{index}.{name}"] for name in ("keys", "values"))
        layer.restore(keys, values, seen, size)
    leaves, structure = tree_flatten(initial.scorer)
    scorer = tree_unflatten([tensors.get(f"scorer.{i}") for i in range(len(leaves))], structure)
    memory = {name.removeprefix("memory."): x for name, x in tensors.items() if name.startswith("memory.")}
    queries = tuple(_queries(tensors, f"queries.{i}.") for i in range(len(initial.queries)))
    state = State.from_state_dict(memory, initial.memory.slots.score_names)
    waiting = [tensors[f"pending.{name}"] for name in PendingTokens._fields if f"pending.{name}" in tensors]
    pending = (PendingTokens(*waiting),) if waiting else ()
    return CacheState(state, scorer, tensors["seen"], tensors["shift"], (dtype, device), queries, pending)


def _queries(tensors: dict[str, Tensor], prefix: str) -> QueryState:
    found: dict[str, Any] = {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
    for name in found.keys() & {"hidden", "valid"}:
        found[name] = (found[name],)
    return QueryState(**found)
