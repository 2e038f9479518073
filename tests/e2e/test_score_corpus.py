"""`vqmem score_corpus` through the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pytest
from vqmem.cli import main


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six texts in the folder of the test, which becomes the current one."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(6):
        lines = (f"{j}: call me Ishmael, à la 語学, said number {i}.\n" for j in range(8))
        (folder / f"{i}.txt").write_text("".join(lines), encoding="utf-8")
    return folder


def test_the_scores_of_a_corpus_are_those_of_its_files(texts, capsys):
    assert main(["score_corpus", "texts", "out=scores", "shard_documents=4"]) == 0
    out, err = capsys.readouterr()
    assert "documents scored  100%  6/6" in err
    first, hint = out.splitlines()
    assert first.startswith("6 documents, ")
    assert first.endswith(" tokens in 2 shards: scores")
    assert hint == '  datasets.load_dataset("parquet", data_files="scores/*.parquet")'
    assert main(["score", "texts/3.txt", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    loaded = datasets.load_dataset("parquet", data_files="scores/*.parquet", cache_dir="cache")["train"]
    found = [row for row in loaded if row["document"] == "3.txt"]
    assert [(row["token"], row["start"], row["end"]) for row in found] == [
        (row["text"], row["start"], row["end"]) for row in rows
    ]
    for column, key in (("surprise", "score"), ("rarity", "rarity"), ("gain", "gain")):
        assert [round(row[column], 5) + 0.0 for row in found] == [row[key] for row in rows]


def test_a_command_that_is_killed_continues(texts, tmp_path, contents):
    words = ["score_corpus", "texts", "shard_documents=1"]
    assert main([*words, "out=undisturbed"]) == 0
    process = subprocess.Popen([sys.executable, "-m", "vqmem", *words, "out=scores"], stderr=subprocess.DEVNULL)
    for _ in range(1200):
        if process.poll() is not None or (tmp_path / "scores" / "shard-00001.parquet").is_file():
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    assert main([*words, "out=scores"]) == 0
    ours, undisturbed = contents(tmp_path / "scores"), contents(tmp_path / "undisturbed")
    assert {name: ours[name] for name in ours if name != "config.yaml"} == {
        name: undisturbed[name] for name in undisturbed if name != "config.yaml"
    }


def test_what_is_wrong_is_one_line(texts, refused):
    assert "no such file or folder: 'text'; did you mean 'texts'?" in refused("score_corpus", "text", "out=scores")
    assert "config needs the key out" in refused("score_corpus", "texts")
    assert "unknown data source 'hib'" in refused("score_corpus", "{name: hib}", "out=scores")
    assert "unknown key 'shard'" in refused("score_corpus", "texts", "out=scores", "shard=3")
    assert "executor = 'spark'" in refused("score_corpus", "texts", "out=scores", "executor=spark")
    assert main(["score_corpus", "texts", "out=scores"]) == 0


def test_the_help_explains_the_keys(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["score_corpus", "--help"])
    shown = capsys.readouterr().out
    for part in ("vqmem score_corpus my_texts/ out=runs/scores", "shard_documents = 1000", 'executor = "in_process"'):
        assert part in shown
