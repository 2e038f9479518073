"""The signal ``learned``: the attention that a slot will receive, as `vqmem fit_policy` learnt to predict it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..._version import __version__
from ...artifacts import read_sealed, read_tensors, seal, write_tensors
from ...files import atomic_write, missing_file
from ...schema import expand
from ..policy import standardise_among
from .fingerprint import fingerprint
from .groups import SHARES, Groups
from .signals import AttentionSignals

ABOUT, WEIGHTS = "policy.json", "policy.safetensors"
KIND = "learned policy"
PREDICTED, LOG_AGE = "predicted", "log_age"
"""The attention to come that the key of a slot predicts, and the logarithm of its age."""


@dataclass(frozen=True)
class FittedPolicy:
    """What `vqmem fit_policy` learnt about a model, the host.

    Args:
        host: The fingerprint of the host, of weights in bfloat16.
        signals: The names of the signals that are weighed.
        prediction: For each of `SHARES`, the weights from which `predict` takes attention to come.
        weights: For each of `SHARES`, the weights of the signals.
    """

    host: str
    signals: tuple[str, ...]
    prediction: Mapping[str, Float[Tensor, "layers groups features"]]
    weights: Mapping[str, Float[Tensor, "layers groups signals"]]

    def save(self, folder: Path, **about: Any) -> None:
        """Write the folder; ``about`` says how it was made, in values of JSON."""
        tensors = {f"prediction.{share}": x for share, x in self.prediction.items()}
        tensors |= {f"weights.{share}": x for share, x in self.weights.items()}
        made = {"kind": KIND, "version": __version__, "host": self.host, "signals": list(self.signals)}
        made["sha256"] = write_tensors(folder / WEIGHTS, tensors)
        atomic_write(folder / ABOUT, json.dumps(seal(made | about), indent=1) + "\n")

    @classmethod
    def load(cls, path: str, host: Any) -> FittedPolicy:
        """Read the folder of a policy for ``host``.

        Raises `ValueError` where it is missing or damaged, or was fitted for another model.
        """
        folder = Path(expand(path))
        if not (folder / ABOUT).is_file():
            raise missing_file("policy", folder, otherwise="`vqmem fit_policy MODEL out=FOLDER` makes one")
        about = read_sealed(folder / ABOUT)
        if about.get("kind") != KIND:
            raise ValueError(f"{folder} has no policy; `vqmem fit_policy MODEL out=FOLDER` makes one")
        if about["host"] != fingerprint(host, torch.bfloat16):
            raise ValueError(
                f"policy {path!r} was fitted for another model ({about['model']}) than this {type(host).__name__}; "
                "fit one with `vqmem fit_policy MODEL out=FOLDER`"
            )
        tensors = read_tensors(folder / WEIGHTS, about["sha256"])
        prediction, weights = (
            {share: tensors[f"{part}.{share}"] for share in SHARES} for part in ("prediction", "weights")
        )
        return cls(about["host"], tuple(about["signals"]), prediction, weights)


def predict(
    prediction: Float[Tensor, "groups features"],
    keys: Float[Tensor, "batch heads slots width"],
    positions: Int[Tensor, "batch groups slots"],
) -> Float[Tensor, "batch groups slots"]:
    """The logarithm of attention to come, for each group of heads that share slots.

    It is linear in the keys of a group before rotation, the squares of these, 1, and the logarithm of the position
    counted from 1. The logarithm of the attention that normally distributed queries pay to a key is linear in its
    coordinates and their products; products of two different ones are left out.
    """
    *_, heads, _, width = keys.shape
    weights = prediction[:, :-2].reshape(heads, 2, width)
    linear, square = weights[:, None, 0], weights[:, None, 1]
    by_head = ((keys * square + linear) * keys).sum(-1)
    by_group = by_head.unflatten(1, (len(prediction), -1)).sum(2)
    return by_group + prediction[:, None, -2] + prediction[:, None, -1] * (positions + 1).to(keys).log()


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
    def combine(
        self,
        module: Any,
        found: dict[str, Float[Tensor, "batch groups slots"]],
        keys: Float[Tensor, "batch heads slots width"],
        positions: Int[Tensor, "batch groups slots"],
        rotated: Int[Tensor, "batch groups slots"],
        seen: Int[Tensor, " batch"],
        competing: Bool[Tensor, "batch groups slots"],
    ) -> dict[str, Float[Tensor, "batch groups slots"]]:
        """The signals that were asked for.

        Args:
            module: The attention module of the layer.
            found: What `compute` returned for it.
            keys: The keys of all slots, rotated.
            positions: The positions of the slots.
            rotated: The positions that the keys are rotated to.
            seen: The position of each row's next token.
            competing: The slots that no guard protects.

        Returns:
            The signals by name, ``learned`` among them.
        """
        positions, rotated, seen, competing = (x.to(keys.device) for x in (positions, rotated, seen, competing))
        prediction, weights = self._fitted[module.layer_idx]
        plain = self.unrotate(module, keys, rotated.expand(-1, keys.shape[1], -1))
        predicted = predict(prediction, plain, positions)
        ages = (seen[:, None, None] - positions).clamp(min=1).float().log()
        more = {PREDICTED: predicted, LOG_AGE: ages}
        found = found | {name: standardise_among(x, competing) for name, x in more.items()}
        stacked = torch.stack([found[name] for name in self.weighed], dim=-1)
        found["learned"] = (stacked * weights[:, None]).sum(-1)
        return {name: found[name] for name in self.asked}
