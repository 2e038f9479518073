"""The part of speech of a token of text, and the class of phones that a unit of speech stands for."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from vqmem.data._phones import PHONE_CLASSES, PhoneMark, phone_class, phones_of
from vqmem.data.base import Document
from vqmem.data.spoken_text import RATE, Source, phones, speak
from vqmem.recipes.compare import classes
from vqmem.recipes.compare.classes import PARTS_OF_SPEECH, parts_of_speech, phone_classes, tagged, token_classes
from vqmem.recipes.lm.corpus import Passage, encode_document
from vqmem.registry import build
from vqmem.tokenizers_.base import Stream


class Fake:
    """A front-end; what a test does not ask for raises."""

    vocab_size = 7

    def encode(self, text) -> Stream:
        raise NotImplementedError

    def decode(self, ids: list[int]) -> str:
        raise NotImplementedError

    def save(self, folder) -> None:
        raise NotImplementedError


@pytest.fixture
def engine() -> None:
    pytest.importorskip("espeakng_loader", reason="needs espeakng-loader (extra 'speech')")


def test_words_have_the_part_of_speech_of_their_sentence():
    text = "Alice didn\u2019t know; she likes the answer of 1865, and it\u2019s very old.  We *know*!"
    assert [(text[start:end], part) for start, end, part in tagged(text)] == [
        ("Alice", "name"), ("did", "verb"), ("n\u2019t", "adverb"), ("know", "verb"), (";", "punctuation"),
        ("she", "pronoun"), ("likes", "verb"), ("the", "function word"), ("answer", "noun"), ("of", "function word"),
        ("1865", "number"), (",", "punctuation"), ("and", "function word"), ("it", "pronoun"),
        ("\u2019s", "function word"), ("very", "adverb"), ("old", "adjective"), (".", "punctuation"), ("We", "pronoun"),
        ("*", "punctuation"), ("know", "verb"), ("*", "punctuation"), ("!", "punctuation"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("_very_ good", ["punctuation", "adverb", "punctuation", "adjective"]),
        ("caf\u00e9s", ["noun"]),
        ("3.5", ["number", "punctuation", "number"]),
        ("", []),
    ],
)
def test_words_and_marks_are_told_apart(text, parts):
    assert [part for _, _, part in tagged(text)] == parts


@pytest.mark.parametrize(
    "text", ["", " ", "\n\n", "\ufffd\u00e9", "...", "'s", "_", "can't've", "\u043e\u043d\u0430 7_000"]
)
def test_any_text_has_classes(text):
    assert "".join(text[start:end] for start, end, _ in tagged(text)) == "".join(text.split())


def named(text: str, *ends: int) -> list[str]:
    return [PARTS_OF_SPEECH[index] for index in parts_of_speech(text, ends)]


def test_a_token_has_the_class_of_the_first_word_that_it_has_a_part_of():
    text = "We see Alice,\n\n\n 7."
    word = ["pronoun", "verb", "verb", "name", "name", "name"]
    assert named(text, 2, 4, 6, 8, 10, 12, 14, 16, 18, 19) == [*word, "punctuation", "space", "number", "punctuation"]
    assert named(text, 2, 6, 6, 12) == ["pronoun", "verb", "verb", "name"]  # a token without characters
    assert named("", 0) == ["space"]


def classes_of(text: str, front_end: object, *texts: str, cut: slice = slice(None)) -> list[str]:
    """The class of each token of a text."""
    tokenizer = build("front-ends", front_end).fit(texts)
    [found] = token_classes([encode_document(Document("text", text), tokenizer)[cut]], tokenizer)
    count = len(next(iter(found.values())))
    return [next(name for name, of in found.items() if of[place]) for place in range(count)]


def test_tokens_that_are_parts_of_characters_have_the_class_of_the_word():
    text = "the caf\u00e9 \u201copens\u201d"
    quote, word = ["punctuation"] * 3, ["function word"] * 3
    expected = [*word, "space", *["noun"] * 5, "space", *quote, *["verb"] * 5, *quote]
    assert classes_of(text, "bytes") == expected
    merged = classes_of(text, {"name": "bpe", "vocab_size": 262}, "the the the")
    assert (merged[0], merged[-1]) == ("function word", "punctuation")
    assert merged.count("noun") in (5, 6)  # with the space, if it begins the word
    assert classes_of(text, "bytes", cut=slice(8, None))[-8:] == expected[-8:]  # it begins within a character


def test_a_passage_may_begin_with_a_token_without_bytes():
    class Marked(Fake):
        def decode(self, ids: list[int]) -> str:
            return "".join(["", "It", " ran"][number] for number in ids)

    sizes = torch.tensor([0, 2, 4])
    item = Passage("text", torch.arange(3), sizes, torch.zeros(3, dtype=torch.bool))
    assert classes._characters(item, Marked()) == ("It ran", [0, 2, 6])


def test_units_without_recordings_have_no_classes():
    tokenizer = build("front-ends", {"name": "units", "vocab_size": 5}).fit([])
    assert token_classes([Passage.from_ids(torch.tensor([1, 2]))], tokenizer) == [{}]


def test_phones_by_hand():
    events = [("pause", 0, 0, "_"), ("word", 0, 100, ""), ("sound", 0, 100, "'aI"), ("sound", 0, 250, "tS"),
              ("sound", 0, 250, "n"), ("pause", 0, 400, "_:")]  # fmt: skip
    marks = phones_of(events, 0.3)
    assert marks == [PhoneMark("_", 0.0, 0.1), PhoneMark("'aI", 0.1, 0.25), PhoneMark("n", 0.25, 0.3)]
    assert [phone_class(mark.name) for mark in marks] == ["silence", "vowel", "nasal"]
    assert [phone_class(name) for name in ("dZ", "d", ",@L", "t#", "S", "r-", "")] == [
        "affricate", "stop", "vowel", "stop", "fricative", "approximant", "other",
    ]  # fmt: skip


def test_phones_cover_the_speech_and_english_voices_have_known_ones(engine):
    text = "The judge measured which young things he sought: azure, boy, there, and vague yachts."
    for voice in Source().voices:
        marks = phones(text, voice)
        assert all(one.end == other.start for one, other in pairwise(marks))
        assert marks[-1].end == pytest.approx(len(speak(text, voice)) / RATE)
        assert {phone_class(mark.name) for mark in marks} == {*PHONE_CLASSES} - {"other"}


def test_a_unit_stands_for_the_class_that_it_mostly_meets(engine, monkeypatch):
    """A front-end that knows the loudness of 10 ms: silence is silent, and what is loud is mostly vowels."""

    class Loudness(Fake):
        vocab_size, input_kind = 4, "audio"

        def encode(self, audio) -> Stream:
            samples = audio.read(RATE).numpy()
            step = RATE // 100
            frames = samples[: len(samples) // step * step].reshape(-1, step)
            loudness = np.sqrt((frames**2).mean(1))
            ids = torch.tensor(np.digitize(loudness, [1e-4, 0.6 * loudness.max()]))
            ends = (torch.arange(len(ids)) + 1.0) * step / RATE
            return Stream(ids, ends - step / RATE, ends, torch.ones_like(ids))

    monkeypatch.setattr(classes, "_SPOKEN", classes._SPOKEN[:1])
    silent, quiet, loud, never = phone_classes(Loudness()).tolist()
    assert (PHONE_CLASSES[silent], PHONE_CLASSES[loud]) == ("silence", "vowel")
    assert quiet == never == -1
    [found] = token_classes([Passage.from_ids(torch.tensor([0, 2, 3]))], Loudness())
    assert {name: of.tolist() for name, of in found.items() if of.any()} == {
        "silence": [True, False, False],
        "vowel": [False, True, False],
    }


def test_without_a_voice_units_have_no_classes_and_it_is_said(monkeypatch, capsys):
    def missing(*_):
        raise ValueError("spoken text and words need eSpeak NG; run `pip install 'vqmem[speech]'`")

    class Heard(Fake):
        input_kind = "audio"

    monkeypatch.setattr(classes, "spoken_file", missing)
    assert token_classes([Passage.from_ids(torch.tensor([0, 1]))], Heard()) == [{}]
    assert "the classes of phones are left out: spoken text and words need" in capsys.readouterr().err
