"""Training checkpoints: everything that an identical continuation needs, in files that are never unpickled.

`torch.distributed.checkpoint` pickles its metadata and everything that is not a tensor. So it is used here with its
safetensors storage and for tensors only: the parameters and the optimiser's moments, which the processes share or shard
(folder ``shared``). The state of each process (buffers, memory state, RNG, position in the data) goes to
``rank-K.safetensors`` and ``rank-K.json``. ``checkpoint.json`` contains the SHA-256 of these files and of itself.

A checkpoint is written to a temporary folder, flushed to disk and renamed: it is complete or it does not exist. The
last two are kept, so that a damaged one costs only the steps since the one before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_shared
from torch.distributed.checkpoint.state_dict_saver import save as save_shared

from ...artifacts import read_sealed, seal
from ...files import file_sha256
from .distributed import gather

FOLDER = "checkpoints"
"""The subfolder of a training that contains its checkpoints."""
INDEX = "checkpoint.json"
SHARED = "shared"


def save(folder: Path, step: int, shared: Mapping[str, Tensor], per_process: Any, about: Mapping[str, Any]) -> Path:
    """Write ``folder/step-N`` and keep one older checkpoint. All processes call this together.

    Args:
        folder: of all checkpoints of the training.
        step: the number of updates done.
        shared: tensors that are replicated or sharded (``DTensor``).
        per_process: a tree (see `encode`) of this process.
        about: JSON-able values that are the same for all processes.

    Returns:
        The folder of the checkpoint.

    Raises:
        OSError: in all processes if one of them cannot write; the older checkpoints are unchanged.
    """
    rank, world = _ranks()
    target, temporary = folder / f"step-{step:09d}", folder / f".step-{step:09d}"
    tensors, skeleton = encode(per_process)

    def prepare() -> None:
        if rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)

    def write() -> None:
        if shared:
            writer = HuggingFaceStorageWriter(str(temporary / SHARED), save_distributed=True)
            with _alone():
                save_shared(dict(shared), storage_writer=writer, no_dist=world == 1)
        save_file(tensors, temporary / f"rank-{rank}.safetensors")
        (temporary / f"rank-{rank}.json").write_text(json.dumps(skeleton))

    def publish() -> None:
        if rank == 0:
            _publish(temporary, target, {"step": step, "world": world, **about})

    for stage in (prepare, write, publish):
        failed = [reason for reason in gather(_attempt(stage)) if reason]
        if failed:
            if rank == 0:
                shutil.rmtree(temporary, ignore_errors=True)
            raise OSError(f"cannot write {str(target)!r}: {failed[0]}; the checkpoints before it are unchanged")
    return target


def _attempt(stage: Callable[[], None]) -> str | None:
    """Run ``stage``; return the reason if it could not write."""
    try:
        stage()
    except (OSError, SafetensorError, CheckpointException) as error:
        return _reason(error)
    return None


def _reason(error: BaseException) -> str:
    """The message of the operating system, whichever library raised it; other errors are raised again."""
    if isinstance(error, CheckpointException):
        return _reason(next(iter(error.failures.values()))[0])
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, (OSError, SafetensorError)):
        number = re.search(r"os error (\d+)", str(error))
        return os.strerror(int(number[1])) if number else str(error).split("\n")[0]
    raise error


def _publish(temporary: Path, target: Path, about: Mapping[str, Any]) -> None:
    """Seal the files in ``temporary``, rename it to ``target``, and keep one checkpoint before it."""
    written = sorted(path for path in temporary.rglob("*") if path.is_file())
    files = {path.relative_to(temporary).as_posix(): file_sha256(path) for path in written}
    (temporary / INDEX).write_text(json.dumps(seal({**about, "files": files}), indent=2) + "\n")
    for path in (*temporary.rglob("*"), temporary):
        _flush(path)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    _flush(target.parent)
    others = [path for path in newest_first(target.parent) if path != target]
    before = [path for path in others if path < target]
    for path in others:
        if path not in before[:1]:  # later ones are damaged: the run continued from before them
            shutil.rmtree(path)


def _flush(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def newest_first(folder: Path) -> list[Path]:
    """The complete checkpoints in ``folder``, newest first; other files and copies of checkpoints are ignored."""
    return sorted((path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{9,}", path.name)), reverse=True)


def step_of(path: Path) -> int:
    """The step at which the checkpoint ``path`` was saved."""
    return int(path.name.removeprefix("step-"))


def newest_undamaged(folder: Path) -> Path | None:
    """The newest checkpoint that no process finds damaged; newer, damaged ones are reported.

    Raises ``ValueError`` if all are damaged.
    """
    damages: list[str] = []
    for path in newest_first(folder):
        found = [damage for damage in gather(_damage(path)) if damage]
        if not found:
            if damages and _ranks()[0] == 0:
                print(f"{damages[0]}; continuing from {path.name}, the one before", file=sys.stderr, flush=True)
            return path
        damages += found
    if damages:
        raise ValueError(f"{damages[0]}, and no other is left; delete {folder.parent} to train anew")
    return None


def _damage(path: Path) -> str | None:
    """Describe the damage of a checkpoint in one line: a file that is missing or changed."""
    try:
        files = read_about(path)["files"]
        for name, digest in files.items():
            if not (path / name).is_file() or file_sha256(path / name) != digest:
                return f"checkpoint {path} is damaged: {name} is missing or changed"
            if name.endswith(".safetensors"):
                with safe_open(path / name, "pt"):  # reads its header
                    pass
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError):
        return f"checkpoint {path} is damaged: {INDEX} is missing or changed"
    return None


def read_about(path: Path) -> dict[str, Any]:
    """The JSON given to `save` as ``about``, with ``step`` and ``world`` (the number of processes)."""
    return read_sealed(path / INDEX)


def shapes(path: Path) -> dict[str, torch.Size]:
    """Name and shape of every shared tensor in a checkpoint."""
    if not (path / SHARED).is_dir():
        return {}
    metadata = HuggingFaceStorageReader(str(path / SHARED)).read_metadata().state_dict_metadata
    return {name: entry.size for name, entry in metadata.items() if isinstance(entry, TensorStorageMetadata)}


def load(path: Path, shared: Mapping[str, Tensor], device: torch.device) -> Any:
    """Fill the ``shared`` tensors in place and return the ``per_process`` tree of `save`, on ``device``."""
    rank, world = _ranks()
    if shared:
        reader = HuggingFaceStorageReader(str(path / SHARED))
        with _alone():
            load_shared(dict(shared), storage_reader=reader, no_dist=world == 1)
    skeleton = json.loads((path / f"rank-{rank}.json").read_text(encoding="utf-8"))
    return decode(load_file(path / f"rank-{rank}.safetensors"), skeleton, device)


# --- random numbers ------------------------------------------------------------------------------------------------


def rng_state(device: torch.device) -> dict[str, Any]:
    """The state of all global random generators of this process, as a tree for `encode`."""
    name, keys, *rest = np.random.get_state(legacy=True)
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "python": random.getstate(),
        "numpy": (name, np.asarray(keys).tolist(), *rest),
    }


def set_rng_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Restore a state that `rng_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])


# --- trees of tensors ----------------------------------------------------------------------------------------------


def encode(tree: Any) -> tuple[dict[str, Tensor], Any]:
    """Split a tree into named tensors and JSON.

    Leaves: tensors, numbers, strings, None; nodes: dicts, lists, (named) tuples, dataclasses. Raises ``TypeError`` for
    anything else: an explicit state consists of values only.
    """
    tensors: dict[str, Tensor] = {}

    def walk(node: Any) -> Any:
        if node is None or isinstance(node, (bool, int, float, str)):
            return node
        if isinstance(node, Tensor):
            name = str(len(tensors))
            tensors[name] = node.detach().cpu().clone().contiguous()
            return {"tensor": name, "on_cpu": node.device.type == "cpu"}
        if _is_record(type(node)):
            values = {name: walk(value) for name, value in _values(node).items()}
            return {"record": [type(node).__module__, type(node).__qualname__], "fields": values}
        if type(node) is dict:
            return {"dict": [[walk(key), walk(value)] for key, value in node.items()]}
        if type(node) in (list, tuple):
            return {type(node).__name__: [walk(value) for value in node]}
        raise TypeError(f"cannot checkpoint a {type(node).__name__} in a training state; use tensors and dataclasses")

    skeleton = walk(tree)
    return tensors, skeleton


def decode(tensors: Mapping[str, Tensor], skeleton: Any, device: torch.device) -> Any:
    """Rebuild the tree from the results of `encode`; tensors that were not on the CPU go to ``device``."""
    if not isinstance(skeleton, dict):
        return skeleton
    if "tensor" in skeleton:
        tensor = tensors[skeleton["tensor"]]
        return tensor if skeleton["on_cpu"] else tensor.to(device)
    if "record" in skeleton:
        fields = {name: decode(tensors, value, device) for name, value in skeleton["fields"].items()}
        kind = _record(*skeleton["record"])
        if missing := _required(kind) - fields.keys():
            raise ValueError(
                f"the checkpoint is of an earlier version, whose {kind.__name__} had no {', '.join(sorted(missing))}; "
                "delete the folder training of this run to train anew"
            )
        return kind(**fields)
    if "dict" in skeleton:
        return {decode(tensors, key, device): decode(tensors, value, device) for key, value in skeleton["dict"]}
    kind = tuple if "tuple" in skeleton else list
    return kind(decode(tensors, value, device) for value in skeleton[kind.__name__])


def _is_record(kind: type) -> bool:
    """Whether values of ``kind`` are dataclasses or named tuples."""
    return dataclasses.is_dataclass(kind) or (issubclass(kind, tuple) and hasattr(kind, "_fields"))


def _values(record: Any) -> dict[str, Any]:
    names = getattr(record, "_fields", None) or [field.name for field in dataclasses.fields(record)]
    return {name: getattr(record, name) for name in names}


def _required(kind: type) -> set[str]:
    """The fields of a record that have no default."""
    if not dataclasses.is_dataclass(kind):
        return set(kind._fields) - kind._field_defaults.keys()  # pyright: ignore[reportAttributeAccessIssue]
    missing = dataclasses.MISSING
    return {x.name for x in dataclasses.fields(kind) if x.default is missing and x.default_factory is missing}


def _record(module: str, name: str) -> type:
    """Find a class that is already imported: a file on disk must not decide what code is loaded."""
    found = getattr(sys.modules.get(module), name, None)
    if not (isinstance(found, type) and _is_record(found)):
        raise ValueError(f"the checkpoint contains a {module}.{name}, which this program does not know")
    return found


@contextlib.contextmanager
def _alone() -> Generator[None]:
    """Suppress the warning that torch.distributed is not initialised."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _ranks() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
