"""Which slots stay when there are too many: a policy gives priorities, a guard protects slots, `select` decides."""

from __future__ import annotations

import contextlib
import json
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..schema import shown
from .scorer import SIGNALS, policy_of, signals_of
from .slots import Slots

ATTENTION_SIGNALS = ("learned", "expected", "observed", "keydiff", "norm", "leverage")
"""The signals of slots that the cache of a pretrained model computes: see `signals` and `learned` beside it."""


@runtime_checkable
class Policy(Protocol):
    """The frozen dataclass ``Policy`` of a policy's file: its fields are its YAML keys."""

    @property
    def requires(self) -> tuple[str, ...]:
        """What the policy needs beyond tokens, positions and age; may be a class variable.

        ``"scores"`` are those of a scorer, ``"usage"`` needs attention weights and ``"norms"`` the norms of keys (see
        `Observer`), ``"decay"`` the `Slots.decay` of a model with forget gates, ``"layers"`` every layer (see
        `LayerScorer`), and with it ``"signals"`` the `Slots.signals` that its ``attention_signals`` names. A policy
        reads the scorer's signals by name (`Slots.score`). Those that it uses are its fields with the names of
        `SIGNALS`, which are weights (see `signal_weights`), or the names that it declares as ``signals``.
        """
        ...

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """A finite priority for each slot; the highest stay. ``now`` is the position of each row's next token.

        A priority depends on the slots of its row alone. Priorities of invalid slots are ignored.
        """
        ...


class ForwardStats(NamedTuple):
    """What a forward pass over new tokens showed. Slots are all that the pass could read, those of new tokens last.

    Args:
        positions: Positions of the new tokens.
        valid: False where a new token is padding.
        weights: Attention weights averaged over heads and layers, zero where a query may not attend; of all new tokens
            or of the newest alone. None where the policy does not require usage.
        norms: L2 norms of the new tokens' keys, averaged over heads and layers. None where the policy does not require
            them.
    """

    positions: Int[Tensor, "batch new"]
    valid: Bool[Tensor, "batch new"]
    weights: Float[Tensor, "batch queries slots"] | None = None
    norms: Float[Tensor, "batch new"] | None = None


@runtime_checkable
class Observer(Protocol):
    """A policy that defines what a slot's ``usage`` is. For other policies it is the sum of attention weights."""

    @property
    def queries(self) -> int | None:
        """How many of the newest queries' weights it needs, None for all; the others are not computed."""
        ...

    def observe(self, usage: Float[Tensor, "batch slots"], stats: ForwardStats) -> Float[Tensor, "batch slots"]:
        """The usage after a forward pass over new tokens, whose ``usage`` (the last entries) is zero before.

        It ignores queries that are not valid, and depends on the slots of the same row alone.
        """
        ...


@runtime_checkable
class SlotPredictor(Protocol):
    """A policy that computes signals of slots from their payload, once, when they are written.

    They stand behind the scorer's signals in the scores of the slots, under the names ``computed``.
    """

    @property
    def computed(self) -> tuple[str, ...]:
        """The names of the signals."""
        ...

    def compute(
        self, payload: tuple[Tensor, ...], positions: Int[Tensor, "batch new"]
    ) -> Float[Tensor, "batch new signal"]:
        """The signals of new slots."""
        ...


class LayerScorer(Protocol):
    """A policy that scores slots in each layer of a pretrained model.

    A slot's usage is the mean over the heads and layers that keep the same slots.
    """

    def layers(self, model: Any) -> Sequence[nn.Module]:
        """The attention modules to score, each with a ``layer_idx``. Raises `ValueError` where there are none."""
        ...

    def score_layer(
        self,
        layer: nn.Module,
        inputs: dict[str, Any],
        keys: Float[Tensor, "batch heads slots width"],
        values: Float[Tensor, "batch heads slots width"],
        attention: Tensor | None,
    ) -> Float[Tensor, "batch heads slots"]:
        """Score the slots of a layer after its forward pass.

        Args:
            layer: The attention module, one of `layers`.
            inputs: The keyword arguments of its call, such as ``hidden_states``.
            keys: The keys of all slots, those of new tokens last.
            values: The values of all slots.
            attention: The attention weights that the layer returned; None if it returned none.

        Returns:
            The importance of each slot for each head of keys; the slots of the highest stay.
        """
        ...


@dataclass(frozen=True)
class Guard:
    """The slots that no policy may evict: those of the first ``sinks`` and the newest ``recent`` tokens."""

    sinks: int | Any = 0  # a value of another type gets an error of ours
    recent: int | Any = 0

    def __post_init__(self) -> None:
        """Raise `ValueError` for sizes that are no integers, or negative."""
        for name in ("sinks", "recent"):
            object.__setattr__(self, name, as_integer(name, getattr(self, name)))
        if self.sinks < 0 or self.recent < 0:
            raise ValueError(f"guards cannot be negative: sinks={self.sinks}, recent={self.recent}; use 0 for no guard")

    def protects(self, slots: Slots, now: Int[Tensor, " batch"]) -> Bool[Tensor, "batch slots"]:
        """Which slots it protects from eviction."""
        return (slots.positions < self.sinks) | (slots.positions >= now[:, None] - self.recent)


def as_integer(name: str, value: Any) -> int:
    """``value``, which may come from numpy or torch, as an ``int``. Raises `ValueError` where it is not an integer."""
    number = None
    if isinstance(value, float) and value.is_integer():
        number = int(value)
    elif not isinstance(value, bool) and getattr(value, "dtype", None) is not torch.bool:
        with contextlib.suppress(TypeError):
            number = operator.index(value)  # pyright: ignore[reportArgumentType]
    if number is None or not -(2**63) < number < 2**63:
        raise ValueError(f"{name}={shown(value)} is not an integer number of tokens; give one, such as 256")
    return number


def require_signals(policy: Policy, scorer: Any, where: str = "") -> None:
    """Raise `ValueError`, which begins with ``where``, if ``policy`` weighs a signal that ``scorer`` does not give.

    ``scorer`` is a `ScorerModel` or the `Scorer` that builds it.
    """
    given = signals_of(scorer)
    missing = [name for name in getattr(policy, "signals", signal_weights(policy)) if name not in given]
    if missing:
        known = hasattr(scorer, "policy") or not set(SIGNALS).isdisjoint(given)
        example = f", as in {json.dumps(policy_of(scorer))}" if known else ", in a policy of your own"
        raise ValueError(
            f"{where}policy {variant_name(policy)} weighs {' and '.join(missing)}, which the scorer "
            f"{variant_name(scorer)} does not give; weigh {' or '.join(given)}{example}"
        )


def variant_name(variant: Any) -> str:
    """The name of a policy or scorer in configs, which is that of its file; its class where it has no file there."""
    folder, _, name = type(variant).__module__.rpartition(".")
    return name if folder.endswith(("policies", "scorers")) else type(variant).__name__


def signal_weights(policy: Any) -> dict[str, float]:
    """The weights of the scorer's signals that are not 0: the fields of ``policy`` with the names of `SIGNALS`."""
    return {name: weight for name in SIGNALS if (weight := getattr(policy, name, 0))}


def observe(policy: Policy, usage: Float[Tensor, "batch slots"], stats: ForwardStats) -> Float[Tensor, "batch slots"]:
    """The usage of all slots after a forward pass over new tokens, as ``policy`` defines it."""
    if isinstance(policy, Observer):
        return policy.observe(usage, stats)
    return usage if stats.weights is None else usage + valid_weights(stats).sum(1)


def valid_weights(stats: ForwardStats) -> Float[Tensor, "batch queries slots"]:
    """The attention weights, zero for queries that are not valid. There must be some."""
    assert stats.weights is not None, "a policy that reads attention weights must require usage"
    return stats.weights * stats.valid[:, -stats.weights.shape[1] :, None]


def attended(weights: Float[Tensor, "batch queries slots"], top: int) -> Bool[Tensor, "batch queries slots"]:
    """Whether a slot is among the ``top`` of a query and gets any attention."""
    best = weights.topk(min(top, weights.shape[2]), dim=2)
    chosen = torch.zeros_like(weights, dtype=torch.bool).scatter_(2, best.indices, True)
    return chosen & (weights > 0)


def age(slots: Slots, now: Int[Tensor, " batch"]) -> Int[Tensor, "batch slots"]:
    """Tokens since each slot was written, at least 1."""
    return (now[:, None] - slots.positions).clamp(min=1)


def log_usage(slots: Slots) -> Float[Tensor, "batch slots"]:
    """The logarithm of the attention received, which is finite for slots that received none."""
    return slots.usage.float().clamp(min=1e-6).log()


def standardise_among(x: Float[Tensor, "*batch slots"], among: Bool[Tensor, "*#batch slots"]) -> Tensor:
    """``x`` less its mean and divided by its standard deviation, both over the slots where ``among`` is set."""
    count = among.sum(-1, keepdim=True).clamp(min=1)
    mean = torch.where(among, x, 0).sum(-1, keepdim=True) / count
    spread = torch.where(among, x - mean, 0).square().sum(-1, keepdim=True) / count
    return (x - mean) / spread.sqrt().clamp(min=1e-6)


def smooth(importance: Float[Tensor, "batch slots"], slots: Slots, window: int) -> Float[Tensor, "batch slots"]:
    """The mean importance of the valid slots at most ``window // 2`` tokens away to either side.

    It takes differences of running sums over the slots in order of position, in float64 against cancellation.
    """
    if window == 1:
        return importance
    order = _by_position(slots)
    places = torch.where(slots.valid, slots.positions, -1).gather(1, order)
    sums = F.pad(torch.where(slots.valid, importance, 0).double().gather(1, order).cumsum(1), (1, 0))
    # Invalid slots have the position -1, where no window begins.
    start = torch.searchsorted(places, (slots.positions - window // 2).clamp(min=0))
    stop = torch.searchsorted(places, slots.positions + window // 2, right=True)
    total = sums.gather(1, stop) - sums.gather(1, start)
    return (total / (stop - start).clamp(min=1)).to(importance.dtype)


def has_newer_copy(slots: Slots) -> Bool[Tensor, "batch slots"]:
    """Whether a valid slot further on has the same token; pooled slots (-1) have none."""
    tokens = torch.where(slots.valid, slots.tokens, -1)
    order = slots.positions.argsort(dim=1, stable=True)
    order = order.gather(1, tokens.gather(1, order).argsort(dim=1, stable=True))
    last = torch.searchsorted(tokens.gather(1, order), tokens, right=True) - 1
    return (tokens >= 0) & (slots.positions.gather(1, order.gather(1, last)) > slots.positions)


def select(
    slots: Slots, policy: Policy, keep: int, now: Int[Tensor, " batch"], guard: Guard | None = None
) -> Int[Tensor, "batch keep"]:
    """Select the slots that stay: guarded ones first, then valid ones by priority, the newer one among equals.

    Args:
        slots: The slots to choose from.
        policy: The policy that gives the priorities.
        keep: How many slots of each row stay; all where there are no more.
        now: The position of each row's next token.
        guard: The slots to prefer to all others; none by default.

    Returns:
        The indices of the slots that stay, in order of position and invalid ones first.
    """
    guard = guard or Guard()
    batch, count = slots.valid.shape
    if keep >= count:
        return torch.arange(count, device=slots.valid.device).expand(batch, count)
    guarded = guard.protects(slots, now)
    priority = policy.priority(replace(slots, guarded=guarded), now)
    # Three stable sorts, the least significant key first: position, then priority, then invalid < free < guarded.
    order = _by_position(slots)
    order = order.gather(1, priority.gather(1, order).argsort(dim=1, stable=True))
    rank = slots.valid.long() * (1 + guarded.long())
    order = order.gather(1, rank.gather(1, order).argsort(dim=1, stable=True))
    kept = order[:, count - keep :]
    # Back into the order of positions, invalid ones first.
    place = torch.empty_like(order).scatter_(
        1, _by_position(slots), torch.arange(count, device=order.device).expand(batch, -1)
    )
    return kept.gather(1, place.gather(1, kept).argsort(dim=1))


def _by_position(slots: Slots) -> Int[Tensor, "batch slots"]:
    return torch.where(slots.valid, slots.positions, -1).argsort(dim=1, stable=True)
