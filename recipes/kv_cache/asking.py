"""Ask several settings one quiz: its text is read once for those that evict at its end, and they answer together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch

from ...memory.huggingface.cache_argument import cache_argument
from .answers import KeptSlots, answer, answer_together, kept_slots, prompt, stop_rule
from .caches import Caches
from .kvzip import Hidden, hiding, take_hidden_slots, zip_text
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
            elif setting.press == KVZIP:
                full, hidden = seeded(lambda: zip_text(self.model, self.tokenizer, self.reading, shares))
                found[setting.name] = [self._answer(copy.deepcopy(full), one) for one in hidden]
        others = [setting for setting in settings if setting.name not in found]
        for share in shares:
            for name, tokens in self._answers_after_eviction(others, share).items():
                found.setdefault(name, []).append(tokens)
        return found

    def _answers_after_eviction(self, settings: Sequence[Setting], share: float) -> dict[str, list[int]]:
        """The answers of settings that evict, after a share of the text was kept."""
        found, together = {}, {}
        for setting in settings:
            cache = seeded(lambda setting=setting: self._read(setting, share))
            hidden = take_hidden_slots(self.model) if setting.press else None
            slots = kept_slots(cache)
            if hidden is None and slots is not None:
                together[setting.name] = slots
            else:
                found[setting.name] = self._answer(cache, hidden)
        return found | self._answer_together(together)

    def _read(self, setting: Setting, share: float) -> Any:
        """A cache of a setting after the text, and after eviction."""
        size, room = self.reading.ids.shape[1], self.question.shape[1] + self.most + 1
        count = round(share * size)
        if count + room > size:
            raise ValueError(
                f"a text of {size} tokens is too short for a share of {share}: {room} more come with the question; "
                "give longer texts or smaller shares"
            )
        cache = self.caches.make(setting, count, block=room, streaming=False)
        if self.reading.serves(cache):
            self.reading.fill(cache)
        else:
            self.model(self.reading.ids, **cache_argument(cache), logits_to_keep=1)
        return cache

    def _answer(self, cache: Any, hidden: Hidden | None = None) -> list[int]:
        """The answer of one cache, of which attention does not see what is ``hidden``."""
        with hiding(self.model, hidden):
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
