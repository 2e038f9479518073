"""Residual vector quantisation of the difference between a recording's mel spectrogram and the vocoder's."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...artifacts import rename_keys
from ...schema import NonNegativeInt, TwoOrMore, Validated, coerce
from ..quantiser import Quantiser, QuantiserConfig
from .unit_vocoder import BANDS, FRAME, HOP, RATE

COLUMNS = FRAME // HOP
"""Spectra of a unit."""


@dataclass(frozen=True)
class MelRVQConfig(Validated):
    """The number and size of the codebooks."""

    num_quantizers: NonNegativeInt = 16
    """Codebooks, each of the residual of the ones before it; 0 = no residual codes."""
    codes: TwoOrMore = 256
    """Codes of each codebook."""


class MelRVQ(nn.Module):
    """Codes of mel residuals, `MelRVQConfig.num_quantizers` a unit. With enough of them copies are arbitrarily close.

    Nothing is trained: k-means finds the codebooks one after the other (as SoundStream's, 2107.03312, without its
    networks). The first codebooks matter most, so that a copy may use only some of them.

    Args:
        config: the shape, with at least one codebook.
        start: residuals of recordings, on which k-means runs; None if weights are loaded next.
    """

    kind: ClassVar[str] = "unit_rvq"
    """The kind in the config of its model folders."""

    def __init__(self, config: MelRVQConfig, start: Float[Tensor, "rows dim"] | None = None) -> None:
        super().__init__()
        self.config = config
        shape = QuantiserConfig("residual", config.codes, config.num_quantizers)
        self.quantiser = Quantiser(shape, torch.randn(config.codes, COLUMNS * BANDS) if start is None else start)

    def fields(self) -> dict[str, Any]:
        """JSON-able values from which `from_fields` rebuilds it, without the weights."""
        return {"shape": asdict(self.config)}

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> MelRVQ:
        """A new model of the shape in ``fields``. Raises `ValueError` for fields that are not a shape."""
        return cls(coerce(MelRVQConfig, rename_keys(fields["shape"], {"books": "num_quantizers"}), "shape"))

    def rate(self, num_quantizers: int) -> float:
        """Kilobits a second of the first ``num_quantizers`` codebooks."""
        return num_quantizers * math.log2(self.config.codes) * RATE / FRAME / 1000

    @torch.no_grad()
    def encode(self, residual: Float[Tensor, "columns band"]) -> Int[Tensor, "units quantizers"]:
        """The codes of a mel residual."""
        return self.quantiser.look(by_unit(residual))[1]

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "units quantizers"]) -> Float[Tensor, "columns band"]:
        """The mel residual of the codes of the first codebooks, or of all."""
        layers: Any = self.quantiser.inner.layers
        parts = [layers[index].get_codes_from_indices(codes[:, index]) for index in range(codes.shape[1])]
        return torch.as_tensor(sum(parts)).reshape(-1, BANDS)


def by_unit(spectra: Float[Tensor, "columns band"]) -> Float[Tensor, "units dim"]:
    """The spectra of each unit as one vector."""
    return spectra.reshape(-1, COLUMNS * BANDS)
