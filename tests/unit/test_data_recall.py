"""The recall tasks say what they claim: where facts, junk, questions and their answers stand."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vqmem.data.recall import Source, Task
from vqmem.registry import build


@pytest.mark.parametrize("task", get_args(Task))
@given(facts=st.integers(1, 8), gap=st.integers(0, 400), room=st.integers(0, 300), seed=st.integers(0, 9))
@settings(max_examples=30)
def test_every_fact_is_asked_beyond_the_gap(task: str, facts: int, gap: int, room: int, seed: int) -> None:
    source = Source(task, 1, 2, gap + 32 * facts + room, facts, gap, seed)
    for document in source.documents("test"):
        stated = [m[1] for m in re.finditer(r"@[A-Z]?(.)", document.text)]
        asked = [document.text[start - 2 : end] for start, end in document.spans]
        assert len(stated) == len(asked) == facts
        assert sorted(question[2] for question in asked) == sorted(stated)
        assert len({question[1] for question in asked}) == facts
        assert all(question[0] == "?" for question in asked)
        assert document.spans[0][0] - 2 - document.text.rindex("@") >= gap
        assert document.text.count("?") == 2 * facts
        assert len(document.text) < source.length + 28 + 12 * facts


def test_useless_facts_are_many_and_never_asked() -> None:
    for document in Source("surprising_useless", 1, 20).documents("dev"):
        junk, stated = (set(re.findall(marker + "(.);", document.text)) for marker in "#@")
        assert not junk & stated
        assert document.text.count("#") == 8 * document.text.count("@")
        assert "#" in document.text[document.text.rindex("@") :]


def kept_by_surprise(task: str, slots: int) -> float:
    """The share of facts whose value is among the ``slots`` most surprising characters when the questions begin.

    Surprise is a bigram model's, counted on the training documents; of equals the newer stays.
    """
    source = Source(task, 300, 30)
    pairs, firsts = Counter(), Counter()
    for document in source.documents("train"):
        pairs.update(pairwise(document.text))
        firsts.update(document.text)
    shares = []
    for document in source.documents("test"):
        stated = document.text[: document.spans[0][0] - 2]
        odds = [pairs[pair] / (firsts[pair[0]] or 1) for pair in pairwise(stated)]
        kept = set(sorted(range(1, len(stated)), key=lambda at: (odds[at - 1], -at))[:slots])
        facts = [range(match.start() + 1, match.end()) for match in re.finditer(r"@\w+", stated)]
        # The last character of a fact is its value, however often it was said before.
        shares.append(sum(bool(kept & {*fact[-3:]}) for fact in facts) / len(facts))
    return sum(shares) / len(shares)


def test_surprise_keeps_and_loses_what_the_tasks_claim() -> None:
    assert kept_by_surprise("surprising_needed", 16) > 0.95
    assert kept_by_surprise("predictable_needed", 64) < 0.1
    assert kept_by_surprise("surprising_useless", 32) < 0.6
    assert kept_by_surprise("surprising_useless", 64) > 0.95


def test_training_documents_are_shorter_and_well_formed() -> None:
    for task in get_args(Task):
        sizes = [len(d.text) for d in Source(task, 200).documents("train")]
        assert min(sizes) < 200
        assert max(sizes) > 450
        for document in Source(task, 20).documents("train"):
            assert len(document.spans) == document.text.count("?")
            assert all(document.text[start - 2] == "?" and document.text[end] == ";" for start, end in document.spans)


def test_seed_and_split_change_every_document() -> None:
    sources = [Source(seed=seed, train_documents=200) for seed in (0, 1)]
    every = [d.text for source in sources for split in ("train", "dev", "test") for d in source.documents(split)]
    assert len(set(every)) == len(every)


def test_refused() -> None:
    for keys, message in [
        (
            {"task": "surprising_neded"},
            r"recall.task = 'surprising_neded' is not one of .*; did you mean surprising_needed",
        ),
        ({"facts": 9}, "facts = 9 must be at least 1 and at most 8"),
        ({"facts": 0}, "facts = 0"),
        ({"gap": -1}, "gap = -1"),
        ({"length": 100}, "length 100 is too short for 6 facts; give 492 or more"),
    ]:
        with pytest.raises(ValueError, match=message):
            build("data", {"name": "recall", **keys})
