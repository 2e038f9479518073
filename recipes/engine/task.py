"""The interface between a recipe and the training loop: a task, a loader of batches, and the training config."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from torch import nn

from ...models.loss import Loss
from ...schema import NOT_SUGGESTED, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Share, Validated


@runtime_checkable
class Task(Protocol):
    """A module and its training step. If the loss has no gradient (a scorer that only counts), nothing is optimised.

    ``metrics["tokens"]`` of the loss is optional: the number of tokens in the step. The log uses it as the weight of
    its averages and for the speed. An optional attribute ``token_unit`` says what a token is, for the progress bar
    (default: tokens). A step does not read values from the device, which would wait for it; it asks
    `models.host.on_host` for those of the batch.
    """

    module: nn.Module

    def initial_state(self) -> Any:
        """The state before the first step, on the module's device: a tree that `checkpoint.encode` accepts."""
        ...

    def step(self, batch: Any, state: Any) -> tuple[Loss, Any]:
        """The loss of one batch and the state after it, detached."""
        ...


@runtime_checkable
class Loader(Protocol):
    """An endless source of batches whose position is a JSON-able value."""

    def next(self) -> Any:
        """The next batch: a tensor, or a dict, list or (named) tuple of them. The loop moves it to the device."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The position of the next batch."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to the position at which ``state`` was taken."""
        ...


SET_BY_RUN = {NOT_SUGGESTED: True}
"""Metadata of the keys that `RunConfig` refuses in a training, because they apply to the run."""


@dataclass(frozen=True)
class TrainConfig(Validated):
    """Settings of one training. Steps count optimiser updates."""

    steps: PositiveInt = 1000
    """Total number of updates."""
    lr: PositiveFloat = 1e-3
    """The learning rate that AdamW reaches after the warm-up."""
    warmup: NonNegativeInt = 50
    """Steps over which the learning rate rises from 0."""
    min_lr_ratio: Share = 0.1
    """Learning rate at the end of the cosine schedule, as a share of ``lr``."""
    weight_decay: NonNegativeFloat = 0.1
    """AdamW's weight decay of matrices; vectors do not decay."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates of the moving averages of the gradient and of its square."""
    clip: PositiveFloat = 1.0
    """Largest norm of the gradient; a longer gradient is scaled down to it."""
    accumulate: PositiveInt = 1
    """Batches per step."""
    log_every: PositiveInt = 10
    """Steps between two lines of the log."""
    eval_every: NonNegativeInt = 0
    """Steps between evaluations on the dev split. The best weights are kept. 0 evaluates at the end only."""
    save_every: NonNegativeInt = 200
    """Steps between checkpoints; 0 saves at the end only."""
    seed: int = field(default=0, metadata=SET_BY_RUN)
    """Seed of weights and dropout; a recipe sets it from the ``seed`` of the run."""
    device: str = field(default="auto", metadata=SET_BY_RUN)
    """Device to train on; a recipe sets it from the ``device`` of the run."""
    dtype: str = field(default="auto", metadata=SET_BY_RUN)
    """Precision of training; a recipe sets it from the ``dtype`` of the run."""
    parallel: Literal["auto", "none", "ddp", "fsdp"] = "auto"
    """``auto`` is ``ddp`` under torchrun, else ``none``; ``fsdp`` shards parameters and optimiser (``fully_shard``)."""
    tensorboard: bool = True
    """Whether to write a TensorBoard log as well."""
