"""Phrases come again where the source says, copied, predicted but for their cue, and not from another split."""

from __future__ import annotations

import json
from itertools import groupby
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vqmem.data.base import Document
from vqmem.data.repeated_phrases import Source
from vqmem.recipes.lm.corpus import passages
from vqmem.tokenizers_.units import FrontEnd


@pytest.fixture(scope="module")
def spoken(tmp_path_factory) -> dict:
    """A source of units: chapters of train say 0 to 99, those of dev 100 to 199, those of test 200 to 299."""
    folder = tmp_path_factory.mktemp("units")
    for number, split in enumerate(("train", "dev", "test")):
        rng = Random(split)
        lines = [
            json.dumps({"id": f"{split}{chapter}", "units": [100 * number + rng.randrange(100) for _ in range(900)]})
            for chapter in range(4)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return {"name": "unit_files", "path": str(folder), "dev": "dev.jsonl", "test": "test.jsonl"}


def runs_of(document: Document) -> tuple[list[int], list[tuple[int, int]]]:
    """The units of a document without repeats, and its spans counted in them."""
    counted = [(unit, len(list(same))) for unit, same in groupby(document.units)]
    edges = [0]
    for _, frames in counted:
        edges.append(edges[-1] + frames)
    spans = [(edges.index(round(50 * start)), edges.index(round(50 * end))) for start, end in document.spans]
    return [unit for unit, _ in counted], spans


@given(
    phrases=st.integers(1, 5),
    phrase=st.integers(8, 40),
    gap=st.integers(0, 200),
    room=st.integers(0, 100),
    seed=st.integers(0, 9),
)
@settings(max_examples=40)
def test_what_is_marked_was_said_beyond_the_gap(spoken, phrases, phrase, gap, room, seed):
    length = gap + 4 * phrases * (5 * phrase // 4 + phrase // 2) + room
    source = Source(spoken, 1, 3, length, phrases, phrase, 4, gap, seed=seed)
    for document in source.documents("test"):
        runs, spans = runs_of(document)
        assert len(runs) == length
        assert len(spans) == phrases
        assert min(document.units) >= 200  # chapters of this split alone
        for start, stop in spans:
            assert 3 * phrase // 4 <= stop - (start - 4) <= 5 * phrase // 4
            copied = runs[start - 4 : stop]
            earlier = [at for at in range(start - 4) if runs[at : at + len(copied)] == copied]
            assert earlier
            assert any(at + len(copied) + gap <= start - 4 for at in earlier)


def test_the_place_of_the_first_phrase_says_little(spoken):
    source = Source(spoken, 1, 60, 1024, 3, 16, 4, 256)
    firsts = []
    for document in source.documents("dev"):
        runs, spans = runs_of(document)
        for start, stop in spans:
            copied = runs[start - 4 : stop]
            firsts.append(next(at for at in range(start) if runs[at : at + len(copied)] == copied))
    shares = [sum(low <= first < low + 240 for first in firsts) / len(firsts) for low in (0, 240, 480)]
    assert min(shares) > 0.2
    assert max(shares) < 0.45


def test_training_documents_repeat_often_and_at_all_distances(spoken):
    distances, target_units, lengths = [], 0, []
    for document in Source(spoken, 100, 1, 512, 1, 36, 8, 256, dense=1.0).documents("train"):
        runs, spans = runs_of(document)
        assert max(runs) < 100
        lengths.append(len(runs))
        for start, stop in spans:
            target_units += stop - start
            copied = runs[start - 8 : stop]
            distances += [next(back for back in range(1, start) if runs[start - 8 - back : stop - back] == copied)]
    assert min(lengths) == 108
    assert 480 < max(lengths) <= 512
    assert 0.25 < target_units / sum(lengths) < 0.6
    assert min(distances) < 30
    assert max(distances) > 300
    assert sorted(distances)[len(distances) // 2] < 100


def test_training_documents_that_are_not_dense_are_as_those_of_dev(spoken):
    found = []
    for document in Source(spoken, 60, 1, 512, 1, 36, 8, 256, dense=0.5).documents("train"):
        runs, spans = runs_of(document)
        found.append(len(runs) == 512 and len(spans) == 1)
    assert 15 < sum(found) < 45


def test_a_front_end_that_deduplicates_sees_one_token_a_run_and_the_marks(spoken):
    document = next(Source(spoken, 1, 1, 500, 2, 20, 5, 200).documents("dev"))
    (passage,) = passages([document], FrontEnd(300, deduplicate=True).fit([]), 500)
    runs, spans = runs_of(document)
    assert passage.ids.tolist() == runs
    assert passage.target_mask.nonzero().flatten().tolist() == [at for span in sorted(spans) for at in range(*span)]
    assert int(passage.sizes.sum()) == len(document.units)


def test_seed_split_and_index_make_the_document(spoken):
    every = [
        document.units
        for seed in (0, 1)
        for split in ("train", "dev", "test")
        for document in Source(spoken, 5, 5, 500, 2, 20, 5, 200, seed=seed).documents(split)
    ]
    assert len(set(every)) == len(every) == 30


def test_refused(spoken):
    for keys, message in [
        ({"phrases": 0}, "phrases = 0 must be at least 1"),
        ({"phrase": 7}, "phrase = 7 must be at least 8"),
        ({"cue": 30}, "cue 30 does not fit; give less than three quarters of phrase 32"),
        ({"gap": -1}, "gap = -1 must be at least 0"),
        ({"dense": 1.5}, "dense = 1.5 must be at least 0 and at most 1"),
        ({"length": 1000, "gap": 600}, "length 1000 is too short for 6 phrases; give 1944 or more"),
    ]:
        with pytest.raises(ValueError, match=message):
            Source(spoken, **keys)
    with pytest.raises(ValueError, match=r"the split test has .* runs of units, too few"):
        next(Source(spoken, length=4000).documents("test"))
