"""Words are aligned across tokenizers, and the correlations and their intervals are what they are called."""

import importlib
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from vqmem.data.base import Document
from vqmem.registry import build


@pytest.fixture(scope="session")
def words() -> ModuleType:
    return importlib.import_module("vqmem.benchmarks.text._words")


@pytest.fixture
def meaning(words: ModuleType) -> ModuleType:
    return importlib.import_module("vqmem.benchmarks.text.score_meaning")


def test_excerpts_are_spread_over_every_document(words: ModuleType) -> None:
    documents = [Document(name, " ".join(f"{name}{i}" for i in range(100))) for name in "abc"]
    found = words.excerpts(documents, 7, 10)
    assert [text[0] for text in found] == list("aabbccc")
    assert all(len(text.split()) == 10 for text in found)
    assert found[0].startswith("a22 ")
    assert found[1].startswith("a67 ")
    assert len(set(found)) == 7
    with pytest.raises(ValueError, match="too few"):
        words.excerpts(documents, 3, 101)


@settings(max_examples=50)
@given(text=st.text(alphabet=st.sampled_from("ab é—\n\t中🙂"), max_size=40))
def test_scores_of_tokens_add_up_to_those_of_words(words: ModuleType, text: str) -> None:
    stream = build("front-ends", "bytes").fit([]).encode(text)
    places = list(zip(stream.starts.tolist(), stream.ends.tolist(), strict=True))
    sums = words.by_word(text, places, np.ones((len(stream), 1)))
    # Every byte counts 1, so a word weighs its bytes, and white space belongs to none.
    assert sums[:, 0].tolist() == [len(word.encode()) for word in text.split()]


def test_a_token_with_a_leading_space_belongs_to_the_word_behind_it(words: ModuleType) -> None:
    places = [(0, 2), (2, 3), (3, 7), (7, 9), (9, 10)]  # "He" "," " ran" "\n\n" "A"
    values = np.array([[1.0], [2.0], [4.0], [8.0], [16.0]])
    assert words.by_word("He, ran\n\nA", places, values)[:, 0].tolist() == [3.0, 4.0, 16.0]


def test_plain_and_partial_correlations(words: ModuleType) -> None:
    rng = np.random.default_rng(0)
    cause = rng.normal(size=2000)
    through = np.exp(cause + 0.5 * rng.normal(size=2000))  # related to the reference by the cause alone
    independent = rng.normal(size=2000)
    reference = cause + independent
    columns = np.column_stack([through, independent.round(1), np.zeros(2000), cause])
    plain, partial = words.correlations(columns, reference, cause[:, None])
    for i in (0, 1, 3):
        assert plain[i] == pytest.approx(spearmanr(columns[:, i], reference)[0])
    assert np.isnan(plain[2])
    assert plain[0] > 0.5
    assert abs(partial[0]) < 0.06
    assert partial[1] > 0.9
    assert np.isnan(partial[3])


def test_word_rarity_knows_case_and_punctuation_apart_from_the_word(words: ModuleType) -> None:
    rarity = words.WordRarity(["the the The, whale"])
    the, whale, new, dash = rarity("THE! whale. harpoon --")
    assert the < whale < new
    assert np.exp(-the) == pytest.approx(4 / 7)
    assert dash == new


def test_correlations_of_readings_are_labelled_and_resampled_jointly(meaning: ModuleType) -> None:
    rng = np.random.default_rng(0)
    readings = []
    for _ in range(8):
        surprisal, rarity = rng.normal(size=50), rng.normal(size=60)
        tokens = np.column_stack([rarity, rng.normal(size=60)])
        readings.append(
            meaning.PassageReading(
                tokens, rarity, np.column_stack([surprisal, -surprisal]), surprisal, rng.normal(size=(50, 2))
            )
        )
    (found, apart), (ends, apart_ends) = meaning.correlate(readings, 20, ours=0)
    assert found.shape == (3, 4)
    assert ends.shape == (3, 4, 2)
    assert found[0, 0] == pytest.approx(1)
    assert found[1, :2] == pytest.approx([1, -1])
    assert ends[2, 1] == pytest.approx([-1, -1])  # in every resample
    assert apart[1, :2] == pytest.approx([0, -2])
    assert apart_ends[1, 1] == pytest.approx([-2, -2])
    assert np.isnan(found[0, 2:]).all()
    assert np.isnan(ends[0, 2:]).all()


def test_the_unigram_is_counted_on_all_of_the_corpus(meaning: ModuleType) -> None:
    scorers = importlib.import_module("vqmem.benchmarks.text._scorers")
    corpus = importlib.import_module("vqmem.recipes.lm.corpus")
    tokenizer = build("front-ends", "bytes").fit([])
    items = corpus.passages([Document("d", "aab" * 10)], tokenizer, 8)
    model = scorers.count(tokenizer, items)
    signals, _ = model.score(torch.tensor([[ord("a"), ord("b")]]), model.initial_state(1))
    expected = -torch.log(torch.tensor([21.0, 11.0]) / (30 + tokenizer.vocab_size))
    torch.testing.assert_close(signals[0, :, 0].float(), expected)


def test_figures_keep_intervals_beside_values_and_drop_what_is_not_defined(meaning: ModuleType) -> None:
    figures = meaning.Figures()
    figures.put("t", "4", "a", 0.123456, [0.1, 0.2])
    figures.put("t", "4", "b", float("nan"), [float("nan")] * 2)
    assert figures.values == {"t": {"4": {"a": 0.1235, "b": None}}}
    assert figures.intervals == {"t": {"4": {"a": [0.1, 0.2]}}}
    assert figures.points("t", "a") == [[4.0, 0.1235, 0.1, 0.2]]
