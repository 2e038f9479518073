"""The error with which the VQ-LM reconstructs a token from its code and the past."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ...schema import PositiveInt, ShareBelowOne, Validated
from ..quantiser import Kind
from ..vq_lm import SIGNALS, VQLM, VQLMConfig
from .reuse import Scorer as ReuseScorer


@dataclass(frozen=True)
class Scorer(Validated):
    """A `VQLM` over token ids; its keys are those of `VQLMConfig` and `QuantiserConfig`."""

    dim: PositiveInt = 128
    """Width of the embedding that is quantised."""
    hidden: PositiveInt = 256
    """Width of the LSTM."""
    quantiser: Kind = "vq"
    """``vq`` one codebook; ``residual`` each stage quantises the residual of the last; ``product`` one codebook per
    slice of the vector; ``fsq`` a fixed grid, rounded."""
    codes: PositiveInt = 64
    """Codes of each codebook; ``fsq`` has the product of its ``levels`` instead."""
    groups: PositiveInt = 2
    """Stages of ``residual``, slices of ``product``."""
    levels: tuple[int, ...] = (4, 4, 4)
    """Levels of each dimension of ``fsq``, 3 or more each."""
    decay: float = 0.95
    """Decay per training step of the moving average that codes follow."""
    dead_below: float = 0.05
    """A code with fewer tokens per training step (moving average) is moved to a token of the batch; 0 = never."""
    commitment: float = 0.25
    """Weight of the commitment loss: the mean squared distance of an embedding to its code."""
    state_dropout: ShareBelowOne = 0.1
    """Share of tokens that training reconstructs without the state, which calibrates ``rarity``."""
    tie: bool = True
    """Whether the softmax uses the embedding as its weights."""
    cutoffs: tuple[int, ...] = ()
    """Frequency ranks that cut the vocabulary into the classes of an adaptive softmax, which is fast for large
    vocabularies (and never tied). Ranks beyond the vocabulary are ignored; without any the softmax is full."""

    reuse: bool = False
    """Whether a head also predicts which tokens occur again: the signal ``reuse`` (see `reuse`)."""
    horizon: PositiveInt = 1024
    """With ``reuse``: number of following tokens in which a token may occur again; half of a segment if that is less.
    Training segments should be much longer."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for what no `VQLM` can be built with."""
        super().__post_init__()
        _ = self._config(1).quantisation

    @property
    def signals(self) -> tuple[str, ...]:
        """Surprise, rarity and gain, and with ``reuse`` that one too."""
        return (*SIGNALS, "reuse") if self.reuse else SIGNALS

    @property
    def policy(self) -> str | Mapping[str, Any]:
        """The surprise, or with ``reuse`` the policy of the scorer `reuse`."""
        return ReuseScorer.policy if self.reuse else "scored"

    def build(self, vocab_size: int) -> VQLM:
        """An untrained `VQLM`."""
        return VQLM(self._config(vocab_size))

    def _config(self, vocab_size: int) -> VQLMConfig:
        return VQLMConfig(vocab_size=vocab_size, **asdict(self))
