"""Data sets through `datasets`, all of them local: no test needs a network."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest
from vqmem.registry import build


def read(path: Path | str, split: str = "train", **keys: object) -> list[str]:
    return [d.text for d in build("data", {"name": "hub", "path": str(path), **keys}).documents(split)]


def write(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_lone_file_is_split_by_row(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"text": f"row {i}"} for i in range(20)])
    assert read(path, "dev") == ["row 8", "row 18"]
    assert read(path, "test") == ["row 9", "row 19"]
    assert len(read(path)) == 16
    assert read(path, limit=3) == ["row 0", "row 1", "row 2"]


def test_folder_with_splits(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write(tmp_path / f"{split}.jsonl", [{"body": split}, {"body": ""}, {"body": None}])
    assert read(tmp_path, text="body") == ["train"]
    assert read(tmp_path, "dev", text="body") == ["validation"]
    with pytest.raises(ValueError, match=r"unknown split of data set .* 'test'; known: train, validation"):
        read(tmp_path, "test", text="body")
    assert read(tmp_path, "test", text="body", test="validation") == ["validation"]


def test_rows_joined_are_lines_of_one_document(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", [{"text": " = A = \n"}, {"text": ""}, {"text": "b"}])
    source = build("data", {"name": "hub", "path": str(tmp_path), "joined": True})
    assert [(d.name, d.text) for d in source.documents("test")] == [("test", " = A = \n\nb")]
    with pytest.raises(ValueError, match="audio='audio' names recordings; drop one"):
        build("data", {"name": "hub", "path": str(tmp_path), "joined": True, "audio": "audio"})


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    datasets.Dataset.from_dict({"text": ["one", "two"]}).to_parquet(path)
    assert read(path) == ["one", "two"]
    with pytest.raises(ValueError, match="has no text for dev"):
        read(path, "dev")


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"text": "a"}])
    with pytest.raises(ValueError, match=r"unknown column of data set .* 'txt'; did you mean text\?"):
        read(path, text="txt")
    with pytest.raises(ValueError, match=r"did you mean '.*rows\.jsonl'\?"):
        read(tmp_path / "row.jsonl")
    with pytest.raises(ValueError, match="has no path"):
        read("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text":\n')
    for broken in (tmp_path / "empty", tmp_path / "bad.jsonl"):
        with pytest.raises(ValueError, match=r"cannot (open|read) data set") as caught:
            read(broken)
        assert "\n" not in str(caught.value)


def test_a_folder_misspelt_names_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not a file's name may be one on the hub, so it is looked for there first."""
    (tmp_path / "stories").mkdir()
    monkeypatch.chdir(tmp_path)

    def unknown(*_: object, **__: object) -> None:
        raise ConnectionError("no such data set\nno network")

    monkeypatch.setattr("datasets.load_dataset_builder", unknown)
    with pytest.raises(
        ValueError, match=r"data set 'storeis' \(ConnectionError: no such data set\); did you mean 'stories'\?$"
    ):
        read("storeis")
    with pytest.raises(ValueError, match=r"; check `path` and `subset`$"):
        read("zzz")
