"""Data sets of text or speech: local tables (csv, JSON, parquet, …), or through `datasets`, streamed from the hub."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..registry import UnknownNameError
from ..schema import PathText
from ._tables import Row, read_rows, table_format
from .base import Document, Split
from .reading.audio import Audio
from .reading.files import did_you_mean, files_below, local_path, require_path

_LOOK = 1000  # a column must occur in so many rows: each row of JSON may have other keys


@dataclass(frozen=True)
class Source:
    """Rows of a data set, each a document named ``split/row``; rows with an empty or missing text are skipped.

    Texts are read as they are written: in csv and tsv 007, null and NA are texts. An integer of JSON or parquet becomes
    its digits; a column of anything else (lists, objects, bytes, true or false, fractions) is refused.

    With ``audio`` the rows are recordings, such as those of LibriSpeech or Common Voice, and ``text`` is the
    transcript. Rows may lack ``text`` and ``speaker``. This module decodes the recordings, not `datasets`, which would
    need torchcodec and FFmpeg.

    A data set that has only the split named by ``train`` is split by row: of every ten, eight are ``train``, the ninth
    is ``dev`` and the tenth ``test``.

    With ``joined`` the rows of a split are the lines of one document, as in WikiText, named after the split.

    Args:
        path: name on the hub, local folder, or one local file: .csv, .tsv, .jsonl, .json, .txt, .parquet, also with .gz
            behind.
        subset: configuration of the data set (the second argument of `datasets.load_dataset`); empty = its default.
        revision: branch, tag or commit of a data set on the hub; empty = its newest.
        text: column of the text.
        audio: column of the recordings: encoded files, or paths relative to the data set; empty = text only.
        speaker: column of the speaker's name, if there is one.
        train: name of the split to train on.
        dev: name of the split to choose on.
        test: name of the split to report on.
        limit: maximum number of rows with content of each split; 0 = all.
        joined: whether the texts of all rows of a split are lines of one document.
        encoding: encoding of tables other than parquet, as Python names it.
    """

    path: PathText = ""
    subset: str = ""
    revision: str = ""
    text: str = "text"
    audio: str = ""
    speaker: str = "speaker_id"
    train: str = "train"
    dev: str = "validation"
    test: str = "test"
    limit: int = 0
    joined: bool = False
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        """Refuse recordings that would be joined."""
        if self.joined and self.audio:
            raise ValueError(
                f"data source hub joins texts, and audio={self.audio!r} names recordings; drop one of them"
            )

    def documents(self, split: Split) -> Iterator[Document]:
        """Stream the documents of ``split``. Raises `ValueError` for a missing data set, split or column."""
        yield from self._joined(self._rows(split))

    def all_documents(self) -> Iterator[Document]:
        """Stream the documents of every split that the data set has, whatever its name. Raises as `documents` does."""
        found = False
        for name, rows in self._splits().items():
            for document in self._joined(self._limited(name, enumerate(self._with_columns(rows)))):
                found = True
                yield document
        if not found:
            raise ValueError(f"data set {self.path!r} has no {self.audio or 'text'}; give another one")

    def _joined(self, rows: Iterator[Document]) -> Iterator[Document]:
        """The documents of one split, of which ``rows`` are the rows."""
        if not self.joined:
            yield from rows
        elif lines := list(rows):
            yield Document(lines[0].name.rpartition("/")[0], "\n".join(line.text for line in lines))

    def _rows(self, split: Split) -> Iterator[Document]:
        """The document of each row. Raises `ValueError` as `documents` does."""
        splits = self._splits()
        alone = list(splits) == [self.train]
        wanted = self.train if alone else {"train": self.train, "dev": self.dev, "test": self.test}[split]
        if wanted not in splits:
            raise UnknownNameError(f"split of data set {self.path}", wanted, list(splits))
        rows = enumerate(self._with_columns(splits[wanted]))
        document = None
        for document in self._limited(wanted, ((i, row) for i, row in rows if not alone or _split_of(i) == split)):
            yield document
        if document is None:
            what = self.audio or "text"
            raise ValueError(f"data set {self.path!r} has no {what} for {split}; name another split or larger data")

    def _limited(self, split: str, rows: Iterable[tuple[int, Row]]) -> Iterator[Document]:
        """The documents of the rows that are not empty, ``limit`` of them, named after the split and their numbers."""
        given = 0
        for index, row in rows:
            if self.limit and given >= self.limit:
                return
            document = self._document(f"{split}/{index}", row)
            if document is not None:
                given += 1
                yield document

    def _with_columns(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Yield ``rows`` after checking their columns. Raises `UnknownNameError` for a missing one."""
        optional = [column for column in (self.text, self.speaker) if column not in (Source.text, Source.speaker, "")]
        missing = {self.audio or self.text, *optional}
        seen: list[Row] = []
        while missing and len(seen) < _LOOK and (row := next(rows, None)):
            seen.append(row)
            missing -= row.cells.keys()
        if missing and seen:
            known = list({column: None for row in seen for column in row.cells})
            raise UnknownNameError(f"column of data set {self.path}", min(missing), known)
        yield from itertools.chain(seen, rows)

    def _document(self, name: str, row: Row) -> Document | None:
        """The document of a row; None if the row is empty."""
        if not self.audio:
            text = row.text(self.text)
            return Document(name, text) if text else None
        cell = row.cells.get(self.audio)
        if not cell:
            return None
        audio = _recording(cell, Path(self.path), name, row.place)
        return Document(name, row.text(self.text), audio=audio, speaker=row.text(self.speaker))

    def _splits(self) -> dict[str, Iterator[Row]]:
        """The rows of each split by its name."""
        if not self.path:
            raise ValueError("data source hub has no path; give `path: NAME_ON_THE_HUB_OR_FOLDER`")
        path = Path(self.path)
        if table_format(path) or local_path(self.path):
            path = require_path(path)
        if os.path.exists(path) and not os.path.isdir(path):
            return {"train": self._tables([str(path)])}
        for file in files_below(path) if path.is_dir() else ():
            require_path(file)  # `datasets` ignores dangling links
        with _opening(path):
            builder = _builder(path, self.subset, self.revision)
        kind, files = type(builder).__module__.rpartition(".")[2], builder.config.data_files
        if kind in ("csv", "json", "text"):
            return {str(split): self._tables(paths) for split, paths in files.items()}
        if kind == "audiofolder" and any(map(_metadata, files.values())):
            return {str(split): self._listed(paths) for split, paths in files.items()}
        with _opening(path):
            streams = builder.as_streaming_dataset()
        return {str(split): _streamed(rows, self.path) for split, rows in streams.items()}

    def _tables(self, paths: list[str]) -> Iterator[Row]:
        return itertools.chain.from_iterable(read_rows(path, "data set", self.encoding) for path in paths)

    def _listed(self, paths: list[str]) -> Iterator[Row]:
        """Yield the recordings that the metadata among ``paths`` lists, in the column ``audio``."""
        present = set(paths)
        for table in _metadata(paths):
            for row in self._tables([table]):
                name = row.text("file_name")
                path = f"{table.rpartition('/')[0]}/{name}"
                if path not in present:
                    raise ValueError(f"{row.place}: file_name {name!r} is not a recording of {self.path!r}; correct it")
                yield Row(row.place, {"audio": path} | row.cells)


def _metadata(paths: list[str]) -> list[str]:
    """The tables that describe a folder of recordings, as `datasets` names them."""
    return [path for path in paths if Path(path).stem == "metadata" and table_format(path)]


def _recording(cell: Any, root: Path, name: str, place: str) -> Audio:
    """The recording in a cell: a path, or a dict of `datasets` with a path or the bytes of the file."""
    cell = {"path": cell} if isinstance(cell, str) else cell
    if not isinstance(cell, dict) or not (cell.get("path") or cell.get("bytes")):
        raise ValueError(
            f"row {name} of {str(root)!r} has no recording but {type(cell).__name__}; name another `audio`"
        )
    path, data = cell.get("path") or "", cell.get("bytes")
    if not data and "://" in path:
        import fsspec  # `datasets` streams from the hub through it

        with fsspec.open(path) as file:
            data = file.read()  # pyright: ignore[reportAttributeAccessIssue]
    if data:
        return Audio(f"{name} ({path})" if path else name, data)
    return Audio(str((root if root.is_dir() else root.parent) / path), place=place)


def _builder(path: Path, subset: str, revision: str) -> Any:
    """The builder of `datasets` for a local folder or a name on the hub."""
    import datasets  # slow to import: only when it is used

    name = (
        str(path.absolute()) if os.path.exists(path) else str(path)
    )  # a folder may have the name of one of its modules
    if os.path.exists(path) and glob.has_magic(name):
        raise ValueError("it would take *, ? and [ in the name of a folder for patterns; rename the folder")
    builder = datasets.load_dataset_builder(name, subset or None, revision=revision or None)
    if not os.path.exists(path) and builder.repo_id is None:  # csv, for example: it would read the working directory
        raise ValueError(f"{name} is a format and no data set")
    return builder


@contextmanager
def _opening(path: Path) -> Generator[None]:
    """Report errors of opening a data set in one line."""
    try:
        yield
    except Exception as error:  # `datasets`, the client of the hub and each file format have their error types
        hint = "" if os.path.exists(path) else did_you_mean(path)
        if isinstance(error, UnicodeError):
            hint = "it or a file in it has a name that is not UTF-8; rename that"
        raise ValueError(
            f"cannot open data set {str(path)!r} ({_reason(error)}); {hint or 'check `path` and `subset`'}"
        ) from error


def _streamed(rows: Any, path: str) -> Iterator[Row]:
    """Yield the rows of a split that `datasets` streams; one line reports any error."""
    number = 0
    try:
        for table in rows.with_format("arrow"):  # tables of Arrow keep recordings encoded
            for cells in table.to_pylist():
                yield Row(f"row {number} of data set {path!r}", cells)
                number += 1
    except Exception as error:  # as in `_opening`
        raise ValueError(f"cannot read data set {path!r} ({_reason(error)}); is a file of it damaged?") from error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()}".split("\n")[0]


def _split_of(index: int) -> Split:
    return "dev" if index % 10 == 8 else "test" if index % 10 == 9 else "train"
