"""What every task of `vqmem kv_cache` promises, for each one that listing the folder finds."""

from __future__ import annotations

import random
import re
from collections import Counter
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from vqmem.recipes.kv_cache.quizzes import TOLERANCE, count_tokens, make_quiz
from vqmem.recipes.kv_cache.tasks.base import Quiz, Task
from vqmem.recipes.kv_cache.texts import read_texts
from vqmem.registry import build, names

TASKS = names("tasks")


@cache
def prose() -> str:
    return " ".join(document.text for document in read_texts("builtin_text", "all", 1_000_000))


class _Bytes:
    """A tokenizer whose tokens are bytes."""

    def __call__(self, text: str, add_special_tokens: bool) -> Any:
        return SimpleNamespace(input_ids=list(text.encode()))


class _Pieces:
    """A tokenizer whose tokens are those of a BPE."""

    def __init__(self) -> None:
        self.tokenizer = Tokenizer(models.BPE())
        self.tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=4000, initial_alphabet=alphabet, show_progress=False)
        self.tokenizer.train_from_iterator([prose()], trainer)

    def __call__(self, text: str, add_special_tokens: bool) -> Any:
        return SimpleNamespace(input_ids=self.tokenizer.encode(text).ids)


@cache
def tokenizer(kind: str) -> Any:
    return _Bytes() if kind == "bytes" else _Pieces()


def quiz(name: str, label: str = "dev", seed: int = 0, length: int = 1024, kind: str = "bpe") -> Quiz:
    return make_quiz(name, prose(), tokenizer(kind), length, label=label, seed=seed)


@pytest.mark.parametrize("name", TASKS)
def test_a_seed_gives_one_quiz_and_splits_and_seeds_differ(name: str) -> None:
    assert isinstance(build("tasks", name), Task)
    one = quiz(name)
    assert quiz(name) == one
    for other in (quiz(name, label="test"), quiz(name, seed=1)):
        assert other.text != one.text
        assert other.values != one.values


@pytest.mark.parametrize("length", [1024, 2048, 4096, 8192])
@pytest.mark.parametrize("kind", ["bytes", "bpe"])
@pytest.mark.parametrize("name", TASKS)
def test_a_text_has_about_so_many_tokens(name: str, kind: str, length: int) -> None:
    for seed in range(3):
        tokens = count_tokens(tokenizer(kind), quiz(name, seed=seed, length=length, kind=kind).text)
        assert abs(tokens - length) <= TOLERANCE * length


@pytest.mark.parametrize("name", TASKS)
def test_the_answer_is_in_the_text_alone_and_fits(name: str) -> None:
    one = quiz(name)
    assert any(value in one.text for value in one.values) if one.any_of else all(v in one.text for v in one.values)
    assert not any(value in one.question + one.answer for value in one.values)
    assert len(set(one.values)) == len(one.values)
    expected = one.values[:1] if one.any_of else one.values
    assert count_tokens(tokenizer("bpe"), " " + ", ".join(expected)) <= one.tokens


@pytest.mark.parametrize("name", TASKS)
def test_expected_strings_score_one_and_nothing_scores_zero(name: str) -> None:
    one = quiz(name)
    assert one.score(", ".join(one.values)) == one.score(" and ".join(one.values).upper()) == 1.0
    assert one.score("") == one.score("I do not know.") == 0.0
    assert one.score(f" {one.values[0]}.") == (1.0 if one.any_of else pytest.approx(1 / len(one.values)))


@pytest.mark.parametrize("name", TASKS)
def test_prose_that_is_too_short_will_do(name: str) -> None:
    one = make_quiz(name, "Two words.", tokenizer("bpe"), 1024)
    assert any(value in one.text for value in one.values)


@pytest.mark.parametrize("name", TASKS)
def test_a_length_that_is_too_short_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^needles\.texts: no text of the task {name} has about 20 tokens \(.*\n?$"):
        make_quiz(name, prose(), tokenizer("bpe"), 20)


def test_a_chain_of_variables_leads_to_all_that_are_expected() -> None:
    one = quiz("vt")
    value = re.findall(r"\d{5}", one.question)[0]
    found = [value]
    for name, source in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)\.", one.text):
        assert source == found[-1]
        found.append(name)
    assert tuple(found[1:]) == one.values
    assert len(one.values) == 5


@pytest.mark.parametrize("length", [1024, 8192])
@pytest.mark.parametrize(("name", "count"), [("cwe", 10), ("fwe", 3)])
def test_expected_words_are_the_most_frequent(name: str, count: int, length: int) -> None:
    one = quiz(name, length=length)
    counts = Counter(word for word in one.text.split("\n", 1)[1].split() if word.isalpha())
    ranked = counts.most_common(count + 1)
    assert {word for word, _ in ranked[:count]} == set(one.values)
    assert ranked[count - 1][1] > ranked[count][1]


def test_a_passage_answers_the_question_about_its_person() -> None:
    for seed in range(9):
        one = quiz("qa", seed=seed)
        person = re.findall(r"(?:was|did) (\w+ \w+) (?:born|move)", one.question)[0]
        passage = next(text for text in one.text.split("Document ") if person in text)
        assert any(value in passage for value in one.values)


def test_keys_that_are_asked_for_have_the_expected_values() -> None:
    for name in TASKS:
        if name.startswith("niah_"):
            one = quiz(name)
            keys = re.findall(r" for (.*) mentioned", one.question)[0].split(", ")
            pairs = re.findall(r"for (\S+) is: (\S+)\.", one.text)
            assert sorted(value for key, value in pairs if key in keys) == sorted(one.values)


def test_needles_lie_at_any_depth_in_any_order() -> None:
    places = []
    for seed in range(60):
        one = build("tasks", "niah_multikey_1").quiz(prose(), 700, random.Random(seed))
        places.append(
            sorted(one.text.index(v) for v in re.findall(r"is: (\d{7})\.", one.text)).index(
                one.text.index(one.values[0])
            )
        )
    assert set(places) == {0, 1, 2, 3}
