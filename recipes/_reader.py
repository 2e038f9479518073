"""Read a stream token by token with a trained model: memory and segments exactly as in training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..memory.bank import Memory
from ..memory.bank import State as MemoryState
from ..memory.policy import Seen
from ..memory.slots import Slots, concatenate
from ..models.scorers.base import ScorerModel
from ._language_model import LanguageModel, Strategy

Remember = Literal["hidden", "keys_values"]


@dataclass(frozen=True)
class Reading:
    """What is carried from token to token: memory, the segment so far, not yet judged by it, and the scorer's state."""

    memory: MemoryState
    segment: Slots
    scorer: Any
    position: int
    last: Int[Tensor, " batch"]
    """The token before, -1 at the start."""


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
        return Reading(empty, empty.slots, self.scorer.initial_state(rows), 0, last)

    @torch.no_grad()
    def read(self, ids: Int[Tensor, "batch time"], reading: Reading) -> tuple[Float[Tensor, "batch vocab"], Reading]:
        """Logits of the token after ``ids`` (at least one token a row), and the reading after them."""
        logits = None
        while ids.shape[1]:
            room = self.segment - reading.segment.count
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
        held = reading.memory
        seen = concatenate(held.read(), reading.segment)
        output = self.model.transformer(
            tokens, positions, seen, previous=reading.last, remember=self.remember, need=self.memory.requires
        )
        if output.usage is not None and not self.memory.observes:
            held = held.use(output.usage[:, : held.read().count])
        # Scores and standardised scores are made when the memory takes the segment in: until then nothing reads them.
        blank = torch.zeros(rows, count, 3, device=tokens.device)
        valid = torch.ones_like(tokens, dtype=torch.bool)
        new = Slots(output.payload, tokens, positions, blank, blank, blank[..., 0], valid)
        position, segment = reading.position + count, concatenate(reading.segment, new)
        if self.memory.observes:
            held, segment = self._note(held, segment, Seen(positions, valid, output.weights, output.norms))
        return output.logits[:, -1], self._take_in(Reading(held, segment, reading.scorer, position, tokens[:, -1]))

    def _note(self, held: MemoryState, segment: Slots, seen: Seen) -> tuple[MemoryState, Slots]:
        """Show the policy what reading the newest tokens of the segment showed of memory and segment."""
        slots = self.memory.observe(replace(held, slots=concatenate(held.slots, segment)), seen)
        count = slots.slots.count - segment.count
        usage = slots.slots.usage.split([count, segment.count], dim=1)
        held = replace(held, slots=replace(held.slots, usage=usage[0]), pooled=slots.pooled)
        return held, replace(segment, usage=usage[1])

    def _take_in(self, reading: Reading) -> Reading:
        """Let the memory judge the segment, once it is full."""
        segment = reading.segment
        if segment.count < self.segment:
            return reading
        scores, scorer = self.scorer.score(segment.tokens, reading.scorer)
        squeezer = self.model.squeezer(self.strategy)
        written = self.memory.write(
            reading.memory,
            segment.payload,
            segment.tokens,
            segment.positions,
            scores,
            segment.valid,
            squeezer,
            usage=segment.usage,
        )
        return replace(reading, memory=written.state, segment=segment.head(0), scorer=scorer)


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
        remember = "hidden" if memory.compression.room(memory.capacity) else "keys_values"
    return Reader(model, scorer, segment, strategy, memory, remember)
