"""Details of speech: what the mel spectrogram that a vocoder makes of units lacks of a recording's, as codes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...schema import coerce
from ..quantiser import Quantiser, QuantiserConfig
from .unit_vocoder import BANDS, FRAME, HOP, RATE

COLUMNS = FRAME // HOP
"""Spectra of a unit."""


@dataclass(frozen=True)
class DetailsConfig:
    """How many codes tell the details of a unit."""

    books: int = 16
    """Codebooks, each of what the ones before it have left; 0 for no details."""
    codes: int = 256
    """Codes of each."""

    def __post_init__(self) -> None:
        if self.books < 0 or self.codes < 2:
            raise ValueError(f"books = {self.books} must be 0 or more, and codes = {self.codes} at least 2")


class Details(nn.Module):
    """Residual codes of log mel spectra, `DetailsConfig.books` a unit: with them copies are as near as one likes.

    Nothing is trained: codebooks are found one after the other by k-means (SoundStream's, 2107.03312, without its
    networks). The first books tell most, so that a copy may do with some of them.

    Args:
        config: the shape; of one book at least.
        start: what recordings have and the vocoder's spectra lack, for the k-means; None where weights are loaded next.
    """

    kind: ClassVar[str] = "unit_details"
    """What its model folders say that they hold."""

    def __init__(self, config: DetailsConfig, start: Float[Tensor, "rows dim"] | None = None) -> None:
        super().__init__()
        self.config = config
        shape = QuantiserConfig("residual", config.codes, config.books)
        self.quantiser = Quantiser(shape, torch.randn(config.codes, COLUMNS * BANDS) if start is None else start)

    def fields(self) -> dict[str, Any]:
        """What `from_fields` rebuilds it from, JSON-able; the weights are apart."""
        return {"shape": asdict(self.config)}

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Details:
        """A fresh model of the shape that ``fields`` tell. Raises `ValueError` for fields that are not a shape."""
        return cls(coerce(DetailsConfig, fields["shape"], "shape"))

    def rate(self, books: int) -> float:
        """Kilobits a second of so many books."""
        return books * math.log2(self.config.codes) * RATE / FRAME / 1000

    @torch.no_grad()
    def encode(self, lacking: Float[Tensor, "columns band"]) -> Int[Tensor, "units books"]:
        """The codes of what is lacking."""
        return self.quantiser.look(rows(lacking))[1]

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "units books"]) -> Float[Tensor, "columns band"]:
        """What codes stand for; those of the first few books will do."""
        books: Any = self.quantiser.inner
        told = sum(books.layers[book].get_codes_from_indices(codes[:, book]) for book in range(codes.shape[1]))
        return torch.as_tensor(told).reshape(-1, BANDS)


def rows(spectra: Float[Tensor, "columns band"]) -> Float[Tensor, "units dim"]:
    """The spectra of a unit side by side."""
    return spectra.reshape(-1, COLUMNS * BANDS)
