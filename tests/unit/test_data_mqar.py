"""Documents of multi-query recall say what they claim: an interpreter reads them a letter at a time."""

from __future__ import annotations

from typing import NamedTuple, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vqmem.data.mqar import Source, Task
from vqmem.registry import build


class Question(NamedTuple):
    """A question: its key, the given answer and its place, and the newest value of the key with the place of that."""

    key: str
    answer: str
    at: int
    newest: str
    stated: int


def read(text: str) -> tuple[list[Question], dict[str, int], list[str]]:
    """The questions of a document, how often each key was assigned, and the marked keys."""
    newest: dict[str, tuple[str, int]] = {}
    questions, assigned, marked = [], {}, []
    for at, letter in enumerate(text):
        if not letter.isupper():
            continue
        assert text[at + 1].islower()
        before = text[at - 1] if at else ""
        if before == "?":
            questions.append(Question(letter, text[at + 1], at + 1, *newest[letter]))
        elif before == "#":
            marked.append(letter)
        else:
            newest[letter] = (text[at + 1], at + 1)
            assigned[letter] = assigned.get(letter, 0) + 1
    return questions, assigned, marked


@pytest.mark.parametrize("task", get_args(Task))
@given(
    pairs=st.integers(1, 24),
    stale=st.integers(0, 4),
    unasked=st.integers(0, 20),
    gap=st.integers(80, 400),
    room=st.integers(0, 300),
    seed=st.integers(0, 9),
)
@settings(max_examples=20)
def test_every_answer_is_the_newest_value_and_lies_beyond_the_gap(
    task: Task, pairs: int, stale: int, unasked: int, gap: int, room: int, seed: int
) -> None:
    forgetting = task == "forgetting"
    needed = 8 * pairs + (2 * pairs * stale + 3 * (unasked - unasked // 2) if forgetting else 0) + gap
    source = Source(task, 2, 2, needed + room, pairs, stale, unasked, gap, seed)
    for split in ("train", "dev", "test"):
        for document in source.documents(split):
            questions, assigned, marked = read(document.text)
            first, rest = questions[: len(assigned)], questions[len(assigned) :]
            assert [question.answer for question in questions] == [question.newest for question in questions]
            assert {q.key for q in first} == assigned.keys()
            assert {q.key for q in rest} == (set() if forgetting and split == "train" else assigned.keys())
            answers = questions if split == "train" else first
            assert document.spans == tuple((question.at, question.at + 1) for question in answers)
            assert not assigned.keys() & set(marked)
            if split == "train":
                assert len(questions) == len(assigned) * (1 if forgetting else 4 * pairs // len(assigned))
                assert max(assigned.values()) <= (1 + stale if forgetting else 1)
                continue
            assert len(questions) == 2 * pairs
            assert len(assigned) == pairs
            assert len(document.text) == needed + room
            assert first[0].at - 2 - max(question.stated for question in questions) >= gap
            assert set(assigned.values()) == {1 + stale if forgetting else 1}
            assert len(marked) == (unasked if forgetting else 0)


def test_the_newest_letters_hold_no_pair_and_few_slots_hold_all() -> None:
    """The defaults suit a memory of 64 slots behind a segment of 128."""
    for task in get_args(Task):
        for document in Source(task, 1, 20).documents("dev"):
            questions, _, _ = read(document.text)
            needed = {question.key: question.stated for question in questions}
            assert min(q.at for q in questions) - max(needed.values()) > 128 + 64
            assert 2 * len(needed) <= 48


def test_useless_pairs_fill_a_memory_that_keeps_every_pair() -> None:
    for document in Source("forgetting", 1, 20).documents("dev"):
        _, assigned, marked = read(document.text)
        assert sum(assigned.values()) + len(marked) == 64
        assert 2 * len(assigned) <= 48


def test_training_documents_are_denser() -> None:
    for task in get_args(Task):
        sizes = [len(document.text) for document in Source(task, 200).documents("train")]
        assert min(sizes) < 130
        assert max(sizes) > 400


def test_short_training_documents_have_stale_values_too() -> None:
    read_documents = [read(document.text) for document in Source("forgetting", 200).documents("train")]
    counts = {max(assigned.values()) for _, assigned, marked in read_documents if not marked}
    assert counts == {1, 2, 3, 4, 5}


def test_seed_task_and_split_change_every_document() -> None:
    sources = [Source(task, 200, seed=seed) for seed in (0, 1) for task in get_args(Task)]
    every = [d.text for source in sources for split in ("train", "dev", "test") for d in source.documents(split)]
    assert len(set(every)) == len(every)


def test_refused() -> None:
    for keys, message in [
        ({"task": "recal"}, r"mqar.task = 'recal' is not one of recall, forgetting; did you mean recall"),
        ({"pairs": 25}, "pairs = 25 must be at least 1 and at most 24"),
        ({"stale": -1}, "stale = -1 must be at least 0"),
        ({"gap": -1}, "gap = -1 must be at least 0"),
        ({"held_out_documents": 0}, "held_out_documents = 0 must be at least 1"),
        ({"length": 250}, "length 250 is too short for 8 pairs of the task recall; give 272 or more"),
        (
            {"length": 300, "task": "forgetting"},
            "length 300 is too short for 8 pairs of the task forgetting; give 372 or more",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            build("data", {"name": "mqar", **keys})
