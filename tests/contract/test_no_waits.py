"""No training step reads a value from the device: that waits for all work queued there. Logging reads them at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary
from vqmem import registry
from vqmem.models import host
from vqmem.recipes.engine import trainer
from vqmem.recipes.engine.config import load
from vqmem.recipes.engine.task import TrainConfig
from vqmem.recipes.lm.corpus import SegmentBatch
from vqmem.recipes.lm.scorer_task import ScorerTask
from vqmem.tests.contract.test_recipes import lay_out, tiny
from vqmem.tests.unit.toy_training import Stream

READS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount"}
READS |= {"equal", "repeat_interleave", "masked_scatter_backward"}
"""Operations whose result, or its shape, the program must know before it goes on."""
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


class PretendedDevice(TorchDispatchMode):
    """The CPU as a device whose values must not be read: those of modules, of what is copied there, and what follows.

    What is made there from nothing (``torch.rand(n, device=...)``) is not recognised.
    """

    def __init__(self) -> None:
        super().__init__()
        self.known = WeakTensorKeyDictionary()

    def put(self, *tensors: Tensor) -> None:
        for tensor in tensors:
            self.known[tensor] = True

    def has(self, tree: Any) -> bool:
        return any(isinstance(x, Tensor) and x in self.known for x in tree_leaves(tree))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, there = func.overloadpacket.__name__, self.has((args, kwargs))
        by_mask = name in INDEXING and any(x is not None and x.dtype == torch.bool for x in args[1])
        assert not (there and (name in READS or by_mask)), f"the step waits for the device in {func}"
        result = func(*args, **(kwargs or {}))
        if there:
            self.put(*(x for x in tree_leaves(result) if isinstance(x, Tensor)))
        return result


class NoReads(TorchFunctionMode):
    """What the CPU does without an operation that could be seen."""

    def __init__(self, device: PretendedDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name == "one_hot":  # only the CPU compares the ids with the number of classes
            return torch.zeros(*args[0].shape, args[1], dtype=torch.long).scatter_(-1, args[0][..., None], 1)
        if name == "istft":  # a wait inside of torch, see `UnitVocoder`
            with _disable_current_modes():
                result = func(*args, **(kwargs or {}))
            self.device.put(result)
            return result
        read = args[2:4] if name == "ctc_loss" else args if name in ("tolist", "cpu", "numpy", "__array__") else ()
        assert not self.device.has(read), f"the step waits for the device in {name}"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def steps(monkeypatch) -> list[int]:
    """Makes every training step run on a `PretendedDevice`; the list has the steps before which metrics were read."""
    device, update, read_pending, read = PretendedDevice(), trainer._update, trainer._read_pending_metrics, []

    def copy(tensor: Tensor, _: torch.device) -> Tensor:
        moved = tensor.clone()
        device.put(moved)
        return moved

    def on_device(session, run):
        parts = [session.replica.module, *vars(session.replica.task).values()]
        device.put(*(x for x in parts if isinstance(x, Tensor)))
        for module in (x for x in parts if isinstance(x, nn.Module)):
            device.put(*module.parameters(), *module.buffers())
        with monkeypatch.context() as patch, device, NoReads(device):
            patch.setattr(host, "_copy", copy)
            patch.setattr(Tensor, "is_cpu", False, raising=False)
            update(session, run)

    def note(session, run):
        if run.pending.batches:
            read.append(run.step)
        read_pending(session, run)

    monkeypatch.setattr(trainer, "_update", on_device)
    monkeypatch.setattr(trainer, "_read_pending_metrics", note)
    return read


CONFIGS = ["asr/demo", "asr/ljspeech_units", "frame_scorer/demo", "speech_pretraining/tiny", "text_lm/novels"]
CONFIGS += ["tts/demo", "vqvae/demo"]


@pytest.mark.parametrize("config", CONFIGS)
def test_no_step_of_a_recipe_waits(config, tokenizer_folder, tmp_path, steps, monkeypatch):
    for key, value in lay_out(tmp_path).items():
        monkeypatch.setenv(key, value)
    name, stem = config.split("/")
    recipe, path = registry.load("recipes", name), registry.ROOT / "recipes" / name / "configs" / f"{stem}.yaml"
    recipe.run(load(recipe.Config, path, tiny(name, path, tmp_path / "run", tokenizer_folder)))
    assert steps


class Segments(Stream):
    """Random tokens; the last one of a row is padding."""

    def next(self) -> SegmentBatch:
        self.position += 1
        tokens = torch.randint(50, (4, 16), generator=torch.Generator().manual_seed(self.position))
        real, places = torch.ones_like(tokens, dtype=torch.bool), torch.arange(16).expand(4, -1)
        real[1, -1] = False
        first = torch.full((4,), self.position == 1)
        return SegmentBatch(tokens, tokens, places, real, tokens, real, tokens[:, :1], first)


QUANTISERS = [{"name": "vq_lm", "quantiser": kind, "dead_below": 1.0} for kind in ("vq", "residual", "product", "fsq")]


@pytest.mark.parametrize("scorer", [*registry.names("scorers"), *QUANTISERS])
def test_no_step_of_a_scorer_waits(scorer, tmp_path, steps):
    model = registry.build("scorers", scorer).build(50)
    config = TrainConfig(steps=7, log_every=3, device="cpu", tensorboard=False)
    trainer.train(ScorerTask(model, 4), Segments(), config, tmp_path)
    assert steps == [3, 6, 7]


def test_a_wait_is_seen(tmp_path, steps):
    class Waiting(ScorerTask):
        def step(self, batch, state):
            loss, state = super().step(batch, state)
            assert loss.value.isfinite().item()
            return loss, state

    model = registry.build("scorers", "lstm_lm").build(50)
    with pytest.raises(AssertionError, match=r"waits for the device in aten\._local_scalar_dense"):
        trainer.train(Waiting(model, 4), Segments(), TrainConfig(steps=2, device="cpu", tensorboard=False), tmp_path)
