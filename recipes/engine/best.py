"""The best evaluation of a training so far, with the weights that were evaluated."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

PREFIX = "best."
"""Prefix of the names of its parameters in a checkpoint."""


@dataclass(frozen=True)
class Best:
    """Copies of a module's parameters (sharded like these) and buffers; a lower ``figure`` is better."""

    step: int
    figure: float
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]

    @staticmethod
    def of(module: nn.Module, step: int = 0, figure: float = math.inf) -> Best:
        """Copy the current weights of ``module``."""
        parameters = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
        return Best(step, figure, parameters, {name: buffer.clone() for name, buffer in buffers(module).items()})

    def named(self) -> dict[str, Tensor]:
        """The parameters by their names in a checkpoint."""
        return {f"{PREFIX}{name}": parameter for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Copy these weights into ``module``."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.parameters[name])
        module.load_state_dict(self.buffers, strict=False)


def buffers(module: nn.Module) -> dict[str, Tensor]:
    """The saved tensors of ``module`` that are not parameters, by name."""
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    return {name: tensor for name, tensor in module.state_dict().items() if name not in parameters}


def better_of(best: Best | None, step: int, figure: float, module: nn.Module) -> Best | None:
    """Compare an evaluation with the best one so far; of equals, the newer is better.

    Args:
        best: the best evaluation so far; None before the first.
        step: training steps done.
        figure: the evaluated figure, lower is better; figures that are not finite are never better.
        module: the module that was evaluated; its weights are copied if they are better.

    Returns:
        The best evaluation.
    """
    if math.isfinite(figure) and (best is None or figure <= best.figure):
        return Best.of(module, step, figure)
    return best


def describe_best(best: Best | None, name: str, steps: int) -> str:
    """Say in one line which weights are kept, and why."""
    if best is None:
        return f"kept the last weights, as no evaluation gave a finite {name}"
    which = "the last ones" if best.step == steps else f"better than those of step {steps}"
    return f"kept the weights of step {best.step}, {which}: {name} {best.figure:.4g} on dev was the lowest"
