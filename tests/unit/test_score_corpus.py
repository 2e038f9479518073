"""`vqmem score_corpus`: the scores of `vqmem score`, and every document once, whatever is killed and whoever scores."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from vqmem.artifacts import save_model
from vqmem.data.base import all_documents
from vqmem.data.reading.audio import Audio
from vqmem.data.reading.files import UnreadableError
from vqmem.memory.scorer import load_scorer
from vqmem.models.speech.frame_scorer import FOLDER, KIND, FrameScorer
from vqmem.models.vq_lm import VQLMConfig
from vqmem.recipes.score_corpus import shards
from vqmem.recipes.score_corpus.run import Config, Summary, format_summary
from vqmem.recipes.score_corpus.scorer import DocumentScorer
from vqmem.recipes.score_corpus.source import parse_data
from vqmem.recipes.scoring.audio import score_audio
from vqmem.recipes.scoring.text import score_text
from vqmem.registry import build
from vqmem.tests.unit.scored_corpus import columns, files, names, score, write_recordings, write_texts
from vqmem.tokenizers_.base import save_tokenizer

SIGNALS = ["surprise", "rarity", "gain"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "texts")


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    return write_recordings(tmp_path / "recordings")


# --- scores --------------------------------------------------------------------------------------------------------


def test_texts_have_the_scores_of_score_text(texts, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROW_GROUP", 16)
    summary = score(texts, tmp_path / "out")
    total = 0
    for path in sorted(texts.iterdir()):
        rows = [row for chunk in score_text(path.read_text(encoding="utf-8")) for row in chunk]
        found = columns(tmp_path / "out", path.name)
        assert list(found) == ["document", "token", "start", "end", *SIGNALS]
        for key, column in (("text", "token"), ("start", "start"), ("end", "end")):
            assert found[column] == [row[key] for row in rows]
        for key, column in (("score", "surprise"), ("rarity", "rarity"), ("gain", "gain")):
            assert [round(value, 5) + 0.0 for value in found[column]] == [row[key] for row in rows]
        assert "".join(found["token"]) == path.read_text(encoding="utf-8")
        total += len(rows)
    assert summary == Summary(7, total, 4, 0)
    assert f"7 documents, {total:,} tokens in 4 shards" in format_summary(Config("out", ""), summary)


def test_the_chunks_of_a_text_do_not_change_its_scores(tmp_path):
    (tmp_path / "long.txt").write_text("".join(f"Line {i} of a longer text.\n" for i in range(300)), encoding="utf-8")
    score(tmp_path / "long.txt", tmp_path / "out")
    rows = [row for chunk in score_text((tmp_path / "long.txt").read_text(), chunk=200) for row in chunk]
    found = columns(tmp_path / "out", "long.txt")
    assert found["token"] == [row["text"] for row in rows]
    torch.testing.assert_close(
        torch.tensor(found["surprise"]), torch.tensor([r["score"] for r in rows]), atol=2e-5, rtol=0
    )


def test_recordings_have_the_scores_of_score_audio(recordings, tmp_path):
    score(recordings, tmp_path / "out")
    for path in sorted(recordings.iterdir()):
        scores, found = score_audio(Audio(str(path))), columns(tmp_path / "out", path.name)
        assert scores.ids is not None
        assert found["token"] == scores.ids.tolist()
        assert (found["start"], found["end"]) == (scores.starts.tolist(), scores.ends.tolist())
        assert [found[name] for name in SIGNALS] == scores.signals.T.tolist()
    schema = pq.read_schema(tmp_path / "out" / "shard-00000.parquet")
    assert [str(of) for of in schema.types] == ["string", "int64", "double", "double", *["float"] * 3]
    assert schema.metadata[b"vqmem.unit"] == b"seconds"
    assert len(schema.metadata[b"vqmem.scorer"]) == 16


def test_frames_of_recordings(recordings, tmp_path):
    torch.manual_seed(0)
    scorer = FrameScorer("mfcc39", VQLMConfig(frame_dim=39, dim=8, hidden=8, codes=4))
    save_model(tmp_path / "run" / FOLDER, KIND, scorer.fields(), scorer)
    score(recordings, tmp_path / "out", model=str(tmp_path / "run"))
    scores = score_audio(Audio(str(recordings / "3.wav")), tmp_path / "run")
    found = columns(tmp_path / "out", "3.wav")
    assert found["token"] == list(range(len(scores.signals)))
    assert found["gain"] == scores.signal("gain").tolist()


def test_units_of_a_file_with_the_scorer_of_a_run(tmp_path):
    torch.manual_seed(0)
    units = [list(map(int, np.random.default_rng(i).integers(0, 9, 30))) for i in range(4)]
    lines = (json.dumps({"id": f"u{i}", "units": ids}) for i, ids in enumerate(units))
    (tmp_path / "units.jsonl").write_text("\n".join(lines), encoding="utf-8")
    spec = {"name": "vq_lm", "dim": 8, "hidden": 8, "codes": 4}
    save_model(
        *(tmp_path / "run" / "scorer", "scorers/vq_lm", {"scorer": spec, "vocab_size": 9}),
        build("scorers", spec).build(9),
    )
    front_end = {"name": "units", "vocab_size": 9}
    save_tokenizer(build("front-ends", front_end).fit([]), front_end, tmp_path / "run" / "front_end")
    data = {"name": "unit_files", "path": str(tmp_path / "units.jsonl")}
    with pytest.raises(ValueError, match="no scorer is packaged for units"):
        score(data, tmp_path / "out")
    score(data, tmp_path / "out", model=str(tmp_path / "run"))
    scorer = load_scorer(tmp_path / "run")
    for i, ids in enumerate(units):
        found = columns(tmp_path / "out", f"u{i}")
        expected, _ = scorer.score(torch.tensor([ids]), scorer.initial_state(1))
        assert found["token"] == ids
        assert [found[name] for name in SIGNALS] == expected[0].T.tolist()
        assert found["end"][-1] == pytest.approx(0.6)


# --- documents and shards ------------------------------------------------------------------------------------------


def test_shards_end_where_documents_do(texts, tmp_path):
    score(texts, tmp_path / "out", shard_documents=3)
    assert names(tmp_path / "out") == [["0.txt", "1.txt", "2.txt"], ["3.txt", "4.txt", "5.txt"], ["6.txt"]]
    score(texts, tmp_path / "bytes", shard_documents=99, shard_bytes=200)
    sizes = [(texts / f"{i}.txt").stat().st_size for i in range(7)]
    for found in names(tmp_path / "bytes"):
        total = [sizes[int(name[0])] for name in found]
        assert sum(total[:-1]) < 200
    assert list(chain(*names(tmp_path / "bytes"))) == [f"{i}.txt" for i in range(7)]
    plan = [json.loads(line) for line in (tmp_path / "out" / "documents.jsonl").read_text().splitlines()]
    assert [(line["name"], line["shard"]) for line in plan][2:4] == [("2.txt", 0), ("3.txt", 1)]


def test_all_documents_are_uncut_and_a_split_is_that_of_the_source(texts, tmp_path):
    (texts / "6.txt").write_text("A line of a text that is long enough to be split.\n" * 20, encoding="utf-8")
    source = build("data", {"name": "text_files", "path": str(texts / "6.txt")})
    assert [document.name for document in all_documents(source)] == ["6.txt"]
    score(texts / "6.txt", tmp_path / "all")
    score(texts / "6.txt", tmp_path / "dev", split="dev")
    assert names(tmp_path / "all") == [["6.txt"]]
    assert names(tmp_path / "dev") == [["6.txt/dev"]]


def test_uncut_recordings_of_folders_manifests_and_splits(recordings, tmp_path):
    def found(**keys: Any) -> list[str]:
        source = build("data", {"name": "audio_files", "path": str(recordings), **keys})
        return [document.name for document in all_documents(source)]

    assert found() == [f"{i}.wav" for i in range(5)]
    assert found(where={"path": ["1*", "2*"]}, splits={"dev": {"path": "2*"}}) == ["2.wav"]
    (recordings / "manifest.tsv").write_text("path\tsplit\n1.wav\tdev\n0.wav\tother\n", encoding="utf-8")
    assert found() == ["1.wav", "0.wav"]


def test_the_splits_of_folders_and_of_other_sources(tmp_path):
    for split in ("train", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        (tmp_path / "data" / split / "a.txt").write_text(split)
    (tmp_path / "data" / "b.txt").write_text("not in a split")
    source = build("data", {"name": "text_files", "path": str(tmp_path / "data")})
    assert [document.name for document in all_documents(source)] == ["train/a.txt", "test/a.txt"]
    source = build("data", {"name": "mqar", "train_documents": 2, "held_out_documents": 1})
    splits = [document for split in ("train", "dev", "test") for document in source.documents(split)]
    assert [document.text for document in all_documents(source)] == [document.text for document in splits]


def test_a_second_run_loads_no_scorer_and_writes_no_shard(texts, tmp_path, monkeypatch):
    first = score(texts, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.parquet")}
    monkeypatch.setattr(DocumentScorer, "__init__", lambda *_: pytest.fail("a scorer was loaded"))
    again = score(texts, tmp_path / "out")
    assert (again.documents, again.tokens, again.kept) == (first.documents, first.tokens, 4)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.parquet")} == before


def test_the_shards_load_with_datasets(texts, tmp_path):
    summary = score(texts, tmp_path / "out")
    files = str(tmp_path / "out" / "*.parquet")
    loaded: Any = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].num_rows == summary.tokens
    assert loaded["train"].features["surprise"].dtype == "float32"
    assert "".join(row["token"] for row in loaded["train"] if row["document"] == "0.txt").startswith("The whale")


def test_all_documents_of_a_data_set_are_those_of_its_splits_whatever_their_names(tmp_path):
    for split, count in (("train", 2), ("other", 1)):
        rows = (json.dumps({"text": f"{split} {i}"}) for i in range(count))
        (tmp_path / f"{split}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train, path: train.jsonl}\n"
        "  - {split: other, path: other.jsonl}\n---\n"
    )
    source = build("data", {"name": "hub", "path": str(tmp_path)})
    assert [document.text for document in all_documents(source)] == ["train 0", "train 1", "other 0"]
    source = build("data", {"name": "hub", "path": str(tmp_path), "limit": 1, "joined": True})
    assert [document.name for document in all_documents(source)] == ["train", "other"]


def test_a_document_without_tokens_is_in_the_plan_and_has_no_rows(tmp_path):
    rows = [json.dumps({"text": text}) for text in ("  ", "some words", " \n ")]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    data = {"name": "hub", "path": str(tmp_path / "rows.jsonl")}
    summary = score(data, tmp_path / "out", shard_documents=1)
    assert summary.documents == summary.shards == 3
    tables = [pq.read_table(path) for path in sorted((tmp_path / "out").glob("*.parquet"))]
    assert {str(table.schema) for table in tables} == {str(tables[0].schema)}


# --- interruptions -------------------------------------------------------------------------------------------------


def killed_at(moment: str, count: int, data: Path, out: Path) -> None:
    """Score in this process until ``moment`` comes for the ``count``-th time, and die there without a chance to act."""
    seen = []

    def before(function: Any) -> Any:
        def call(*args: Any, **keys: Any) -> Any:
            seen.append(1)
            if len(seen) == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **keys)

        return call

    if moment == "document":
        DocumentScorer.score = before(DocumentScorer.score)
    else:
        os.replace = before(os.replace)
    score(data, out)


@pytest.mark.parametrize("document", [1, 4, 7])
def test_a_run_that_is_killed_continues_where_it_was(texts, tmp_path, document):
    """It is killed again where the third file, the first shard after config and plan, is complete but for its name."""
    score(texts, tmp_path / "undisturbed")
    out = tmp_path / "out"
    for moment, count in (("document", document), ("rename", 3)):
        child = multiprocessing.get_context("fork").Process(target=killed_at, args=(moment, count, texts, out))
        child.start()
        child.join(120)
        assert child.exitcode == -signal.SIGKILL
    assert any(name.startswith(".vqmem") for name in files(out))
    assert score(texts, out).kept == (document - 1) // 2
    assert files(out) == files(tmp_path / "undisturbed")
    assert (out / "documents.jsonl").read_bytes() == (tmp_path / "undisturbed" / "documents.jsonl").read_bytes()


def test_a_recording_that_cannot_be_read_is_named_and_the_others_are_scored(recordings, tmp_path, capsys):
    good = (recordings / "1.wav").read_bytes()
    (recordings / "1.wav").write_bytes(b"no sound")
    with pytest.raises(UnreadableError, match=r"1\.wav' is not audio .*; all other shards are written; mend it and"):
        score(recordings, tmp_path / "out")
    assert names(tmp_path / "out") == [["2.wav", "3.wav"], ["4.wav"]]
    before = files(tmp_path / "out")
    assert list(before) == [name for name in before if name.endswith(".parquet")]
    (recordings / "1.wav").write_bytes(good)
    assert score(recordings, tmp_path / "out").kept == 2
    assert files(tmp_path / "out").items() > before.items()
    assert list(chain(*names(tmp_path / "out"))) == [f"{i}.wav" for i in range(5)]
    for name in ("0.wav", "2.wav"):
        (recordings / name).write_bytes(b"no sound")
    capsys.readouterr()
    with pytest.raises(UnreadableError, match=r"0\.wav.*\(and 1 more, see above\)"):
        score(recordings, tmp_path / "other")
    assert "2.wav" in capsys.readouterr().err


# --- refusals ------------------------------------------------------------------------------------------------------


def test_another_corpus_or_model_in_the_same_folder_is_refused(texts, tmp_path):
    out = tmp_path / "out"
    score(texts, out)
    before = files(out)
    other = tmp_path / "other"
    other.mkdir()
    for path in texts.iterdir():
        (other / f"my_{path.name}").write_bytes(path.read_bytes())

    def refused(message: str, data: Any = texts, **keys: Any) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            score(data, out, **keys)
        assert "\n" not in str(caught.value)
        assert files(out) == before

    refused(r"there is 'my_0.txt' where '0.txt' was", other)
    refused(r"contains another run \(data builtin_text.*|contains another run", "builtin_text")
    refused("shard_documents 2 -> 3", shard_documents=3)
    refused("split all -> dev", split="dev")
    spec = {"name": "unigram"}
    save_model(
        *(tmp_path / "run" / "scorer", "scorers/unigram", {"scorer": spec, "vocab_size": 256}),
        build("scorers", spec).build(256),
    )
    save_tokenizer(build("front-ends", "bytes").fit([]), "bytes", tmp_path / "run" / "front_end")
    refused("contains scores of another model", model=str(tmp_path / "run"))
    (texts / "7.txt").write_text("one more")
    refused("'7.txt' is one more document")
    (texts / "7.txt").unlink()
    kept = (texts / "6.txt").read_bytes()
    (texts / "6.txt").write_bytes(kept + b"and more")
    refused("'6.txt' has changed")
    (texts / "6.txt").unlink()
    refused("'6.txt' is not there any more")
    (texts / "6.txt").write_bytes(kept)
    moved = texts.rename(tmp_path / "moved")
    assert score(moved, out).kept == 4
    (out / "shard-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"shard-00001.parquet' is damaged .*; delete it and give the same command"):
        score(moved, out)


def test_what_cannot_be_scored_is_refused_before_anything_is_written(texts, recordings, tmp_path):
    def refused(message: str, data: Any, **keys: Any) -> None:
        with pytest.raises(ValueError, match=message):
            score(data, tmp_path / "out", **keys)
        assert not (tmp_path / "out").exists()

    refused("unknown data source 'bilder'", {"name": "bilder"})
    refused("scorer .* not found", texts, model=str(tmp_path / "nothing"))
    english = Path(__file__).parents[2] / "models" / "pretrained"
    refused("reads audio, which document '0.txt' does not have", texts, model=str(english / "speech"))
    refused("workers=3 needs a cluster", texts, workers=3)
    (texts / "3.txt").write_bytes(b"\0\0")
    refused("3.txt' is not text", texts)


def test_the_argument_is_a_source_a_mapping_or_a_path(texts, recordings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_data("recall") == "recall"
    assert parse_data("{name: hub, path: x}") == {"name": "hub", "path": "x"}
    assert parse_data("texts") == {"name": "text_files", "path": "texts"}
    assert parse_data("texts/1.txt") == {"name": "text_files", "path": "texts/1.txt"}
    assert parse_data("recordings/1.wav") == {"name": "audio_files", "path": "recordings/1.wav"}
    (recordings / "0.trans.txt").write_text("words")
    assert parse_data("recordings") == {"name": "audio_files", "path": "recordings"}
    (tmp_path / "list.tsv").write_text("path\nrecordings/0.wav\n")
    assert parse_data("list.tsv") == {"name": "audio_files", "path": "list.tsv"}
    (tmp_path / "recall").mkdir()
    assert parse_data("./recall") == {"name": "text_files", "path": "./recall"}
    with pytest.raises(ValueError, match=r"did you mean 'texts'\?; DATA is a path or a data source"):
        parse_data("text")
    with pytest.raises(ValueError, match="is not valid YAML"):
        parse_data("{name: hub")
