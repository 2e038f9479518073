"""Model folders on disk: ``model.safetensors`` beside ``config.json``, written atomically and checked when read.

Nothing here is ever unpickled. ``config.json`` carries the kind of model, the fields that rebuild it, the SHA-256 of
the weights and, as ``own_sha256``, that of its own other keys, so that a damaged file and a file of another
architecture are told apart and named.
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
from typing import Any, BinaryIO

import torch
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.overrides import TorchFunctionMode

from ._version import __version__

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
FRONT_END = "front_end.json"
"""What makes a folder that of a saved front-end."""
SEAL = "own_sha256"
"""The key of a sealed JSON file that holds the SHA-256 of all the others."""


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` so that a reader sees the old file or the new one, never half of one.

    Raises ``OSError`` as `told_of` does.
    """
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, and to seek in, that becomes ``path`` at the end; where writing fails, nothing is left of it.

    A link stays, and its target is replaced; a file that is replaced keeps its owner and permissions. What is no
    regular file (a device, a pipe, /dev/stdout) stays too: what was written is copied into it at the end. So is a file
    in a folder that cannot be written.

    Raises ``OSError`` as `told_of` does.
    """
    with told_of(path):
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
    """Whether ``path`` is there and no file or folder: standard output, a pipe or a device."""
    old = _status(path)
    return old is not None and (_descriptor(path) is not None or not (path.is_file() or path.is_dir()))


def _status(path: Path) -> os.stat_result | None:
    """What ``path`` leads to, through all links; None for what is not there yet."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _stays(path: Path, old: os.stat_result) -> bool:
    """Whether what is at ``path`` cannot be replaced, but can be written. Raises ``OSError`` where it cannot be."""
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
    """``path`` itself, open for writing. An open file is written where it stands: opening it anew would empty it."""
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
    """Add a line to ``path`` in a single write, so that the lines of several processes stay whole.

    After half a line, which a process that was killed may have left, a new one is begun. Raises ``OSError`` as
    `told_of` does; half a line may then be left.
    """
    with told_of(path), path.open("a+b", buffering=0) as file:
        torn = file.tell() > 0 and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n"
        data = ("\n" * torn + line + "\n").encode()
        if file.write(data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def told_of(path: Path) -> Iterator[None]:
    """Around writing ``path``: an ``OSError`` says in one line that it is ``path`` which cannot be written, and why.

    What the operating system names is a temporary file beside it, or a folder on the way to it.
    """
    try:
        yield
    except BrokenPipeError:  # the reader of a pipe has had enough
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
    """The error for a ``path`` that is not there: names the nearest file that is, and what to do ``otherwise``."""
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
    """JSON-able ``values`` with their own SHA-256 among them, which `read_sealed` checks."""
    plain = json.loads(json.dumps(dict(values)))  # as they will be read: tuples are lists, keys are strings
    return plain | {SEAL: _own_sha256(plain)}


def read_sealed(path: Path) -> dict[str, Any]:
    """Read the JSON of values that `seal` made. Raises ``ValueError`` in one line where they are not what was written.

    Without its sum a file is refused too: were it let pass, damage to the sum's own key would switch the check off.
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

    ``kind`` names the architecture (``"scorers/vq_lm"``), ``fields`` are the JSON-able values it is rebuilt from. Tied
    weights are stored once, under the first of their names; ``config.json`` says which name stands for which.
    """
    tensors, tied = _untie({name: whole(tensor) for name, tensor in module.state_dict(keep_vars=True).items()})
    config = {"kind": kind, "fields": dict(fields), "version": __version__, "tied": tied}
    text = json.dumps(config)  # fail on what JSON cannot hold before anything is written
    (folder / CONFIG).unlink(missing_ok=True)  # without it the folder counts as not finished
    config = seal(json.loads(text) | {"sha256": write_tensors(folder / WEIGHTS, tensors)})
    atomic_write(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def read_config(folder: Path, kind: str | None = None) -> dict[str, Any]:
    """The ``config.json`` of a model folder: keys ``kind``, ``fields``, ``version``, ``tied``, ``sha256`` and its seal.

    Raises ``ValueError`` when it is missing (naming the nearest), is damaged, edited or not a model's, or is of another
    ``kind`` than the one wanted (of which ``scorers`` means any below it).
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
    """Rebuild the model in ``folder`` on ``device``, in eval mode: ``builder(fields)`` makes it, the weights fill it.

    Raises ``ValueError`` with one line when anything is missing, damaged, of another ``kind`` than wanted, when the
    fields are not those of the kind, or when the weights do not fit what ``builder`` made (naming missing, unexpected
    and mis-shaped weights).
    """
    config = read_config(folder, kind)
    tensors = read_tensors(folder / WEIGHTS, config["sha256"])
    try:
        tensors |= {name: tensors[first] for name, first in config["tied"].items()}
        module, real = _sketch(builder, config["fields"], tensors)
    except ValueError:
        raise
    except Exception as error:  # whatever a sealed file may hold
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise ValueError(f"{folder / CONFIG} does not describe a {config['kind']} ({reason}); make it again") from error
    source = f"{folder} ({config['kind']})"
    _compare(module, tensors, source)
    if not real:
        module = builder(config["fields"])
    load_weights(module, tensors, source)
    return module.to(device).eval()


def _sketch(
    builder: Callable[[dict[str, Any]], nn.Module], fields: dict[str, Any], weights: Mapping[str, Tensor]
) -> tuple[nn.Module, bool]:
    """What ``builder`` makes, to compare its shapes, in hardly more memory than ``weights``; and whether it is real.

    It is made without any memory at first. That fails where the builder computes with its tensors; then the first ones
    are real.
    """
    for room in (0, (1 << 28) + 4 * sum(tensor.nbytes for tensor in weights.values())):
        mode = _Bounded(room, 1000 + 100 * len(weights))
        try:
            with mode:
                return builder(fields), mode.room >= 0
        except ValueError:
            raise
        except Exception as error:
            failure = error
    raise failure


_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.eye, torch.arange, torch.linspace, torch.logspace}
_FACTORIES |= {torch.rand, torch.randn, torch.randint, torch.randperm, torch.empty_strided}


class _Bounded(TorchFunctionMode):
    """A mode in which new tensors after the first ``room`` bytes are on the device ``meta``, and take no memory.

    Raises ``RuntimeError`` at ``count`` tensors.
    """

    def __init__(self, room: int, count: int) -> None:
        super().__init__()
        self.room, self.count = room, count

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _FACTORIES:
            return func(*args, **(kwargs or {}))
        settings = {name: value for name, value in (kwargs or {}).items() if name not in ("generator", "pin_memory")}
        shape = func(*args, **{**settings, "device": "meta"})
        self.room, self.count = self.room - shape.nbytes, self.count - 1
        if not self.count:
            raise RuntimeError("it has many more tensors than the weights")
        return shape if self.room < 0 else func(*args, **(kwargs or {}))


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy ``tensors`` into ``module``, whose names and shapes must be the same. Raises ``ValueError`` in one line."""
    _compare(module, tensors, source)
    module.load_state_dict(dict(tensors))


def _compare(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    own = module.state_dict()
    shapes = [
        f"{name} {list(tensors[name].shape)} for {list(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    faults = {
        "missing": [name for name in own if name not in tensors],
        "unexpected": sorted(tensors.keys() - own.keys()),
        "of another shape": shapes,
    }
    if any(faults.values()):
        told = "; ".join(f"{what}: {_few(found)}" for what, found in faults.items() if found)
        raise ValueError(f"the weights of {source} are of another architecture than {type(module).__name__}: {told}")


def whole(tensor: Tensor) -> Tensor:
    """``tensor``, gathered where it is sharded over processes (all of them call this together)."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _untie(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Keep one name for each distinct tensor; the second value maps every other name to the one kept."""
    first: dict[tuple[Any, ...], str] = {}
    tied: dict[str, str] = {}
    for name, tensor in tensors.items():
        where = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and where in first:
            tied[name] = first[where]
        else:
            first[where] = name
    return {name: tensor for name, tensor in tensors.items() if name not in tied}, tied


def _few(names: list[str], limit: int = 4) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
