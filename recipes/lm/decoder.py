"""Read a stream token by token with a trained model, with the memory and segments of training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ...memory.bank import Memory
from ...memory.bank import State as MemoryState
from ...memory.policy import ForwardStats
from ...memory.scorer import ScorerModel, signals_of
from ...memory.slots import SlotBuffer, Slots, accrue_decay, concatenate
from ...models.learned_policy import bind
from ...models.transformer_config import LONGEST_SHIFT
from .language_model import LanguageModel
from .strategies import Strategy

Remember = Literal["hidden", "keys_values"]


@dataclass(frozen=True)
class DecoderState:
    """The state between tokens: the memory, the segment in progress (not yet scored) and the scorer's state."""

    memory: MemoryState
    seen: SlotBuffer
    """The slots that the next token attends to: those of the memory, then those of the segment."""
    usage: Float[Tensor, "batch segment"]
    """Attention that the slots of the segment have received, for policies that use it."""
    scorer: Any
    position: int
    previous: Int[Tensor, "batch before"]
    """The tokens read last, the oldest first; -1 before the start."""
    log_gates: Float[Tensor, "batch segment layers heads"] | None = None
    """The logarithms of the forget gates of the segment; None while it is empty, and in models without gates."""

    @property
    def segment(self) -> Slots:
        """The slots of the segment in progress."""
        return replace(self.seen.slots.tail(self.usage.shape[1]), usage=self.usage)

    def read(self) -> Slots:
        """The slots that the next token attends to, with the decay that the tokens of the segment add."""
        decay = self.memory.decay
        if self.log_gates is not None:
            decay = accrue_decay(decay, self.log_gates)
        return replace(self.seen.slots, decay=decay)


@dataclass(frozen=True)
class Reader:
    """Reads a stream with a bounded memory: it keeps at most ``memory.capacity`` slots and one segment.

    As in training, all tokens of the segment in progress are visible; when it is full, it is written to the memory,
    which evicts. Reading token by token therefore gives the same result as reading complete segments.
    """

    model: LanguageModel
    scorer: ScorerModel
    segment: int
    strategy: Strategy
    memory: Memory
    remember: Remember

    def start(self, batch_size: int = 1) -> DecoderState:
        """The initial state for ``batch_size`` streams."""
        payload = self.model.transformer.empty_payload(batch_size, self.remember)
        empty = self.memory.empty(payload, signals_of(self.scorer))
        previous = torch.full((batch_size, LONGEST_SHIFT), -1, device=empty.slots.valid.device)
        seen = SlotBuffer.from_slots(empty.slots, self.segment)
        return DecoderState(empty, seen, empty.slots.usage, self.scorer.initial_state(batch_size), 0, previous)

    @torch.no_grad()
    def read(
        self, ids: Int[Tensor, "batch time"], state: DecoderState
    ) -> tuple[Float[Tensor, "batch vocab"], DecoderState]:
        """Read ``ids`` (at least one token); returns the logits of the next token and the new state."""
        logits = None
        while ids.shape[1]:
            room = self.segment - state.usage.shape[1]
            logits, state = self._extend(ids[:, :room], state)
            ids = ids[:, room:]
        assert logits is not None, "read needs at least one token"
        return logits, state

    def _extend(
        self, tokens: Int[Tensor, "batch time"], state: DecoderState
    ) -> tuple[Float[Tensor, "batch vocab"], DecoderState]:
        """Read tokens that fit into the segment in progress."""
        batch, count = tokens.shape
        positions = (state.position + torch.arange(count, device=tokens.device)).expand(batch, count)
        output = self.model.transformer(
            tokens,
            positions,
            state.read(),
            previous=state.previous,
            remember=self.remember,
            need=self.memory.requires,
        )
        log_gates = output.log_gates
        if log_gates is not None and state.log_gates is not None:
            log_gates = torch.cat([state.log_gates, log_gates], dim=1)
        # Scores are computed when the segment is written to the memory: until then nothing reads them.
        after = replace(
            state,
            seen=state.seen.append(output.payload, tokens, positions),
            usage=F.pad(state.usage, (0, count)),
            position=state.position + count,
            previous=torch.cat([state.previous, tokens], dim=1)[:, -LONGEST_SHIFT:],
            log_gates=log_gates,
        )
        if self.memory.observes:
            valid = torch.ones_like(tokens, dtype=torch.bool)
            after = self._observe(after, ForwardStats(positions, valid, output.weights, output.norms))
        elif output.usage is not None:
            after = replace(after, memory=after.memory.add_attention(output.usage[:, : -state.usage.shape[1] or None]))
        return output.logits[:, -1], self._write_full_segment(after)

    def _observe(self, state: DecoderState, stats: ForwardStats) -> DecoderState:
        """Pass the statistics of the newest tokens' forward pass to the policy."""
        memory, count = state.memory, state.memory.slots.count
        slots = concatenate(replace(memory.slots, decay=None), state.segment)  # policies observe usage alone
        noted = self.memory.observe(replace(memory, slots=slots), stats)
        usage = noted.slots.usage
        memory = replace(memory, slots=replace(memory.slots, usage=usage[:, :count]), pooled=noted.pooled)
        return replace(state, memory=memory, usage=usage[:, count:])

    def _write_full_segment(self, state: DecoderState) -> DecoderState:
        """Write the segment to the memory once it is full."""
        if state.usage.shape[1] < self.segment:
            return state
        segment = state.segment
        scores, scorer = self.scorer.score(segment.tokens, state.scorer)
        compressor = self.model.compressor(self.strategy)
        written = self.memory.write(
            state.memory,
            segment.payload,
            segment.tokens,
            segment.positions,
            scores,
            segment.valid,
            compressor,
            usage=segment.usage,
            log_gates=state.log_gates,
        )
        seen = SlotBuffer.from_slots(replace(written.state.read(), decay=None), self.segment)
        usage = segment.usage[:, :0]
        return replace(state, memory=written.state, seen=seen, usage=usage, scorer=scorer, log_gates=None)


def make_reader(
    model: LanguageModel,
    scorer: ScorerModel,
    segment: int,
    strategy: Strategy,
    memory: Memory,
    remember: Remember | None = None,
) -> Reader:
    """Build a reader. By default it caches keys and values, or hidden states if the compression was trained on them.

    Args:
        model: the language model.
        scorer: scores the tokens for the policy.
        segment: tokens of a segment, as in training.
        strategy: the strategy of ``memory``, one of those the model was trained with.
        memory: what is kept.
        remember: what the slots contain; None chooses as described.

    Returns:
        A reader of segments of ``segment`` tokens with this memory.
    """
    if remember is None:
        remember = "hidden" if memory.compression.compressed_capacity(memory.capacity) else "keys_values"
    return Reader(model, scorer, segment, strategy, bind(memory, model.transformer), remember)
