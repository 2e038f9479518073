"""Documents of spoken recall say what they claim: an interpreter hears them a word at a time."""

from __future__ import annotations

import json
from collections.abc import Container
from itertools import groupby, pairwise
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vqmem.data import spoken_recall
from vqmem.data.base import Document, Split
from vqmem.data.spoken_recall import PAUSE, TONE, Source
from vqmem.recipes.lm.corpus import passages
from vqmem.recipes.speech.units import load_units
from vqmem.registry import build
from vqmem.tokenizers_.units import FrontEnd

WORDS = [f"word{i}" for i in range(8)]
TAKES = 5
KEY = -1
"""Stands for what a value comes after."""
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
FSDD = {
    "name": "audio_files",
    "where": {"path": "fsdd/?_george_*"},
    "splits": {"train": {"path": "*_1?.wav"}, "dev": {"path": "*_[5-9].wav"}, "test": {"path": "*_[0-4].wav"}},
}


class Said(NamedTuple):
    """A recording as it is heard in a document: what it comes after, its units, and where it begins and ends."""

    before: int
    units: tuple[int, ...]
    start: int
    end: int


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> dict:
    """Recordings as units; no two have the same, and no recording is in two splits."""
    folder = tmp_path_factory.mktemp("words")
    for split in SPLITS:
        rng = Random(split)
        lines = [
            json.dumps({"id": f"{word}-{take}", "units": rng.choices(range(12), k=rng.randint(4, 20)), "text": word})
            for word in WORDS
            for take in range(TAKES)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return {"name": "unit_files", "path": str(folder), "dev": "dev.jsonl", "test": "test.jsonl"}


def words_of(recordings: dict, split: Split) -> dict[tuple[int, ...], str]:
    """The word of every recording, by its units as they occur in documents."""
    documents = build("data", recordings).documents(split)
    return {tuple(2 + unit for unit in document.units): document.text for document in documents}


def heard(document: Document, words: Container[tuple[int, ...]]) -> list[Said]:
    """The recordings of a document, cut at its pauses and tones, and within pairs."""
    said, at = [], 0
    for is_speech, part in groupby(document.units, key=lambda unit: unit > TONE):
        units = tuple(part)
        if not is_speech:
            assert len(set(units)) == 1
        elif document.units[at - 1] == PAUSE:
            said.append(Said(PAUSE, units, at, at + len(units)))
        else:
            (cut,) = (cut for cut in range(len(units)) if units[:cut] in words and units[cut:] in words)
            said.append(Said(TONE, units[:cut], at, at + cut))
            said.append(Said(KEY, units[cut:], at + cut, at + len(units)))
        at += len(units)
    assert all(one.units in words for one in said)
    return said


def pairs_of(said: list[Said]) -> list[tuple[Said, Said]]:
    """Pairs of the document: a recording after a tone, and the next."""
    return [(key, value) for key, value in pairwise(said) if value.before == KEY]


def marked(key: Said, value: Said, count: int = 2) -> tuple[int, int]:
    """The frames of the first runs of a value that a question asks for: not of the run that its key ends in."""
    start = value.start
    while value.units[start - value.start] == key.units[-1]:
        start += 1
    end = start
    while end < value.end and runs(value.units[start - value.start : end + 1 - value.start]) <= count:
        end += 1
    return start, end


def runs(units: tuple[int, ...]) -> int:
    return len(list(groupby(units)))


@pytest.mark.parametrize("answer", ["copy", "take"])
@given(
    pairs=st.integers(1, 6),
    count=st.integers(1, 20),
    others=st.integers(0, 10),
    gap=st.integers(0, 300),
    seed=st.integers(0, 9),
    data=st.data(),
)
@settings(max_examples=20)
def test_the_marked_answers_are_the_values_of_pairs_beyond_the_gap(
    recordings, answer, pairs, count, others, gap, seed, data
) -> None:
    split = data.draw(st.sampled_from(SPLITS))
    words = words_of(recordings, split)
    training = split == "train"
    sizes = {"train_documents": 3, "held_out_documents": 3, "pairs": pairs, "others": others, "gap": gap}
    source = Source(recordings, answer=answer, seed=seed, marked=count, **sizes)
    for document in source.documents(split):
        said = heard(document, words)
        found = pairs_of(said)
        keys = len({words[key.units] for key, _ in found})
        assert keys <= pairs if training else keys == pairs
        stated, asked = found[:keys], found[keys:]
        values = {words[key.units]: (key, value) for key, value in stated}
        assert len(values) == keys
        assert len(asked) == keys * (4 * pairs // keys if training else 2)
        for first in range(0, len(asked), keys):  # every round asks for every key once
            assert {words[key.units] for key, _ in asked[first : first + keys]} == set(values)
        for key, value in asked:
            key_said, value_said = values[words[key.units]]
            assert words[value.units] == words[value_said.units]
            assert (key.units == key_said.units) == (value.units == value_said.units) == (answer == "copy")
        spans = [(round(50 * start), round(50 * end)) for start, end in document.spans]
        assert spans == [marked(key, value, count) for key, value in (asked if training else asked[:keys])]

        in_pairs = {one.start for pair in found for one in pair}
        unasked = [one for one in said if one.start not in in_pairs]
        assert not {words[one.units] for one in unasked} & set(values)
        assert not {one.units for one in unasked} & {value.units for _, value in stated}
        assert not {words[value.units] for _, value in found} & set(values)
        between = [one for one in unasked if one.start > stated[-1][1].end]
        if not training:
            assert gap <= sum(1 + runs(one.units) for one in between) < gap + 21 * (others + 1)
            assert len(unasked) >= others
        assert all(one.end < asked[0][0].start for one in unasked)


@pytest.mark.parametrize("answer", ["copy", "take"])
def test_a_front_end_that_deduplicates_marks_the_answers_alone(recordings, answer) -> None:
    words, merged = words_of(recordings, "test"), 0
    for document in Source(recordings, answer=answer, held_out_documents=20).documents("test"):
        (passage,) = passages([document], FrontEnd(14, deduplicate=True).fit([]), 4096)
        asked = pairs_of(heard(document, words))[4:8]
        answers = [unit for pair in asked for unit, _ in groupby(document.units[slice(*marked(*pair))])]
        merged += sum(marked(*pair)[0] != pair[1].start for pair in asked)
        assert passage.ids[passage.target_mask].tolist() == answers
        assert int(passage.sizes.sum()) == len(document.units)
    assert merged


def test_splits_have_no_recording_in_common(recordings) -> None:
    known = {split: set(words_of(recordings, split)) for split in SPLITS}
    assert sum(map(len, known.values())) == len(set().union(*known.values()))
    for split in SPLITS:
        for document in Source(recordings, train_documents=50, held_out_documents=50).documents(split):
            assert heard(document, known[split])


def test_training_documents_are_short_more_often_than_not(recordings) -> None:
    source = Source(recordings, train_documents=200, gap=400, pairs=3)
    lengths = sorted(runs(document.units) for document in source.documents("train"))
    dev = [runs(document.units) for document in source.documents("dev")]
    assert lengths[100] < 0.75 * sum(dev) / len(dev)
    assert lengths[-1] > min(dev)


def test_seed_split_and_index_make_the_document(recordings) -> None:
    def all_documents() -> list[tuple[int, ...]]:
        return [
            document.units
            for seed in (0, 1)
            for split in SPLITS
            for document in Source(recordings, train_documents=5, held_out_documents=5, seed=seed).documents(split)
        ]

    first = all_documents()
    spoken_recall._read_words.cache_clear()
    assert all_documents() == first
    assert len(set(first)) == len(first) == 30


def test_a_recording_is_read_once_in_a_process(recordings, monkeypatch) -> None:
    source = Source(recordings, held_out_documents=3)
    first = list(source.documents("dev"))
    monkeypatch.setattr("vqmem.data.unit_files.Source.documents", None)
    assert list(source.documents("dev")) == first


def test_takes_limits_the_recordings_of_a_word(recordings) -> None:
    source = Source(recordings, train_documents=60, pairs=2, takes=2)
    words = words_of(recordings, "train")
    units = {one.units for document in source.documents("train") for one in heard(document, words)}
    assert len(units) == 2 * len(WORDS)


def test_refused(recordings, tmp_path) -> None:
    out_of_range: list[tuple[dict[str, Any], str]] = [
        ({"pairs": 0}, "pairs = 0 must be at least 1"),
        ({"gap": -1}, "gap = -1 must be at least 0"),
        ({"takes": 2}, "takes = 2 recordings of a word are fewer than the 3 that 4 pairs need; give as many, or 0"),
    ]
    for keys, message in out_of_range:
        with pytest.raises(ValueError, match=message):
            Source(recordings, **keys)
    with pytest.raises(
        ValueError, match=r"no speaker of the split dev has 9 words with 4 recordings of each, .* fewer"
    ):
        next(Source(recordings, pairs=7).documents("dev"))
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps({"id": f"{i}", "units": [1]}) for i in range(30)))
    with pytest.raises(ValueError, match=r"'\d+' has no text, the word that is said; give recordings with texts"):
        next(Source({"name": "unit_files", "path": str(tmp_path)}).documents("train"))
    with pytest.raises(ValueError, match=r"units = 'bytes' is not a front-end that makes 50 units a second of audio"):
        Source(recordings, "bytes")


def write_units(folder: Path, units: list[tuple[int, ...]]) -> dict[str, Any]:
    """Recordings of every word with these units."""
    lines = [{"id": f"{w}-{take}", "units": ids, "text": w} for w in WORDS for take, ids in enumerate(units)]
    for split in SPLITS:
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return {"name": "unit_files", "path": str(folder), "dev": "dev.jsonl", "test": "test.jsonl"}


@pytest.mark.parametrize("answer", ["copy", "take"])
def test_words_may_have_the_same_units(tmp_path, answer) -> None:
    source = Source(write_units(tmp_path, [(1, 2), (2, 3), (3, 4)]), answer=answer, held_out_documents=50)
    assert all(len(document.spans) == 4 for document in source.documents("dev"))


def test_recordings_of_a_word_with_the_same_units_count_once(tmp_path) -> None:
    """Otherwise `take` would copy one by another."""
    source = Source(write_units(tmp_path, [(1, 2), (2, 3), (1, 2)]), answer="take")
    with pytest.raises(ValueError, match="no speaker of the split dev has 6 words with 3 recordings of each"):
        next(source.documents("dev"))


def test_front_end_of_unreadable_recordings_is_fitted_once(tmp_path, capsys) -> None:
    """It is an error of the training recordings, not of each recording of the split."""
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.wav").write_bytes(b"no sound")
    (tmp_path / "all.csv").write_text("path,text,split\na.wav,one,train\nb.wav,two,train\nc.wav,one,dev\n")
    files = {"name": "audio_files", "path": str(tmp_path / "all.csv")}
    for split in ("train", "dev"):
        with pytest.raises(ValueError, match="none of the 2 can be used"):
            next(Source(files, {"name": "hubert_units", "clusters": 2}, pairs=1).documents(split))
        assert capsys.readouterr().err.count("skipped 2 of 2") == 1


def test_recordings_become_units_that_are_the_same_everywhere(tmp_path) -> None:
    """Digits spoken here: every recording of a document is that of the front-end, each encoded by itself."""
    pytest.importorskip("espeakng_loader", reason="needs espeakng-loader (extra 'speech')")
    spoken = {"name": "spoken_words", "words": ["one", "two", "three"], "voices": ["en-us"], "cache": str(tmp_path)}
    front_end = {"name": "hubert_units", "clusters": 20, "fit_frames": 2000}
    source = Source(spoken, front_end, pairs=1, held_out_documents=5)
    fitted = build("front-ends", front_end).fit([d.audio for d in build("data", spoken).documents("train")])
    known = {tuple((2 + fitted.encode(d.audio).ids).tolist()) for d in build("data", spoken).documents("dev")}
    assert all(heard(document, known) for document in source.documents("dev"))


def test_recorded_digits(real_data) -> None:
    """Every document of test is made of recordings of test, which train does not have, in the packaged units."""
    recorded = {**FSDD, "path": str(real_data / "speech")}
    units = load_units()
    known = {
        split: {tuple((2 + units.encode(document.audio).ids).tolist()) for document in source.documents(split)}
        for source in [build("data", recorded)]
        for split in ("train", "test")
    }
    assert not known["train"] & known["test"]
    for document in Source(recorded, held_out_documents=20).documents("test"):
        assert len(pairs_of(heard(document, known["test"]))) == 12
