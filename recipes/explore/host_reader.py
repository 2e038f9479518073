"""A pretrained model of `transformers` reads the passage: what its cache keeps, what that costs, what comes next."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from ...console import one_line
from ...default_scorer import load_default_scorer
from ...memory.bank import Memory
from ...memory.huggingface.cache import VQMemCache
from ...memory.huggingface.cache_argument import cache_argument
from ...memory.huggingface.presets import AUTO, preset_of
from ...memory.policy import Policy
from ...memory.scorer import policy_of, signals_of
from ...models.device import resolve_device
from ...registry import build
from ..engine.config import resolve_dtype
from ..engine.progress import Bar
from ..kv_cache.host import Host, load_host
from ..lm.text_scorer import Scoring
from .passage import Passage, read_passage
from .readers import CHARACTERS_TO_READ, Pins, Reader, Reading, policies, rows_of

SHARED: dict[str, Any] = {"share": "model", "block": 1}
"""Options of the caches: all heads keep the same tokens, which are evicted one by one."""


@dataclass(frozen=True)
class HostReader(Reader):
    """A pretrained model with a bounded cache. All heads keep the same tokens.

    The token that begins a text is read first. It always stays, and takes no slot.
    """

    host: Host

    characters: ClassVar[int] = CHARACTERS_TO_READ
    is_model: ClassVar[bool] = True
    capacities: ClassVar[tuple[int, ...]] = (64, 256, 1024)
    tried: ClassVar[int] = 8
    new: ClassVar[int] = 48
    hears: ClassVar[bool] = False

    @classmethod
    def load(cls, path: Path) -> HostReader:
        """Load a folder or a GGUF file. Raises `ValueError` in one line where there is no model."""
        device = resolve_device()
        return cls(load_host(str(path), device, resolve_dtype("auto", device)))

    @property
    def signals(self) -> tuple[str, ...]:
        """Those of the packaged scorer, which serves every tokenizer."""
        return signals_of(self._scoring.scorer)

    @property
    def usual(self) -> tuple[str, ...]:
        """The newest tokens as the baseline, the score alone, and the default of the cache."""
        return "fifo", "reuse", AUTO

    @property
    def segment(self) -> int:
        """Tokens that are read at once."""
        return 64

    def text(self, text: str, name: str) -> Passage:
        """Score a text. Raises `ValueError` also for more tokens than the model has positions."""
        passage = read_passage(text, name, self._scoring, self.characters)
        positions = getattr(self.host.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        most = math.inf if positions is None else positions - self.new - 1
        if len(passage.ids) > most:
            count = f"{len(passage.ids):,} tokens"
            raise ValueError(f"{one_line(name)} has {count}, and the model reads at most {most:,}; give less text")
        return passage

    def clip(self, file: Path, name: str) -> Passage:
        """Raises `ValueError`: the model reads text."""
        raise ValueError(f"{name} is a recording, and the model reads text; give a text")

    def policies(self, signals: Collection[str]) -> dict[str, Policy]:
        """Those that need scores, attention or norms, and what `VQMemCache` takes by default for many passes."""
        of_host = {"reuse": build("policies", policy_of(self._scoring.scorer)), AUTO: self._auto}
        return policies(signals, {"scores", "usage", "norms"}) | of_host

    @torch.no_grad()
    def read(self, passage: Passage, memory: Memory, new: int = 0) -> Reading:
        """Read it. The last token is only predicted, or the first with which the model goes on."""
        cache = self._cache(memory)
        try:
            return self._read(cache, self._input(passage.ids), rows_of(memory), new)
        finally:
            cache.close()

    def _read(self, cache: VQMemCache, ids: Int[Tensor, " time"], rows: int, new: int) -> Reading:
        kept, losses = [], []
        with Bar("reading", len(ids) - 1, transient=True) as bar:
            first = self.segment + 1  # the token that begins a text is read with the first segment
            for part in torch.arange(len(ids) - 1).tensor_split(tuple(range(first, len(ids) - 1, self.segment))):
                logits = self._logits(ids[part].expand(rows, -1), cache)
                losses.append(F.cross_entropy(logits.mT, ids[part + 1].expand(rows, -1), reduction="none").cpu())
                kept.append([position - 1 for position in cast(list[list[int]], cache.positions)[0] if position])
                bar.advance(len(part))
        following = self._go_on(cache, ids[-1:], new) if new else ()
        return Reading(kept, torch.cat(losses, 1)[:, 1:], following)

    def decode(self, ids: list[int]) -> str:
        """The text of tokens."""
        return self.host.tokenizer.decode(ids)

    def _go_on(self, cache: VQMemCache, last: Int[Tensor, " 1"], new: int) -> tuple[int, ...]:
        """The most likely tokens after ``last``, until the text ends."""
        found: list[int] = []
        ends = self.host.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        while len(found) < new and (not found or found[-1] not in ends):
            last = self._logits(last[None], cache)[0, -1:].argmax(-1)
            found.append(int(last))
        return tuple(found)

    def _logits(self, ids: Int[Tensor, "rows new"], cache: VQMemCache) -> Tensor:
        return self.host.model(ids, **cache_argument(cache)).logits.float()

    def _input(self, ids: Int[Tensor, " time"]) -> Int[Tensor, " more"]:
        return torch.cat([ids.new_tensor([self.host.separator]), ids]).to(self.host.device)

    def _cache(self, memory: Memory) -> VQMemCache:
        guard = memory.guard
        cache = VQMemCache(
            self.host.model,
            capacity=memory.capacity + 1,
            policy=memory.policy,
            scorer=self._scoring.scorer if "scores" in memory.policy.requires else None,
            sinks=guard.sinks + 1,
            recent=guard.recent,
            **SHARED,
        )
        if isinstance(guard, Pins):
            pins = Pins(guard.sinks + 1, guard.recent, tuple(position + 1 for position in guard.positions))
            cache.memory = replace(cache.memory, guard=pins)
        return cache

    @cached_property
    def _auto(self) -> Policy:
        """The preset, without the signals that a cache cannot find in this model, and so leaves out."""
        preset = preset_of(AUTO, self.host.model)
        assert preset is not None
        usual = replace(preset, prompt=None)
        cache = VQMemCache(self.host.model, capacity=64, policy=usual, scorer=self._scoring.scorer, **SHARED)
        cache.close()
        return cache.memory.policy

    @cached_property
    def _scoring(self) -> Scoring:
        tokenizer = self.host.tokenizer
        scorer = load_default_scorer(tokenizer.wrapped, self.host.device, self.host.vocab_size)
        return Scoring(tokenizer, scorer, self.host.device)
