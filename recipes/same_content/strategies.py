"""The strategies whose memories are compared: policies that need no attention, and the same with shuffled scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...memory.policy import Policy
from ...registry import UnknownNameError
from ..lm.strategies import strategies

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
    policy: Any  # a `Policy`; `replace` takes dataclasses only
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
        ValueError: there are none, a key is unknown or does not suit the policy, or a policy needs more than scores.
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
