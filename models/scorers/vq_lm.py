"""How badly the VQ-LM reconstructs a token from its code and the past: the project's own scorer."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ..quantiser import Kind
from ..vq_lm import VQLM, VQLMConfig


@dataclass(frozen=True)
class Scorer:
    """A `VQLM` over token ids; its keys are those of `VQLMConfig` and `QuantiserConfig`."""

    dim: int = 128
    """Width of the embedding, which is what is quantised."""
    hidden: int = 256
    """Width of the LSTM."""
    quantiser: Kind = "vq"
    """``vq`` one codebook; ``residual`` each stage codes what the last left; ``product`` one codebook for each slice of
    the vector; ``fsq`` a fixed grid, rounded."""
    codes: int = 64
    """Codes a codebook; ``fsq`` has the product of its ``levels`` instead."""
    groups: int = 2
    """Stages of ``residual``, slices of ``product``."""
    levels: tuple[int, ...] = (4, 4, 4)
    """Levels of each dimension of ``fsq``, 3 or more each."""
    decay: float = 0.95
    """Of the moving average that codes follow, a training step."""
    dead_below: float = 0.05
    """A code whose moving average of tokens a training step is below this is put on a token of the batch; 0 never."""
    commitment: float = 0.25
    """Weight of the commitment loss: the mean squared distance of an embedding to its code."""
    state_dropout: float = 0.1
    """Share of tokens that are reconstructed without the state in training, which calibrates ``rarity``."""
    tie: bool = True
    """Whether the softmax uses the embedding as its weights."""
    cutoffs: tuple[int, ...] = ()
    """Ranks of frequency at which the vocabulary is cut into classes, for a softmax that is fast where it is large (and
    never tied). Those past the vocabulary do not count; without any the softmax is full."""

    def build(self, vocab_size: int) -> VQLM:
        """An untrained `VQLM`."""
        return VQLM(VQLMConfig(vocab_size=vocab_size, **asdict(self)))
