"""The signal ``learned``: the attention that a slot will receive, as `vqmem fit_policy` learnt to predict it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..fitted import LOG_AGE, PREDICTED, FittedPolicy, predict
from ..policy import standardise_among
from .groups import Groups
from .signals import AttentionSignals


class LearnedSignals(AttentionSignals):
    """Computes ``learned``, and other signals of `AttentionSignals`, for the slots of each layer.

    ``learned`` is a weighted sum of signals, with weights for each head, each layer or the model.

    Args:
        model: The host.
        names: The signals to compute.
        groups: What keeps one set of slots.
        fitted: What was learnt about the host.
    """

    def __init__(self, model: Any, names: Sequence[str], groups: Groups, fitted: FittedPolicy) -> None:
        self.asked, self.weighed = tuple(names), fitted.signals
        computed = [name for name in (*names, *self.weighed) if name not in ("learned", PREDICTED, LOG_AGE)]
        super().__init__(model, tuple(dict.fromkeys(computed)), groups)
        self._fitted: dict[int, tuple[Tensor, Tensor]] = {}
        for place, module in enumerate(self.modules):
            device = next(module.parameters()).device
            parts = (fitted.prediction[groups.share], fitted.weights[groups.share])
            self._fitted[module.layer_idx] = (parts[0][place].to(device), parts[1][place].to(device))

    @torch.no_grad()
    def predict(
        self,
        module: Any,
        plain: Float[Tensor, "batch heads slots width"],
        positions: Int[Tensor, "batch groups slots"],
    ) -> Float[Tensor, "batch groups slots"]:
        """The logarithm of attention to come, from the keys of slots before rotation and their positions."""
        return predict(self._fitted[module.layer_idx][0], plain, positions.to(plain.device))

    @torch.no_grad()
    def combine(
        self,
        module: Any,
        found: dict[str, Float[Tensor, "batch groups slots"]],
        predicted: Float[Tensor, "batch groups slots"],
        positions: Int[Tensor, "batch groups slots"],
        seen: Int[Tensor, " batch"],
        competing: Bool[Tensor, "batch groups slots"],
    ) -> dict[str, Float[Tensor, "batch groups slots"]]:
        """The signals that were asked for.

        Args:
            module: The attention module of the layer.
            found: What `compute` returned for it.
            predicted: What `predict` returned for the slots.
            positions: The positions of the slots.
            seen: The position of each row's next token.
            competing: The slots that no guard protects.

        Returns:
            The signals by name, ``learned`` among them.
        """
        positions, seen, competing = (x.to(predicted.device) for x in (positions, seen, competing))
        weights = self._fitted[module.layer_idx][1]
        ages = (seen[:, None, None] - positions).clamp(min=1).float().log()
        more = {PREDICTED: predicted, LOG_AGE: ages}
        found = found | {name: standardise_among(x, competing) for name, x in more.items()}
        stacked = torch.stack([found[name] for name in self.weighed], dim=-1)
        found["learned"] = (stacked * weights[:, None]).sum(-1)
        return {name: found[name] for name in self.asked}
