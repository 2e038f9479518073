"""Keep the tokens that come again soonest: it looks ahead and is for analysis alone; recipes refuse it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..slots import Slots


@dataclass(frozen=True)
class Policy:
    """Belady's optimal replacement (IBM Systems Journal 5, 1966); a token is used when it is read again.

    ``text`` is the full document, token ids from position 0 on; every row reads this document. Tokens that never come
    again go first, the older before the newer; without a text that is all tokens. It is an upper bound for policies
    that predict which tokens recur, not for attention, which uses tokens for more than that.
    """

    text: tuple[int, ...] = ()
    """The token ids of the full document."""
    requires: ClassVar[tuple[str, ...]] = ("future",)

    def __post_init__(self) -> None:
        """Convert ids from a list or a tensor."""
        object.__setattr__(self, "text", tuple(int(token) for token in self.text))

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """Minus the tokens until the slot's token is next read, in float64, which keeps all distances distinct."""
        places = _places(self.text).to(now.device)
        length = len(self.text)
        here = slots.tokens * (length + 1) + now[:, None].clamp(max=length)
        index = torch.searchsorted(places, here)
        following = places[index.clamp(max=length)]
        again = (following // (length + 1) == slots.tokens) & (slots.tokens >= 0) & (index < length)
        never = -float(2 * length + 1)
        return torch.where(again, -(following % (length + 1) - now[:, None]).double(), never)


@lru_cache(maxsize=8)
def _places(text: tuple[int, ...]) -> Int[Tensor, " entries"]:
    """Token and position of every token of the text as one number, sorted; one entry more, so that none is empty."""
    tokens = torch.tensor(text, dtype=torch.long)
    places = (tokens * (len(text) + 1) + torch.arange(len(text))).sort().values
    return torch.cat([places, torch.tensor([torch.iinfo(torch.long).max])])
