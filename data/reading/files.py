"""Read text files; one line reports whatever is wrong: the file is missing, empty, binary or in another encoding."""

from __future__ import annotations

import difflib
import errno
import os
import re
import stat
import sys
from pathlib import Path
from types import TracebackType

from ...console import one_line
from ...schema import expand

_JUNK = {"__MACOSX", "Thumbs.db", "ehthumbs.db", "desktop.ini", "@eaDir", "$RECYCLE.BIN", "System Volume Information"}


class UnreadableError(ValueError):
    """One document cannot be used, while others may be; the message is one line."""


class SilentError(UnreadableError):
    """Every sample of a recording is 0."""


class Skipping:
    """Wrap each document of a long job, which then continues after an unreadable one and lists it at the end.

    >>> skipping = Skipping()
    >>> for document in documents:  # doctest: +SKIP
    ...     with skipping:
    ...         use(document)
    >>> skipping.report()
    """

    def __init__(self) -> None:
        self.tried = 0
        self.reasons: list[str] = []

    def __enter__(self) -> None:
        self.tried += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, UnreadableError):
            self.reasons.append(str(error))
        return isinstance(error, UnreadableError)

    def report(self) -> None:
        """List the skipped documents on standard error. Raises `UnreadableError` if all were skipped."""
        if self.tried == 1 and self.reasons:
            raise UnreadableError(self.reasons[0])
        if self.reasons:
            lines = [
                f"skipped {len(self.reasons)} of {self.tried}:",
                *(f"  {one_line(reason)}" for reason in self.reasons),
            ]
            print("\n".join(lines), file=sys.stderr)
        if self.reasons and len(self.reasons) == self.tried:
            raise UnreadableError(f"none of the {self.tried} can be used; see above")


def read_text(path: str | Path, encoding: str = "utf-8", option: str = "") -> str:
    """Read the text of a file, or of standard input for ``-``, without a leading byte order mark.

    ``option`` is the name, in messages, of the option that sets another encoding; empty if there is none.

    Raises:
        ValueError: in one line, what is wrong with the file and what to do about it.
    """
    if str(path) == "-":
        return decode(sys.stdin.buffer.read(), "standard input", encoding, option)
    path = require_path(path)
    if path.is_dir():
        raise ValueError(f"{str(path)!r} is a folder; give a file in it")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {str(path)!r}: {error.strerror}") from error
    return decode(data, repr(str(path)), encoding, option)


def decode(data: bytes, name: str, encoding: str = "utf-8", option: str = "") -> str:
    """Decode the text of a file.

    Args:
        data: the bytes of the file.
        name: what messages call it.
        encoding: as Python names it.
        option: as for `read_text`.

    Returns:
        The text without a leading byte order mark.

    Raises:
        ValueError: as for `read_text`.
    """
    try:
        text = data.decode(encoding).removeprefix("\ufeff")
    except LookupError as error:
        raise ValueError(f"unknown encoding {encoding!r}; give one Python knows, such as latin-1") from error
    except UnicodeDecodeError as error:
        if b"\0" in data:
            raise ValueError(_binary(name, option)) from error
        byte = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        hint = f"give its {option}, such as latin-1" if option else f"save it in {encoding}"
        raise ValueError(f"{name} is not valid {encoding} ({byte}); {hint}") from error
    if "\0" in text:
        raise ValueError(_binary(name, option))
    if not text:
        raise ValueError(f"{name} is empty; give a file with text in it")
    return text


def require_path(path: str | Path) -> Path:
    """Return ``path`` if it exists.

    Otherwise raises `UnreadableError` with the nearest name in its deepest existing folder, or the target of the link.
    """
    path = Path(expand(str(path)))
    if os.path.exists(path):  # `exists` is false for a name that is too long
        return path
    if path.is_symlink():
        raise UnreadableError(f"{str(path)!r} is a link to {os.readlink(path)!r}, which is not there; mend the link")
    raise UnreadableError(f"no such file or folder: {str(path)!r}; {did_you_mean(path) or 'check the spelling'}")


def files_below(folder: Path, pattern: str = "*") -> list[Path]:
    """The regular files below ``folder`` that match ``pattern``, in the order of their names.

    The list leaves out what systems and tools put beside the user's files: hidden files and folders (``._x.wav`` of
    macOS, ``.ipynb_checkpoints``, ``.git``), ``__MACOSX``, ``Thumbs.db`` and the like, and pipes and sockets. Links to
    folders are not followed. A dangling link is listed, so that reading it reports it. ``folder`` may have any name.
    """
    return sorted(
        path
        for path in folder.rglob(pattern)
        if not any(part.startswith(".") or part in _JUNK for part in path.relative_to(folder).parts) and _is_file(path)
    )


def _is_file(path: Path) -> bool:
    """Whether a path is a regular file or a dangling link."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        return error.errno != errno.ELOOP  # a circle of links


def local_path(name: str) -> Path | None:
    """The absolute path of ``name`` if it is a local file or folder; None if it is a name on the hub.

    It is local if it exists, if it cannot be a name on the hub, or if it begins with a local folder: a misspelt path is
    then refused and not looked up on the hub. Raises as `require_path` does.
    """
    path = Path(name).expanduser()
    on_hub = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) and (path.parent == Path(".") or not path.parent.is_dir())
    return None if on_hub and not path.exists() else require_path(name).resolve()


def did_you_mean(path: str | Path) -> str:
    """A question that suggests the nearest name to a missing ``path``; empty if none is near."""
    missing = Path(expand(str(path)))
    while not os.path.exists(missing.parent):
        missing = missing.parent
    close = difflib.get_close_matches(missing.name, [entry.name for entry in _entries(missing.parent)], n=1, cutoff=0.5)
    return f"did you mean {str(missing.parent / close[0])!r}?" if close else ""


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:  # not a folder, or not readable: there is no hint to give
        return []


def _binary(name: str, option: str) -> str:
    hint = f"its {option} if it is utf-16 or utf-32" if option else "save it in utf-8"
    return f"{name} is not text (it has NUL bytes); give a text file, or {hint}"
