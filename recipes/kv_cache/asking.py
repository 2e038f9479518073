"""Ask several settings one quiz: its text is read once for those that evict at its end, and they answer together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from ...memory.huggingface.cache_argument import cache_argument
from .answers import KeptSlots, answer, answer_together, kept_slots, prompt, stop_rule
from .caches import Caches
from .hidden import Hidden, hiding, take_hidden_slots
from .kvzip import zip_text
from .presses import KVZIP, seeded
from .reading import read_text
from .settings import Setting
from .tasks.base import Quiz


class Asking:
    """A quiz that is asked, and its text, which was read once.

    Args:
        caches: makes the caches.
        quiz: the text and the question.
        batch_size: settings that answer in parallel.
    """

    def __init__(self, caches: Caches, quiz: Quiz, batch_size: int = 1) -> None:
        self.caches, self.batch_size, self.most = caches, batch_size, quiz.tokens
        self.model, self.tokenizer = caches.host.model, caches.host.tokenizer.wrapped
        text, self.question = (ids.to(caches.host.device) for ids in prompt(self.tokenizer, quiz))
        self.reading = read_text(self.model, text)
        self.is_over: Callable[[list[int]], bool] = stop_rule(self.tokenizer, quiz.values, quiz.tokens, quiz.any_of)

    @torch.no_grad()
    def answers(self, settings: Sequence[Setting], shares: Sequence[float]) -> dict[str, list[list[int]]]:
        """The tokens of each setting's answers, one for each share of the text that was kept."""
        found: dict[str, list[list[int]]] = {}
        for setting in settings:
            if setting.is_full:
                found[setting.name] = [self._answer(copy.deepcopy(self.reading.full))] * len(shares)
        others = [setting for setting in settings if not setting.is_full]
        zipped = self._zip(shares) if any(setting.press == KVZIP for setting in others) else [None] * len(shares)
        for share, hidden in zip(shares, zipped, strict=True):
            for name, tokens in self._answers_after_eviction(others, share, hidden).items():
                found.setdefault(name, []).append(tokens)
        return found

    def _zip(self, shares: Sequence[float]) -> list[Hidden]:
        """What KVzip hides at each share."""
        return seeded(lambda: zip_text(self.model, self.tokenizer, self.reading, shares))

    def _answers_after_eviction(
        self, settings: Sequence[Setting], share: float, zipped: Hidden | None
    ) -> dict[str, list[int]]:
        """The answers of settings that evict, or hide, all but a share of the text."""
        alone, together = {}, {}
        scores: dict[str, dict[int, Tensor]] = {}
        for setting in settings:
            if setting.press == KVZIP:
                cache, hidden = copy.deepcopy(self.reading.full), zipped
            else:
                more = {} if setting.press is None else {"scores": scores.setdefault(setting.press, {})}
                cache = seeded(lambda setting=setting, more=more: self._read(setting, share, **more))
                hidden = None if setting.press is None else take_hidden_slots(self.model)
            slots = kept_slots(cache, hidden)
            if slots is None:
                with hiding(self.model, hidden):
                    alone[setting.name] = self._answer(cache)
            else:
                together[setting.name] = slots
        return alone | self._answer_together(together)

    def _read(self, setting: Setting, share: float, **options: Any) -> Any:
        """A cache of a setting after the text, and after eviction."""
        size, room = self.reading.ids.shape[1], self.question.shape[1] + self.most + 1
        count = round(share * size)
        if count + room > size:
            raise ValueError(
                f"a text of {size} tokens is too short for a share of {share}: {room} more come with the question; "
                "give longer texts or smaller shares"
            )
        cache = self.caches.make(setting, count, block=room, streaming=False, **options)
        if self.reading.serves(cache):
            self.reading.fill(cache)
        else:
            self.model(self.reading.ids, **cache_argument(cache), logits_to_keep=1)
        return cache

    def _answer(self, cache: Any) -> list[int]:
        """The answer of one cache."""
        return answer(self.model, cache, self.question, most=self.most, is_over=self.is_over)

    def _answer_together(self, kept: Mapping[str, KeptSlots]) -> dict[str, list[int]]:
        """The answers of caches, those with equally many slots in batches."""
        found = {}
        ordered = sorted(kept, key=lambda name: kept[name].shape)
        for _, names in groupby(ordered, key=lambda name: kept[name].shape):
            every = list(names)
            for first in range(0, len(every), self.batch_size):
                batch = every[first : first + self.batch_size]
                answers = answer_together(
                    self.model,
                    [kept[name] for name in batch],
                    self.question,
                    start=self.reading.ids.shape[1],
                    most=self.most,
                    is_over=self.is_over,
                )
                found |= dict(zip(batch, answers, strict=True))
        return found
