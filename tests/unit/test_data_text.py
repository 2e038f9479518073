"""Reading text from disk and standard input, and what is said where that cannot be done."""

from __future__ import annotations

import io
import sys
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest
from vqmem.data.reading.files import read_text, require_path
from vqmem.registry import build

SPLITS = ("train", "dev", "test")


def texts(path: Path, split: str = "train", **keys: str) -> list[str]:
    source = build("data", {"name": "text_files", "path": str(path), **keys})
    return [document.text for document in source.documents(split)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"'.*book\.txt' is empty"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", r"'.*book\.txt' is not text \(it has NUL bytes\)"),
        (b"plain\0ascii", "not text"),
        (b"caf\xe9 au lait", r"'.*book\.txt' is not valid utf-8 \(byte 0xe9 at offset 3\); give its `encoding`"),
    ],
)
def test_bad_file_is_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "book.txt").write_bytes(data)
    for path in (tmp_path, tmp_path / "book.txt"):
        with pytest.raises(ValueError, match=message) as caught:
            texts(path)
        assert "\n" not in str(caught.value)


def test_missing_path_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    with pytest.raises(ValueError, match=r"no such file or folder: '.*boks.a'; did you mean '.*books'\?"):
        require_path(tmp_path / "boks" / "a")
    with pytest.raises(ValueError, match="check the spelling"):
        require_path(tmp_path / "zzz")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="check the spelling"):
        require_path(tmp_path / "file" / "inside")
    with pytest.raises(ValueError, match=r"no file in .* matches"):
        texts(tmp_path / "books")
    with pytest.raises(ValueError, match="is a folder; give a file"):
        read_text(tmp_path)
    with pytest.raises(ValueError, match="has no path"):
        list(build("data", "text_files").documents("train"))


def test_encodings(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes("é".encode("latin-1"))
    assert read_text(path, "latin-1") == "é"
    path.write_bytes("naïve".encode("utf-16"))
    assert read_text(path, "utf-16") == "naïve"
    path.write_bytes("\ufeffnaïve\r\n".encode())
    assert read_text(path) == "naïve\r\n"
    with pytest.raises(ValueError, match="unknown encoding 'utf-9'"):
        read_text(path, "utf-9")


def test_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("été".encode())))
    assert read_text("-") == "été"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"")))
    with pytest.raises(ValueError, match="standard input is empty"):
        read_text("-")


def test_folders_named_after_the_splits_are_the_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "deep").mkdir(parents=True)
        (tmp_path / split / "deep" / "b.txt").write_text(split)
        (tmp_path / split / "a.txt").write_text(f"first of {split}")
        (tmp_path / split / "c.md").write_text("another kind")
    assert texts(tmp_path) == ["first of train", "train"]
    assert texts(tmp_path, "test", pattern="*.md") == ["another kind"]
    with pytest.raises(ValueError, match="dev"):
        texts(tmp_path, "dev")
    with pytest.raises(ValueError, match="must be relative to the folder"):
        texts(tmp_path, pattern="/tmp/*.md")


def test_subfolders_of_the_splits_may_have_other_names(tmp_path: Path) -> None:
    for place in ("novels", "plays/dev", "plays/test", "train"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.txt").write_text(place)
    source = build("data", {"name": "text_files", "path": str(tmp_path), "dev": "plays/dev", "test": "plays/test"})
    found = {split: [document.text for document in source.documents(split)] for split in ("train", "dev", "test")}
    assert found == {"train": ["train"], "dev": ["plays/dev"], "test": ["plays/test"]}
    source = build("data", {"name": "text_files", "path": str(tmp_path), "train": "novel"})
    with pytest.raises(ValueError, match="novels"):
        list(source.documents("train"))


def test_the_standard_library_is_code_in_three_splits_that_share_no_module() -> None:
    source = build("data", "standard_library")
    found = {split: {document.name: document.text for document in source.documents(split)} for split in SPLITS}
    assert "def dumps(" in {**found["train"], **found["dev"], **found["test"]}["json/__init__.py"]
    assert sum(map(len, found.values())) == len(set().union(*found.values()))
    assert sum(map(len, found["train"].values())) > 3_000_000
    assert not any("site-packages" in name or name.startswith("test/") for names in found.values() for name in names)


def test_no_file_is_shared_between_splits(tmp_path: Path) -> None:
    for i in range(20):
        (tmp_path / f"{i:02}.txt").write_text(f"{i:02}")
    shares = {split: texts(tmp_path, split) for split in ("train", "dev", "test")}
    assert [len(share) for share in shares.values()] == [16, 2, 2]
    assert sorted(chain(*shares.values())) == [f"{i:02}" for i in range(20)]
    assert all(share == sorted(share) for share in shares.values())


@pytest.mark.parametrize("text", ["a line\n" * 300, "word " * 1000, "a" * 1000, "abcdefghij"])
def test_lone_file_is_cut_by_position(tmp_path: Path, text: str) -> None:
    path = tmp_path / "book.txt"
    path.write_text(text)
    parts = [texts(path, split) for split in ("train", "dev", "test")]
    assert "".join(chain(*parts)) == text
    assert 0.75 < len(parts[0][0]) / len(text) < 0.87
    if "\n" in text:
        assert all(part[0].endswith("\n") for part in parts)


def test_file_too_short_to_split(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("x")
    with pytest.raises(ValueError, match=r"'book\.txt' is too short to split"):
        texts(tmp_path / "book.txt")
    assert read_text(tmp_path / "book.txt") == "x"


def test_builtin_text_is_enough_and_says_when_it_is_stripped(monkeypatch: pytest.MonkeyPatch) -> None:
    source = build("data", "builtin_text")
    sizes = {split: sum(len(d.text.encode()) for d in source.documents(split)) for split in ("train", "dev", "test")}
    assert sizes["train"] > 200_000
    assert min(sizes.values()) > 10_000
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ValueError, match=r"without pydoc_data\.topics; use"):
        list(source.documents("train"))
