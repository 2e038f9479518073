"""Read a text once and in full, reduce its slots in many ways, and ask each the same question.

Nothing is evicted before the text has been read, so its keys and values are the same for all. What policies and presses
need of the pass is recorded on the way; then each chooses what it keeps, and all answer as rows of a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache
from vqmem.benchmarks.kv._argument import passed
from vqmem.benchmarks.kv._presses import BY_SHARE, CallThrough, best, make, prepare, recent, score, take
from vqmem.memory.bank import Memory
from vqmem.memory.huggingface.arguments import require_match, resolve
from vqmem.memory.huggingface.attention import AttentionRecorder, RecordingMask, mask_of
from vqmem.memory.huggingface.groups import Groups
from vqmem.memory.huggingface.hooks import attach
from vqmem.memory.huggingface.hooks import score as score_tokens
from vqmem.memory.policy import ForwardStats, Guard
from vqmem.memory.scorer import signals_of

QUERIES = 64
"""Newest tokens whose attention is recorded: enough for `tova` and `snapkv`, not for `h2o`."""
Kept = Sequence[Int[Tensor, "heads slots"]]
"""The slots that stay, layer by layer."""


class FullTextCache(DynamicCache):
    """The keys and values of a text, with the attention and key norms of the pass that computed them.

    ``kept`` has the slots that each press keeps, one tensor ``[heads, slots]`` per layer, by name of the press and
    count.

    Args:
        model: the pretrained language model; it reads the text once, when the cache is made.
        ids: the text.
        presses: names of kvpress's presses; see `make`.
        counts: numbers of slots that each press keeps per head.
        sinks: the number of first tokens that are always kept.
    """

    layers: Any

    @torch.no_grad()
    def __init__(
        self, model: Any, ids: Int[Tensor, "1 time"], presses: Sequence[str], counts: Sequence[int], sinks: int
    ) -> None:
        super().__init__()
        self.ids, self.sinks = ids, sinks
        self.presses = {name: make(name, streaming=False) for name in presses}
        self.kept: dict[tuple[str, int], list[Tensor]] = {(name, count): [] for name in presses for count in counts}
        self.norms = torch.zeros(ids.shape)
        self.weights = torch.zeros(())
        text = model.config.get_text_config(decoder=True)
        groups = Groups("model", tuple(range(text.num_hidden_layers)), text.num_key_value_heads)
        self.recorder = AttentionRecorder(QUERIES, groups, self._add_weights)
        self.implementation, self.dtype = model.config._attn_implementation, model.dtype
        detach = attach(model, self, prepare(model, self.presses.values()))
        model(ids, **passed(self), logits_to_keep=1)
        detach()

    def begin(self, named: dict[str, Any]) -> CallThrough:
        """Called before the pass."""
        valid = torch.ones_like(self.ids, dtype=torch.bool)
        mask = mask_of(valid[:, :0], valid, self.implementation, self.dtype)
        named["attention_mask"] = RecordingMask.of(mask, self.recorder)
        return CallThrough(self)

    def score_layer(self, layer: Any, inputs: dict[str, Any], attention: Tensor | None) -> None:
        """Called after each attention module."""
        cached = self.layers[layer.layer_idx]
        self.norms += cached.keys.float().norm(dim=-1).mean(dim=1)
        scores: dict[str, Tensor] = {}
        for (name, capacity), kept in self.kept.items():
            if name in BY_SHARE or name not in scores:
                scores[name] = score(self.presses[name], layer, inputs, cached, None, capacity, 0)
            kept.append(best(scores[name], capacity, self.sinks)[0])

    def finish(self) -> None:
        """Called after the pass."""
        self.norms /= len(self.layers)
        self.weights /= len(self.layers)

    def _add_weights(self, weights: Float[Tensor, "1 1 queries slots"]) -> None:
        self.weights = self.weights + weights[:, 0]

    def fail(self) -> None:
        """Called where the pass did not end: there is nothing to read then."""

    def by_policy(self, policy: Any, scorer: Any, capacity: int) -> list[Tensor]:
        """What `vqmem.VQMemCache` of this capacity keeps of the text, by layer."""
        memory = Memory(capacity, resolve(policy, scorer), guard=Guard(self.sinks, recent(capacity, self.sinks)))
        require_match(memory.policy, scorer)
        valid = torch.ones_like(self.ids, dtype=torch.bool)
        positions = torch.arange(self.ids.shape[1])[None]
        initial = None if scorer is None else scorer.initial_state(1)
        scores, _ = score_tokens(scorer, self.ids, valid, initial)
        empty = memory.empty((positions,), signals_of(scorer))
        state = memory.append(empty, (positions,), self.ids, positions, scores, valid)
        if memory.observes:
            queries = getattr(memory.policy, "queries", None) or QUERIES
            state = memory.observe(state, ForwardStats(positions, valid, self.weights[:, -queries:], self.norms))
        kept = memory.evict_to_capacity(state, positions[:, -1] + 1).state.slots.payload[0]
        return [kept.expand(layer.keys.shape[1], -1) for layer in self.layers]

    def cut(self, rows: Sequence[Kept]) -> DynamicCache:
        """A cache with a row for each choice of slots, all of one size."""
        cache = DynamicCache()
        for number, layer in enumerate(self.layers):
            kept = torch.stack([row[number] for row in rows])
            keys, values = (take(x.expand(len(rows), -1, -1, -1), kept) for x in (layer.keys, layer.values))
            cache.update(keys, values, number)
        return cache


@torch.no_grad()
def answer(
    model: Any,
    cache: Any,
    question: Int[Tensor, "1 time"],
    start: int,
    rows: int,
    most: int,
    over: Callable[[list[int]], bool],
    shrink: bool = True,
) -> list[list[int]]:
    """Decode an answer greedily in each row of a cache.

    Args:
        model: the pretrained language model.
        cache: its cache after the text, with a row for each choice of slots.
        question: the tokens that every row reads first.
        start: the position of the question's first token.
        rows: the number of rows of the cache.
        most: maximum tokens of an answer.
        over: whether an answer that begins with these tokens may stop.
        shrink: whether rows that stopped leave the batch once they are half of it.

    Returns:
        The tokens of each row's answer.
    """
    new, said, asked = question.expand(rows, -1), [[] for _ in range(rows)], list(range(rows))
    for _ in range(most):
        positions = torch.arange(start, start + new.shape[1]).expand(len(asked), -1)
        logits = model(new, **passed(cache), position_ids=positions, logits_to_keep=1).logits
        start, new = start + new.shape[1], logits[:, -1:].argmax(-1)
        for row, token in zip(asked, new[:, 0].tolist(), strict=True):
            if not over(said[row]):
                said[row].append(token)
        left = [place for place, row in enumerate(asked) if not over(said[row])]
        if not left:
            break
        if shrink and 2 * len(left) <= len(asked):
            cache.batch_select_indices(torch.tensor(left))
            asked, new = [asked[place] for place in left], new[left]
    return said


def hopeless(tokenizer: Any, value: str, most: int) -> Callable[[list[int]], bool]:
    """Whether an answer of so many tokens at most is already right or can no longer become so, judged by its beginning.

    It cannot where fewer tokens are left than the tokenizer makes of what is missing, give or take one.
    """
    missing = [len(tokenizer(value[n:], add_special_tokens=False).input_ids) - 1 for n in range(len(value) + 1)]

    def over(said: list[int]) -> bool:
        text = tokenizer.decode(said) if said else ""
        if value in text or (said and said[-1] == tokenizer.eos_token_id):
            return True
        begun = next(n for n in range(len(value), -1, -1) if text.endswith(value[:n]))
        return len(said) + missing[begun] > most

    return over


def zipped(model: Any, reading: FullTextCache, shares: Sequence[float]) -> list[list[tuple[Tensor, ...]]]:
    """What kvpress's KVzip hides from each layer for each share kept, in attention's form: rows, heads, slots.

    It reads the text again, and then chooses among all slots of all layers and heads at once; it has no guards but its
    sinks. Its tokenizer is that of ``model.config.name_or_path``.
    """
    from kvpress import KVzipPress

    logging.getLogger("kvpress").setLevel(logging.ERROR)  # it warns of its cost every time
    hidden: list[list[tuple[Tensor, ...]]] = []

    class Shared(KVzipPress):
        def compress_post(self, model: Any) -> None:
            for share in shares:
                self.compression_ratio = 1 - share
                super().compress_post(model)
                hidden.append([layer.self_attn.masked_key_indices for layer in model.model.layers])

    press = Shared(0.5)
    with torch.no_grad(), press(model):
        press._context_ids, press._cache = reading.ids, reading  # as if the text had been read here
    _hide(model, [None] * len(reading.layers))
    return hidden


def answer_hidden(
    model: Any, reading: FullTextCache, hidden: Sequence[Sequence[tuple[Tensor, ...]]], question: Tensor, **how: Any
) -> list[list[int]]:
    """Decode answers with `answer`: in one row with all slots, and in one more for each choice of hidden slots.

    Args:
        model: the pretrained language model.
        reading: the text that it has read.
        hidden: for each further row the slots of each layer that attention must not see, as `zipped` returns them.
        question: the tokens that every row reads first, ``[1, time]``.
        **how: ``most`` and ``over`` of `answer`.

    Returns:
        The tokens of each row's answer; the first row sees all slots.
    """
    batch = 1 + len(hidden)
    every = [torch.arange(reading.ids.shape[1]).expand(layer.keys.shape[1], -1) for layer in reading.layers]
    if hidden:
        shifted = [
            [(rows + row, heads, slots) for row, (rows, heads, slots) in enumerate(layer, 1)]
            for layer in zip(*hidden, strict=True)
        ]
        _hide(model, [tuple(torch.cat(part) for part in zip(*layer, strict=True)) for layer in shifted])
    try:
        return answer(model, reading.cut([every] * batch), question, reading.ids.shape[1], batch, shrink=False, **how)
    finally:
        _hide(model, [None] * len(reading.layers))


def _hide(model: Any, by_layer: Sequence[tuple[Tensor, ...] | None]) -> None:
    """Set which slots kvpress's attention does not see."""
    for layer, indices in zip(model.get_decoder().layers, by_layer, strict=True):
        layer.self_attn.masked_key_indices = indices
