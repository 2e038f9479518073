"""Shared by the front-ends for units: their streams, in seconds."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .base import Stream
from .speech.frames import FRAMES_A_SECOND


def stream_of(
    ids: Int[Tensor, " frames"], deduplicate: bool, frames: Float[Tensor, "frames dim"] | None = None
) -> Stream:
    """The stream of units, one every 20 ms; with ``deduplicate`` a run of one unit is one token."""
    sizes = torch.ones_like(ids)
    if deduplicate:
        ids, run, sizes = torch.unique_consecutive(ids, return_inverse=True, return_counts=True)
        if frames is not None:
            frames = torch.zeros(len(ids), frames.shape[1]).index_add_(0, run, frames) / sizes[:, None]
    ends = sizes.cumsum(0)
    starts, ends = ((x / FRAMES_A_SECOND).double() for x in ((ends - sizes).double(), ends.double()))
    return Stream(ids, starts, ends, sizes.int(), frames)


def format_units(ids: list[int]) -> str:
    """Format units as text: their numbers with spaces between them."""
    return " ".join(map(str, ids))
