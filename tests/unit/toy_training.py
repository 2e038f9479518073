"""A toy task for the tests of the training loop."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from vqmem.models.loss import Loss
from vqmem.recipes.engine.task import TrainConfig
from vqmem.recipes.engine.trainer import seed_all, train

CONFIG = TrainConfig(
    steps=20, lr=1e-2, warmup=3, log_every=4, save_every=11, eval_every=5, device="cpu", tensorboard=False, accumulate=2
)


class Hidden(NamedTuple):
    now: Tensor


@dataclass(frozen=True)
class Memory:
    hidden: Hidden
    filled: Tensor | None
    seen: int


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.cell = nn.GRUCell(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.2)
        self.out = nn.Linear(8, 11)
        self.out.weight = self.embed.weight
        self.unused = nn.Linear(2, 2)


class Toy:
    """A recurrent net whose state, buffers and dropout all matter to the result."""

    def __init__(self, stop_at: int = 0, number: int = signal.SIGTERM, spoil_at: int = 0) -> None:
        seed_all(3)
        self.module = Net()
        self.stop_at, self.number, self.spoil_at, self.steps = stop_at, number, spoil_at, 0

    def initial_state(self) -> Memory:
        return Memory(Hidden(torch.zeros(4, 8)), None, 0)

    def step(self, batch: Tensor, state: Memory) -> tuple[Loss, Memory]:
        self.steps += 1
        if self.stop_at and self.steps == self.stop_at:
            os.kill(os.getpid(), self.number)
        net = self.module
        hidden = net.cell(net.embed(batch), state.hidden.now)
        logits = net.out(net.drop(net.norm(hidden)) + torch.rand(4, 1))
        value = nn.functional.cross_entropy(logits, batch)
        if self.steps == self.spoil_at:
            value = value * float("nan")
        metrics = {"tokens": 4.0, "filled": float(state.filled is not None)}
        return Loss(value, metrics), Memory(Hidden(hidden.detach()), hidden.detach() > 0, state.seen + 4)


class Stream:
    def __init__(self) -> None:
        self.position = 0

    def next(self) -> Tensor:
        self.position += 1
        return torch.arange(4).mul(self.position).remainder(11)

    def state_dict(self) -> dict:
        return {"position": self.position}

    def load_state_dict(self, state: dict) -> None:
        self.position = state["position"]


def run(folder: Path, config: TrainConfig = CONFIG, best_by: str = "", **kinds) -> tuple[Toy, dict[str, float]]:
    toy = Toy(**kinds)
    return toy, train(toy, Stream(), config, folder, evaluate=lambda: {"dev": float(torch.rand(()))}, best_by=best_by)


def same_weights(left: nn.Module, right: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left.state_dict().values(), right.state_dict().values(), strict=True))
