"""A needle in a haystack, as RULER makes it, to be found after most of the haystack is gone.

Hsieh et al., RULER (arXiv:2404.06654): its single-needle tasks. A sentence gives a number or a UUID for a key, in the
midst of a repeated phrase or of prose; the question comes at the end, and an answer counts if it contains the value.
Prose is novels here, where RULER takes essays, and keys are of the lists below.
"""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass
from typing import Any

import torch

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
ADJECTIVES = (
    "ancient",
    "brave",
    "careless",
    "distant",
    "eager",
    "faithful",
    "gloomy",
    "hollow",
    "icy",
    "jolly",
    "lively",
)
NOUNS = ("anchor", "basket", "candle", "donkey", "engine", "feather", "garden", "hammer", "island", "jacket", "kettle")
INSTRUCTION = (
    "A special magic {kind} is hidden within the following text. Make sure to memorize it. I will quiz you about the "
    "{kind} afterwards.\n"
)
NEEDLE = "One of the special magic {kind}s for {key} is: {value}."
QUESTION = "\nWhat is the special magic {kind} for {key} mentioned in the provided text?"
ANSWER = " The special magic {kind} for {key} mentioned in the provided text is"
TASKS = {"number in noise": ("number", True), "number in prose": ("number", False), "uuid in prose": ("uuid", False)}
ANSWER_TOKENS = {"number": 16, "uuid": 48}


@dataclass(frozen=True)
class Quiz:
    """What is read before anything is asked, what is then asked, and what the answer must contain."""

    text: str
    question: str
    answer: str
    """How the answer begins."""
    value: str
    tokens: int
    """Most tokens of the answer."""


def quiz(task: str, prose: str, words: int, rng: random.Random) -> Quiz:
    """Make a quiz: a needle at a random place of a haystack.

    Args:
        task: one of `TASKS`.
        prose: the text from which the haystack is cut at a random place; unused by tasks whose haystack is noise.
        words: the approximate length of the haystack.
        rng: draws the needle, its place and the piece of prose.

    Returns:
        The quiz; its answer is the value of the needle.
    """
    kind, noisy = TASKS[task]
    key = f"{rng.choice(ADJECTIVES)}-{rng.choice(NOUNS)}"
    value = str(rng.randint(1_000_000, 9_999_999)) if kind == "number" else str(uuid.UUID(int=rng.getrandbits(128)))
    if noisy:
        sentences, joint = [NOISE] * (words // len(NOISE.split())), "\n"
    else:
        every = prose.split()
        start = rng.randrange(max(1, len(every) - words))
        sentences, joint = [f"{part}." for part in " ".join(every[start : start + words]).split(". ")], " "
    sentences.insert(round(rng.randrange(40) / 39 * len(sentences)), NEEDLE.format(kind=kind, key=key, value=value))
    question, answer = (form.format(kind=kind, key=key) for form in (QUESTION, ANSWER))
    return Quiz(INSTRUCTION.format(kind=kind) + joint.join(sentences), question, answer, value, ANSWER_TOKENS[kind])


def prompt(tokenizer: Any, quiz: Quiz) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids, [1, time], of the text and of the question, in the form of the model's chats."""
    message = [{"role": "user", "content": quiz.text + quiz.question}]
    chat = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True) + quiz.answer
    before, _, after = chat.partition(quiz.question)
    text, question = (
        tokenizer(part, add_special_tokens=False, return_tensors="pt").input_ids
        for part in (before, quiz.question + after)
    )
    return text, question


def words_of(task: str, prose: str, tokenizer: Any, tokens: int) -> int:
    """Convert a number of tokens to a number of words of a haystack.

    Args:
        task: one of `TASKS`; its haystack is noise or prose.
        prose: the text from which haystacks are cut; its first 5,000 words are counted.
        tokenizer: the tokenizer of the language model.
        tokens: the length to convert.

    Returns:
        The approximate number of words.
    """
    sample = " ".join((NOISE if TASKS[task][1] else prose).split()[:5000])
    return round(tokens * len(sample.split()) / len(tokenizer(sample, add_special_tokens=False).input_ids))
