r"""Read tables strictly, row by row: csv, tsv, JSON, lines of text and parquet, compressed or not.

Cells stay as they are written, only ``\n``, ``\r\n`` and ``\r`` end a line, and a row that does not fit raises an
error that names its line. `csv` and `json` of the standard library do this; the readers of pandas and Arrow guess
types.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .reading.files import require_path

_NOT_TEXT = re.compile("[\0\udc80-\udcff]")  # surrogateescape maps bytes outside the encoding to these surrogates
_BLANK = " \t\r\n"  # JSON ignores these
_LONGEST = 1 << 27  # characters of a cell in csv and tsv; a longer cell is an unclosed quote
_KINDS = {list: "lists", dict: "objects", bytes: "bytes", bool: "true or false", float: "numbers with a fraction"}


@dataclass(frozen=True)
class Row:
    """A row of a table, and its place in it, such as ``line 7 of 'rows.csv'``."""

    place: str
    cells: dict[str, Any]

    def text(self, column: str) -> str:
        """The text of a cell, as written; empty if the cell is missing.

        Raises:
            ValueError: the cell is neither text nor an integer.
        """
        cell = self.cells.get(column) if column else None
        if cell is None or type(cell) is int:
            return "" if cell is None else str(cell)
        if not isinstance(cell, str):
            texts = [name for name, other in self.cells.items() if isinstance(other, str)]
            hint = f"name a column of texts: {', '.join(texts)}" if texts else "name another column, or write texts"
            raise ValueError(f"{self.place}: column {column!r} holds {_kind(cell)}, not text; {hint}")
        return cell


def table_format(path: str | Path) -> str:
    """The format that the name of a file ends in, such as ``.csv`` for ``A.CSV.gz``; empty if it is not a table."""
    return _split_name(str(path))[0]


def read_rows(path: str | Path, what: str, encoding: str = "", form: str = "") -> Iterator[Row]:
    """Stream the rows of a table. Blank lines of csv, tsv and JSON lines are not rows.

    csv has commas and quotes; tsv has tabs, and quotes in it are text; the first line of both names the columns. A JSON
    file has an object per line, or is one array of objects (which is read at once). Each line of a text file is a row
    with the column ``text``.

    Args:
        path: a local file, or a URL that fsspec opens.
        what: what messages call the table, as in "manifest".
        encoding: encoding of all formats but parquet, as Python names it; empty = utf-8, and messages suggest no other.
        form: one of the suffixes in `_READERS`; empty = that of the name.

    Yields:
        The rows in their order.

    Raises:
        ValueError: in one line, what is wrong with the file and in which of its lines.
    """
    named, compression = _split_name(str(path))
    name = str(path) if "://" in str(path) else str(require_path(path))
    if not (form or named):
        raise ValueError(f"{name!r} is not a table; give one that ends in {', '.join(_READERS)} (or these and .gz)")
    try:
        with _open(name, compression) as file:
            for place, cells in _READERS[form or named](file, encoding):
                yield Row(f"{place} of {Path(name).name!r}", cells)
    except Exception as error:  # each file format and compression has its error types
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(f"cannot read {what} {name!r}: {reason}") from error


def _split_name(name: str) -> tuple[str, str | None]:
    """Split off the format and the compression that a name ends in."""
    from fsspec.utils import infer_compression  # slow to import: only when it is used

    compression = infer_compression(name)
    inner = Path(name).with_suffix("") if compression else Path(name)
    suffix = inner.suffix.lower()
    return suffix if suffix in _READERS else "", compression


def _open(name: str, compression: str | None) -> Any:
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    if "://" in name:
        return fsspec.open(name, "rb", compression=compression)
    return fsspec.core.OpenFile(LocalFileSystem(), name, "rb", compression)  # it takes no character for a pattern


def _lines(file: Any, encoding: str) -> Iterator[tuple[int, str]]:
    """Yield numbered lines with their ends. Raises `ValueError` for bytes that are not text in ``encoding``."""
    hint = "give its `encoding`, such as latin-1 or utf-16" if encoding else "save it as utf-8"
    encoding = encoding or "utf-8"
    try:
        text = io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="")
    except LookupError as error:
        raise ValueError(f"unknown encoding {encoding!r}; give one Python knows, such as latin-1") from error
    for number, line in enumerate(text, start=1):
        if found := _NOT_TEXT.search(line):
            byte = ord(found[0]) & 0xFF
            raise ValueError(f"line {number} is not valid {encoding} text (byte 0x{byte:02x}); {hint}")
        yield number, line.removeprefix("\ufeff") if number == 1 else line


_Rows = Iterator[tuple[str, dict[str, Any]]]


def _separated(delimiter: str, quotes: bool, hint: str) -> Callable[[Any, str], _Rows]:
    """Make a reader of tables with ``delimiter`` between cells; ``hint`` says how a cell can contain one."""

    def read(file: Any, encoding: str) -> _Rows:
        csv.field_size_limit(_LONGEST)
        lines = (line for _, line in _lines(file, encoding))
        quoting = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
        reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
        header: list[str] = []
        number = 1
        try:
            for cells in reader:
                if header and cells and len(cells) != len(header):
                    raise ValueError(f"line {number} has {len(cells)} cells and the first {len(header)}; {hint}")
                if header and cells:
                    yield f"line {number}", dict(zip(header, cells, strict=True))
                elif cells:
                    header = _header(cells, delimiter)
                number = reader.line_num + 1
        except csv.Error as error:
            raise ValueError(f"line {number}: {error}; is a quote in it left open, or not doubled?") from error

    return read


def _header(cells: list[str], delimiter: str) -> list[str]:
    names = [" ".join(cell.split()) for cell in cells]  # spreadsheets break long names over lines
    for name in names:
        if name and names.count(name) > 1:
            raise ValueError(f"its first line names the column {name!r} twice; rename one")
    if len(cells) == 1 and (other := re.search("[,;|\t]", cells[0])):
        raise ValueError(
            f"its first line {cells[0][:80]!r} has {other[0]!r} between columns, not {delimiter!r}; "
            "use commas in .csv and tabs in .tsv"
        )
    return names


def _json_lines(file: Any, encoding: str) -> _Rows:
    yield from _objects(_lines(file, encoding))


def _json(file: Any, encoding: str) -> _Rows:
    """An array of objects, or lines."""
    lines = _lines(file, encoding)
    first = next(((number, line) for number, line in lines if line.strip(_BLANK)), (1, ""))
    lines = itertools.chain([first], lines)
    if not first[1].lstrip(_BLANK).startswith("["):
        yield from _objects(lines)
        return
    for index, item in enumerate(_parse("".join(line for _, line in lines), first[0])):
        yield _object(f"item {index}", item)


def _objects(lines: Iterable[tuple[int, str]]) -> _Rows:
    for number, line in lines:
        if line.strip(_BLANK):
            yield _object(f"line {number}", _parse(line.rstrip(_BLANK), number))


def _parse(text: str, line: int) -> Any:
    try:
        parsed = json.loads(text, object_pairs_hook=_unique)
        if "\\u" in text:
            json.dumps(parsed, ensure_ascii=False).encode()
        return parsed
    except UnicodeEncodeError as error:  # JSON can encode half of a pair of surrogates
        raise ValueError(f"line {line} holds {error.object[error.start]!r}, which is not valid Unicode") from error
    except json.JSONDecodeError as error:
        line += error.lineno - 1
        raise ValueError(f"line {line} is no JSON ({error.msg} at character {error.colno}); write it again") from error
    except ValueError as error:  # a key given twice, or a number of thousands of digits
        raise ValueError(f"line {line} cannot be read: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"it has the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found


def _object(place: str, value: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(value, dict):
        raise ValueError(f'{place} is not an object such as {{"text": "…"}} but {_kind(value)}')
    return place, value


def _text_lines(file: Any, encoding: str) -> _Rows:
    for number, line in _lines(file, encoding):
        yield f"line {number}", {"text": line.rstrip("\r\n")}


def _parquet(file: Any, encoding: str) -> _Rows:
    from pyarrow.parquet import ParquetFile

    number = 0
    for batch in ParquetFile(file).iter_batches(batch_size=1024):
        for cells in batch.to_pylist():
            yield f"row {number}", cells
            number += 1


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)


_READERS = {
    ".csv": _separated(",", True, "put quotes around a text that has commas or line ends"),
    ".tsv": _separated("\t", False, "a text cannot have tabs or line ends (that of .csv can, in quotes)"),
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".txt": _text_lines,
    ".parquet": _parquet,
}
