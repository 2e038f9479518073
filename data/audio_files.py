"""Local recordings: one, a folder of them, or those that a manifest lists; each a document."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..registry import UnknownNameError
from ..schema import PathText
from ._audio import SUFFIXES, Audio
from ._reading import existing, files_below, read_text
from ._splits import SPLITS, share
from .base import Document, Split

_PARTS = {"train": (0.0, 0.8), "dev": (0.8, 0.9), "test": (0.9, 1.0)}


@dataclass(frozen=True)
class Source:
    """Recordings and, where a manifest tells them, speakers and transcripts. They are opened when they are read.

    A manifest is a table with tabs between its columns and their names in its first line. ``path`` is the one it must
    have (relative to the manifest); ``text``, ``speaker`` and ``split`` mean what they say, others serve to choose.

    Recordings are split in the first of these ways that fits:

    1. ``splits`` says how; or the manifest has a column ``split``; or the folder has subfolders train, dev and test;
    2. there are ten recordings or more, or a manifest, or ``by`` is given: ordered by a hash, the first tenth is
       ``test``, the next tenth ``dev``, the rest ``train``;
    3. the first 80 % of the seconds of each recording are ``train``, the next 10 % ``dev``, the last 10 % ``test``.

    Hidden files and folders, and what macOS and Windows leave beside files, are no part of a folder.

    Args:
        path: a recording, a folder, or a manifest; a folder's ``manifest.tsv`` is used if it is there.
        where: column -> pattern, or a list of patterns of which one must fit, as in {path: "fsdd/*", speaker: [a, b]}.
        splits: split -> patterns, as in ``where``; rows that fit none are left out.
        by: column by which to split; with speaker, whoever is heard in one split is heard in no other.
    """

    path: PathText = ""
    where: dict[str, Any] = field(default_factory=dict)
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    by: str = ""

    def documents(self, split: Split) -> Iterator[Document]:
        """The recordings of ``split``. Raises `ValueError` for what is missing, and patterns that nothing fits."""
        if not self.path:
            raise ValueError("data source audio_files has no path; give `path: FILE_OR_FOLDER_OR_MANIFEST`")
        for name in self.splits:
            if name not in SPLITS:
                raise UnknownNameError("key of splits:", name, list(SPLITS))
        root = existing(self.path)
        manifest = root if root.suffix == ".tsv" else root / "manifest.tsv"
        rows = _listed(manifest) if manifest.is_file() else _found(root)
        chosen = [row for row in rows if _fits(row, self.where)]
        if not chosen:
            raise ValueError(f"no recording of {self.path!r} fits where = {self.where}; there are {len(rows)} in all")
        folder = root if root.is_dir() else root.parent
        if self.splits or "split" in chosen[0] or self.by or manifest.is_file() or len(chosen) >= 10:
            yield from (_document(row, folder) for row in self._share(chosen, split))
        else:
            yield from (_part(_document(row, folder), split) for row in chosen)

    def _share(self, rows: list[dict[str, str]], split: Split) -> list[dict[str, str]]:
        if self.splits:
            wanted = self.splits.get(split)
            return [] if wanted is None else [row for row in rows if _fits(row, wanted)]
        if "split" in rows[0] and not self.by:
            return [row for row in rows if row["split"] == split]
        by = self.by or "path"
        keys = [_column(row, by) for row in rows]
        if len(set(keys)) < 3:
            raise ValueError(
                f"{self.path!r} has {len(set(keys))} different {by}, too few for three splits; say `splits` or `by`"
            )
        mine = share(keys, split)
        return [row for row, key in zip(rows, keys, strict=True) if key in mine]


def _listed(manifest: Path) -> list[dict[str, str]]:
    """The rows of a manifest."""
    lines = read_text(manifest).splitlines()
    rows = [dict(row) for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, restval="")]
    if not rows or not rows[0].get("path"):
        raise ValueError(
            f"{str(manifest)!r} is no manifest: its first line must name the column path, with tabs between"
        )
    return rows


def _found(root: Path) -> list[dict[str, str]]:
    """The recordings of a folder as rows; subfolders train, dev and test, if there are any, tell the split."""
    if root.is_file():
        return [{"path": root.name}]
    files = [path.relative_to(root) for path in files_below(root) if path.suffix.lower() in SUFFIXES]
    if not files:
        raise ValueError(f"no recording in {str(root)!r}; give a folder that holds wav, flac, ogg or mp3")
    if any((root / name).is_dir() for name in SPLITS):
        return [{"path": path.as_posix(), "split": path.parts[0]} for path in files]
    return [{"path": path.as_posix()} for path in files]


def _fits(row: dict[str, str], patterns: dict[str, Any]) -> bool:
    return all(
        any(fnmatchcase(_column(row, name), str(p)) for p in (pattern if isinstance(pattern, list) else [pattern]))
        for name, pattern in patterns.items()
    )


def _column(row: dict[str, str], name: str) -> str:
    if name not in row:
        raise UnknownNameError("column of the recordings", name, list(row))
    return row[name]


def _document(row: dict[str, str], folder: Path) -> Document:
    audio = Audio(str(folder / row["path"]))
    return Document(row["path"], row.get("text", ""), audio=audio, speaker=row.get("speaker", ""))


def _part(document: Document, split: Split) -> Document:
    """The stretch of a recording that is ``split``'s, named after both."""
    assert document.audio is not None
    return Document(f"{document.name}/{split}", audio=replace(document.audio, part=_PARTS[split]))
