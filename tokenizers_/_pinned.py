"""Features that need a model which lies elsewhere: noted with its SHA-256, so that another one is never used for it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..registry import build
from ._frames import Extractor


def weights_sha256(module: nn.Module, *more: Any) -> str:
    """SHA-256 of the names and values of all that ``module`` saves, and of the repr of what else counts."""
    digest = hashlib.sha256(repr(more).encode())
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {list(values.shape)}".encode())
        digest.update(values.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def pin(extractor: Extractor, folder: Path) -> dict[str, Any] | None:
    """JSON to keep in ``folder``, from which `unpin` makes the extractor; None where it needs no model.

    A model in a folder is noted by its absolute path and by the one from ``folder``: it is found from any working
    directory, and also where both were moved or copied together.
    """
    source = getattr(extractor, "source", None)
    if source is None:
        return None
    note = {"features": dict(source.features), "place": source.place, "sha256": source.sha256}
    if source.place:
        note["relative"] = os.path.relpath(source.features[source.place], Path(folder).resolve())
    return note


def unpin(note: Mapping[str, Any], folder: Path) -> Extractor:
    """The extractor of which `pin` made ``note``.

    Raises `ValueError` in one line where its model is missing, damaged, or another than it was.
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
