"""Read a stream token by token with a trained model: memory and segments exactly as in training."""

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
from ...memory.scorer import ScorerModel
from ...memory.slots import SlotBuffer, Slots, concatenate
from .language_model import LanguageModel, Strategy

Remember = Literal["hidden", "keys_values"]


@dataclass(frozen=True)
class Reading:
    """What is carried from token to token: memory, the segment in progress (no scores yet), and the scorer's state."""

    memory: MemoryState
    seen: SlotBuffer
    """What the next token can see: the slots of memory, then those of the segment."""
    usage: Float[Tensor, "batch segment"]
    """Of the segment's slots, for the policies that take note of what is attended to."""
    scorer: Any
    position: int
    last: Int[Tensor, " batch"]
    """The token before, -1 at the start."""

    @property
    def segment(self) -> Slots:
        """Its slots so far."""
        return replace(self.seen.slots.tail(self.usage.shape[1]), usage=self.usage)


@dataclass(frozen=True)
class Reader:
    """Reads a stream with a bounded memory: at most ``memory.capacity`` slots and one segment are held.

    As in training, the tokens of the segment in progress are all visible; when it is full, the memory takes it in and
    evicts. Reading token by token therefore gives what reading whole segments gives.
    """

    model: LanguageModel
    scorer: ScorerModel
    segment: int
    strategy: Strategy
    memory: Memory
    remember: Remember

    def start(self, rows: int = 1) -> Reading:
        """Nothing read yet of so many streams that are read side by side."""
        empty = self.memory.empty(self.model.transformer.empty_payload(rows, self.remember))
        last = torch.full((rows,), -1, device=empty.slots.valid.device)
        seen = SlotBuffer.from_slots(empty.slots, self.segment)
        return Reading(empty, seen, empty.slots.usage, self.scorer.initial_state(rows), 0, last)

    @torch.no_grad()
    def read(self, ids: Int[Tensor, "batch time"], reading: Reading) -> tuple[Float[Tensor, "batch vocab"], Reading]:
        """Logits of the token after ``ids`` (at least one token a row), and the reading after them."""
        logits = None
        while ids.shape[1]:
            room = self.segment - reading.usage.shape[1]
            logits, reading = self._extend(ids[:, :room], reading)
            ids = ids[:, room:]
        assert logits is not None, "read needs at least one token"
        return logits, reading

    def _extend(
        self, tokens: Int[Tensor, "batch time"], reading: Reading
    ) -> tuple[Float[Tensor, "batch vocab"], Reading]:
        """Read tokens that fit the segment in progress."""
        rows, count = tokens.shape
        positions = (reading.position + torch.arange(count, device=tokens.device)).expand(rows, count)
        output = self.model.transformer(
            tokens,
            positions,
            reading.seen.slots,
            previous=reading.last,
            remember=self.remember,
            need=self.memory.requires,
        )
        # Scores and standardised scores are made when the memory takes the segment in: until then nothing reads them.
        after = replace(
            reading,
            seen=reading.seen.append(output.payload, tokens, positions),
            usage=F.pad(reading.usage, (0, count)),
            position=reading.position + count,
            last=tokens[:, -1],
        )
        if self.memory.observes:
            valid = torch.ones_like(tokens, dtype=torch.bool)
            after = self._note(after, ForwardStats(positions, valid, output.weights, output.norms))
        elif output.usage is not None:
            after = replace(
                after, memory=after.memory.add_attention(output.usage[:, : -reading.usage.shape[1] or None])
            )
        return output.logits[:, -1], self._take_in(after)

    def _note(self, reading: Reading, stats: ForwardStats) -> Reading:
        """Show the policy what reading the newest tokens of the segment showed of memory and segment."""
        held, count = reading.memory, reading.memory.slots.count
        noted = self.memory.observe(replace(held, slots=concatenate(held.slots, reading.segment)), stats)
        usage = noted.slots.usage
        held = replace(held, slots=replace(held.slots, usage=usage[:, :count]), pooled=noted.pooled)
        return replace(reading, memory=held, usage=usage[:, count:])

    def _take_in(self, reading: Reading) -> Reading:
        """Write the segment to the memory once it is full."""
        if reading.usage.shape[1] < self.segment:
            return reading
        segment = reading.segment
        scores, scorer = self.scorer.score(segment.tokens, reading.scorer)
        compressor = self.model.compressor(self.strategy)
        written = self.memory.write(
            reading.memory,
            segment.payload,
            segment.tokens,
            segment.positions,
            scores,
            segment.valid,
            compressor,
            usage=segment.usage,
        )
        seen = SlotBuffer.from_slots(written.state.read(), self.segment)
        return replace(reading, memory=written.state, seen=seen, usage=segment.usage[:, :0], scorer=scorer)


def make_reader(
    model: LanguageModel,
    scorer: ScorerModel,
    segment: int,
    strategy: Strategy,
    memory: Memory,
    remember: Remember | None = None,
) -> Reader:
    """A reader that remembers keys and values, which saves making them anew for each token, if nothing else is said.

    Where the compression is one that was trained on hidden states, it remembers those.
    """
    if remember is None:
        remember = "hidden" if memory.compression.compressed_capacity(memory.capacity) else "keys_values"
    return Reader(model, scorer, segment, strategy, memory, remember)
