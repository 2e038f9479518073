"""The shape of a memory transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from ..schema import PositiveInt, ShareBelowOne, Validated

LONGEST_SHIFT = 8
Shift = bool | Annotated[int, Interval(ge=0, le=LONGEST_SHIFT)]
"""How many previous tokens an embedding includes; true is one."""


@dataclass(frozen=True)
class TransformerConfig(Validated):
    """Shape of a `MemoryTransformer`.

    ``frame_dim`` replaces token ids by frames of that size as input. ``score_bias`` gives each head a learnt weight for
    each of the scorer's ``signals``: the weighted standard scores of a slot are added to its logits. ``shift`` adds a
    projection of the previous token, or of that many, to each token's embedding, as a short convolution does (H3,
    arXiv:2212.14052): one layer is then enough to continue a sequence as it continued before (an induction head,
    arXiv:2209.11895), and a slot identifies the tokens before it even if they were evicted. Small models thereby learn
    to use their memory from far less text. ``forget_gate`` gives each head a gate between 0 and 1 for each token: the
    weight of a slot falls by the gates of all tokens after it, kept or not (Forgetting Transformer, arXiv:2503.02130).
    """

    vocab_size: PositiveInt
    layers: PositiveInt = 4
    dim: PositiveInt = 256
    heads: PositiveInt = 4
    expansion: PositiveInt = 4
    dropout: ShareBelowOne = 0.0
    rope_base: float = 10_000.0
    score_bias: bool = False
    shift: Shift = False
    forget_gate: bool = False
    frame_dim: int | None = None
    signals: tuple[str, ...] = ("surprise", "rarity", "gain")

    def __post_init__(self) -> None:
        """Raise `ValueError` for impossible sizes, heads that do not divide the width, and ``shift`` with frames."""
        super().__post_init__()
        if self.shift and self.frame_dim is not None:
            raise ValueError(f"shift needs token ids, but frame_dim={self.frame_dim} makes the input frames")
        if self.dim % (2 * self.heads):
            raise ValueError(f"dim={self.dim} must be a multiple of 2 x heads={self.heads}, for rotary positions")
