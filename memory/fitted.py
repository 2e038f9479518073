"""The folder of a policy that `vqmem fit_policy` fitted to a model, and how it predicts attention to come."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._version import __version__
from ..artifacts import read_sealed, read_tensors, seal, write_tensors
from ..files import atomic_write, missing_file
from ..schema import expand
from .fingerprint import fingerprint

ABOUT, WEIGHTS = "policy.json", "policy.safetensors"
KIND = "learned policy"
PREDICTED, LOG_AGE = "predicted", "log_age"
"""The attention to come that the key of a slot predicts, and the logarithm of its age."""


@dataclass(frozen=True)
class FittedPolicy:
    """What `vqmem fit_policy` learnt about a model, the host.

    ``shares`` are what may keep one set of slots: ``head``, ``layer`` or ``model`` in a model of transformers, and
    ``model`` alone in a memory transformer, which counts as one layer with the heads of all its layers.

    Args:
        host: The fingerprint of the host, of weights in bfloat16.
        signals: The names of the signals that are weighed.
        prediction: For each share, the weights from which `predict` takes attention to come.
        weights: For each share, the weights of the signals.
    """

    host: str
    signals: tuple[str, ...]
    prediction: Mapping[str, Float[Tensor, "layers _groups _features"]]
    weights: Mapping[str, Float[Tensor, "layers _groups signals"]]

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
        if about["host"] != host_fingerprint(host):
            raise ValueError(
                f"policy {path!r} was fitted for another model ({about['model']}) than this {type(host).__name__}; "
                "fit one with `vqmem fit_policy MODEL out=FOLDER`"
            )
        tensors = read_tensors(folder / WEIGHTS, about["sha256"])
        parts: dict[str, dict[str, Tensor]] = {"prediction": {}, "weights": {}}
        for name, x in tensors.items():
            part, _, share = name.partition(".")
            parts[part][share] = x
        return cls(about["host"], tuple(about["signals"]), parts["prediction"], parts["weights"])


def host_fingerprint(host: Any) -> str:
    """The fingerprint by which a policy knows its host, the same for any type of the weights."""
    return fingerprint(host, torch.bfloat16)


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
