"""Record the model that features come from with its SHA-256, so that no other model is used in its place."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..registry import build
from .speech.frames import Extractor


def weights_sha256(module: nn.Module, *more: Any) -> str:
    """SHA-256 of the state dict of ``module``, and of the repr of the values in ``more``."""
    digest = hashlib.sha256(repr(more).encode())
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {list(values.shape)}".encode())
        digest.update(values.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def pin(extractor: Extractor, folder: Path) -> dict[str, Any] | None:
    """The JSON record in ``folder`` from which `unpin` makes the extractor; None if it needs no model.

    The record has the absolute path of the model and its path relative to ``folder``: `unpin` finds the model from any
    working directory, and after both were moved or copied together.
    """
    source = getattr(extractor, "source", None)
    if source is None:
        return None
    note = {"features": dict(source.features), "place": source.place, "sha256": source.sha256}
    if source.place:
        note["relative"] = os.path.relpath(source.features[source.place], Path(folder).resolve())
    return note


def unpin(note: Mapping[str, Any], folder: Path) -> Extractor:
    """Make the extractor from the record ``note`` of `pin`.

    Raises `ValueError` in one line if its model is missing, damaged, or another one.
    """
    features, place = note["features"], note["place"]
    candidates = [features]
    if place:
        near = os.path.normpath(Path(folder).resolve() / note["relative"])
        candidates = [
            features | {place: path} for path in dict.fromkeys((near, features[place])) if Path(path).is_dir()
        ]
    if not candidates:
        raise ValueError(
            f"{str(folder)!r} needs the model in {features[place]!r}, which is not there; put it back, or make "
            f"{str(folder)!r} anew"
        )
    for number, candidate in enumerate(candidates, start=1):
        try:
            extractor = build("features", candidate).build()
        except ValueError:  # damaged
            if number == len(candidates):
                raise
            continue
        if extractor.source.sha256 == note["sha256"]:
            return extractor
    other = candidates[-1].get(place, candidates[-1]["name"])
    raise ValueError(
        f"the model in {other!r} is not the one that {str(folder)!r} was made with: its SHA-256 is another; put that "
        f"one back, or make {str(folder)!r} anew"
    )
