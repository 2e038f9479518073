"""Sources of speech: folders and manifests, data sets, and text that is spoken here."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from vqmem.data import spoken_text
from vqmem.data.base import Document
from vqmem.data.reading.audio import Audio, UnreadableError
from vqmem.registry import build

SPLITS = ("train", "dev", "test")


def clip(path: Path, seconds: float = 0.1, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).standard_normal(round(8000 * seconds)) * 0.1, 8000)
    return path


def read(name: str, split: str = "train", **keys: object) -> list[Document]:
    return list(build("data", {"name": name, **keys}).documents(split))


def named(path: Path, **keys: object) -> list[list[str]]:
    return [[document.name for document in read("audio_files", split, path=str(path), **keys)] for split in SPLITS]


# --- audio_files ---------------------------------------------------------------------------------------------------


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = ["path\tspeaker\ttext\tkind"]
    for i in range(24):
        clip(tmp_path / f"set{i % 2}" / f"{i:02}.wav", seed=i)
        rows.append(f'set{i % 2}/{i:02}.wav\tspeaker{i % 6}\tsaid "{i}"\t{"exact" if i % 3 else "machine"}')
    (tmp_path / "manifest.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path


def test_a_manifest_names_speakers_and_texts(manifest):
    documents = [document for split in SPLITS for document in read("audio_files", split, path=str(manifest))]
    assert len(documents) == 24
    first = next(document for document in documents if document.name == "set0/00.wav")
    assert (first.speaker, first.text) == ("speaker0", 'said "0"')
    assert first.audio == Audio(str(manifest / "set0/00.wav"))
    assert named(manifest) == named(manifest / "manifest.tsv")
    assert [len(names) for names in named(manifest)] == [20, 2, 2]


def test_a_recording_that_is_missing_is_named_with_its_line(manifest, tmp_path):
    (manifest / "set1/03.wav").unlink()
    documents = {
        document.name: document for split in SPLITS for document in read("audio_files", split, path=str(manifest))
    }
    with pytest.raises(ValueError, match=r"line 5 of 'manifest.tsv': no such file or folder: .*03.wav"):
        documents["set1/03.wav"].audio.read()
    (tmp_path / "rows.csv").write_text("audio\nset0/00.wav\nset1/03.wav\n")
    last = read("hub", path=str(tmp_path / "rows.csv"), audio="audio")[-1]
    with pytest.raises(ValueError, match=r"line 3 of 'rows.csv': no such file or folder: .*03.wav"):
        last.audio.read()


def test_rows_are_chosen_by_patterns(manifest):
    train, dev, test = named(manifest, where={"path": "set0/*", "speaker": ["speaker0", "speaker2"]})
    assert len(train + dev + test) == 8
    splits = {"train": {"path": "set1/*"}, "test": {"path": "set0/*", "kind": "exact"}}
    train, dev, test = named(manifest, splits=splits)
    assert (len(train), dev, len(test)) == (12, [], 8)


def test_nobody_is_heard_in_two_splits(manifest):
    heard = [{d.speaker for d in read("audio_files", split, path=str(manifest), by="speaker")} for split in SPLITS]
    assert [len(speakers) for speakers in heard] == [4, 1, 1]
    assert len(set.union(*heard)) == 6


def test_folders_and_lone_recordings(tmp_path):
    for split in SPLITS:
        clip(tmp_path / "split" / split / "a.flac")
    assert named(tmp_path / "split") == [[f"{split}/a.flac"] for split in SPLITS]
    for i in range(10):
        clip(tmp_path / "ten" / f"{i}.OGG")
    assert [len(names) for names in named(tmp_path / "ten")] == [8, 1, 1]
    lone = clip(tmp_path / "lone" / "a.wav", 1.0)
    assert named(lone) == named(lone.parent) == [[f"a.wav/{split}"] for split in SPLITS]
    parts = [read("audio_files", split, path=str(lone))[0].audio for split in SPLITS]
    assert [part.seconds() for part in parts if part] == pytest.approx([0.8, 0.1, 0.1])


def test_what_is_wrong_with_a_folder_is_one_line(manifest, tmp_path):
    for keys, match in (
        ({"path": ""}, "has no path"),
        ({"path": str(tmp_path / "manifst.tsv")}, r"did you mean '.*manifest\.tsv'"),
        ({"path": str(manifest), "where": {"path": "no*"}}, r"no recording of .* fits where = .*; there are 24"),
        ({"path": str(manifest), "where": {"speker": "a"}}, r"unknown column .* 'speker'; did you mean speaker"),
        ({"path": str(manifest), "by": "kind"}, "2 different kind, too few for three splits"),
        ({"path": str(manifest), "splits": {"tset": {}}}, "did you mean test"),
    ):
        with pytest.raises(ValueError, match=match):
            read("audio_files", **keys)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no recording in"):
        read("audio_files", path=str(tmp_path / "empty"))
    (tmp_path / "empty" / "manifest.tsv").write_text("file text\n")
    with pytest.raises(ValueError, match="must name the column path"):
        read("audio_files", path=str(tmp_path / "empty"))


def test_a_row_whose_file_is_missing_is_an_error_when_it_is_read(manifest):
    (manifest / "set0/00.wav").unlink()
    documents = [document for split in SPLITS for document in read("audio_files", split, path=str(manifest))]
    (missing,) = [document for document in documents if document.name == "set0/00.wav"]
    assert missing.audio is not None
    with pytest.raises(UnreadableError, match=r"no such file or folder: '.*set0/00\.wav'"):
        missing.audio.read()


def test_the_real_manifest(real_data):
    keys = {"path": str(real_data / "speech"), "where": {"path": "fsdd/*"}}
    takes = {"train": {"path": "*"}, "test": {"path": "*_[0-4].wav"}}
    test = read("audio_files", "test", **keys, splits=takes)
    assert len(test) == 300
    assert {document.text for document in test} == {
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    }  # fmt: skip


# --- hub -----------------------------------------------------------------------------------------------------------


def test_a_folder_as_datasets_makes_them(tmp_path):
    """LibriSpeech, LJSpeech and Common Voice come as parquet with an Audio column; a folder with metadata works too."""
    audio = [{"bytes": clip(tmp_path / f"{i}.flac", seed=i).read_bytes(), "path": f"{i}.flac"} for i in range(3)]
    features = datasets.Features(
        {"audio": datasets.Audio(16_000), "text": datasets.Value("string"), "speaker_id": datasets.Value("int64")}
    )
    table = pyarrow.table(
        [pyarrow.array(audio, features["audio"].pa_type), ["a", "b", None], [7, 8, 9]], ["audio", "text", "speaker_id"]
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features.to_dict()}})})
    (tmp_path / "set").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "set" / "train-00000-of-00001.parquet")
    documents = read(
        "hub", path=str(tmp_path / "set"), audio="audio", train="train", dev="train", test="train", limit=2
    )
    assert [(d.name, d.text, d.speaker) for d in documents] == [("train/0", "a", "7"), ("train/1", "b", "8")]
    assert all(d.audio is not None and len(d.audio.read()) == 1600 for d in documents)

    folder = tmp_path / "folder" / "train"
    clip(folder / "0.wav")
    (folder / "metadata.csv").write_text("file_name,transcription\n0.wav,zero\n")
    (document,) = read("hub", path=str(tmp_path / "folder"), audio="audio", text="transcription")
    assert document.text == "zero"
    assert document.audio is not None
    assert len(document.audio.read()) == 1600


def test_rows_that_name_files(tmp_path):
    clip(tmp_path / "wavs" / "0.wav")
    rows = [{"file": "wavs/0.wav", "n": 3}, {"file": None, "n": 4}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (document,) = read("hub", path=str(tmp_path / "rows.jsonl"), audio="file")
    assert document.audio is not None
    assert len(document.audio.read()) == 1600
    rows = [{"file": (tmp_path / "wavs" / "0.wav").as_uri()}]
    (tmp_path / "far.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (far,) = read("hub", path=str(tmp_path / "far.jsonl"), audio="file")
    assert far.audio is not None
    assert far.audio.data
    assert len(far.audio.read()) == 1600
    with pytest.raises(ValueError, match=r"row train/0 of .* has no recording but int"):
        read("hub", path=str(tmp_path / "rows.jsonl"), audio="n")
    with pytest.raises(ValueError, match=r"unknown column .* 'fil'; did you mean file"):
        read("hub", path=str(tmp_path / "rows.jsonl"), audio="fil")


# --- spoken_text ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("*With* a ``command``, (print) -- ``that``. Don't!", "With a command, print that. Don't!"),
        (
            "``x.__len__()`` ... a built-in; 0 <= k - 1.5, users\u2019 own:\n >>> 'x'",
            "x. len. a built-in; 0 k 1.5, users own: x",
        ),
        ("+ * ()", ""),
        ("Do\u00adnau\u200bdampf cafe\u0301 \ufb01ve built\u2011in", "Donaudampf caf\u00e9 five built-in"),
        ("ja/nein Berlin\u2013Hamburg \ufeffdon\u2019t \u2018so\u2019", "ja nein Berlin Hamburg don't so"),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", "\u0939\u093f\u0928\u094d\u0926\u0940"),
    ],
)
def test_plain_text_has_nothing_that_is_read_aloud_and_is_no_word(written, said):
    assert spoken_text.plain(written) == said
    assert spoken_text.plain(said) == said


def test_plain_pieces_are_spoken_without_marks(tmp_path):
    (tmp_path / "train.txt").write_text("The *if* statement. ** +")
    text = {"name": "text_files", "path": str(tmp_path / "train.txt")}
    source = spoken_text.Source(text=text, plain=True, cache=str(tmp_path))
    said = [piece for document in build("data", text).documents("train") for piece in source._pieces(document)]
    assert [piece for _, piece in said] == ["The if statement."]


def test_the_same_keys_give_the_same_bytes(tmp_path):
    """Whatever was spoken before, in every voice: some breathe, for which the engine draws random numbers."""
    keys = {"limit": 12, "chars": 60}
    first = read("spoken_text", cache=str(tmp_path / "a"), **keys)
    read("spoken_text", "dev", cache=str(tmp_path / "b"), **keys)
    again = read("spoken_text", cache=str(tmp_path / "b"), **keys)
    assert len({document.speaker for document in first}) > 3
    for one, other in zip(first, again, strict=True):
        assert one.audio is not None
        assert other.audio is not None
        assert (one.name, one.text, one.speaker) == (other.name, other.text, other.speaker)
        assert Path(one.audio.name).read_bytes() == Path(other.audio.name).read_bytes()
    assert [document.speaker for document in read("spoken_text", cache=str(tmp_path / "a"), seed=1, **keys)] != [
        document.speaker for document in first
    ]


def test_what_is_in_the_cache_is_not_spoken_again(tmp_path, monkeypatch):
    keys = {"limit": 2, "chars": 40, "cache": str(tmp_path)}
    first = read("spoken_text", **keys)
    monkeypatch.setattr(spoken_text, "speak", None)
    assert read("spoken_text", **keys) == first
    shutil.rmtree(tmp_path)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.undo()
    monkeypatch.setattr("soundfile.write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read("spoken_text", **keys)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("damage", ["empty", "half", "bit", "zeros", "text", "other"])
def test_a_damaged_file_in_the_cache_is_made_again(damage, tmp_path):
    keys = {"limit": 1, "chars": 30, "cache": str(tmp_path)}
    (document,) = read("spoken_text", **keys)
    path = Path(document.audio.name)
    before = path.read_bytes()
    half = len(before) // 2
    if damage == "other":  # sound, but of another rate
        soundfile.write(path, np.zeros(1000), 16_000, format="FLAC")
    else:
        bit = before[:half] + bytes([before[half] ^ 4]) + before[half + 1 :]
        made = {"empty": b"", "half": before[:half], "bit": bit, "zeros": bytes(len(before)), "text": b"no sound"}
        path.write_bytes(made[damage])
    (again,) = read("spoken_text", **keys)
    assert again == document
    assert path.read_bytes() == before


def test_what_is_not_seen_is_not_heard(tmp_path):
    texts = ("hel\u200dlo cafe\u0301 zero\u200bwidth", "hello caf\u00e9 zerowidth")
    heard = []
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(f"{text}\n" * 9, encoding="utf-8")
        source = {"name": "text_files", "path": str(tmp_path / f"{number}.txt")}
        (document,) = read("spoken_text", text=source, limit=1, chars=30, voices=("en-us",), cache=str(tmp_path))
        heard.append(Path(document.audio.name).read_bytes())
    assert heard[0] == heard[1]


def test_slow_speech_lasts_longer_and_voices_differ():
    text = "The quick brown fox jumps over the lazy dog."
    assert len(spoken_text.speak(text, "en-us", 100)) > 1.3 * len(spoken_text.speak(text, "en-us", 200))
    assert not np.array_equal(spoken_text.speak(text, "en-us"), spoken_text.speak(text, "en-us+f3"))
    assert np.abs(spoken_text.speak(text)).max() > 1000


def test_pieces_contain_all_of_the_text():
    text = "One two.  Three\nfour! " + "long " * 30 + "x" * 90
    pieces = spoken_text.cut(text, 40)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(0 < len(piece) <= 40 for piece in pieces)
    assert pieces[0] == "One two. Three four!"
    assert spoken_text.cut(text, 0) == [" ".join(text.split())]
    assert spoken_text.cut(" \n ", 40) == []


def test_what_is_wrong_with_a_voice_is_one_line(tmp_path, monkeypatch):
    for keys, match in (
        ({"voices": ["en-uss"]}, "unknown eSpeak voice 'en-uss'; did you mean en-US"),
        ({"voices": ["en-us+g3"]}, r"unknown variant of an eSpeak voice 'g3'; did you mean .*f3"),
        ({"speeds": [3]}, r"speeds\[0\] = 3 must be at least 80 and at most 450"),
        ({"voices": []}, "needs one voice"),
        ({"limit": -1}, "limit = -1 must be at least 0"),
    ):
        with pytest.raises(ValueError, match=match):
            read("spoken_text", cache=str(tmp_path), **keys)
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ValueError, match=r"pip install 'vqmem\[speech\]'"):
        read("spoken_text", cache=str(tmp_path))
