"""Classes of tokens: the part of speech of a word of text, the class of phones that a unit of speech stands for."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...data._phones import PHONE_CLASSES, phone_class
from ...data.reading.audio import Audio
from ...data.spoken_text import Source, phones, spoken_file
from ...tokenizers_._pieces import pieces
from ...tokenizers_.base import Tokenizer, input_kind
from ..lm.corpus import Passage

PARTS_OF_SPEECH = (
    "noun", "name", "verb", "adjective", "adverb", "pronoun", "function word", "number", "punctuation", "space",
)  # fmt: skip
"""Classes of the tokens of a text. Articles, prepositions and other words of a sentence are function words."""
_BY_TAG = {
    "NNP": "name",
    "NN": "noun",
    "VB": "verb",
    "JJ": "adjective",
    "RB": "adverb",
    "PR": "pronoun",
    "CD": "number",
}
"""The class of the tags of the Penn Treebank that begin so; the first that does counts."""
_WORD = re.compile(r"[^\W_]+?(?=n't\b)|n't\b|'(?:s|d|m|ll|re|ve)\b|[^\W_]+|[^\w\s]|_")
"""A word or part of a contraction (do n't, it 's), as the Penn Treebank has them, or a punctuation mark."""
_SPOKEN = (
    "The birch canoe slid on the smooth planks. Glue the sheet to the dark blue background. It's easy to tell the "
    "depth of a well. These days a chicken leg is a rare dish. Rice is often served in round bowls. The juice of "
    "lemons makes fine punch. The box was thrown beside the parked truck. The hogs were fed chopped corn and "
    "garbage. Four hours of steady work faced us. A large size in stockings is hard to sell.",
    "The boy was there when the sun rose. A rod is used to catch pink salmon. The source of the huge river is the "
    "clear spring. Kick the ball straight and follow through. Help the woman get back to her feet. A pot of tea "
    "helps to pass the evening. Smoky fires lack flame and heat. The soft cushion broke the man's fall. The salt "
    "breeze came across from the sea. The girl at the booth sold fifty bonds.",
)
"""The first two lists of the Harvard sentences (IEEE, 1969), which have the phones of English in their usual shares."""
_STEP = 0.005
"""Seconds between the moments at which phones and units are compared."""

TokenClasses = dict[str, Bool[Tensor, " time"]]
"""Which tokens of a passage are of each class; empty if the tokens have no known classes."""


def token_classes(items: Sequence[Passage], tokenizer: Tokenizer) -> list[TokenClasses]:
    """The parts of speech of texts; the phone classes of units of audio, if eSpeak NG can speak; else none."""
    if input_kind(tokenizer) == "text":
        found = [parts_of_speech(*_characters(item, tokenizer)) for item in items]
        return [{name: classes == index for index, name in enumerate(PARTS_OF_SPEECH)} for classes in found]
    if input_kind(tokenizer) == "audio":
        try:
            classes = phone_classes(tokenizer)
        except ValueError as error:
            print(f"vqmem: the classes of phones are left out: {error}", file=sys.stderr)
        else:
            return [{name: classes[item.ids] == index for index, name in enumerate(PHONE_CLASSES)} for item in items]
    return [{} for _ in items]


def _characters(item: Passage, tokenizer: Tokenizer) -> tuple[str, list[int]]:
    """The text of a passage, and where each token ends in it.

    Where the tokens are not those of the decoded text, byte by byte (a passage begins within a character, or a decoder
    adds spaces), each token has the characters that it has alone.
    """
    ids = item.ids.tolist()
    text = tokenizer.decode(ids)
    data = np.frombuffer(text.encode(errors="replace"), dtype=np.uint8)
    ends = item.sizes.cumsum(0).numpy()
    if ends[-1] == len(data):
        begun = np.cumsum((data & 0xC0) != 0x80)  # the characters that have begun; other bytes are 10xxxxxx
        return text, np.insert(begun, 0, 0)[ends].tolist()  # the first token may have no bytes
    alone = pieces(tokenizer)
    texts = [alone[number] or "" for number in ids]
    return "".join(texts), np.cumsum([len(text) for text in texts]).tolist()


def parts_of_speech(text: str, ends: Sequence[int]) -> Int[Tensor, " time"]:
    """The class in `PARTS_OF_SPEECH` of each token of a text: that of the first word or mark that it has a part of.

    Words are tagged in their sentences by the tagger of Pattern (De Smedt and Daelemans, 2012), which knows English.
    ``ends`` are the places behind the tokens; a token without characters has the class of the one at its place.
    """
    tags, word, found = tagged(text), 0, []
    for start, end in pairwise([0, *ends]):
        place = min(start, end - 1)
        while word < len(tags) and tags[word][1] <= place:
            word += 1
        is_word = word < len(tags) and tags[word][0] < end
        found.append(PARTS_OF_SPEECH.index(tags[word][2] if is_word else "space"))
    return torch.tensor(found)


def tagged(text: str) -> list[tuple[int, int, str]]:
    """The words and marks of an English text: first character, the one after the last, and the part of speech."""
    from textblob.en import parser  # takes a second to import

    words = list(_WORD.finditer(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")))
    tags: list[str] = []
    sentence: list[str] = []
    for word in words:
        sentence.append(word.group())
        if word.group() in ".!?" or word is words[-1]:
            tags += [tag for _, tag in parser.find_tags(sentence)]
            sentence = []
    return [(*word.span(), _part(word.group(), tag)) for word, tag in zip(words, tags, strict=True)]


def _part(word: str, tag: str) -> str:
    if not any(map(str.isalnum, word)):
        return "punctuation"
    if word[0].isdigit():
        return "number"
    return next((part for begin, part in _BY_TAG.items() if tag.startswith(begin)), "function word")


def phone_classes(tokenizer: Tokenizer) -> Int[Tensor, " vocab"]:
    """The class in `PHONE_CLASSES` that each unit stands for in most of its time, in speech whose phones are known.

    Several voices of eSpeak NG speak English sentences; Hsu et al. (2106.07447, § IV.C) count the phones of units
    likewise. A unit that no class has for more than half of its time, or that does not occur, has none: -1. Raises
    `ValueError` if the engine is missing.
    """
    spoken = itertools.product(_SPOKEN, Source().voices)
    counts = torch.stack([_units_and_phones(tokenizer, text, voice) for text, voice in spoken]).sum(0)
    share, most = (counts / counts.sum(dim=1, keepdim=True).clamp(min=1)).max(dim=1)
    return torch.where(share > 0.5, most, -1)


def _units_and_phones(tokenizer: Tokenizer, text: str, voice: str) -> Float[Tensor, "vocab class"]:
    """How often, every `_STEP` seconds of a spoken text, each unit and each class of phones meet."""
    stream = tokenizer.encode(Audio(str(spoken_file(text, voice, 160))))
    marks = phones(text, voice)
    classes = torch.tensor([PHONE_CLASSES.index(phone_class(mark.name)) for mark in marks])
    last = min(marks[-1].end, float(stream.ends[-1]))
    times = torch.arange(marks[0].start, last - _STEP, _STEP, dtype=torch.double)
    units = stream.ids[torch.searchsorted(stream.ends.double(), times, right=True)]
    ends = torch.tensor([mark.end for mark in marks], dtype=torch.double)
    pairs = units * len(PHONE_CLASSES) + classes[torch.searchsorted(ends, times, right=True)]
    counts = torch.bincount(pairs, minlength=tokenizer.vocab_size * len(PHONE_CLASSES))
    return counts.view(-1, len(PHONE_CLASSES)).float()
