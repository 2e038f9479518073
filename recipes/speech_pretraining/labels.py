"""Phone labels: a table, separated by tabs, with the columns name, start, end (seconds) and phone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from ...data._tables import read_rows
from ...data.reading.audio import RATE
from ...models.speech.hubert import HubertConfig

COLUMNS = ("name", "start", "end", "phone")
_COLUMNS = f"must name the columns {', '.join(COLUMNS)} in its first line, tabs between"


@dataclass(frozen=True)
class Labels:
    """The phones of one clip in order: start and end in seconds, and an id."""

    starts: tuple[float, ...]
    ends: tuple[float, ...]
    phones: tuple[int, ...]

    def at_frames(self, count: int, config: HubertConfig) -> Int[Tensor, " frames"]:
        """The phone at the middle of each of ``count`` frames; -1 = none."""
        middles = (torch.arange(count) * config.hop + config.field / 2).double() / RATE
        starts = torch.tensor(self.starts, dtype=torch.float64)
        last = torch.searchsorted(starts, middles, right=True) - 1
        inside = (last >= 0) & (middles < torch.tensor(self.ends, dtype=torch.float64)[last.clamp(min=0)])
        return torch.where(inside, torch.tensor(self.phones)[last.clamp(min=0)], -1)


def read_labels(path: str | Path) -> dict[str, Labels]:
    """Read labels by name of clip. Raises `ValueError` that names the wrong line."""
    numbers: dict[str, int] = {}
    found: dict[str, list[tuple[float, float, int]]] = {}
    for row in read_rows(path, "labels from", form=".tsv"):
        if not set(COLUMNS) <= row.cells.keys():
            raise ValueError(f"{str(path)!r} {_COLUMNS}")
        name, first, last, phone = (row.text(column) for column in COLUMNS)
        clip = found.setdefault(name, [])
        start, end = _seconds(first), _seconds(last)
        after = clip[-1][1] - 1e-9 if clip else 0.0  # tolerance, because the table has decimals
        if not after <= start < end < math.inf or not phone:
            raise ValueError(f"{row.place} is not a phone from start to end in seconds, after the one before it")
        clip.append((start, end, numbers.setdefault(phone, len(numbers))))
    if not found:
        raise ValueError(f"{str(path)!r} has no labels; it {_COLUMNS}")
    return {name: Labels(*zip(*clip, strict=True)) for name, clip in found.items()}


def _seconds(text: str) -> float:
    """``text`` as a number; NaN if it is not one."""
    try:
        return float(text)
    except ValueError:
        return math.nan
