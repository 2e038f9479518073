"""What a recipe gives the training loop: a task, a loader of batches, and how to train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from torch import nn

from ...models.loss import Loss


@runtime_checkable
class Task(Protocol):
    """What is trained. Where the loss has no gradient (a scorer that only counts), nothing is optimised.

    ``metrics["tokens"]`` of the loss, where given, is the number of tokens the step saw: it weights the averages that
    are logged, and gives the speed.
    """

    module: nn.Module

    def initial_state(self) -> Any:
        """The state before the first step, on the module's device: a tree as `checkpoint.encode` takes."""
        ...

    def step(self, batch: Any, state: Any) -> tuple[Loss, Any]:
        """The loss of one batch and the state after it, detached."""
        ...


@runtime_checkable
class Loader(Protocol):
    """An endless source of batches whose position is a JSON-able value."""

    def next(self) -> Any:
        """The next batch: a tensor, or dicts, tuples and dataclasses of them. It is moved to the device for you."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch starts."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where ``state`` was taken."""
        ...


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Steps count optimiser updates."""

    steps: int = 1000
    """Updates in all."""
    lr: float = 1e-3
    """The learning rate that AdamW reaches after the warm-up."""
    warmup: int = 50
    """Steps over which the learning rate rises from 0."""
    min_lr_ratio: float = 0.1
    """Share of ``lr`` that is left at the end of its cosine."""
    weight_decay: float = 0.1
    """AdamW's, on matrices; vectors do not decay."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's, of the moving averages of the gradient and of its square."""
    clip: float = 1.0
    """Largest norm of the gradient; what is longer is shortened to it."""
    accumulate: int = 1
    """Batches a step."""
    log_every: int = 10
    """Steps between two lines of the log."""
    eval_every: int = 0
    """Steps between evaluations on the dev split, the best of which is kept; 0 evaluates at the end only."""
    save_every: int = 200
    """Steps between checkpoints; 0 saves at the end only."""
    seed: int = 0
    """Of weights and dropout; a recipe sets it from its own ``seed``."""
    device: str = "auto"
    """Where to train; a recipe sets it from its own ``device``."""
    dtype: str = "auto"
    """Precision of training; a recipe sets it from its own ``dtype``."""
    parallel: Literal["auto", "none", "ddp", "fsdp"] = "auto"
    """``auto`` is ``ddp`` under torchrun, else ``none``; ``fsdp`` shards parameters and optimiser (``fully_shard``)."""
    tensorboard: bool = True
    """Whether to write the log for TensorBoard too."""

    def __post_init__(self) -> None:
        least_values = {"steps": 1, "accumulate": 1, "log_every": 1, "warmup": 0, "eval_every": 0, "save_every": 0}
        for name, least in least_values.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least {least}")
        if not self.lr > 0 or not self.clip > 0:
            raise ValueError(f"lr = {self.lr} and clip = {self.clip} must be positive")
        if not 0 <= self.min_lr_ratio <= 1 or self.weight_decay < 0:
            raise ValueError(
                f"min_lr_ratio = {self.min_lr_ratio} must be from 0 to 1, weight_decay = {self.weight_decay} 0 or more"
            )
