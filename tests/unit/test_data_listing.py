"""Which files of a folder are documents: not what systems and tools leave there, and any that has an odd name."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import soundfile
from vqmem.data.base import Document
from vqmem.registry import build

JUNK = [
    "._0{0}",
    ".hidden{0}",
    ".ipynb_checkpoints/0-checkpoint{0}",
    ".git/objects/1{0}",
    "sub/.Trash-1000/files/2{0}",
    "__MACOSX/sub/._3{0}",
    "__MACOSX/4{0}",
    "@eaDir/5{0}",
]
SOURCES = {"audio_files": ".wav", "text_files": ".txt"}


def write(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".wav":
        with path.open("wb") as file:
            soundfile.write(file, np.random.default_rng(seed).standard_normal(1600) * 0.1, 16_000, format="WAV")
    else:
        path.write_text(f"document {seed}\n" * 9)


def documents(name: str, path: Path, **keys: object) -> dict[str, list[Document]]:
    source = build("data", {"name": name, "path": str(path), **keys})
    return {split: list(source.documents(split)) for split in ("train", "dev", "test")}


def names(name: str, path: Path, **keys: object) -> list[str]:
    return sorted(document.name for split in documents(name, path, **keys).values() for document in split)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("root", ["folder", ".hidden", "__MACOSX"])
def test_what_is_hidden_is_in_no_split(source, root, tmp_path):
    suffix = SOURCES[source]
    folder = tmp_path / root
    good = [*(f"{number}{suffix}" for number in range(10)), f"sub/a{suffix}"]
    for number, name in enumerate([*good, *(junk.format(suffix) for junk in JUNK)]):
        write(folder / name, number)
    assert names(source, folder) == sorted(good)


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_hidden_is_in_no_subfolder_of_a_split(source, tmp_path):
    suffix = SOURCES[source]
    for split in ("train", "dev", "test"):
        for name in ("a", "._a", ".git/b"):
            write(tmp_path / split / f"{name}{suffix}")
    found = documents(source, tmp_path)
    assert {split: [document.name for document in found[split]] for split in found} == {
        split: [f"{split}/a{suffix}"] for split in found
    }


@pytest.mark.parametrize("source", SOURCES)
def test_a_hidden_file_that_is_named_is_read(source, tmp_path):
    path = tmp_path / f".cache/._0{SOURCES[source]}"
    write(path)
    assert names(source, path) == sorted(f"{path.name}/{split}" for split in ("train", "dev", "test"))


def test_all_patterns(tmp_path):
    for name in ("notes", "notes.md", "Thumbs.db", "desktop.ini", ".DS_Store"):
        write(tmp_path / name)
    assert {name.split("/")[0] for name in names("text_files", tmp_path, pattern="*")} == {"notes", "notes.md"}


def test_the_case_of_macos(real_data, tmp_path):
    folder = real_data / "cases" / "appledouble"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    found = {name.split("/")[0] for name in names("audio_files", folder)}
    assert len(found) == 6
    assert not any(name.startswith("._") for name in found)


def test_a_folder_for_datasets(tmp_path):
    for number, name in enumerate(["0.wav", "1.wav", "._0.wav", ".ipynb_checkpoints/0.wav", "__MACOSX/0.wav"]):
        write(tmp_path / "data" / "train" / name, number)
    found = build("data", {"name": "hub", "path": str(tmp_path / "data"), "audio": "audio"}).documents("train")
    assert [Path(document.audio.name).name for document in found] == ["0.wav", "1.wav"]


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_no_regular_file_is_not_waited_for(source, tmp_path, monkeypatch):
    suffix = SOURCES[source]
    for number in range(10):
        write(tmp_path / f"{number}{suffix}", number)
    os.mkfifo(tmp_path / f"pipe{suffix}")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"socket{suffix}")
        (tmp_path / f"circle{suffix}").symlink_to(f"circle{suffix}")
        (tmp_path / "loop").symlink_to(tmp_path)
        (tmp_path / f"folder{suffix}").mkdir()
        (tmp_path / f"link{suffix}").symlink_to(f"0{suffix}")
        assert names(source, tmp_path) == sorted([f"link{suffix}", *(f"{number}{suffix}" for number in range(10))])


@pytest.mark.parametrize("source", SOURCES)
def test_a_link_that_leads_nowhere_is_not_left_out(source, tmp_path):
    for number in range(10):
        write(tmp_path / f"{number}{SOURCES[source]}", number)
    (tmp_path / f"link{SOURCES[source]}").symlink_to("gone")
    with pytest.raises(ValueError, match=r"link.* is a link to 'gone', which is not there; mend the link"):
        _read_all(source, tmp_path)


def _read_all(source: str, folder: Path) -> None:
    for split in documents(source, folder).values():
        for document in split:
            if document.audio is not None:
                document.audio.read()


def test_a_link_that_leads_nowhere_in_a_folder_for_datasets(tmp_path):
    (tmp_path / "train.csv").write_text("text\na\n")
    (tmp_path / "more.csv").symlink_to("gone")
    with pytest.raises(ValueError, match="is a link to 'gone'"):
        next(build("data", {"name": "hub", "path": str(tmp_path)}).documents("train"))


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_for_datasets_whose_name_is_not_utf8(made, tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    if made:
        folder.mkdir()
        (folder / "train.csv").write_text("text\na\n")
    with pytest.raises(ValueError, match="not UTF-8; rename" if made else "no such file or folder"):
        next(build("data", {"name": "hub", "path": str(folder)}).documents("train"))


@pytest.mark.parametrize("source", SOURCES)
def test_names_that_are_not_utf8_fall_to_splits(source, tmp_path):
    written = [os.fsdecode(b"caf\xe9%d" % number) + SOURCES[source] for number in range(12)]
    for number, name in enumerate(written):
        write(tmp_path / "latin" / name, number)
    assert names(source, tmp_path / "latin") == sorted(written)
    for document in documents(source, tmp_path / "latin")["train"]:
        assert document.text if source == "text_files" else len(document.content("audio").read()) == 1600
    few = tmp_path / os.fsdecode(b"fol\xe4er")
    shutil.copytree(tmp_path / "latin", few, ignore=lambda _, found: sorted(found)[2:])
    assert len(names(source, few)) == 6
