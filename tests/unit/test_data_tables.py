"""Tables as people and tools write them are read as written, or refused in one line that names the place."""

from __future__ import annotations

import bz2
import codecs
import datetime
import gzip
import io
import json
import lzma
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from vqmem.data._tables import read_rows
from vqmem.data.base import Document
from vqmem.registry import build

SPLITS = ("train", "dev", "test")
ENDS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"  # where str.splitlines ends a line and no file does


def read(path: Path | str, split: str = "train", name: str = "hub", **keys: object) -> list[Document]:
    return list(build("data", {"name": name, "path": str(path), **keys}).documents(split))


def texts(path: Path | str, **keys: object) -> list[str]:
    return [document.text for document in read(path, **keys)]


def lines(*rows: object) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def parquet(*cells: object, name: str = "text") -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"id": range(len(cells)), name: list(cells)}), file)
    return file.getvalue()


def refused(match: str, path: Path | str, **keys: object) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        read(path, **keys)
    assert "\n" not in str(caught.value)


def write(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def clip(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(800, 0.1), 8000)
    return path


# --- what is in a table --------------------------------------------------------------------------------------------

WORDS = ["007", "0", "1", "1.50", "false", "True", "null", "NA", "nan", "None", "-inf", "1e5", "2020-01-01", " a "]
CSV = "id,text\n" + "".join(f"{i},{word}\n" for i, word in enumerate(WORDS[:7]))
READ = {
    "as_written.csv": (CSV, WORDS[:7]),
    "as_written_too.csv": ("text\n" + "\n".join(WORDS[7:]), WORDS[7:]),
    "missing.csv": ("id,text\n0,a\n1,\n2,b\n", ["a", "b"]),
    "mark.csv": (codecs.BOM_UTF8 + b"text,id\na,0\n", ["a"]),
    "mark.jsonl": (codecs.BOM_UTF8 + b'{"text": "a"}\n', ["a"]),
    "quotes.csv": ('text,"id"\n"a, ""b""",0\n"two\nlines\r\n",1\n5" disk,2\n', ['a, "b"', "two\nlines\r\n", '5" disk']),
    "crlf.csv": ("id,text\r\n0,a\r\n\r\n1,b\r\n", ["a", "b"]),
    "cr.csv": ("id,text\r0,a\r1,b", ["a", "b"]),
    "ends.csv": (f"id,text\n0,a{ENDS}b\n1,c\n", [f"a{ENDS}b", "c"]),
    "ends.tsv": (f"id\ttext\n0\ta{ENDS}b\n1\tc\n", [f"a{ENDS}b", "c"]),
    "ends.jsonl": (lines({"text": f"a{ENDS}b"}, {"text": "c"}), [f"a{ENDS}b", "c"]),
    "ends.txt": (f"a{ENDS}b\r\n\nc", [f"a{ENDS}b", "c"]),
    "spaces.csv": ("id, text \n0, a\n", [" a"]),
    "index.csv": (",text\n0,a\n", ["a"]),
    "commas.tsv": ("id\ttext\n0\ta, b\n1\t007\n", ["a, b", "007"]),
    "quotes.tsv": ('id\ttext\n0\t"a" she said\n1\t"b\n', ['"a" she said', '"b']),
    "long.csv": ("id,text\n0," + "a" * 300_000 + "\n", ["a" * 300_000]),
    "keys.jsonl": (lines({"id": 0}, {"text": "a"}, {"text": "b", "more": {"c": [1]}}), ["a", "b"]),
    "blank.jsonl": ('\n{"text": "a"}\n \t\r\n{"text": "2020-01-01 00:00:00"}\n\n', ["a", "2020-01-01 00:00:00"]),
    "missing.jsonl": (lines({"text": None}, {"text": "a"}, {"text": ""}), ["a"]),
    "integers.jsonl": (lines({"text": 7}, {"text": 10**30}, {"text": "07"}), ["7", str(10**30), "07"]),
    "rows.ndjson": (lines({"text": "a"}), ["a"]),
    "array.json": (json.dumps([{"text": "a"}, {"text": "007"}], indent=2), ["a", "007"]),
    "lines.json": (lines({"text": "a"}, {"text": "b"}), ["a", "b"]),
    "rows.jsonl.gz": (gzip.compress(lines({"text": "a"}).encode()), ["a"]),
    "rows.csv.gz": (gzip.compress(b"text,id\n007,1\n"), ["007"]),
    "rows.TSV.GZ": (gzip.compress(b"text\tid\n007\t1\n"), ["007"]),
    "rows.json.gz": (gzip.compress(b'[{"text": "a"}]'), ["a"]),
    "rows.txt.gz": (gzip.compress(b"007\nNA\n"), ["007", "NA"]),
    "rows.csv.bz2": (bz2.compress(b"text,id\n007,1\n"), ["007"]),
    "rows.csv.xz": (lzma.compress(b"text,id\n007,1\n"), ["007"]),
    "ROWS.CSV": ("text,id\n007,1\n", ["007"]),
    "Rows.Jsonl": (lines({"text": "a"}), ["a"]),
    "a [1] *?#%20.csv": ("text,id\n007,1\n", ["007"]),
    "a [1] *?#%20::b.parquet": (parquet("007", "a"), ["007", "a"]),
    "rows.parquet": (parquet("007", None, "", "a"), ["007", "a"]),
    "integers.parquet": (parquet(7, None, 0), ["7", "0"]),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_texts_are_read_as_they_are_written(name, tmp_path):
    data, wanted = READ[name]
    assert texts(write(tmp_path / name, data)) == wanted


REFUSED = {
    "more.csv": ("id,text\n0,a\n1,b,c\n", r"cannot read data set '.*more\.csv': line 3 has 3 cells and the first 2"),
    "fewer.csv": ("id,text,more\n0,a\n", "line 2 has 2 cells and the first 3"),
    "more.tsv": ('id\ttext\n0\t"a\tb"\n', "line 2 has 3 cells and the first 2; a text cannot have tabs"),
    "after.csv": ('id,text\n0,"two\nlines"\n1,b,c\n', "line 4 has 3 cells"),
    "open.csv": ('id,text\n0,a\n1,"b\n2,c\n', "line 3: unexpected end of data; is a quote in it left open"),
    "behind.csv": ('id,text\n0,"a" b\n', "line 2: .*; is a quote in it left open, or not doubled"),
    "semicolons.csv": ("id;text\n0;a\n", "'id;text' has ';' between columns, not ','"),
    "tabs.csv": ("id\ttext\n0\ta\n", r"has '\\t' between columns, not ','"),
    "commas.tsv": ("id,text\n0,a\n", r"has ',' between columns, not '\\t'"),
    "twice.csv": ("text,text\na,b\n", "names the column 'text' twice"),
    "nul.csv": (b"id,text\n0,a\n1,b\0c\n", r"line 3 is not valid utf-8 text \(byte 0x00\); give its `encoding`"),
    "latin.csv": (b"id,text\n0,a\n1,na\xefve\n", r"line 3 is not valid utf-8 text \(byte 0xef\); give its `enc"),
    "latin.jsonl": (b'{"text": "a"}\n{"text": "na\xefve"}\n', r"line 2 is not valid utf-8 text \(byte 0xef\)"),
    "utf16.csv": ("id,text\n0,a\n".encode("utf-16"), "line 1 is not valid utf-8 text .* or utf-16"),
    "empty.csv": ("", "has no text for train"),
    "header.csv": ("id,text\n", "has no text for train"),
    "misspelt.csv": ("id,txt\n0,a\n", r"unknown column of data set .* 'text'; did you mean txt\?"),
    "damaged.jsonl": (lines({"text": "a"}) + '{"text": "b"\n', r"line 2 is no JSON \(.* at character \d+\)"),
    "scalar.jsonl": ('{"text": "a"}\n["b"]\n', "line 2 is not an object"),
    "twice.jsonl": ('{"text": "a", "text": "b"}\n', "line 1 cannot be read: it has the key 'text' twice"),
    "digits.jsonl": ('{"text": ' + "9" * 5000 + "}\n", "line 1 cannot be read: Exceeds the limit"),
    "deep.jsonl": ('{"text": ' + "[" * 99_999 + "\n", "cannot read data set"),
    "half.jsonl": ('{"text": "\\ud83d"}\n', r"half\.jsonl': line 1 holds .* which is not valid Unicode"),
    "array.json": ('[\n{"text": "a"},\n{"text": "b"\n', "line 4 is no JSON"),
    "scalar.json": ('[{"text": "a"}, 7]', "item 1 is not an object"),
    "inside.json": ('{"data": [{"text": "a"}]}', "unknown column of data set .* 'text'; .*data"),
    "lists.jsonl": (lines({"id": "x", "text": ["a"]}), "line 1 .* 'text' holds lists, not text; name a column"),
    "objects.jsonl": (lines({"text": {"en": "a"}}), "'text' holds objects, not text; name another column"),
    "bool.jsonl": (lines({"text": True}), "'text' holds true or false, not text"),
    "float.jsonl": (lines({"text": 7.0}), "'text' holds numbers with a fraction, not text"),
    "lists.parquet": (parquet(["a"], ["b"]), r"row 0 of 'lists\.parquet': column 'text' holds lists"),
    "bytes.parquet": (parquet(b"a"), "'text' holds bytes, not text"),
    "float.parquet": (parquet(7.0, None), "'text' holds numbers with a fraction"),
    "date.parquet": (parquet(datetime.date(2020, 1, 1)), "'text' holds date, not text"),
    "nothing.parquet": (parquet(None, None), "has no text for train"),
    "damaged.parquet": (parquet("a")[:-9], "cannot read data set"),
    "damaged.csv.gz": (gzip.compress(b"id,text\n" + b"0,a\n" * 999)[:-20], "cannot read data set"),
    "plain.csv.gz": (b"id,text\n0,a\n", "cannot read data set .*: Not a gzipped file"),
    "rows.xlsx": (b"PK\3\4", r"is not a table; give one that ends in \.csv, \.tsv"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_tables_that_cannot_be_read_right(name, tmp_path):
    data, match = REFUSED[name]
    refused(match, write(tmp_path / name, data))


def test_the_cases_that_went_wrong(real_data):
    cases = real_data / "cases"
    if not cases.is_dir():
        pytest.skip(f"no {cases}")
    assert texts(cases / "csv_digits.csv") == ["007", "0", "1", "2", "3", "4", "5", "8"]  # one is empty
    assert texts(cases / "csv_digits.csv", split="dev") == ["6"]
    assert texts(cases / "table.tsv")[0] == "row number 0, with a comma"
    assert texts(cases / "rows.jsonl.gz") == [f"a{i}" for i in range(8)]
    refused("column 'text' holds lists, not text", cases / "text_is_a_list.jsonl")
    train = read(cases / "manifest_u2028", name="audio_files")
    assert [document.name for document in train] == [f"c{i}.wav" for i in range(6)]
    assert train[0].text == "first line\u2028second line 0"


def test_encodings(tmp_path):
    path = write(tmp_path / "rows.csv", "id,text\n0,naïve\n".encode("latin-1"))
    assert texts(path, encoding="latin-1") == ["naïve"]
    assert texts(write(path, "id,text\n0,naïve\n".encode("utf-16")), encoding="utf-16") == ["naïve"]
    for encoding in ("utf8x", "hex"):
        refused(f"unknown encoding '{encoding}'", path, encoding=encoding)


def test_a_quote_left_open_does_not_read_the_rest_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("vqmem.data._tables._LONGEST", 1000)
    path = write(tmp_path / "rows.csv", 'id,text\n0,a\n1,"b\n' + "2,c\n" * 1_000_000)
    tracemalloc.start()
    refused("line 3: field larger than field limit", path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6


def test_memory_is_bounded_by_a_row(tmp_path):
    for name, line in (
        ("rows.csv", b"0,some words" + b" more" * 200 + b"\n"),
        ("rows.jsonl", b'{"text": "some words' + b" more" * 200 + b'"}\n'),
    ):
        path = write(tmp_path / name, b"id,text\n" * name.endswith("csv") + line * 5000)
        tracemalloc.start()
        assert sum(1 for _ in read_rows(path, "table")) == 5000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1e6


# --- where a table is looked for -----------------------------------------------------------------------------------


@pytest.fixture
def no_hub(monkeypatch):
    def looked(name: str, *_: object, **__: object) -> None:
        pytest.fail(f"looked for {name} on the hub")

    monkeypatch.setattr("datasets.load_dataset_builder", looked)


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("path", ["rwos.csv", "./rwos", "~/rwos", "sub/rwos.CSV", "rwos.jsonl.gz", "/nowhere/rwos"])
def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused("no such file or folder: '.*rwos", path)
    write(tmp_path / "rows.csv", "text,id\na,0\n")
    refused(r"no such file or folder: 'rwos\.csv'; did you mean 'rows\.csv'", "rwos.csv")
    write(tmp_path / "json", "no table")
    refused("'json' is not a table", "json")


def test_the_name_of_a_format_reads_no_table_of_the_working_directory(tmp_path, monkeypatch):
    write(tmp_path / "rows.csv", "text\na\n")
    monkeypatch.chdir(tmp_path)
    refused("cannot open data set 'csv' .*csv is a format and no data set", "csv")


def test_a_folder_of_tables(tmp_path, monkeypatch):
    write(tmp_path / "text" / "train.csv", "id,text\n0,007\n1,NA\n")
    write(tmp_path / "text" / "validation.csv", "id,text\n0,1.0\n")
    write(tmp_path / "text" / "test.csv", "id,text\n0,false\n1,2,3\n")
    monkeypatch.chdir(tmp_path)
    assert texts("text") == ["007", "NA"]  # and not what `datasets` calls text
    assert texts("text", split="dev") == ["1.0"]
    refused(r"cannot read data set '.*test\.csv': line 3 has 3 cells", "text", split="test")
    write(tmp_path / "a [1]" / "train.csv", "text\n007\n")
    refused(r"take \*, \? and \[ in the name of a folder for patterns; rename", "a [1]")
    for name, data in {
        "a.tsv": "id\ttext\n0\t007, 8\n",
        "b.jsonl.gz": gzip.compress(b'{"text": "2020-01-01 00:00:00"}'),
        "c.txt": f"a{ENDS}b\n",
    }.items():
        write(tmp_path / name[0] / name, data)
        assert texts(tmp_path / name[0]) == [{"a": "007, 8", "b": "2020-01-01 00:00:00", "c": f"a{ENDS}b"}[name[0]]]


def test_a_column_that_is_not_there(tmp_path):
    path = write(tmp_path / "rows.csv", "id,body,voice,wav\n0,a,x,0.wav\n")
    for keys, match in (
        ({"text": "bdy"}, "'bdy'; did you mean body"),
        ({"text": "bdy", "audio": "wav"}, "'bdy'; did you mean body"),
        ({"text": "body", "speaker": "vioce"}, "'vioce'; did you mean voice"),
        ({"audio": "wave"}, "'wave'; did you mean wav"),
    ):
        refused(f"unknown column of data set .* {match}", path, **keys)
    assert texts(path, text="body", speaker="") == ["a"]
    broken = write(tmp_path / "broken.csv", 'id,"what was\nsaid "\n0,a\n')
    assert texts(broken, text="what was said") == ["a"]
    refused("'text'; known: id, what was said", broken)
    late = write(tmp_path / "late.jsonl", lines(*[{"id": 0}] * 20, {"id": 0, "body": "a"}))
    assert texts(late, text="body") == ["a"]
    refused("'bodi'; did you mean body", late, text="bodi")


def test_speakers_that_are_missing_are_unknown(tmp_path):
    rows = [
        {"wav": "0.wav", "speaker": None, "text": None},
        {"wav": "1.wav", "speaker": 7, "text": "NA"},
        {"wav": "2.wav"},
    ]
    path = write(tmp_path / "rows.jsonl", lines(*rows))
    documents = read(path, audio="wav", speaker="speaker")
    assert [(d.speaker, d.text) for d in documents] == [("", ""), ("7", "NA"), ("", "")]
    write(path, lines({"wav": "0.wav", "speaker": ["a"], "text": "b"}))
    refused(
        "column 'speaker' holds lists, not text; name a column of texts: wav, text",
        path,
        audio="wav",
        speaker="speaker",
    )
    write(path, lines({"wav": 7.5}))
    refused("has no recording but float", path, audio="wav")


def test_a_folder_of_recordings_with_metadata(tmp_path):
    """As `audiofolder` of `datasets` takes it."""
    for name in ("train/0.wav", "train/1.wav", "test/2.wav"):
        clip(tmp_path / "splits" / name)
        clip(tmp_path / "flat" / name[-5:])
    write(tmp_path / "splits/train/metadata.csv", "file_name,transcription\n0.wav,007\n1.wav,NA\n")
    write(tmp_path / "splits/test/metadata.csv", "file_name,transcription\n2.wav,null\n")
    said = {"0.wav": "007", "1.wav": "NA", "2.wav": "null"}
    rows = [{"file_name": name, "transcription": text} for name, text in said.items()]
    write(tmp_path / "flat/metadata.jsonl", lines(*rows))
    found = {}
    for folder, split in (("splits", "train"), ("splits", "test"), ("flat", "train")):
        for document in read(tmp_path / folder, split, audio="audio", text="transcription"):
            assert document.audio is not None
            assert len(document.audio.read()) == 1600
            found[f"{folder}/{Path(document.audio.name).name}"] = document.text
    assert found == {f"{folder}/{name}": text for folder in ("splits", "flat") for name, text in said.items()}
    for name in ("../outside.wav", "3.wav", None):
        write(tmp_path / "flat/metadata.jsonl", lines(*rows, {"file_name": name, "transcription": "a"}))
        refused(
            "line 4 of 'metadata.jsonl': file_name .* is not a recording of",
            tmp_path / "flat",
            audio="audio",
            text="transcription",
        )
