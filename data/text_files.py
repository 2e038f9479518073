"""Local text files: one, or a folder of them; each is a document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..schema import PathText
from ._splits import SPLITS, share
from .base import Document, Split
from .reading.files import files_below, read_text, require_path


@dataclass(frozen=True)
class Source:
    """Text files, split into train, dev and test.

    The first of these ways that applies splits them:

    1. by the subfolders ``train``, ``dev`` and ``test``, or those that the keys of these names give;
    2. by a hash of their names, if there are at least ten files: the first tenth is ``test``, the next tenth ``dev``
       and the rest ``train`` (adding files may move others; subfolders fix the splits);
    3. by length: the first 80 % of the characters of each file are ``train``, the next 10 % ``dev``, the last 10 %
       ``test``, cut after a line (or after a word, if no line end is near).

    Files are read one at a time, in the order of their names. Hidden files and folders, and the files that macOS and
    Windows leave, do not count.

    Args:
        path: a file or a folder.
        pattern: glob of the files of a folder to read, subfolders included.
        encoding: encoding of the files, as Python names it.
        train: subfolder of that split, as in novels/train.
        dev: subfolder of that split.
        test: subfolder of that split.
    """

    path: PathText = ""
    pattern: str = "*.txt"
    encoding: str = "utf-8"
    train: str = "train"
    dev: str = "dev"
    test: str = "test"

    def documents(self, split: Split) -> Iterator[Document]:
        """Stream the documents of ``split``. Raises `ValueError` for files that are missing, empty or not text."""
        root = self._root()
        if root.is_file():
            yield _part(self._document(root), split)
        elif self._has_subfolders(root):
            yield from self._read(root, self._files(require_path(root / getattr(self, split))))
        else:
            files = self._files(root)
            if len(files) >= 10:
                yield from self._read(root, _share(files, root, split))
            else:
                yield from (_part(document, split) for document in self._read(root, files))

    def all_documents(self) -> Iterator[Document]:
        """Stream every file uncut, those of the subfolders of the splits if there are any.

        Raises as `documents` does.
        """
        root = self._root()
        if root.is_file():
            yield self._document(root)
            return
        named = [root / name for name in dict.fromkeys(self._subfolders) if (root / name).is_dir()]
        for folder in named if self._has_subfolders(root) else [root]:
            yield from self._read(root, self._files(folder))

    @property
    def _subfolders(self) -> tuple[str, ...]:
        return (self.train, self.dev, self.test)

    def _has_subfolders(self, root: Path) -> bool:
        return self._subfolders != SPLITS or any((root / name).is_dir() for name in SPLITS)

    def _root(self) -> Path:
        if not self.path:
            raise ValueError("data source text_files has no path; give `path: FILE_OR_FOLDER`")
        return require_path(self.path)

    def _document(self, path: Path, name: str = "") -> Document:
        return Document(name or path.name, read_text(path, self.encoding, "`encoding`"))

    def _files(self, folder: Path) -> list[Path]:
        if Path(self.pattern).is_absolute():
            raise ValueError(f"pattern={self.pattern!r} must be relative to the folder; give its path as `path`")
        files = files_below(folder, self.pattern)
        if not files:
            raise ValueError(f"no file in {str(folder)!r} matches {self.pattern!r}; change `path` or `pattern`")
        return files

    def _read(self, root: Path, files: list[Path]) -> Iterator[Document]:
        for path in files:
            yield self._document(path, path.relative_to(root).as_posix())


def _share(files: list[Path], root: Path, split: Split) -> list[Path]:
    """The files of ``split``, in the order of their names."""
    names = {path.relative_to(root).as_posix(): path for path in files}
    mine = share(list(names), split)
    return [path for name, path in names.items() if name in mine]


def _part(document: Document, split: Split) -> Document:
    """The part of a document that belongs to ``split``, named after both."""
    text = document.text
    dev, test = (_line_end(text, len(text) * tenths // 10) for tenths in (8, 9))
    piece = {"train": text[:dev], "dev": text[dev:test], "test": text[test:]}[split]
    if not piece:
        size = f"{len(text)} characters"
        raise ValueError(f"{document.name!r} is too short to split ({size}); make folders train, dev and test instead")
    return Document(f"{document.name}/{split}", piece)


def _line_end(text: str, place: int, reach: int = 2000) -> int:
    """The place after the first line end from ``place`` on, or else after the first space, or else ``place``."""
    reach = min(reach, len(text) // 20)  # keeps the parts disjoint and near their length
    for mark in ("\n", " "):
        found = text.find(mark, place, place + reach)
        if found >= 0:
            return found + 1
    return place
