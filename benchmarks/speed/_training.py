"""A training step of the memory transformer at a given shape, and how sides take turns to be timed."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from vqmem.benchmarks._results import options
from vqmem.memory.bank import Memory
from vqmem.models.memory_transformer import MemoryTransformer, TransformerConfig, reconstruction_loss
from vqmem.recipes.engine.config import autocast


@dataclass(frozen=True)
class Shape:
    """What both sides share: ``segment`` tokens per row and step, ``batch`` rows, feed-forward 4 x ``dim``."""

    dim: int
    layers: int
    heads: int
    batch: int
    segment: int
    vocab_size: int = 4096

    def tokens(self) -> Tensor:
        """A segment with the token after it, at random: speed does not depend on what they say."""
        return torch.randint(self.vocab_size, (self.batch, self.segment + 1))


class Trainer:
    """Forward, backward and AdamW on segment after segment of an endless document, as `vqmem.recipes` trains.

    The scorer runs outside of the step: its cost is not measured, its scores are drawn at random. ``dtype`` is the type
    of autocast.
    """

    def __init__(self, shape: Shape, memory: Memory, dtype: torch.dtype = torch.float32) -> None:
        self.shape, self.memory, self.dtype = shape, memory, dtype
        self.model = MemoryTransformer(TransformerConfig(shape.vocab_size, shape.layers, shape.dim, shape.heads))
        self.compressor = memory.compression.build(shape.layers, shape.dim)
        parameters = [*self.model.parameters(), *self.compressor.parameters()]
        self.optimiser = torch.optim.AdamW(parameters, fused=True)
        self.state = memory.empty(self.model.empty_payload(shape.batch), signals=("surprise", "rarity", "gain"))
        self.position = 0
        self.writing = 0.0

    def step(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """One step; leaves in ``writing`` the seconds that `Memory.write` (standardise, select, gather) took of it."""
        with autocast(torch.device("cpu"), self.dtype):
            loss = self._forward(clock)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()

    def _forward(self, clock: Callable[[], float]) -> Tensor:
        """Read a segment and write it to the memory; returns the loss."""
        shape, ids = self.shape, self.shape.tokens()
        inputs, targets = ids[:, :-1], ids[:, 1:]
        positions = (self.position + torch.arange(shape.segment)).expand(shape.batch, -1)
        scores, valid = torch.rand(*inputs.shape, 3) * 8, torch.ones_like(inputs, dtype=torch.bool)
        output = self.model(inputs, positions, self.state.read())
        loss = F.cross_entropy(output.logits.flatten(0, 1), targets.flatten())
        payload = tuple(x.detach() for x in output.payload)
        start = clock()
        written = self.memory.write(self.state, payload, inputs, positions, scores, valid, self.compressor)
        self.writing = clock() - start
        if written.compressed.count and list(self.compressor.parameters()):
            loss = loss + reconstruction_loss(self.model, payload[0], written.evicted, written.compressed)
        self.state = replace(written.state, slots=written.state.slots.detach(), pooled=written.state.pooled.detach())
        self.position += shape.segment
        return loss


def parse(description: str | None) -> tuple[argparse.Namespace, Callable[[], float]]:
    """The flags, with ``--threads`` (set for torch), and the clock that goes with them.

    One thread is timed in its processor seconds, which are its seconds on an idle machine and do not count the turns of
    other programs; several threads can only be timed by the wall clock.
    """
    parser = options(description)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    torch.manual_seed(0)
    return flags, time.process_time if flags.threads == 1 else time.perf_counter


def take_turns(
    sides: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of every side in every round; in a round each side runs once, one after the other."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            start = clock()
            side()
            seconds[name].append(clock() - start)
    return seconds
