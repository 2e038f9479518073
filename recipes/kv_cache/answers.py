"""Ask for something in a text, most of which was evicted before the question comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from ...memory.huggingface.cache import VQMemCache
from ...memory.huggingface.cache_argument import cache_argument
from ...memory.huggingface.layer import VQMemLayer
from .hidden import Hidden, hiding, join_hidden
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


@dataclass(frozen=True)
class KeptSlots:
    """The keys and values that each layer of a cache kept of a text, which can be stacked with those of others."""

    layers: tuple[tuple[Tensor, Tensor], ...]
    hidden: Hidden | None = None
    """The slots that attention must not see; None where it sees all."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The slots of each layer."""
        return tuple(keys.shape[2] for keys, _ in self.layers)


def kept_slots(cache: Any, hidden: Hidden | None = None) -> KeptSlots | None:
    """The slots of a cache; None where an answer needs the cache itself, which stores or places new tokens its way."""
    if isinstance(cache, VQMemCache) and cache.rotation is not None:
        return None
    if not all(map(_is_plain, cache.layers)) or len({layer.keys.shape[2] for layer in cache.layers}) > 1:
        return None  # windows and recurrent states; and a batch has one mask for all layers
    return KeptSlots(tuple((layer.keys.clone(), layer.values.clone()) for layer in cache.layers), hidden)


def _is_plain(layer: Any) -> bool:
    """Whether all that a layer of a cache holds is the keys and values of slots, in full precision."""
    return layer.storage == "full" if isinstance(layer, VQMemLayer) else type(layer) is DynamicLayer


@torch.no_grad()
def answer_together(
    model: Any,
    kept: Sequence[KeptSlots],
    question: Int[Tensor, "1 time"],
    *,
    start: int,
    most: int,
    is_over: Callable[[list[int]], bool],
) -> list[list[int]]:
    """Decode an answer greedily for each of several caches, in one batch.

    Args:
        model: the pretrained language model.
        kept: what each cache kept of the text: as many slots as the others.
        question: the tokens to read first.
        start: the position of the first of them.
        most: maximum tokens of an answer.
        is_over: whether an answer that begins with these tokens may stop.

    Returns:
        The tokens of each answer.
    """
    cache = DynamicCache()
    for index, layers in enumerate(zip(*(one.layers for one in kept), strict=True)):
        cache.update(torch.cat([keys for keys, _ in layers]), torch.cat([values for _, values in layers]), index)
    answers: list[list[int]] = [[] for _ in kept]
    unfinished = list(range(len(kept)))
    new = question.expand(len(kept), -1)
    while True:
        positions = torch.arange(start, start + new.shape[1], device=new.device).expand_as(new)
        with hiding(model, join_hidden([kept[row].hidden for row in unfinished])):
            output = model(new, **cache_argument(cache), position_ids=positions, logits_to_keep=1)
        found = output.logits[:, -1].argmax(-1)
        start += new.shape[1]
        for row, token in zip(unfinished, found.tolist(), strict=True):
            answers[row].append(token)
        goes_on = [len(answers[row]) < most and not is_over(answers[row]) for row in unfinished]
        if not any(goes_on):
            return answers
        if not all(goes_on):
            chosen = torch.tensor(goes_on, device=new.device).nonzero()[:, 0]
            cache.batch_select_indices(chosen)
            found = found[chosen]
            unfinished = [row for row, more in zip(unfinished, goes_on, strict=True) if more]
        new = found[:, None]


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
