"""The protocol of the models in `models/codecs`, which front-ends of codes use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class Codec(Protocol):
    """An ``nn.Module`` with one or more levels of codes; each level has its hop in samples."""

    kind: str
    config: Any
    """Has ``hops`` (samples per code, by level), ``rate`` (samples per second) and ``codes`` (size of a codebook)."""

    def fields(self) -> dict[str, Any]:
        """JSON-able values from which the model is rebuilt, without the weights."""
        ...

    def encode_stream(self, parts: Iterable[Float[Tensor, "batch _"]], level: int) -> Iterator[Int[Tensor, "batch _"]]:
        """Encode a waveform that comes in parts to codes of one level."""
        ...

    def decode_stream(self, parts: Iterable[Int[Tensor, "batch _"]], level: int) -> Iterator[Float[Tensor, "batch _"]]:
        """Decode codes of one level that come in parts to a waveform."""
        ...
