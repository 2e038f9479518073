"""Ask for something in a text, most of which was evicted before the question comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ...memory.huggingface.cache_argument import cache_argument
from .tasks.base import Quiz


@torch.no_grad()
def answer(
    model: Any,
    cache: Any,
    question: Int[Tensor, "1 time"],
    *,
    most: int,
    is_over: Callable[[list[int]], bool],
) -> list[int]:
    """Decode an answer greedily.

    Args:
        model: the pretrained language model.
        cache: its cache after the text.
        question: the tokens to read first.
        most: maximum tokens of an answer.
        is_over: whether an answer that begins with these tokens may stop.

    Returns:
        The tokens of the answer.
    """
    new, tokens = question, []
    while len(tokens) < most and not is_over(tokens):
        new = model(new, **cache_argument(cache), logits_to_keep=1).logits[:, -1:].argmax(-1)
        tokens.append(int(new))
    return tokens


def stop_rule(tokenizer: Any, values: Sequence[str], most: int, any_of: bool = False) -> Callable[[list[int]], bool]:
    """Whether the beginning of an answer already has each value or can no longer get it within ``most`` tokens.

    It cannot where fewer tokens are left than the tokenizer makes of what is missing, give or take one.

    Args:
        tokenizer: that of the model.
        values: the strings that are expected.
        most: maximum tokens of an answer.
        any_of: whether an answer is over as soon as it has one of the values.

    Returns:
        A function of the tokens of the beginning.
    """
    missing = {
        value: [len(tokenizer(value[n:], add_special_tokens=False).input_ids) - 1 for n in range(len(value) + 1)]
        for value in values
    }

    def is_over(tokens: list[int]) -> bool:
        if tokens and tokens[-1] == tokenizer.eos_token_id:
            return True
        text = tokenizer.decode(tokens).lower() if tokens else ""
        found = [value.lower() in text for value in values]
        if any_of and any(found):
            return True
        pairs = zip(values, found, strict=True)
        return all(is_found or len(tokens) + _left(text, value) > most for value, is_found in pairs)

    def _left(text: str, value: str) -> int:
        begun = next(n for n in range(len(value), -1, -1) if text.endswith(value[:n].lower()))
        return missing[value][begun]

    return is_over


def prompt(tokenizer: Any, quiz: Quiz) -> tuple[Int[Tensor, "1 text"], Int[Tensor, "1 question"]]:
    """Token ids of the text and of the question, in the form of the model's chats if it has one."""
    if tokenizer.chat_template is None:
        parts = (quiz.text, quiz.question + quiz.answer)
        return _encode(tokenizer, parts[0], special=True), _encode(tokenizer, parts[1])
    message = [{"role": "user", "content": quiz.text + quiz.question}]
    chat = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True) + quiz.answer
    before, _, after = chat.partition(quiz.question)
    return _encode(tokenizer, before), _encode(tokenizer, quiz.question + after)


def _encode(tokenizer: Any, text: str, special: bool = False) -> Int[Tensor, "1 time"]:
    return tokenizer(text, add_special_tokens=special, return_tensors="pt").input_ids
