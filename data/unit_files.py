"""Units of speech from files of JSON lines, gzipped or not; each line is an utterance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..registry import UnknownNameError
from ..schema import PathText
from ._splits import share
from ._tables import read_rows
from .base import Document, Split
from .reading.files import require_path


@dataclass(frozen=True)
class Source:
    """A line is an object with the keys ``id``, ``units`` (integers, 50 a second) and, if it is known, ``text``.

    Utterances whose ids have the same beginning (see ``joint``) form one document, in the order of their lines: a
    chapter is then one long stream. A split without a file takes a tenth of the documents of train, chosen by a hash.

    Args:
        path: a folder, or one file for all splits.
        train: file of the folder to train on.
        dev: file of the folder to choose on; empty = a part of train.
        test: file of the folder to report on; empty = a part of train.
        joint: separator; the id up to its last occurrence is the name of the document; empty = one utterance each.
        by: separator; documents with the same name up to its last occurrence are in the same split; empty = split by
            the full name.
    """

    path: PathText = ""
    train: str = "train.jsonl"
    dev: str = ""
    test: str = ""
    joint: str = ""
    by: str = ""

    def documents(self, split: Split) -> Iterator[Document]:
        """The documents of ``split``. Raises `ValueError` for a file or a key that is missing or damaged."""
        if not self.path:
            raise ValueError("data source unit_files has no path; give `path: FILE_OR_FOLDER`")
        root = require_path(self.path)
        files = {"train": self.train, "dev": self.dev, "test": self.test} if root.is_dir() else {"train": root.name}
        folder = root if root.is_dir() else root.parent
        if split != "train" and files.get(split):
            yield from self._read(require_path(folder / files[split])).values()
            return
        documents = self._read(require_path(folder / files["train"]))
        groups = {name: _before(self.by, name) for name in documents}
        others: tuple[Split, ...] = ("dev", "test")
        parts = {part: share(list(groups.values()), part) for part in others if not files.get(part)}
        mine = set(groups.values()).difference(*parts.values()) if split == "train" else parts[split]
        yield from (document for name, document in documents.items() if groups[name] in mine)

    def _read(self, path: Path) -> dict[str, Document]:
        """The documents of a file by their names."""
        units: dict[str, list[int]] = {}
        texts: dict[str, list[str]] = {}
        known: set[str] = set()
        for row in read_rows(path, "units from", form=".jsonl"):
            for key in ("id", "units"):
                if key not in row.cells:
                    raise UnknownNameError(f"{row.place}: key", key, list(row.cells))
            given = row.cells["units"]
            if not isinstance(given, list) or not all(type(unit) is int and unit >= 0 for unit in given):
                raise ValueError(f"{row.place}: units are integers from 0 on, in a list; make it again")
            utterance = row.text("id")
            if not utterance or utterance in known:
                raise ValueError(f"{row.place}: the id {utterance!r} is empty or was given before; give another")
            known.add(utterance)
            name = _before(self.joint, utterance)
            units.setdefault(name, []).extend(given)
            texts.setdefault(name, []).append(row.text("text"))
        if not any(units.values()):
            raise ValueError(f"{str(path)!r} has no units; give a file of JSON lines with the keys id and units")
        return {
            name: Document(name, " ".join(texts[name]).strip(), units=tuple(ids)) for name, ids in units.items() if ids
        }


def _before(separator: str, name: str) -> str:
    """The part of ``name`` before the last ``separator``; ``name`` if there is none."""
    return (name.rpartition(separator)[0] or name) if separator else name
