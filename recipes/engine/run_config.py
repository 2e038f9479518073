"""The config keys that all training recipes share, and their checks."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ...schema import PathText
from .task import TrainConfig


@dataclass(frozen=True)
class RunConfig:
    """Base of the recipes' ``Config`` classes, which add further keys.

    ``seed``, ``device`` and ``dtype`` apply to all trainings of the run and cannot be set in a `TrainConfig`.
    """

    out: PathText = ""
    """Folder of the run; with the same folder a run continues where it stopped."""
    seed: int = 0
    """Seed of weights, order and everything else that is random."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: str = "auto"
    """auto, float32 or bfloat16 (mixed precision); auto is bfloat16 on a GPU that supports it, else float32."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for a seed out of range, and for a training that sets a key of the run."""
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed} is out of range; give a number from 0 to 2^63 - 1")
        for field in fields(self):
            training = getattr(self, field.name)
            if not isinstance(training, TrainConfig):
                continue
            for name in ("seed", "device", "dtype"):
                if getattr(training, name) != getattr(TrainConfig(), name):
                    raise ValueError(f"{field.name}.{name} is set by {name}; leave it out and set {name}")

    def require_at_least(self, least: int, *names: str) -> None:
        """Raise `ValueError` if one of these keys is below ``least``; None passes."""
        for name in names:
            if (value := getattr(self, name)) is not None and value < least:
                null = ", or null for all" if "| None" in self._type_of(name) else ""
                raise ValueError(f"{name}={value} is too small; give at least {least}{null}")

    def require_positive(self, *names: str) -> None:
        """Raise `ValueError` if one of these keys is 0, negative or not a number."""
        for name in names:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")

    def _type_of(self, name: str) -> str:
        return next(str(field.type) for field in fields(self) if field.name == name)
