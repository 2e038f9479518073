"""What a host, the model that a policy is fitted for, has to show."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from ...memory.policy import standardise_among
from ..lm.corpus import Passage
from .full_pass import FullPass

Rows = Callable[[Float[Tensor, "groups slots signals"], Float[Tensor, "groups slots"], int], None]
"""Takes the signals of the slots that compete and the logarithm of the attention to come, both standardised, and how
many of the slots stay."""


class Settings(NamedTuple):
    """What fits a host where the user does not say.

    Args:
        length: Tokens of a passage.
        capacity: Slots of the bounded streams.
        chunk: Tokens that the host reads at once.
        horizon: Tokens that must follow, so that attention to come is known.
        guarded: Slots of the bounded streams that the guards keep, at the least.
        signals: The signals to weigh.
        weighable: Those that can be weighed.
    """

    length: int
    capacity: int
    chunk: int
    horizon: int
    guarded: int
    signals: tuple[str, ...]
    weighable: tuple[str, ...]

    @property
    def shortest(self) -> int:
        """Tokens of the shortest passage in which some slots are evicted before the horizon."""
        return (self.capacity // self.chunk + 1) * self.chunk + self.horizon


class Stream(NamedTuple):
    """A passage that is read with bounded slots.

    Args:
        passage: The tokens.
        full: The same passage, of which nothing is evicted.
        prediction: What the first stage found for this share.
        share: What keeps one set of slots.
        capacity: The number of slots.
    """

    passage: Passage
    full: FullPass
    prediction: Float[Tensor, "layers groups features"]
    share: str
    capacity: int


@runtime_checkable
class Host(Protocol):
    """A model, which shows the attention that it pays."""

    @property
    def shares(self) -> tuple[str, ...]:
        """What may keep one set of slots, the finest first."""
        ...

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that are compared."""
        ...

    @property
    def layers(self) -> int:
        """The layers with slots that compete."""
        ...

    @property
    def heads(self) -> int:
        """The sets of slots of a layer, in the finest share."""
        ...

    def fingerprint(self) -> str:
        """That of the weights."""
        ...

    def read_full(self, passage: Passage) -> FullPass:
        """Read a passage of which nothing is evicted."""
        ...

    def read_stream(self, stream: Stream, use: Rows) -> None:
        """Read a passage with bounded slots, and pass on what competes at each eviction.

        Evictions after which fewer tokens are read than the horizon do not count.
        """
        ...


def standardised(x: Float[Tensor, "*groups slots"]) -> Float[Tensor, "*groups slots"]:
    """``x`` less its mean and divided by its standard deviation, over all slots."""
    return standardise_among(x, x == x)
