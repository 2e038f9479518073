"""Read text files so that whatever is wrong with one is said in a line: missing, empty, binary, another encoding."""

from __future__ import annotations

import difflib
import errno
import os
import re
import stat
import sys
from pathlib import Path
from types import TracebackType

from ..console import one_line
from ..schema import expand

_JUNK = {"__MACOSX", "Thumbs.db", "ehthumbs.db", "desktop.ini", "@eaDir", "$RECYCLE.BIN", "System Volume Information"}


class UnreadableError(ValueError):
    """One document cannot be used, whatever may be said of the others; the message is one line."""


class SilentError(UnreadableError):
    """Every sample of a recording is 0."""


class Skipping:
    """Around each document of a long job: it goes on past an unreadable one, and says at its end which.

    >>> skipping = Skipping()
    >>> for document in documents:  # doctest: +SKIP
    ...     with skipping:
    ...         use(document)
    >>> skipping.tell()
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

    def tell(self) -> None:
        """List on standard error what was skipped. Raises `UnreadableError` where nothing else was there."""
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
    """The whole text of a file, or of standard input for ``-``; a leading byte order mark is dropped.

    ``option`` is what messages call the place where another encoding can be given; empty where there is none.

    Raises:
        ValueError: in one line, what is wrong with the file and what to do about it.
    """
    if str(path) == "-":
        return decode(sys.stdin.buffer.read(), "standard input", encoding, option)
    path = existing(path)
    if path.is_dir():
        raise ValueError(f"{str(path)!r} is a folder; give a file in it")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {str(path)!r}: {error.strerror}") from error
    return decode(data, repr(str(path)), encoding, option)


def decode(data: bytes, name: str, encoding: str = "utf-8", option: str = "") -> str:
    """Decode ``data``; ``name`` is what messages call it. Raises `ValueError` as `read_text` does."""
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


def existing(path: str | Path) -> Path:
    """``path``, if it exists.

    Raises `UnreadableError` with the nearest name in its deepest existing folder, or with what a dangling link names.
    """
    path = Path(expand(str(path)))
    if os.path.exists(path):  # which takes a name that is too long for one that is not there
        return path
    if path.is_symlink():
        raise UnreadableError(f"{str(path)!r} is a link to {os.readlink(path)!r}, which is not there; mend the link")
    raise UnreadableError(f"no such file or folder: {str(path)!r}; {did_you_mean(path) or 'check the spelling'}")


def files_below(folder: Path, pattern: str = "*") -> list[Path]:
    """The regular files below ``folder`` that match ``pattern``, in the order of their names.

    Left out is what systems and tools put beside the user's files: hidden files and folders (``._x.wav`` of macOS,
    ``.ipynb_checkpoints``, ``.git``), ``__MACOSX``, ``Thumbs.db`` and the like. So are pipes and sockets. Links to
    folders are not followed; a link that leads nowhere is listed, so that whoever reads it says so. ``folder``
    itself may have any name.
    """
    return sorted(
        path
        for path in folder.rglob(pattern)
        if not any(part.startswith(".") or part in _JUNK for part in path.relative_to(folder).parts) and _is_file(path)
    )


def _is_file(path: Path) -> bool:
    """Whether a listed path is a regular file, or a link that leads nowhere."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        return error.errno != errno.ELOOP  # a circle of links


def local_path(name: str) -> Path | None:
    """The absolute path of ``name`` where it means a file or folder here; None where it is a name on the hub.

    It means one where there is one, and also where it is no possible name on the hub or begins with a folder that is
    here: then a misspelt path is refused, and not asked for on the hub. Raises as `existing` does.
    """
    path = Path(name).expanduser()
    on_hub = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) and (path.parent == Path(".") or not path.parent.is_dir())
    return None if on_hub and not path.exists() else existing(name).resolve()


def did_you_mean(path: str | Path) -> str:
    """A question that names what is nearest to a ``path`` that is not there; empty if nothing is near."""
    missing = Path(expand(str(path)))
    while not os.path.exists(missing.parent):
        missing = missing.parent
    close = difflib.get_close_matches(missing.name, [entry.name for entry in _entries(missing.parent)], n=1, cutoff=0.5)
    return f"did you mean {str(missing.parent / close[0])!r}?" if close else ""


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:  # not a folder, or not ours to list: there is no hint to give
        return []


def _binary(name: str, option: str) -> str:
    hint = f"its {option} if it is utf-16 or utf-32" if option else "save it in utf-8"
    return f"{name} is not text (it has NUL bytes); give a text file, or {hint}"
