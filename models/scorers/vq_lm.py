"""How badly the VQ-LM reconstructs a token from its code and the past: the project's own scorer."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ..quantiser import Kind
from ..vq_lm import VQLM, VQLMConfig


@dataclass(frozen=True)
class Scorer:
    """A `VQLM` over token ids; see `VQLMConfig` for what its keys mean."""

    dim: int = 128
    hidden: int = 256
    quantiser: Kind = "vq"
    codes: int = 64
    groups: int = 2
    levels: tuple[int, ...] = (4, 4, 4)
    decay: float = 0.95
    dead_below: float = 0.05
    commitment: float = 0.25
    state_dropout: float = 0.1
    tie: bool = True

    def build(self, vocab_size: int) -> VQLM:
        """An untrained `VQLM`."""
        return VQLM(VQLMConfig(vocab_size=vocab_size, **asdict(self)))
