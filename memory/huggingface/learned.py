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
"""The signals that are not computed from keys, values and queries."""


@dataclass(frozen=True)
class FittedPolicy:
    """What `vqmem fit_policy` learnt about a model, the host.

    Args:
        host: The fingerprint of the host, of weights in bfloat16.
        signals: The names of the signals that are weighed.
        ridge: For each bounded layer, and for each head of keys, for the layer and for the model, the weights that
            predict attention to come from the hidden state, 1 and the logarithm of the position counted from 1.
        weights: The weights of the signals for each of `SHARES`.
    """

    host: str
    signals: tuple[str, ...]
    ridge: Float[Tensor, "layers columns features"]
    weights: Mapping[str, Float[Tensor, "layers groups signals"]]

    def save(self, folder: Path, **about: Any) -> None:
        """Write the folder; ``about`` says how it was made, in values of JSON."""
        tensors = {"ridge": self.ridge.half(), **{f"weights.{share}": x.float() for share, x in self.weights.items()}}
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
        weights = {share: tensors[f"weights.{share}"] for share in SHARES}
        return cls(about["host"], tuple(about["signals"]), tensors["ridge"].float(), weights)


def columns(ridge: Float[Tensor, "layers columns features"], share: str) -> Float[Tensor, "layers groups features"]:
    """The part of `FittedPolicy.ridge` for what shares a set; its columns are of heads, the layer and the model."""
    return {"head": ridge[:, :-2], "layer": ridge[:, -2:-1], "model": ridge[:, -1:]}[share]


class LearnedSignals(AttentionSignals):
    """Computes ``learned``, and other signals of `AttentionSignals`, for the slots of each layer.

    ``learned`` is a weighted sum of signals, with weights for each head, layer or the model. The signal ``predicted``
    comes from the hidden state of a token when it is written, and is kept as the usage of its slot.
    """

    def __init__(self, model: Any, names: Sequence[str], groups: Groups, fitted: FittedPolicy) -> None:
        weighed = [name for name in fitted.signals if name not in (PREDICTED, LOG_AGE)]
        super().__init__(model, tuple(dict.fromkeys([*(x for x in names if x != "learned"), *weighed])), groups)
        self.asked, self.weighed = tuple(names), fitted.signals
        ridge = columns(fitted.ridge, groups.share)
        self._ridge: dict[int, Tensor] = {}
        self._weights: dict[int, Tensor] = {}
        for place, module in enumerate(self.modules):
            device = next(module.parameters()).device
            self._ridge[module.layer_idx] = ridge[place].to(device)
            self._weights[module.layer_idx] = fitted.weights[groups.share][place].to(device)

    @torch.no_grad()
    def predict(
        self, module: Any, hidden: Float[Tensor, "batch new hidden"], positions: Int[Tensor, "batch new"]
    ) -> Float[Tensor, "batch groups new"]:
        """The attention to come of new tokens, for each group in a layer, from what its attention reads."""
        weights, bias, slope = self._ridge[module.layer_idx].split([hidden.shape[-1], 1, 1], dim=1)
        place = (positions.to(hidden.device) + 1).float().log()[:, None]
        return weights @ hidden.float().mT + (bias + slope * place)

    def combine(
        self,
        module: Any,
        found: dict[str, Float[Tensor, "batch groups slots"]],
        predicted: Float[Tensor, "batch groups slots"],
        age: Int[Tensor, "batch groups slots"],
        competing: Bool[Tensor, "batch groups slots"],
    ) -> dict[str, Float[Tensor, "batch groups slots"]]:
        """The signals that were asked for.

        Args:
            module: The attention module of the layer.
            found: What `compute` returned for it.
            predicted: What `predict` returned when the slots were written.
            age: Tokens since then.
            competing: The slots that no guard protects.

        Returns:
            The signals by name, ``learned`` among them.
        """
        more = {PREDICTED: predicted, LOG_AGE: age.float().log()}
        device = self._weights[module.layer_idx].device
        among = competing.to(device)
        found = found | {name: standardise_among(x.to(device), among) for name, x in more.items()}
        stacked = torch.stack([found[name] for name in self.weighed], dim=-1)
        found["learned"] = (stacked * self._weights[module.layer_idx][:, None]).sum(-1)
        return {name: found[name] for name in self.asked}
