"""The recall tasks say what they claim: where facts, junk, questions and their answers stand."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vqmem.data.recall import TASKS, Source


@pytest.mark.parametrize("task", TASKS)
@given(facts=st.integers(1, 12), gap=st.integers(0, 400), room=st.integers(0, 300), seed=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_every_fact_is_asked_beyond_the_gap(task: str, facts: int, gap: int, room: int, seed: int) -> None:
    source = Source(task, 2, 1, gap + 32 * facts + room, facts, gap, seed)
    for document in source.documents("train"):
        stated = {m[1]: m[2] for m in re.finditer(r"@([A-Z])([0-9yn])", document.text)}
        asked = [document.text[start - 2 : end] for start, end in document.spans]
        assert len(stated) == len(asked) == facts
        assert {question[1]: question[2] for question in asked} == stated
        assert all(question[0] == "?" for question in asked)
        assert document.spans[0][0] - 2 - document.text.rindex("@") >= gap
        assert document.text.count("?") == 2 * facts
        assert len(document.text) < source.length + 28 + 8 * facts


def test_useless_facts_are_many_and_never_asked() -> None:
    for document in Source("surprising_useless", 20, 1).documents("train"):
        junk, stated = set(re.findall(r"#([A-Z])", document.text)), set(re.findall(r"@([A-Z])", document.text))
        assert not junk & stated
        assert document.text.count("#") == 4 * document.text.count("@")
        assert "#" in document.text[document.text.rindex("@") :]


def test_seed_and_split_change_every_document() -> None:
    sources = [Source(seed=seed, train_documents=200) for seed in (0, 1)]
    every = [d.text for source in sources for split in ("train", "dev", "test") for d in source.documents(split)]
    assert len(set(every)) == len(every)


def test_refused() -> None:
    for keys, message in [
        ({"task": "surprising_neded"}, r"unknown recall task 'surprising_neded'; did you mean surprising_needed"),
        ({"facts": 13}, "facts 13"),
        ({"facts": 0}, "facts 0"),
        ({"gap": -1}, "gap -1"),
        ({"length": 100}, "length 100 holds no 6 facts; give 492 or more"),
    ]:
        with pytest.raises(ValueError, match=message):
            Source(**keys)
