"""Local recordings: one, a folder of them, or those that a manifest lists; each is a document."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from ..folders import AUDIO_SUFFIXES
from ..registry import UnknownNameError
from ..schema import PathText
from ._splits import SPLITS, share
from ._tables import Row, read_rows, table_format
from .base import Document, Split
from .reading.audio import Audio
from .reading.files import files_below, require_path

_MANIFESTS = ("manifest.tsv", "manifest.csv", "manifest.jsonl")
_PARTS = {"train": (0.0, 0.8), "dev": (0.8, 0.9), "test": (0.9, 1.0)}


class _Recordings(NamedTuple):
    """Recordings as rows, the folder of their paths, and whether a manifest lists them and a column is ``split``."""

    rows: list[Row]
    folder: Path
    is_listed: bool
    has_split: bool


@dataclass(frozen=True)
class Source:
    """Recordings, with their speakers and transcripts if a manifest lists them. They are opened when they are read.

    A manifest is a table whose first line names the columns: .tsv with tabs between the columns (quotes are text), .csv
    with commas, .jsonl, or any other format that the data source hub reads. It needs the column ``path`` (relative to
    the manifest, each path once). ``text``, ``speaker`` and ``split`` (train, dev or test) have a meaning; ``where``
    may use any other column.

    Recordings are split in the first of these ways that applies:

    1. by ``splits``, by the column ``split`` of the manifest, or by the subfolders train, dev and test;
    2. by a hash, if there are ten recordings or more, a manifest, or ``by``: the first tenth is ``test``, the next
       tenth ``dev``, the rest ``train``;
    3. by time: the first 80 % of each recording are ``train``, the next 10 % ``dev``, the last 10 % ``test``.

    Hidden files and folders, and the files that macOS and Windows leave, do not count.

    Args:
        path: a recording, a folder, or a manifest; a folder's ``manifest.tsv`` (or .csv, or .jsonl) is used if it
            exists.
        where: column -> pattern, or a list of patterns, one of which must fit, as in {path: "fsdd/*", speaker: [a, b]}.
        splits: split -> patterns, as in ``where``; rows that fit none are left out.
        by: column by which to split; with ``speaker``, no speaker occurs in two splits.
        encoding: encoding of the manifest, as Python names it.
    """

    path: PathText = ""
    where: dict[str, Any] = field(default_factory=dict)
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    by: str = ""
    encoding: str = "utf-8"

    def documents(self, split: Split) -> Iterator[Document]:
        """The recordings of ``split``. Raises `ValueError` for missing files, and patterns that nothing fits."""
        found = self._find()
        folder = found.folder
        if self.splits or found.has_split or self.by or found.is_listed or len(found.rows) >= 10:
            yield from (_document(row, folder) for row in self._share(found.rows, split, found.has_split))
        else:
            yield from (_part(_document(row, folder), split) for row in found.rows)

    def all_documents(self) -> Iterator[Document]:
        """Every recording uncut, of those that ``where`` and, if they are given, ``splits`` choose.

        Raises as `documents` does.
        """
        found = self._find()
        for row in found.rows:
            if not self.splits or any(_fits(row, wanted) for wanted in self.splits.values()):
                yield _document(row, found.folder)

    def _find(self) -> _Recordings:
        """The recordings that fit ``where``. Raises as `documents` does."""
        if not self.path:
            raise ValueError("data source audio_files has no path; give `path: FILE_OR_FOLDER_OR_MANIFEST`")
        for name in self.splits:
            if name not in SPLITS:
                raise UnknownNameError("key of splits:", name, list(SPLITS))
        root = require_path(self.path)
        manifest = find_manifest(root)
        rows = _listed(manifest, self.encoding) if manifest else [Row("", cells) for cells in _found(root)]
        columns = list({column: None for row in rows for column in row.cells})
        for column in [*self.where, *(name for wanted in self.splits.values() for name in wanted), self.by or "path"]:
            if column not in columns:
                raise UnknownNameError("column of the recordings", column, columns)
        chosen = [row for row in rows if _fits(row, self.where)]
        if not chosen:
            raise ValueError(f"no recording of {self.path!r} fits where = {self.where}; there are {len(rows)} in all")
        folder = root if root.is_dir() else root.parent
        if manifest:
            _check_files(chosen, folder, manifest)
        return _Recordings(chosen, folder, manifest is not None, "split" in columns)

    def _share(self, rows: list[Row], split: Split, named: bool) -> list[Row]:
        """The rows of ``split``; ``named``: whether a column names it."""
        if self.splits:
            wanted = self.splits.get(split)
            return [] if wanted is None else [row for row in rows if _fits(row, wanted)]
        if named and not self.by:
            for row in rows:
                if row.place and row.text("split") not in SPLITS:  # a folder may have other subfolders
                    raise ValueError(
                        f"{row.place}: split {row.text('split')!r} is not {', '.join(SPLITS)}; correct it, leave such "
                        "rows out with `where`, or assign them with `splits`"
                    )
            return [row for row in rows if row.text("split") == split]
        by = self.by or "path"
        keys = [row.text(by) for row in rows]
        if "" in keys:
            place = rows[keys.index("")].place
            raise ValueError(f"{place} has no {by} to split by; fill it in, or leave such rows out with `where`")
        if len(set(keys)) < 3:
            raise ValueError(
                f"{self.path!r} has {len(set(keys))} different {by}, too few for three splits; say `splits` or `by`"
            )
        mine = share(keys, split)
        return [row for row, key in zip(rows, keys, strict=True) if key in mine]


def find_manifest(root: Path) -> Path | None:
    """The manifest that ``root`` is or contains; None if there is none."""
    if not root.is_dir():
        return root if table_format(root) not in ("", ".txt") else None
    return next((root / name for name in _MANIFESTS if (root / name).is_file()), None)


def _listed(manifest: Path, encoding: str) -> list[Row]:
    """The rows of a manifest, each with another path."""
    rows: dict[str, Row] = {}
    for row in read_rows(manifest, "manifest", encoding):
        path = row.text("path")
        if not path:
            known = ", ".join(row.cells)
            raise ValueError(
                f"{str(manifest)!r} must name the column path and fill it in every row; {row.place} does not ({known})"
            )
        if path in rows:
            raise ValueError(f"{row.place} lists {path!r}, which {rows[path].place} lists too; leave one out")
        rows[path] = row
    if not rows:
        raise ValueError(f"{str(manifest)!r} lists nothing; it must name the column path, and a recording a line below")
    return list(rows.values())


def _check_files(rows: list[Row], folder: Path, manifest: Path) -> None:
    """Refuse a manifest none of whose recordings exists; single missing ones are reported when they are read."""
    if not any(os.path.exists(folder / row.text("path")) for row in rows):
        path = rows[0].text("path")
        hint = "write / for \\" if "\\" in path else f"paths are relative to {str(folder)!r}"
        raise ValueError(f"no recording that {str(manifest)!r} lists is there, as {path!r} ({rows[0].place}); {hint}")


def _found(root: Path) -> list[dict[str, str]]:
    """The recordings of a folder as rows; subfolders train, dev and test, if there are any, are the splits."""
    if root.is_file():
        return [{"path": root.name}]
    files = [path.relative_to(root) for path in files_below(root) if path.suffix.lower() in AUDIO_SUFFIXES]
    if not files:
        raise ValueError(f"no recording in {str(root)!r}; give a folder that holds wav, flac, ogg or mp3")
    if any((root / name).is_dir() for name in SPLITS):
        return [{"path": path.as_posix(), "split": path.parts[0]} for path in files]
    return [{"path": path.as_posix()} for path in files]


def _fits(row: Row, patterns: dict[str, Any]) -> bool:
    return all(
        any(
            fnmatchcase(row.text(column), _pattern(column, item))
            for item in (given if isinstance(given, list) else [given])
        )
        for column, given in patterns.items()
    )


def _pattern(column: str, item: Any) -> str:
    if isinstance(item, bool) or not isinstance(item, (str, int)):  # YAML reads no as false and 1.50 as a number
        raise ValueError(f"pattern {item!r} for column {column} is not text; write it in quotes")
    return str(item)


def _document(row: Row, folder: Path) -> Document:
    path = row.text("path")
    return Document(
        path, row.text("text"), audio=Audio(str(folder / path), place=row.place), speaker=row.text("speaker")
    )


def _part(document: Document, split: Split) -> Document:
    """The part of a recording that belongs to ``split``, named after both."""
    assert document.audio is not None
    return Document(f"{document.name}/{split}", audio=replace(document.audio, part=_PARTS[split]))
