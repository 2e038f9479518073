"""One of the processes of ``test_train_parallel``: ``torchrun train_worker.py FOLDER``. An assertion fails the run."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from vqmem.artifacts import load_model, load_weights, save_model
from vqmem.models.loss import Loss
from vqmem.models.quantiser import Quantiser, QuantiserConfig
from vqmem.models.reduce import joint_step
from vqmem.models.unigram import Unigram
from vqmem.models.vq_lm import VQLM, VQLMConfig
from vqmem.recipes.engine.distributed import (
    ProcessFailedError,
    gather,
    main_process_first,
    on_main_process,
    ranks,
    start_processes,
)
from vqmem.recipes.engine.task import TrainConfig
from vqmem.recipes.engine.trainer import seed_all, train
from vqmem.recipes.lm.corpus import SegmentBatch
from vqmem.recipes.lm.scorer_task import ScorerTask
from vqmem.tests.unit.toy_training import CONFIG, Stream, Toy, same_weights

RANK, WORLD = ranks()


class Strided(Stream):
    """Every process reads different batches."""

    def next(self) -> Tensor:
        self.position += 1
        return torch.arange(4).mul(self.position * WORLD + RANK).remainder(11)


def run(folder: Path, parallel: str, stop_at: int = 0) -> Toy:
    toy = Toy(stop_at=stop_at if RANK == 1 else 0)  # the signal reaches one process, all must stop
    config = replace(CONFIG, parallel=parallel)
    train(toy, Strided(), config, folder, evaluate=lambda: {"dev": float(toy.module.out.weight.sum())}, best_by="dev")
    return toy


def resumes_to_the_bit(folder: Path, parallel: str) -> nn.Module:
    unbroken = run(folder / "unbroken", parallel)
    try:
        run(folder / "parts", parallel, stop_at=14)
        raise AssertionError("was not stopped")
    except SystemExit:
        pass
    resumed = run(folder / "parts", parallel)
    assert resumed.steps == 2 * (20 - 7)
    assert same_weights(unbroken.module, resumed.module)
    assert (folder / "unbroken/metrics.jsonl").read_bytes() == (folder / "parts/metrics.jsonl").read_bytes()
    weights = gather(unbroken.module.state_dict())  # buffers too: running statistics are those of the first
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    load_weights(Toy().module, unbroken.module.state_dict(), "the trained module")  # an ordinary module again
    return unbroken.module


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


def first_alone() -> None:
    """What the first process does alone, also within such work; and its failures end the others."""
    seen = []

    @on_main_process
    def work(fails: bool = False) -> str:
        seen.append(RANK)
        with main_process_first():
            assert on_main_process(lambda: "within")() == "within"
        if fails:
            raise ValueError("of the first")
        return "made"

    assert work() == "made"
    assert seen == [0] * (RANK == 0)
    for attempt in (lambda: work(True), first_fails):
        kind, message = (ProcessFailedError, "ValueError: of the first") if RANK else (ValueError, "^of the first$")
        with pytest.raises(kind, match=message):
            attempt()
    order = []
    with main_process_first():
        order.append(RANK)
    assert order == [RANK]  # they are in step again


def first_fails() -> None:
    with main_process_first():
        raise ValueError("of the first")


def quantisers(folder: Path) -> None:
    """One process alone builds, trains, saves and loads them; in training together codebooks and counts are sums."""
    for kind in ("vq", "residual", "product", "fsq"):
        seed_all(0)
        if RANK == 0:  # the other does nothing that it could wait for
            alone = VQLM(VQLMConfig(11, dim=4, hidden=4, quantiser=kind, codes=3))
            alone.training_step(torch.arange(8)[None], alone.initial_state(1), torch.ones(1, 8, dtype=torch.bool))
            save_model(folder / kind, "vq", {}, alone)
            load_model(folder / kind, lambda _, config=alone.config: VQLM(config))
        seed_all(0)
        quantiser = Quantiser(QuantiserConfig(kind, codes=3, dead_below=0.0), torch.randn(20, 4))
        one = Quantiser(QuantiserConfig(kind, codes=3, dead_below=0.0), torch.randn(20, 4))
        one.load_state_dict(quantiser.state_dict())
        rows = torch.randn(12, 4)
        with joint_step():
            quantiser(rows[RANK::2])
        one(rows)  # all rows in one process
        for name, value in one.state_dict().items():
            torch.testing.assert_close(quantiser.state_dict()[name], value, msg=f"{kind} {name}")
        reviving = Quantiser(QuantiserConfig(kind, codes=3, dead_below=99.0), torch.randn(20, 4))
        seed_all(RANK)  # each draws other vectors for dead codes
        with joint_step():
            reviving(torch.randn(12, 4))
        states = gather(reviving.state_dict())
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items()), kind
    counts = Unigram(5, 1.0)
    train(ScorerTask(counts, 2), Words(), TrainConfig(steps=3, device="cpu", tensorboard=False), folder / "counts")
    assert counts.counts.tolist() == [12.0, 12.0, 0, 0, 0]


class Words(Stream):
    """The first process reads token 0, the second token 1."""

    def next(self) -> SegmentBatch:
        tokens, real = torch.full((2, 2), RANK), torch.ones(2, 2, dtype=torch.bool)
        return SegmentBatch(tokens, tokens, tokens, real, tokens, real, tokens[:, :1], real[:, 0])


def main(folder: Path) -> None:
    start_processes("ddp", torch.device("cpu"))
    first_alone()
    quantisers(folder)
    modules = []
    for parallel in ("ddp", "fsdp"):
        averages(folder / parallel / "slope", parallel)
        modules.append(resumes_to_the_bit(folder / parallel, parallel))
    for (name, left), right in zip(modules[0].named_parameters(), modules[1].parameters(), strict=True):
        assert name.startswith("unused") or torch.allclose(left, right, atol=1e-6), name


if __name__ == "__main__":
    main(Path(sys.argv[1]))
