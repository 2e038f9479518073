"""Documents of facts say what they claim, read by an interpreter that goes through them a sentence at a time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vqmem.data.base import Split
from vqmem.data.builtin_text import Source as Builtin
from vqmem.data.facts import OBJECTS, PEOPLE, PLACES, Source, Task
from vqmem.registry import build
from vqmem.tokenizers_.bpe import FrontEnd

SENTENCE = re.compile(r"Where is (?:the )?(\w+)\? (\w+)\n|(\w+) (\w+ (?:to|up)|took|got|grabbed) the (\w+)\. ")


class Story(NamedTuple):
    """Facts and where the last ends, questions with where they begin, right answers and those of the document."""

    facts: list[str]
    end: int
    questions: list[tuple[str, int]]
    right: list[str]
    given: list[str]


def read(text: str) -> Story:
    """Follow the story: each person is somewhere, and each object where its newest holder is."""
    place_of: dict[str, str] = {}
    holder_of: dict[str, str] = {}
    story = Story([], 0, [], [], [])
    for found in SENTENCE.finditer(text):
        asked, answer, person, verb, thing = found.groups()
        if asked:
            story.questions.append((asked, found.start()))
            story.right.append(place_of[asked if asked in PEOPLE else holder_of[asked]])
            story.given.append(answer)
        elif person in PEOPLE and thing in (PLACES if verb.endswith(" to") else OBJECTS):
            (place_of if thing in PLACES else holder_of)[person if thing in PLACES else thing] = (
                thing if thing in PLACES else person
            )
            story.facts.append(found[0])
            story = story._replace(end=found.end())
    return story


def without(text: str, story: Story) -> str:
    """The background: a document without its facts and questions."""
    text = text[: story.questions[0][1]]
    for fact in story.facts:
        text = text.replace(fact, "", 1)
    return text


@pytest.mark.parametrize("task", get_args(Task))
@given(
    people=st.integers(1, 8),
    more=st.integers(0, 8),
    gap=st.integers(0, 900),
    room=st.integers(0, 900),
    seed=st.integers(0, 9),
)
@settings(max_examples=20)
def test_every_answer_is_right_and_lies_beyond_the_gap(
    task: Task, people: int, more: int, gap: int, room: int, seed: int
) -> None:
    facts = people * (1 if task == "one_fact" else 2) + more
    source = Source(task, "builtin_text", 2, 2, gap + 34 * facts + 66 * people + room, people, facts, gap, seed)
    for split in ("train", "dev", "test"):
        for document in source.documents(split):
            story = read(document.text)
            assert story.given == story.right
            names = [name for name, _ in story.questions]
            some = len({*names})
            assert {*names[:some]} == {*names}
            assert len(names) == 2 * people // some * some
            assert set(names) <= set(PEOPLE if task == "one_fact" else OBJECTS)
            asked = [document.text[int(start) - 2 : int(stop)] for start, stop in document.spans]
            marked = story.given if split == "train" else story.given[:some]
            assert asked == [f"? {answer[0]}" for answer in marked]
            assert max(story.given[:some].count(place) for place in PLACES) <= (some + 1) // 2
            assert (some, len(story.facts)) == (people, facts) or split == "train"
            if split != "train":
                assert story.questions[0][1] - story.end >= gap
                assert source.length - 34 * facts - 66 * people <= len(document.text) < source.length + 700


def test_the_first_letters_of_places_tell_them_apart() -> None:
    assert len({place[0] for place in PLACES}) == len(PLACES)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_the_background_is_of_the_same_split(split: Split) -> None:
    text = "\n".join([document.text for document in Builtin().documents(split)] * 2)
    for document in Source("two_facts", train_documents=5, held_out_documents=5).documents(split):
        background = without(document.text, read(document.text))
        longest = max(background.split("\n"), key=len).strip()
        assert longest in text


def test_background_is_only_added() -> None:
    """Documents are the text of the source, with sentences put between its sentences."""
    text = re.sub(r"\s", "", "".join(document.text for document in Builtin().documents("dev")))
    for document in Source(held_out_documents=20).documents("dev"):
        background = re.sub(r"\s", "", without(document.text, read(document.text)))
        assert background in text + text


def test_training_documents_are_denser() -> None:
    sizes = [len(document.text) for document in Source(train_documents=200).documents("train")]
    assert min(sizes) < 500
    assert max(sizes) > 1900


def test_a_text_without_sentences_is_cut_between_words(tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("word " * 2000)
    source = Source(source={"name": "text_files", "path": str(tmp_path)}, held_out_documents=3)
    for document in source.documents("dev"):
        assert set(without(document.text, read(document.text)).split()) == {"word"}


def test_marked_tokens_of_bpe_tell_the_places_apart() -> None:
    texts = [document.text for document in Source(train_documents=50).documents("train")]
    tokenizer = FrontEnd(600).fit(texts)
    for document in Source(held_out_documents=5).documents("dev"):
        stream = tokenizer.encode(document.text)
        for start, stop in document.spans:
            (token,) = [
                int(i) for i, a, b in zip(stream.ids, stream.starts, stream.ends, strict=True) if a < stop and b > start
            ]
            letters = tokenizer.decode([token]).strip()
            assert sum(place.startswith(letters) for place in PLACES) == 1


def test_seed_and_split_change_every_document() -> None:
    sources = [Source(seed=seed, train_documents=100) for seed in (0, 1)]
    every = [d.text for source in sources for split in ("train", "dev", "test") for d in source.documents(split)]
    assert len(set(every)) == len(every)


def test_refused(tmp_path: Path) -> None:
    for keys, message in [
        ({"task": "two_fact"}, "facts.task = 'two_fact' is not one of one_fact, two_facts; did you mean two_facts"),
        ({"people": 9}, "people = 9 must be at least 1 and at most 8"),
        ({"facts": 3}, "facts = 3 are too few for 4 people of the task one_fact; give 4 or more"),
        ({"facts": 7, "task": "two_facts"}, "facts = 7 are too few for 4 people of the task two_facts; give 8 or more"),
        ({"length": 1000}, "length 1000 is too short for 12 facts; give 1696 or more"),
        ({"gap": -1}, "gap = -1 must be at least 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            build("data", {"name": "facts", **keys})
    for name in ("train", "dev", "test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("short")
    with pytest.raises(ValueError, match="the split dev of the background has 6 characters, too few for facts"):
        next(Source(source={"name": "text_files", "path": str(tmp_path)}).documents("dev"))
