"""The config keys that all training recipes share, and their checks."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ...schema import NOT_SUGGESTED, PathText, Seed, Validated
from .task import TrainConfig


@dataclass(frozen=True)
class RunConfig(Validated):
    """Base of the recipes' ``Config`` classes, which add further keys.

    ``seed``, ``device`` and ``dtype`` apply to all trainings of the run and cannot be set in a `TrainConfig`.
    """

    out: PathText = ""
    """Folder of the run; with the same folder a run continues where it stopped."""
    seed: Seed = 0
    """Seed of weights, order and everything else that is random."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: str = "auto"
    """auto, float32 or bfloat16 (mixed precision); auto is bfloat16 on a GPU that supports it, else float32."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for a value out of range, and for a training that sets a key of the run."""
        super().__post_init__()
        for field in fields(self):
            training = getattr(self, field.name)
            if not isinstance(training, TrainConfig):
                continue
            for key in fields(TrainConfig):
                name = key.name
                if NOT_SUGGESTED in key.metadata and getattr(training, name) != key.default:
                    raise ValueError(f"{field.name}.{name} is set by {name}; leave it out and set {name}")
