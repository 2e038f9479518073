"""A GPU gives what the CPU gives, and a training step never waits for it. The CPU runs each test too, as a device."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.policy import Guard
from vqmem.models.host import to_device
from vqmem.models.memory_transformer import TransformerConfig
from vqmem.models.vq_lm import VQLM, VQLMConfig
from vqmem.recipes.engine.config import autocast, resolve_dtype
from vqmem.recipes.engine.task import TrainConfig
from vqmem.recipes.engine.trainer import train
from vqmem.recipes.lm.corpus import Passage, SegmentBatch, segment_loader
from vqmem.recipes.lm.language_model import LanguageModel, LanguageModelTask, Schedule, read_passages, score_passages
from vqmem.recipes.lm.strategies import strategies
from vqmem.tests.unit.tiny_host import read_nats, tiny_model

VOCAB, SEGMENT, BATCH = 30, 16, 4
SCORED = {"name": "scored", "surprise": 1.0}
CONV = {"name": "pool", "how": "conv", "rate": 4, "share": 0.5}
STRATEGIES = {
    "newest": {"policy": "fifo"},
    "compressive": {"policy": "fifo", "compression": CONV},
    "random": {"policy": "random"},
    "surprise": {"policy": SCORED},
}
OBSERVED = STRATEGIES | {"h2o": {"policy": "h2o"}}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request) -> torch.device:
    return torch.device(request.param)


def passages(count: int = 8, length: int = 97) -> list[Passage]:
    """Texts that repeat themselves."""
    made = []
    for number in range(count):
        ids = torch.randint(VOCAB, (12,), generator=torch.Generator().manual_seed(number)).repeat(9)[:length]
        made.append(Passage.from_ids(ids, str(number)))
    return made


def make_scorer() -> VQLM:
    torch.manual_seed(0)
    return VQLM(VQLMConfig(VOCAB, dim=8, hidden=16, codes=8))


def make_task(device: torch.device, nodes: dict[str, Any], backend: str = "") -> LanguageModelTask:
    """The task of a mixed training; with a backend the blocks are compiled."""
    scorer, choices = make_scorer().to(device).eval(), strategies(nodes)
    torch.manual_seed(0)
    model = LanguageModel(TransformerConfig(VOCAB, layers=2, dim=32, heads=2, shift=True), choices).to(device)
    if backend:
        model.transformer.compile_blocks(backend)
    return LanguageModelTask(model, scorer, Schedule(choices, (16, 32), Guard(), 2), BATCH)


def batches(device: torch.device, count: int) -> Iterator[SegmentBatch]:
    loader = segment_loader(passages(), BATCH, SEGMENT, seed=0)
    for _ in range(count):
        yield tree_map_only(Tensor, lambda x: to_device(x, device), loader.next())


@contextmanager
def no_waits(device: torch.device) -> Iterator[None]:
    """On a GPU, what waits for it raises an error."""
    if device.type == "cpu":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def steps(
    task: LanguageModelTask, device: torch.device, dtype: torch.dtype = torch.float32, *, may_wait: bool = False
) -> Tensor:
    """The losses of 24 steps, of which only the first may wait for the device."""
    optimiser = torch.optim.AdamW(task.module.parameters(), lr=1e-3, fused=True)
    state, losses = task.initial_state(), []
    for number, batch in enumerate(batches(device, 24)):
        with no_waits(torch.device("cpu") if may_wait or not number else device):
            with autocast(device, dtype):
                loss, state = task.step(batch, state)
            optimiser.zero_grad()
            loss.value.backward()
            torch.nn.utils.clip_grad_norm_(task.module.parameters(), 1.0)
            optimiser.step()
            losses.append(loss.value.detach())
    return torch.stack(losses).cpu()


def test_mixed_training_is_that_of_the_cpu_and_never_waits(device):
    found = steps(make_task(device, STRATEGIES), device)
    torch.testing.assert_close(found, steps(make_task(torch.device("cpu"), STRATEGIES), torch.device("cpu")))


def test_training_in_the_type_of_the_device_never_waits(device):
    losses = steps(make_task(device, OBSERVED), device, resolve_dtype("auto", device))
    assert losses.isfinite().all()


def test_the_training_loop_learns_and_its_model_reads_as_on_the_cpu(device, tmp_path):
    task = make_task(device, STRATEGIES)
    config = TrainConfig(steps=60, lr=1e-2, warmup=5, device=str(device), tensorboard=False)
    figures = train(task, segment_loader(passages(), BATCH, SEGMENT, seed=0), config, tmp_path)
    assert figures["nll"] < 2.0 < torch.tensor(float(VOCAB)).log()
    items, [strategy] = passages(3), [choice for choice in strategies(STRATEGIES) if choice.name == "surprise"]
    memory, read = strategy.memory(16, Guard()), []
    for there in (device, torch.device("cpu")):
        scorer, model = task.scorer.to(there), task.module.to(there)
        scores = score_passages(scorer, items, 3, SEGMENT, there)
        readings, _ = read_passages(model, strategy, memory, items, scores, 3, SEGMENT)
        read.append(torch.cat([reading.nll for reading in readings]))
    torch.testing.assert_close(*read, atol=1e-3, rtol=1e-3)


def test_the_scorer_scores_and_learns_as_on_the_cpu(device):
    tokens = torch.stack([passage.ids for passage in passages(20)])
    found = []
    for there in (device, torch.device("cpu")):
        scorer = make_scorer().to(there)
        scored, _ = scorer.score(to_device(tokens, there), scorer.initial_state(20))
        torch.manual_seed(0)
        moved, mask = to_device(tokens, there), to_device(torch.ones_like(tokens, dtype=torch.bool), there)
        loss, _ = scorer.training_step(moved, scorer.initial_state(20), mask)
        loss.value.backward()
        found.append([scored.cpu(), loss.value.detach().cpu(), scorer.embed.weight.grad.cpu()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("policy", ["fifo", "h2o", "knorm"])
def test_the_cache_of_a_pretrained_model_is_that_of_the_cpu(device, policy):
    ids = torch.randint(VOCAB, (1, 60), generator=torch.Generator().manual_seed(0))
    found = []
    for there in (device, torch.device("cpu")):
        model = tiny_model(VOCAB).to(there)
        cache = VQMemCache(model, 24, policy=policy, sinks=2, recent=6, block=8)
        found.append(read_nats(model, cache, ids.to(there), chunk=8).cpu())
    torch.testing.assert_close(*found, atol=1e-3, rtol=1e-3)


def test_a_training_that_is_continued_in_its_warm_up_is_the_unbroken_one(device, tmp_path):
    """So `benchmarks/gpu.py` times the first steps and then decides how many there are."""
    config = TrainConfig(steps=20, warmup=10, device=str(device), tensorboard=False)
    figures = []
    for name, ends in (("unbroken", [20]), ("parts", [10, 20])):
        for end in ends:
            task, loader = make_task(device, STRATEGIES), segment_loader(passages(), BATCH, SEGMENT, seed=0)
            found = train(task, loader, replace(config, steps=end), tmp_path / name)
        figures.append(found["loss"])
    assert figures[0] == pytest.approx(figures[1], rel=1e-3 if device.type == "cuda" else 0)


def test_compiled_training_is_that_without_the_compiler(device):
    """In another process, where shapes are not checked: the compiler would trace the checks, for minutes."""
    code = f"import runpy; runpy.run_path({__file__!r})['check_compiled']({device.type!r})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def check_compiled(name: str) -> None:
    """Compiled training has the same losses; each graph serves all layers, and few serve all sizes."""
    from torch._dynamo.utils import counters

    device, backend = torch.device(name), "eager" if name == "cpu" else "inductor"
    nodes = OBSERVED if name == "cpu" else {"newest": STRATEGIES["newest"]}  # generating code takes far longer
    plain = steps(make_task(device, nodes), device)
    compiled = steps(make_task(device, nodes, backend), device, may_wait=True)  # the compiler times kernels
    torch.testing.assert_close(compiled, plain, atol=1e-3, rtol=1e-3)
    assert not counters["graph_break"], counters["graph_break"]
    assert 0 < counters["stats"]["unique_graphs"] <= 8, counters["stats"]
