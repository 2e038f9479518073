"""Manifests, units and labels are read as written, or refused in one line that names the place."""

from __future__ import annotations

import codecs
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from vqmem.data.base import Document
from vqmem.recipes.speech_pretraining.labels import read_labels
from vqmem.registry import build

SPLITS = ("train", "dev", "test")
ENDS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"  # where str.splitlines ends a line and no file does


def read(path: Path, split: str = "train", name: str = "audio_files", **keys: object) -> list[Document]:
    return list(build("data", {"name": name, "path": str(path), **keys}).documents(split))


def lines(*rows: object) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def refused(match: str, path: Path, **keys: object) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        read(path, **keys)
    assert "\n" not in str(caught.value)


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def clip(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(800, 0.1), 8000)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    for i in range(4):
        clip(tmp_path / f"{i}.wav")
    return tmp_path


def listed(path: Path, **keys: object) -> dict[str, tuple[str, str]]:
    documents = [d for split in SPLITS for d in read(path, split, name="audio_files", **keys)]
    return {d.name: (d.text, d.speaker) for d in documents}


ALL = {"0.wav": ("a", "x"), "1.wav": ("007", "x"), "2.wav": ("NA", "y"), "3.wav": ('said "b"', "")}
ROWS = [{"path": path, "text": text, "speaker": speaker} for path, (text, speaker) in ALL.items()]
TSV = "path\ttext\tspeaker\n" + "".join("\t".join(row.values()) + "\n" for row in ROWS)
MANIFESTS = {
    "manifest.tsv": TSV,
    "marked.tsv": codecs.BOM_UTF8 + TSV.encode(),
    "crlf.tsv": TSV.replace("\n", "\r\n"),
    "blank.tsv": TSV.replace("\n", "\n\n"),
    "spaced.tsv": TSV.replace("path\ttext", " path\ttext "),
    "manifest.csv": 'path,text,speaker\n0.wav,a,x\n1.wav,007,x\n2.wav,NA,y\n3.wav,"said ""b""",\n',
    "manifest.jsonl": lines(*ROWS[:3], {"path": "3.wav", "text": 'said "b"', "duration": 1.5, "words": ["a"]}),
    "nemo.json": lines(*ROWS[:3], ROWS[3] | {"speaker": None}),
    "Manifest.TSV": TSV,
    "manifest.tsv.gz": gzip.compress(TSV.encode()),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_are_read_as_they_are_written(name, folder):
    path = write(folder / name, MANIFESTS[name])
    assert listed(path) == ALL
    if name.startswith("manifest.") and not name.endswith("gz"):
        assert listed(folder) == ALL


@pytest.mark.parametrize("mark", ENDS)
def test_only_line_ends_end_a_line(mark, folder):
    write(folder / "manifest.tsv", TSV.replace("007", f"0{mark}7"))
    assert listed(folder) == ALL | {"1.wav": (f"0{mark}7", "x")}


BAD_MANIFESTS = {
    "a tab in a text": (TSV.replace("007", "0\t7"), r"cannot read manifest '.*m\.tsv': line 3 has 4 cells"),
    "a cell too few": (TSV + "4.wav\tb\n", "line 6 has 2 cells and the first 3; a text cannot have tabs"),
    "a comment": (TSV + "# 4.wav\n", "line 6 has 1 cells"),
    "a comment above": ("# made by hand\n" + TSV, "line 2 has 3 cells and the first 1"),
    "no column path": (TSV.replace("path", "pfad"), r"must name the column path .* line 2 of 'm\.tsv' does not \(pfad"),
    "NeMo's column": (lines({"audio_filepath": "0.wav", "text": "a"}), r"must name the column path .*audio_filepath"),
    "an empty path": (TSV + "\tb\tx\n", "line 6 of .* does not"),
    "nothing": ("", "lists nothing"),
    "a header alone": ("path\ttext\n", "lists nothing"),
    "a path twice": (TSV + "1.wav\tb\tx\n", r"line 6 of 'm\.tsv' lists '1\.wav', which line 3 of 'm\.tsv' lists too"),
    "no file there": ("path\ttext\nwav/0.wav\ta\n", r"no recording .* there, as 'wav/0\.wav' \(line 2 .*relative to"),
    "backslashes": ("path\ttext\nwav\\0.wav\ta\n", r"\(line 2 of 'm\.tsv'\); write / for \\$"),
    "too long a path": (f"path\ttext\n{'a' * 300}\ta\n", "no recording .* is there"),
    "another split": ("path\tsplit\n0.wav\ttrain\n1.wav\tvalid\n", "line 3 of .*: split 'valid' is not train, dev"),
    "latin-1": (TSV.replace("007", "é").encode("latin-1"), "line 3 is not valid utf-8 text .* give its `encoding`"),
    "a list": (lines({"path": "0.wav", "text": ["a"]}), "line 1 of .*: column 'text' holds lists, not text; .* path"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_MANIFESTS)
def test_manifests_that_cannot_be_read_right(kind, folder):
    data, match = BAD_MANIFESTS[kind]
    jsonl = isinstance(data, str) and data.startswith("{")
    path = write(folder / ("m.jsonl" if jsonl else "m.tsv"), data)
    refused(
        match.replace(r"m\.tsv", r"m\.jsonl") if jsonl else match,
        path,
        name="audio_files",
        splits={"train": {}} if jsonl else {},
    )


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"where": {"speker": "x"}}, "unknown column of the recordings 'speker'; did you mean speaker"),
        ({"by": "speker"}, "did you mean speaker"),
        ({"splits": {"train": {"path": "*"}, "dev": {"pth": "*"}}}, "'pth'; did you mean path"),
        ({"where": {1: "x"}}, "unknown column of the recordings '1'; known: path"),
        ({"where": {"text": False}}, "pattern False for column text is not text; write it in quotes"),
        ({"where": {"text": 1.5}}, r"pattern 1\.5 for column text is not text"),
        ({"by": "speaker"}, r"line 5 of 'manifest\.tsv' has no speaker to split by"),
    ],
)
def test_columns_and_patterns_that_cannot_be(keys, match, folder):
    write(folder / "manifest.tsv", TSV)
    refused(match, folder, name="audio_files", **keys)


def test_patterns_are_compared_with_what_is_written(folder):
    write(folder / "manifest.tsv", TSV.replace("NA", "7"))
    keys = {"splits": {"train": {}}}
    assert list(listed(folder, where={"text": "007"}, **keys)) == ["1.wav"]
    assert list(listed(folder, where={"text": 7}, **keys)) == ["2.wav"]
    assert list(listed(folder, where={"text": ["a", "0*"], "speaker": "x"}, **keys)) == ["0.wav", "1.wav"]
    with_split = "path\tsplit\n0.wav\ttrain\n1.wav\tvalidation\n2.wav\ttest\n"
    write(folder / "manifest.tsv", with_split)
    assert list(listed(folder, where={"split": ["train", "test"]})) == ["0.wav", "2.wav"]


def test_a_manifest_in_another_encoding(folder):
    write(folder / "manifest.tsv", TSV.replace("007", "é").encode("utf-16"))
    assert listed(folder, encoding="utf-16")["1.wav"] == ("é", "x")


# --- units and labels ----------------------------------------------------------------------------------------------


def test_units_have_the_texts_of_their_lines(tmp_path):
    path = write(
        tmp_path / "units.jsonl",
        lines({"id": "a", "units": [1], "text": f"b{ENDS}c"}, {"id": 7, "units": [2], "text": None}),
    )
    found = {d.name: d.text for split in SPLITS for d in read(path, split, name="unit_files")}
    assert found == {"a": f"b{ENDS}c", "7": ""}
    for row, match in (
        ({"id": "a", "units": [3]}, "line 3 of 'units.jsonl': the id 'a' is empty or was given before"),
        ({"id": None, "units": [3]}, "the id '' is empty"),
        ({"id": "b", "units": "123"}, "units are integers from 0 on"),
        ({"id": "b", "units": [True]}, "units are integers from 0 on"),
        ({"id": "b", "units": [3], "text": ["b"]}, "line 3 of .*: column 'text' holds lists"),
    ):
        write(tmp_path / "more.jsonl", path.read_bytes() + lines(row).encode())
        refused(match.replace("units.jsonl", "more.jsonl"), tmp_path / "more.jsonl", name="unit_files")
    refused("save it as utf-8", write(path, b'{"id": "\xe9"}'), name="unit_files")


def test_labels_have_the_names_of_their_lines(tmp_path):
    path = write(tmp_path / "phones.tsv", f'name\tstart\tend\tphone\na{ENDS}b\t0\t1\tT\na{ENDS}b\t1\t2\t"\n')
    assert list(read_labels(path)) == [f"a{ENDS}b"]
    write(path, path.read_bytes() + b"c\t0\t1\tT\tmore\n")
    with pytest.raises(ValueError, match=r"cannot read labels from '.*phones\.tsv': line 4 has 5 cells"):
        read_labels(path)
