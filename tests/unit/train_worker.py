"""One of the processes of ``test_train_parallel``: ``torchrun train_worker.py FOLDER``. An assertion fails the run."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from test_train import CONFIG, Stream, Toy, same_weights
from torch import Tensor, nn
from vqmem.artifacts import load_weights
from vqmem.models.scorers.base import Loss
from vqmem.recipes._parallel import gather, ranks
from vqmem.recipes._train import TrainConfig, train

RANK, WORLD = ranks()


class Strided(Stream):
    """Every process reads batches of its own."""

    def next(self) -> Tensor:
        self.position += 1
        return torch.arange(4).mul(self.position * WORLD + RANK).remainder(11)


def run(folder: Path, parallel: str, stop_at: int = 0) -> Toy:
    toy = Toy(stop_at=stop_at if RANK == 1 else 0)  # the signal reaches one process, all must stop
    config = replace(CONFIG, parallel=parallel)
    train(toy, Strided(), config, folder, evaluate=lambda: {"dev": float(toy.module.out.weight.sum())}, best_by="dev")
    return toy


def resumes_to_the_bit(folder: Path, parallel: str) -> nn.Module:
    whole = run(folder / "whole", parallel)
    try:
        run(folder / "parts", parallel, stop_at=14)
        raise AssertionError("was not stopped")
    except SystemExit:
        pass
    resumed = run(folder / "parts", parallel)
    assert resumed.steps == 2 * (20 - 7)
    assert same_weights(whole.module, resumed.module)
    assert (folder / "whole/metrics.jsonl").read_bytes() == (folder / "parts/metrics.jsonl").read_bytes()
    weights = gather({name: p.detach() for name, p in whole.module.named_parameters()})
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    load_weights(Toy().module, whole.module.state_dict(), "the trained module")  # an ordinary module again
    return whole.module


class Slope:
    """A loss whose gradient is known: rank + 1 everywhere."""

    def __init__(self) -> None:
        self.module = nn.Linear(2, 1, bias=False)

    def initial_state(self) -> None:
        return None

    def step(self, batch: Tensor, state: None) -> tuple[Loss, None]:
        return Loss((RANK + 1) * self.module.weight.sum(), {"rank": float(RANK)}), None


def averages(folder: Path, parallel: str) -> None:
    config = TrainConfig(steps=1, accumulate=3, device="cpu", tensorboard=False, parallel=parallel)
    figures = train(Slope(), Strided(), config, folder)
    assert abs(figures["gradient_norm"] - 1.5 * 2**0.5) < 1e-5, figures
    assert figures["rank"] == 0.5


def main(folder: Path) -> None:
    modules = []
    for parallel in ("ddp", "fsdp"):
        averages(folder / parallel / "slope", parallel)
        modules.append(resumes_to_the_bit(folder / parallel, parallel))
    for (name, left), right in zip(modules[0].named_parameters(), modules[1].parameters(), strict=True):
        assert name.startswith("unused") or torch.allclose(left, right, atol=1e-6), name


if __name__ == "__main__":
    main(Path(sys.argv[1]))
