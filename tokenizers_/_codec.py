"""What a front-end of codes needs of the model that makes them (`models/codecs`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class Codec(Protocol):
    """An ``nn.Module`` with levels of codes, each a hop of so many samples."""

    kind: str
    config: Any
    """With ``hops`` (samples a code, by level), ``rate`` (samples a second) and ``codes`` (how many there are)."""

    def fields(self) -> dict[str, Any]:
        """What the model is rebuilt from, JSON-able; the weights are apart."""
        ...

    def encode_stream(self, parts: Iterable[Float[Tensor, "batch _"]], level: int) -> Iterator[Int[Tensor, "batch _"]]:
        """Codes of one level for a waveform that comes in parts."""
        ...

    def decode_stream(self, parts: Iterable[Int[Tensor, "batch _"]], level: int) -> Iterator[Float[Tensor, "batch _"]]:
        """The waveform for codes of one level that come in parts."""
        ...
