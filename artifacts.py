"""Model folders on disk: ``model.safetensors`` beside ``config.json``, written atomically and checked when read.

Nothing here is ever unpickled. ``config.json`` holds the kind of model, the fields that rebuild it, the SHA-256 of the
weights and, as ``own_sha256``, the SHA-256 of its other keys. Errors therefore distinguish a damaged file from a file
of another architecture.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ._version import __version__
from .sketch import build_sketch

T = TypeVar("T")
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
FRONT_END = "front_end.json"
"""The file that every folder of a saved front-end has."""
SEAL = "own_sha256"
"""The key of a sealed JSON file whose value is the SHA-256 of all other keys."""


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` so that a reader sees the old file or the new one, never half of one.

    Raises ``OSError`` as `naming_path` does.
    """
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, and to seek in, that becomes ``path`` at the end; where writing fails, nothing is left of it.

    A link stays, and its target is replaced. The new file keeps the owner and permissions of the old one. If ``path``
    is no regular file (a device, a pipe, /dev/stdout), or its folder cannot be written, the content is copied into it.

    Raises ``OSError`` as `naming_path` does.
    """
    with naming_path(path):
        old = _status(path)
        if old is not None and _stays(path, old):
            with tempfile.TemporaryFile() as file:
                yield file
                file.seek(0)
                with _open_in_place(path) as target:
                    shutil.copyfileobj(file, target)
            return
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".vqmem-")
        try:
            with os.fdopen(handle, "w+b") as file:
                yield file
            _set_access(temporary, old)
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def is_stream(path: Path) -> bool:
    """Whether ``path`` is standard output, a pipe or a device."""
    old = _status(path)
    return old is not None and (_descriptor(path) is not None or not (path.is_file() or path.is_dir()))


def _status(path: Path) -> os.stat_result | None:
    """The status of ``path`` behind all links; None if it does not exist."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _stays(path: Path, old: os.stat_result) -> bool:
    """Whether ``path`` has to be written in place. Raises ``OSError`` if it cannot be written at all."""
    if stat.S_ISDIR(old.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    folder = os.path.dirname(os.path.realpath(path))
    return not stat.S_ISREG(old.st_mode) or _descriptor(path) is not None or not os.access(folder, os.W_OK)


def _descriptor(path: Path) -> int | None:
    """The number of the open file that ``path`` names, as /dev/stdout and a shell's ``>(command)`` do."""
    for _ in range(40):  # as many links as Linux follows
        if path.name.isdigit() and os.path.realpath(path.parent) == os.path.realpath("/dev/fd"):
            return int(path.name)
        if not path.is_symlink():
            break
        path = path.parent / path.readlink()
    return None


def _open_in_place(path: Path) -> BinaryIO:
    """Open ``path`` for writing. An open file is continued at its position: opening it again would truncate it."""
    number = _descriptor(path)
    if number is None:
        return path.open("wb")
    if number == 1:
        sys.stdout.flush()  # what was printed comes first
    return os.fdopen(os.dup(number), "wb")


def _set_access(path: str, old: os.stat_result | None) -> None:
    """Give a new file the owner and permissions of the ``old`` one, or those that the user's umask asks for."""
    if old is None:
        os.chmod(path, 0o666 & ~_umask())  # mkstemp makes files that only their owner may read
        return
    with contextlib.suppress(OSError):  # only root may give files away, and not everywhere
        os.chown(path, old.st_uid, old.st_gid)
    os.chmod(path, stat.S_IMODE(old.st_mode))


def append_line(path: Path, line: str) -> None:
    """Append a line to ``path`` in a single write, so that lines of several processes do not mix.

    If the file ends within a line, because a process was killed, a new line is started first. Raises ``OSError`` as
    `naming_path` does; the file may then end within a line.
    """
    with naming_path(path), path.open("a+b", buffering=0) as file:
        torn = file.tell() > 0 and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n"
        data = ("\n" * torn + line + "\n").encode()
        if file.write(data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def naming_path(path: Path) -> Iterator[None]:
    """Wrap the writing of ``path``: an ``OSError`` then names ``path`` and the reason in one line.

    The operating system would name a temporary file beside it, or one of its parent folders.
    """
    try:
        yield
    except BrokenPipeError:  # the reader of a pipe has closed it
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, IsADirectoryError):
            reason = "it is a folder; give the name of a file"
        elif isinstance(error, (FileExistsError, NotADirectoryError)):
            file = next((part for part in (path, *path.parents) if part.is_file()), path)
            reason = f"{str(file)!r} is a file, where a folder is needed; give another place"
        raise OSError(f"cannot write {str(path)!r}: {reason}") from error


def missing_file(what: str, path: Path, pattern: str = "*", otherwise: str = "") -> ValueError:
    """Make the error for a ``path`` that does not exist.

    Args:
        what: what the message calls the file.
        path: the missing file or folder.
        pattern: glob of the files that may be suggested instead.
        otherwise: what to do if no file has a similar name.
    """
    folder = next((parent for parent in path.parents if parent.is_dir()), Path("."))
    present = sorted(entry.name for entry in folder.glob(pattern) if not entry.name.startswith("."))
    wanted = path.relative_to(folder).parts[0] if path.is_relative_to(folder) else path.name
    close = difflib.get_close_matches(wanted, present, n=3, cutoff=0.5)
    if close:
        hint = f"did you mean {' or '.join(str(folder / n) for n in close)}?"
    elif otherwise:
        hint = ""
    else:
        hint = f"{folder} holds {', '.join(present[:8])}" if present else f"{folder} is empty"
    return ValueError(f"{what} {str(path)!r} not found; {' '.join(filter(None, [hint, otherwise]))}")


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        raise ValueError(f"{path} does not hold tensors ({reason}); make it again") from error


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
        raise ValueError(f"{folder} holds a model of kind {config['kind']!r}, but {kind!r} is wanted")
    return config


def load_model(
    folder: Path,
    builder: Callable[[dict[str, Any]], nn.Module],
    *,
    kind: str | None = None,
    device: torch.device | str = "cpu",
) -> nn.Module:
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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
