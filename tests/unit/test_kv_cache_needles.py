"""Quizzes, the answers to them, and what is kept of their texts."""

import copy
import json
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import DynamicCache
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import CACHE
from vqmem.recipes.kv_cache.answers import answer, kept_slots, prompt, stop_rule
from vqmem.recipes.kv_cache.asking import Asking
from vqmem.recipes.kv_cache.caches import Caches
from vqmem.recipes.kv_cache.hidden import hiding
from vqmem.recipes.kv_cache.host import Host
from vqmem.recipes.kv_cache.needles import Asked, Quizzes, ask, ask_all, hits_at, quiz_table, split_by_full
from vqmem.recipes.kv_cache.presses import MADE, PRESSES, WRAPPERS, prompt_settings, seeded
from vqmem.recipes.kv_cache.settings import FULL, Setting
from vqmem.recipes.kv_cache.table import quiz_rows
from vqmem.recipes.kv_cache.tasks.base import Quiz
from vqmem.registry import build, names
from vqmem.tests.unit.tiny_host import tiny_host, tiny_model

PROSE = " ".join(f"word{i}{'.' * (i % 9 == 0)}" for i in range(2000))


NEEDLES = [name for name in names("tasks") if name.startswith("niah_")]


@pytest.mark.parametrize("name", NEEDLES)
def test_a_quiz_hides_its_values_and_asks_for_them(name: str) -> None:
    task = build("tasks", name)
    one, same, other = (task.quiz(PROSE, 300, random.Random(seed)) for seed in (1, 1, 2))
    assert one == same != other
    assert one.values
    for value in one.values:
        assert one.text.count(value) == 1
        assert value not in one.question + one.answer
    assert 250 < len(one.text.split()) < 400


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_single_needle_is_of_the_key_that_is_asked_for(number: int) -> None:
    quiz = build("tasks", f"niah_single_{number}").quiz(PROSE, 300, random.Random(0))
    key = quiz.question.split(" for ")[1].split()[0]
    assert f"for {key} is: {quiz.values[0]}." in quiz.text


def test_hits_are_listed_by_task_and_against_ours() -> None:
    none, half = np.zeros(8), np.repeat([0.0, 100.0], 4)
    hits = {("a", 9): {"ours": none + 100, "other": none}, ("a", 5): {"ours": half, "other": none}}
    hits[("b", 9)] = {"ours": half, "other": half - half}
    values, intervals = quiz_table(hits, "ours")
    assert values["ours"] == {
        **{"a": 75.0, "b": 50.0, "9 tokens": 75.0, "5 tokens": 50.0},
        **{"all": 66.7, "all - ours": 0.0},
    }
    assert values["other"]["all - ours"] == -66.7
    low, high = intervals["other"]["all - ours"]
    assert low < -66.7 < high < 0


def test_settings_are_compared_at_the_same_quizzes() -> None:
    scores = {FULL: [1.0] * 8, "fifo": [0.0] * 8, "ours": [1.0, 0.0] * 4, "press": [1.0, 0.0] * 4}
    asked = [
        Asked("a", 9, 9, {name: [score] for name, score in zip(scores, row, strict=True)})
        for row in zip(*scores.values(), strict=True)
    ]
    rows = {row["strategy"]: row for row in quiz_rows(asked, [0.25], "fifo", ["press"])}
    assert list(rows["ours"]["against"]) == [FULL, "fifo", "press"]
    assert list(rows["press"]["against"]) == [FULL, "fifo"]
    assert list(rows["fifo"]["against"]) == [FULL, "press"]
    equal = {"difference": 0.0, "low": 0.0, "high": 0.0, "verdict": "no difference"}
    assert rows["ours"]["against"]["press"] == equal  # right and wrong at the same quizzes
    less = rows["ours"]["against"][FULL]
    assert (less["difference"], less["verdict"]) == (-50.0, "worse")
    assert less["low"] < -50 < less["high"] < 0
    assert (rows["ours"]["difference"], rows["fifo"]["interval"]) == (50.0, None)


def test_hits_are_of_one_share_kept(tokenizer_folder: Path, tmp_path: Path) -> None:
    caches = Caches(tiny_host(tokenizer_folder), {})
    settings = [Setting(FULL), Setting("fifo", "fifo"), Setting("h2o", "h2o")]
    quizzes = Quizzes(("niah_single_1", "niah_single_2"), (300,), 2, (0.25, 0.5))
    asked = ask_all(caches, settings, quizzes, PROSE, tmp_path)
    assert [one.task for one in asked] == ["niah_single_1", "niah_single_2"] * 2
    assert all(list(one.found) == [FULL, "fifo", "h2o"] and len(one.found["fifo"]) == 2 for one in asked)
    hits = hits_at(asked, 1)
    assert {key: {name: len(row) for name, row in found.items()} for key, found in hits.items()} == {
        (task, 300): {FULL: 2, "fifo": 2, "h2o": 2} for task in quizzes.tasks
    }
    saved = {path: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    caches.host.model.forward = None  # what was answered is not asked for again
    assert ask_all(caches, settings[:2], quizzes, PROSE, tmp_path) == [
        type(one)(one.task, one.length, one.tokens, {name: one.found[name] for name in (FULL, "fifo")}) for one in asked
    ]
    assert saved == {path: json.loads(path.read_text()) for path in tmp_path.iterdir()}


def test_answers_to_a_quiz_that_was_changed_are_not_reused(
    tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches, settings = Caches(tiny_host(tokenizer_folder), {}), [Setting(FULL)]
    quizzes = Quizzes(("niah_single_1",), (300,), 1, (0.25,))
    made: list[Quiz] = []
    asked: list[Asked] = []
    monkeypatch.setattr("vqmem.recipes.kv_cache.needles.make_quiz", lambda *_, **__: made[-1])
    changes = (
        {},
        {"text": PROSE[:500]},
        {"question": "\nWho?"},
        {"answer": " He is"},
        {"values": ("",)},
        {"tokens": 4},
    )
    for count, change in enumerate(changes, 1):
        made.append(replace(QUIZ, **change))
        asked = ask_all(caches, settings, quizzes, PROSE, tmp_path)
        assert len([*tmp_path.iterdir()]) == count
        assert asked[0].found == {FULL: [float("values" in change)]}  # any answer has the empty string
    assert ask_all(caches, settings, quizzes, f"{PROSE} and more", tmp_path) == asked
    assert len([*tmp_path.iterdir()]) == len(changes)  # other prose of which the quiz has nothing


POLICIES = ["fifo", "random", "h2o", "tova", "knorm", "snapkv", "document", "stream"]
QUIZ = Quiz(PROSE[:600], "\nWhat?", " It is", ("nothing",), 5)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_share_of_the_text_is_kept_and_nothing_goes_after_it(
    policy: str, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = Caches(tiny_host(tokenizer_folder), {})
    text, question = prompt(caches.host.tokenizer.wrapped, QUIZ)
    kept = []

    def make(setting: Setting, capacity: int, **options: Any) -> Any:
        kept.append(Caches.make(caches, setting, capacity, **options))
        return kept[-1]

    monkeypatch.setattr(caches, "make", make)
    tokens, _ = ask(caches, [Setting(policy, policy)], QUIZ, (0.25,))
    count = round(0.25 * text.shape[1])
    assert tokens == text.shape[1]
    assert kept[0].room >= count + question.shape[1] + QUIZ.tokens
    same = VQMemCache(caches.host.model, capacity=count, policy=policy)
    with torch.no_grad():
        caches.host.model(text, **{CACHE: same})
    # A longer answer leaves the slots of the text as they are after it.
    of_text = [[place for place in group if place < tokens] for group in _groups(kept[0])]
    assert of_text == _groups(same)


def _groups(cache: VQMemCache) -> list[Any]:
    """The positions that each group of the only row keeps."""
    found = cache.positions
    return found if isinstance(found[0][0], int) else found[0]


SETTINGS = [
    *(Setting(policy, policy) for policy in POLICIES),
    *(Setting(f"{policy} in 8 bits", policy, options={"storage": "int8"}) for policy in ("fifo", "document")),
    Setting("compact", "fifo", options={"positions": "compact"}),
    Setting("a set a layer", "document", options={"share": "layer"}),
]


def test_settings_that_share_a_reading_answer_as_if_each_had_read_alone(tokenizer_folder: Path) -> None:
    caches = Caches(tiny_host(tokenizer_folder), {})
    caches.host.model.double()
    _same_as_alone(caches, SETTINGS)


TINY: dict[str, Any] = {
    **{"vocab_size": 300, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 4, "head_dim": 8},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.5, "pad_token_id": 0},
}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
LINEAR = {f"linear_{name}": 2 for name in ("num_key_heads", "num_value_heads")}
LINEAR |= {f"linear_{name}_head_dim": 8 for name in ("key", "value")}
FULL_FIRST = ["full_attention", "sliding_attention"] * 2
MIXED = {
    "sliding first": ("Gemma3Text", {"sliding_window": 16, "layer_types": FULL_FIRST[::-1]}),
    "full first": ("Gemma3Text", {"sliding_window": 16, "layer_types": FULL_FIRST}),
    "a window longer than the text": ("Gemma3Text", {"sliding_window": 2000, "layer_types": FULL_FIRST}),
    "linear": ("Qwen3Next", {"shared_expert_intermediate_size": 16, **EXPERTS, **LINEAR}),
}


@pytest.mark.parametrize("kind", MIXED)
def test_caches_with_layers_that_bound_themselves_read_and_answer_alone(kind: str, tokenizer_folder: Path) -> None:
    if kind == "linear" and not hasattr(transformers.DynamicCache, "has_previous_state"):
        pytest.skip("this release of transformers reads such models with a cache of their own")
    family, more = MIXED[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**TINY, **more)
    model = getattr(transformers, f"{family.removesuffix('Text')}ForCausalLM")(config).eval()
    caches = Caches(Host(model, tiny_host(tokenizer_folder).tokenizer, kind), {})
    settings = [Setting(name, name) for name in ("fifo", "document", "h2o")]
    _same_as_alone(caches, settings)
    asking = Asking(caches, QUIZ)
    assert kept_slots(asking.reading.full) is None
    for setting in settings:
        cache = caches.make(setting, 60, block=60, streaming=False)
        assert not asking.reading.serves(cache)
        assert kept_slots(cache) is None
    full, cache = asking.answers([Setting(FULL)], (0.25,))[FULL][0], DynamicCache(config=config)
    with torch.no_grad():
        model(asking.reading.ids, **{CACHE: cache})
    assert full == answer(model, cache, asking.question, most=QUIZ.tokens, is_over=asking.is_over)


@pytest.mark.skipif(not PRESSES, reason="kvpress is not installed (extra 'kvpress')")
def test_presses_that_share_a_reading_answer_as_if_each_had_read_alone(tokenizer_folder: Path) -> None:
    caches = Caches(tiny_host(tokenizer_folder), {})
    settings = prompt_settings(name for name in (*MADE, *WRAPPERS) if name not in ("AdaKV", "CriticalAdaKV"))
    assert [setting.name for setting in settings[:2]] == ["kvpress StreamingLLM", "kvpress StreamingLLM, our guards"]
    assert [setting.name for setting in settings].count("kvpress ChunkKV, our guards") == 0
    _same_as_alone(caches, settings)


def _same_as_alone(caches: Caches, settings: list[Setting]) -> None:
    """Assert that settings answer together as each does that reads the text itself."""
    model = caches.host.model
    text, question = prompt(caches.host.tokenizer.wrapped, QUIZ)
    asking = Asking(caches, QUIZ, batch_size=5)
    asking.is_over = lambda tokens: len(tokens) > sum(tokens) % 3 + 2  # answers that end at different times
    together = asking.answers(settings, (0.25, 0.5))
    for setting in settings:
        for place, share in enumerate((0.25, 0.5)):
            cache = caches.make(setting, round(share * text.shape[1]), block=60, streaming=False)
            with torch.no_grad():
                seeded(lambda cache=cache: model(text, **{CACHE: cache}))
            alone = answer(model, cache, question, most=QUIZ.tokens, is_over=asking.is_over)
            assert together[setting.name][place] == alone, setting.name


@pytest.mark.skipif(not PRESSES, reason="kvpress is not installed (extra 'kvpress')")
def test_presses_that_hide_slots_answer_in_a_batch_as_alone(
    tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = Caches(tiny_host(tokenizer_folder), {})
    hidden = []

    def watch(cache: Any, some: Any = None) -> Any:
        hidden.append(some)
        return kept_slots(cache, some)

    monkeypatch.setattr("vqmem.recipes.kv_cache.asking.kept_slots", watch)
    asking = Asking(caches, QUIZ, batch_size=4)
    asking.is_over = lambda tokens: len(tokens) > sum(tokens) % 3 + 2
    settings = prompt_settings(["AdaKV", "KVzip", "CriticalAdaKV"])
    together = asking.answers([Setting(FULL), *settings], (0.25,))
    assert [setting.name for setting in settings] == ["kvpress AdaKV", "kvpress KVzip", "kvpress CriticalAdaKV"]
    model = caches.host.model
    for setting, some in zip(settings, hidden, strict=True):
        assert len(some) == 2
        assert all(len(layer[0]) for layer in some)
        with hiding(model, some):
            cache = copy.deepcopy(asking.reading.full)
            alone = answer(model, cache, asking.question, most=QUIZ.tokens, is_over=asking.is_over)
        assert together[setting.name] == [alone]
    assert all(getattr(layer.self_attn, "masked_key_indices", None) is None for layer in model.model.layers)


def test_a_text_that_is_too_short_is_an_error(tokenizer_folder: Path) -> None:
    quiz = Quiz("a b c", "What?", " It is", ("nothing",), 20)
    with pytest.raises(ValueError, match=r"too short for a share of 0\.5"):
        ask(Caches(tiny_host(tokenizer_folder), {}), [Setting("fifo", "fifo")], quiz, (0.5,))


def test_an_answer_is_greedy_and_ends() -> None:
    model, question = tiny_model(), torch.randint(1, 30, (1, 5))
    cache, ids, expected = VQMemCache(model, capacity=90, policy="fifo"), question, []
    for _ in range(6):
        with torch.no_grad():
            expected.append(int(model(ids).logits[0, -1].argmax()))
        ids = torch.cat([ids, torch.tensor([[expected[-1]]])], 1)
    assert answer(model, cache, question, most=6, is_over=lambda tokens: False) == expected
    cache.reset()
    assert answer(model, cache, question, most=6, is_over=lambda tokens: len(tokens) == 2) == expected[:2]


def test_an_answer_is_over_when_it_is_right_or_cannot_become_so() -> None:
    over = stop_rule(_Digits(), ["407"], 6)
    done = {said: over([int(x) for x in said]) for said in ("", "407", "1407", "9", "1235", "12345", "12344", "122240")}
    assert [said for said, ended in done.items() if ended] == ["407", "1407", "12345"]


class _Digits:
    """A tokenizer whose tokens are digits."""

    eos_token_id = 99

    def __call__(self, text: str, add_special_tokens: bool) -> Any:
        return SimpleNamespace(input_ids=[int(x) for x in text])

    def decode(self, said: list[int]) -> str:
        return "".join(map(str, said))


def test_several_values_are_all_needed() -> None:
    over = stop_rule(_Digits(), ["40", "7"], 9)
    assert [said for said in ("4", "40", "740", "407") if over([int(x) for x in said])] == ["740", "407"]


def test_one_form_of_an_answer_is_enough() -> None:
    over = stop_rule(_Digits(), ["40", "72"], 4, any_of=True)
    assert [said for said in ("4", "40", "172", "1111") if over([int(x) for x in said])] == ["40", "172", "1111"]
    forms = Quiz("", "", "", ("3 May 1904", "May 3, 1904"), 9)
    assert [replace(forms, any_of=any_of).score("on MAY 3, 1904.") for any_of in (False, True)] == [0.5, 1.0]


def test_tasks_at_which_the_full_cache_fails_are_told_apart() -> None:
    asked = [Asked(task, 9, 9, {FULL: [score]}) for task, score in (("a", 1.0), ("b", 0.5), ("a", 0.0), ("b", 0.0))]
    assert split_by_full(asked, 50.0) == (["a"], {"b": 25.0})
    assert split_by_full(asked, 0.0) == (["a", "b"], {})


def test_a_model_without_a_chat_template_reads_the_plain_text(tokenizer_folder: Path) -> None:
    tokenizer = tiny_host(tokenizer_folder).tokenizer.wrapped
    text, question = prompt(tokenizer, Quiz("the text", " the question?", " the answer is", ("x",), 3))
    for ids, expected in ((text, "the text"), (question, " the question? the answer is")):
        assert ids[0].tolist() == tokenizer(expected).input_ids
