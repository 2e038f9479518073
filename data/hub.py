"""Data sets of text or speech through `datasets`, streamed: from the Hugging Face hub, or local (parquet, jsonl, …)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..registry import UnknownNameError
from ..schema import PathText
from ._audio import Audio
from ._reading import did_you_mean, existing
from .base import Document, Split

_BUILDERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".txt": "text"}


@dataclass(frozen=True)
class Source:
    """Rows of a data set, each a document named ``split/row``; rows with an empty text are passed over.

    With ``audio`` the rows are recordings, such as those of LibriSpeech or Common Voice, and ``text`` is what was said,
    which rows may lack. The recordings are decoded here, not by `datasets`, which would need torchcodec and FFmpeg.

    A data set that has only the split named by ``train`` is split by row: of every ten, eight are ``train``, the ninth
    is ``dev`` and the tenth ``test``.

    Args:
        path: name on the hub, local folder, or one local file.
        subset: configuration of the data set (the second argument of `datasets.load_dataset`); empty = its default.
        revision: branch, tag or commit of a data set on the hub; empty = its newest.
        text: column that holds the text.
        audio: column that holds the recordings: encoded files, or paths relative to the data set; empty = text alone.
        speaker: column that says who speaks, if there is one.
        train: name of the split to train on.
        dev: name of the split to choose on.
        test: name of the split to report on.
        limit: most documents to take of each split; 0 = all.
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

    def documents(self, split: Split) -> Iterator[Document]:
        """Stream the documents of ``split``. Raises `ValueError` for a data set, split or column that is not there."""
        if not self.path:
            raise ValueError("data source hub has no path; give `path: NAME_ON_THE_HUB_OR_FOLDER`")
        splits = _open(self.path, self.subset, self.revision)
        alone = list(splits) == [self.train]
        wanted = self.train if alone else {"train": self.train, "dev": self.dev, "test": self.test}[split]
        if wanted not in splits:
            raise UnknownNameError(f"split of data set {self.path}", wanted, list(splits))
        given = 0
        for index, row in enumerate(_rows(splits[wanted], self.path, raw=bool(self.audio))):
            if self.limit and given >= self.limit:
                return
            if alone and _split_of(index) != split:
                continue
            document = self._document(f"{wanted}/{index}", row)
            if document is not None:
                given += 1
                yield document
        if not given:
            what = self.audio or "text"
            raise ValueError(f"data set {self.path!r} has no {what} for {split}; name another split or larger data")

    def _document(self, name: str, row: dict[str, Any]) -> Document | None:
        """What a row holds, or None where that is nothing."""
        wanted = self.audio or self.text
        if wanted not in row:
            raise UnknownNameError(f"column of data set {self.path}", wanted, list(row))
        if not row[wanted]:
            return None
        text = str(row.get(self.text) or "")
        if not self.audio:
            return Document(name, text)
        audio = _recording(row[self.audio], Path(self.path), name)
        return Document(name, text, audio=audio, speaker=str(row.get(self.speaker, "")))


def _recording(cell: Any, root: Path, name: str) -> Audio:
    """The recording in a cell: a path, or what `datasets` makes of one (a path, or the bytes of the file)."""
    cell = {"path": cell} if isinstance(cell, str) else cell
    if not isinstance(cell, dict) or not (cell.get("path") or cell.get("bytes")):
        raise ValueError(
            f"row {name} of {str(root)!r} holds no recording but {type(cell).__name__}; name another `audio`"
        )
    path, data = cell.get("path") or "", cell.get("bytes")
    if not data and "://" in path:
        import fsspec  # that of `datasets`, which streams from the hub through it

        with fsspec.open(path) as file:
            data = file.read()  # pyright: ignore[reportAttributeAccessIssue]
    if data:
        return Audio(f"{name} ({path})" if path else name, data)
    return Audio(str((root if root.is_dir() else root.parent) / path))


def _open(path: str, subset: str, revision: str) -> Any:
    """The data set's splits by name, each an iterable of rows."""
    import datasets  # slow to import: only when it is used

    builder = _BUILDERS.get(Path(path).suffix)
    if builder or path.startswith(("/", ".", "~")):
        path = str(existing(path))
    try:
        if builder and Path(path).is_file():
            return datasets.load_dataset(builder, data_files=path, streaming=True)
        return datasets.load_dataset(path, subset or None, revision=revision or None, streaming=True)
    except Exception as error:  # its own errors, those of the hub's client and of half a dozen file formats
        hint = "" if Path(path).exists() else did_you_mean(path)
        raise ValueError(
            f"cannot open data set {path!r} ({_reason(error)}); {hint or 'check `path` and `subset`'}"
        ) from error


def _rows(split: Any, path: str, raw: bool) -> Iterator[dict[str, Any]]:
    """The rows of a streamed split, with whatever breaks on the way said in a line; ``raw`` decodes no audio."""
    try:
        if not raw:
            yield from split
        else:  # tables of Arrow hold encoded files as they are
            for table in split.with_format("arrow"):
                yield from table.to_pylist()
    except Exception as error:  # as in `_open`
        raise ValueError(f"cannot read data set {path!r} ({_reason(error)}); is a file of it damaged?") from error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()}".split("\n")[0]


def _split_of(index: int) -> Split:
    return "dev" if index % 10 == 8 else "test" if index % 10 == 9 else "train"
