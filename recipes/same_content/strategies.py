"""The strategies whose memories are compared, and what each keeps of a passage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...memory.bank import Memory
from ...memory.policy import Policy
from ...registry import UnknownNameError
from ..lm.strategies import strategies
from .streams import NO_WORD, TokenStream

_KEYS = ("policy", "shuffle", "window")


@dataclass(frozen=True)
class ContentStrategy:
    """A policy that needs no attention, for memories of both modalities.

    Args:
        name: its name in the config.
        policy: ranks tokens by their age and scores.
        shuffle: whether each token has the scores of another one of the passage, drawn at random.
        window: seconds of content over which scores are averaged; 0 = as the policy says.
    """

    name: str
    policy: Policy | Any  # `replace` takes dataclasses only
    shuffle: bool = False
    window: float = 0.0

    def policy_for(self, tokens_per_second: float) -> Policy:
        """The policy for a modality, whose window is the odd number of tokens that is nearest to the seconds."""
        if not self.window:
            return self.policy
        return replace(self.policy, window=2 * round((self.window * tokens_per_second - 1) / 2) + 1)

    def is_control_of(self, other: ContentStrategy) -> bool:
        """Whether it ranks by the shuffled scores of the other strategy."""
        return self.shuffle and not other.shuffle and (self.policy, self.window) == (other.policy, other.window)


def read_strategies(nodes: Mapping[str, Any]) -> list[ContentStrategy]:
    """Build strategies from their YAML form.

    Args:
        nodes: name -> ``policy`` and optionally ``shuffle`` and ``window``.

    Returns:
        The strategies in the same order.

    Raises:
        ValueError: there are none, a key is unknown or has no meaning for the policy, or a policy needs more than scores.
    """
    if not nodes:
        raise ValueError("strategies names none; give one, as in strategies={fifo: {policy: fifo}}")
    return [_read_strategy(name, node) for name, node in nodes.items()]


def _read_strategy(name: str, node: Any) -> ContentStrategy:
    given = node if isinstance(node, Mapping) else {}
    for unknown in set(given) - {*_KEYS}:
        raise UnknownNameError(f"key of the strategy {name!r}:", unknown, [*_KEYS])
    (built,) = strategies({name: {"policy": given["policy"]} if "policy" in given else node})
    if needed := sorted({*built.policy.requires} - {"scores"}):
        raise ValueError(
            f"strategy {name!r}: its policy needs {' and '.join(needed)} of a trained model, and here is none; use one "
            "that needs scores at most, such as scored, random or fifo"
        )
    window = given.get("window", 0.0)
    if isinstance(window, bool) or not isinstance(window, int | float) or not 0 <= window < float("inf"):
        raise ValueError(f"strategy {name!r}: window={window!r} is not a number of seconds; give one, such as 0.5")
    if window and not hasattr(built.policy, "window"):
        raise ValueError(f"strategy {name!r}: its policy averages no scores; leave window out, or use scored")
    return ContentStrategy(name, built.policy, bool(given.get("shuffle", False)), float(window))


def kept_shares(
    stream: TokenStream,
    memory: Memory,
    stops: Sequence[float],
    moments: Sequence[int],
    word_count: int,
) -> Float[Tensor, "moment word"]:
    """Read a passage through a memory, and note how much of each word it keeps.

    Args:
        stream: the tokens.
        memory: the memory, empty at first.
        stops: seconds at which a segment ends, in order; the memory appends the tokens read by then, and evicts.
        moments: indices of the segments after which the memory is looked at, in order.
        word_count: the number of words.

    Returns:
        The share of the tokens of each word that the memory keeps at each moment.
    """
    positions = torch.arange(len(stream))
    state = memory.empty((positions[None],), stream.signal_names)
    sizes = stream.word_sizes(word_count).clamp(min=1)
    shares, start = [], 0
    counts = torch.searchsorted(stream.ends, torch.tensor(stops, dtype=stream.ends.dtype), right=True)
    for index, stop in enumerate(counts.tolist()):
        if stop > start:
            part = slice(start, stop)
            tokens, places = stream.ids[None, part], positions[None, part]
            is_valid = torch.ones_like(tokens, dtype=torch.bool)
            state = memory.write(state, (places,), tokens, places, stream.signals[None, part], is_valid).state
            start = stop
        if index in moments:
            words = stream.words[state.slots.positions[state.slots.valid]]
            shares.append(torch.bincount(words[words != NO_WORD], minlength=word_count) / sizes)
    return torch.stack(shares)
