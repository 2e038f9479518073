"""The documents of a run, and a record of them with which the run detects changes."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ...data.base import Document, Split
from ...data.reading.audio import Audio
from ...files import file_sha256, naming_path
from ...registry import build
from .distributed import ranks
from .progress import progress

RECORD = ".data-{}.jsonl"
"""File name: a line for each document of a split, and one with their number at the end of the split."""


def documents(data: str | dict[str, Any], split: Split, out: str | Path | None) -> Iterator[Document]:
    """Read the documents of ``split`` and check that the run in the folder ``out`` read the same before.

    On the first reading, size and SHA-256 of each document are recorded in ``out``; later they are compared. Names and
    times may differ, and the file of a recording is hashed again only if it was modified. Without a folder ``out``, and
    in processes other than the first, nothing is recorded or compared.

    Raises ``ValueError`` in one line at the first document that is different, new or missing.
    """
    return progress(_documents(data, split, out), None, f"documents of {split}", transient=True)


def _documents(data: str | dict[str, Any], split: Split, out: str | Path | None) -> Iterator[Document]:
    source = build("data", data).documents(split)
    if out is None or not Path(out).is_dir() or ranks()[0] > 0:
        yield from source
        return
    path = Path(out) / RECORD.format(split)
    with naming_path(path):
        path.touch()
    with path.open("r+b") as file:
        count = 0
        for count, document in enumerate(source, start=1):
            old = _next(file)
            new = document_entry(document, old)
            if old is None:
                file.write(json.dumps(new).encode() + b"\n")
            elif "end" in old or any(old[key] != new[key] for key in ("size", "sum", "file_sum")):
                raise ValueError(_difference(old, new, count, f"the split {split}", out))
            yield document
        old = _next(file)
        if old is None:
            file.write(json.dumps({"end": count}).encode() + b"\n")
        elif "end" not in old:
            raise ValueError(
                f"the split {split} ends after {count} documents, where {old['name']!r} came next when the run in "
                f"{str(out)!r} began; put it back, or use another out"
            )


def compare_with_record(data: str | dict[str, Any], out: Path) -> bool:
    """Check all documents that are recorded in ``out``; returns whether there are any. Raises as `documents` does."""
    found = False
    for split in ("train", "dev", "test"):
        path = out / RECORD.format(split)
        if path.is_file() and (lines := sum(1 for _ in path.open("rb"))):
            found = True
            deque(islice(documents(data, split, out), lines), maxlen=0)
    return found


def is_recorded(out: Path, split: Split) -> bool:
    """Whether a run in ``out`` has read all documents of ``split``, so that reading them again writes nothing."""
    path = out / RECORD.format(split)
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    return bool(lines) and lines[-1].startswith(b'{"end": ') and lines[-1].endswith(b"\n")


def forget(out: Path) -> None:
    """Remove the records in ``out``."""
    for path in out.glob(RECORD.format("*")):
        path.unlink()


def _next(file: Any) -> dict[str, Any] | None:
    """Read the next line of a record; None at its end. Half a line, left by a killed process, is cut off."""
    start = file.tell()
    try:
        return json.loads(line) if (line := file.readline()).endswith(b"\n") else _cut(file, start)
    except ValueError:
        return _cut(file, start)


def _cut(file: Any, start: int) -> None:
    file.seek(start)
    file.truncate()


def document_entry(document: Document, old: dict[str, Any] | None) -> dict[str, Any]:
    """The record of a document: its name, size in bytes (or units), and the sums by which a change is noticed.

    ``old`` is an earlier record of it: while ``changed``, the time of its file's last change, is equal, its sum is too.
    """
    audio = document.audio
    about = (document.text, document.spans, document.units, document.speaker, audio and audio.part)
    entry = {"name": document.name, "size": len(document.text.encode(errors="surrogatepass")) + len(document.units)}
    entry |= {"sum": _short(repr(about).encode(errors="surrogatepass")), "file_sum": None}
    if isinstance(audio, Audio):
        entry |= _file(audio, old or {})
    return entry


def _file(audio: Audio, old: dict[str, Any]) -> dict[str, Any]:
    if audio.data is not None:
        return {"size": len(audio.data), "file_sum": _short(audio.data)}
    path = Path(audio.name).expanduser()
    try:
        stat = path.stat()
        known = {"size": stat.st_size, "changed": stat.st_ctime_ns}
        if all(old.get(key) == value for key, value in known.items()):
            return known | {"file_sum": old["file_sum"]}
        return known | {"file_sum": file_sha256(path)[:16]}
    except OSError:  # reading it raises a clear error
        return {"size": 0, "file_sum": "unreadable"}


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _difference(old: dict[str, Any], new: dict[str, Any], number: int, split: str, out: str | Path) -> str:
    began = f"when the run in {str(out)!r} began"
    if "end" in old:
        what = f"{split} had {old['end']} documents {began}, and {new['name']!r} is one more"
    elif old["name"] != new["name"]:
        what = f"document {number} of {split} is {new['name']!r}, and was {old['name']!r} {began}"
    elif old["size"] != new["size"]:
        what = f"{new['name']!r} of {split} has {new['size']} bytes, and had {old['size']} {began}"
    else:
        what = f"{new['name']!r} of {split} has changed since the run in {str(out)!r} began: its SHA-256 differs"
    return f"{what}; put the old data back, or use another out"
