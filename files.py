"""Files: written completely or not at all, named in every error, and summed."""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".vqmem-"
"""How the names of files begin that `atomic_file` is writing, beside their targets."""


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` so that a reader sees the old file or the new one, never half of one.

    Raises ``OSError`` as `naming_path` does.
    """
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def atomic_file(path: Path) -> Generator[BinaryIO]:
    """A file to write to, and to seek in, that becomes ``path`` at the end; where writing fails, nothing is left of it.

    A link stays, and its target is replaced. The new file keeps the owner and permissions of the old one. If ``path``
    is not a regular file (a device, a pipe, /dev/stdout), or its folder cannot be written, the content is copied into
    it.

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
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=TEMPORARY)
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
def naming_path(path: Path) -> Generator[None]:
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


def refuse_folder(option: str, path: Path) -> None:
    """Raise `ValueError` if the file that ``option`` names for writing is a folder, before any work is done for it."""
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder; give the name of a file to write")


def missing_file(what: str, path: Path, pattern: str = "*", otherwise: str = "") -> ValueError:
    """Make the error for a ``path`` that does not exist.

    Args:
        what: what the message calls the file.
        path: the missing file or folder.
        pattern: glob of the files that may be suggested instead.
        otherwise: what to do if no file has a similar name.

    Returns:
        The error, to be raised by the caller.
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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
