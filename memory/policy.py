"""Which slots stay when there are too many: a policy gives priorities, guards come first, `select` decides."""

from __future__ import annotations

import contextlib
import json
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..schema import shown
from .scorer import SIGNALS, policy_of, signals_of
from .slots import Slots


@runtime_checkable
class Policy(Protocol):
    """The frozen dataclass ``Policy`` of a policy's file: its fields are its YAML keys."""

    @property
    def requires(self) -> tuple[str, ...]:
        """What the memory must provide beyond tokens, positions and age.

        ``"scores"`` (a scorer runs along), ``"usage"`` (attention weights are shown to it, see `Observer`), ``"norms"``
        (so are the norms of keys) or ``"layers"`` (so is every layer, see `Judge`); a class variable will do. The
        weights of the scorer's signals are fields with their names; a policy that reads scores otherwise declares those
        that it uses as ``signals``.
        """
        ...

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """A finite priority a slot, higher = keep; ``now`` is the position of the next token of each row.

        Depends on a slot's own row alone. Values at invalid slots are ignored.
        """
        ...


class Seen(NamedTuple):
    """What a pass of the model over new tokens showed of all slots it could read, the new ones last.

    ``weights`` are attention weights averaged over heads and layers, zero where a query may not look; they may be those
    of the newest queries alone. ``norms`` are the L2 norms of the new tokens' keys, averaged likewise. ``positions``
    and ``valid`` are the new tokens'. What no policy asked for is None.
    """

    positions: Int[Tensor, "batch new"]
    valid: Bool[Tensor, "batch new"]
    weights: Float[Tensor, "batch queries slots"] | None = None
    norms: Float[Tensor, "batch new"] | None = None


@runtime_checkable
class Observer(Protocol):
    """A policy that says itself what a slot's ``usage`` is. Without this, usage is the sum of attention weights."""

    @property
    def queries(self) -> int | None:
        """How many of the newest queries' weights it looks at, None for all; spares making the others."""
        ...

    def observe(self, usage: Float[Tensor, "batch slots"], seen: Seen) -> Float[Tensor, "batch slots"]:
        """The usage after a pass over new tokens, whose usage so far (the last entries) is zero.

        Queries that are not valid are to be left out. Depends on a slot's own row alone.
        """
        ...


class Judge(Protocol):
    """A policy that looks into the layers of a pretrained model. A slot's usage is the mean of what it says of them."""

    def layers(self, model: Any) -> Sequence[nn.Module]:
        """The attention modules to be shown, each with a ``layer_idx``. Raises `ValueError` where there are none."""
        ...

    def judge(
        self,
        layer: nn.Module,
        inputs: dict[str, Any],
        keys: Float[Tensor, "batch heads slots width"],
        values: Float[Tensor, "batch heads slots width"],
        attention: Tensor | None,
    ) -> Float[Tensor, "batch slots"]:
        """What every slot is worth to a layer that was called with ``inputs``, the new slots last.

        ``attention`` is what the layer tells of its weights; None if it tells nothing.
        """
        ...


@dataclass(frozen=True)
class Guard:
    """Slots no policy may touch: those of the first ``sinks`` and the newest ``recent`` tokens."""

    sinks: int | Any = 0  # what is no int gets an error of our own
    recent: int | Any = 0

    def __post_init__(self) -> None:
        """Raise `ValueError` for guards that are no whole numbers, or negative."""
        for name in ("sinks", "recent"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name)))
        if self.sinks < 0 or self.recent < 0:
            raise ValueError(f"guards cannot be negative: sinks={self.sinks}, recent={self.recent}; use 0 for no guard")

    def holds(self, slots: Slots, now: Int[Tensor, " batch"]) -> Bool[Tensor, "batch slots"]:
        """Which slots it keeps."""
        return (slots.positions < self.sinks) | (slots.positions >= now[:, None] - self.recent)


def whole_number(name: str, value: Any) -> int:
    """``value``, which may come from numpy or torch, as an ``int``. Raises `ValueError` where it is no whole number."""
    number = None
    if isinstance(value, float) and value.is_integer():
        number = int(value)
    elif not isinstance(value, bool) and getattr(value, "dtype", None) is not torch.bool:
        with contextlib.suppress(TypeError):
            number = operator.index(value)  # pyright: ignore[reportArgumentType]
    if number is None or not -(2**63) < number < 2**63:
        raise ValueError(f"{name}={shown(value)} is not a whole number of tokens; give one, such as 256")
    return number


def require_signals(policy: Policy, scorer: Any, where: str = "") -> None:
    """Raise `ValueError`, which begins with ``where``, if ``policy`` weighs a signal that ``scorer`` does not give.

    ``scorer`` is a `ScorerModel` or the `Scorer` that builds it.
    """
    given = signals_of(scorer)
    missing = [name for name in _weighed(policy) if name not in given]
    if missing:
        raise ValueError(
            f"{where}policy {variant_name(policy)} weighs {' and '.join(missing)}, which the scorer "
            f"{variant_name(scorer)} does not give; weigh {' or '.join(given)}, as in {json.dumps(policy_of(scorer))}"
        )


def variant_name(variant: Any) -> str:
    """What configs call a policy or a scorer: the name of its file; the class of one that has no file there."""
    folder, _, name = type(variant).__module__.rpartition(".")
    return name if folder.endswith(("policies", "scorers")) else type(variant).__name__


def _weighed(policy: Policy) -> tuple[str, ...]:
    """The signals that ``policy`` uses: those it declares, else those that have a weight, else all if it wants any."""
    if hasattr(policy, "signals"):
        return tuple(policy.signals)  # pyright: ignore[reportAttributeAccessIssue]
    if any(hasattr(policy, name) for name in SIGNALS):
        return tuple(name for name in SIGNALS if getattr(policy, name, 0))
    return SIGNALS if "scores" in policy.requires else ()


def observe(policy: Policy, usage: Float[Tensor, "batch slots"], seen: Seen) -> Float[Tensor, "batch slots"]:
    """The usage of all slots after a pass over new tokens, as ``policy`` would have it."""
    if isinstance(policy, Observer):
        return policy.observe(usage, seen)
    return usage if seen.weights is None else usage + weights_of(seen).sum(1)


def weights_of(seen: Seen) -> Float[Tensor, "batch queries slots"]:
    """The attention weights, zero for queries that are not valid. There must be some."""
    assert seen.weights is not None, "a policy that reads attention weights must require usage"
    return seen.weights * seen.valid[:, -seen.weights.shape[1] :, None]


def attended(weights: Float[Tensor, "batch queries slots"], top: int) -> Bool[Tensor, "batch queries slots"]:
    """Whether a slot is among the ``top`` of a query, and is attended to at all."""
    best = weights.topk(min(top, weights.shape[2]), dim=2)
    chosen = torch.zeros_like(weights, dtype=torch.bool).scatter_(2, best.indices, True)
    return chosen & (weights > 0)


def age(slots: Slots, now: Int[Tensor, " batch"]) -> Int[Tensor, "batch slots"]:
    """Tokens since each slot was written, at least 1."""
    return (now[:, None] - slots.positions).clamp(min=1)


def smooth(worth: Float[Tensor, "batch slots"], slots: Slots, window: int) -> Float[Tensor, "batch slots"]:
    """The mean over the valid slots at most ``window // 2`` tokens away to either side.

    Differences of running sums over the slots in order of position, in float64, where nothing that matters cancels.
    """
    if window == 1:
        return worth
    order = _by_position(slots)
    places = torch.where(slots.valid, slots.positions, -1).gather(1, order)
    sums = F.pad(torch.where(slots.valid, worth, 0).double().gather(1, order).cumsum(1), (1, 0))
    # Invalid slots stand at -1, where no window begins.
    start = torch.searchsorted(places, (slots.positions - window // 2).clamp(min=0))
    stop = torch.searchsorted(places, slots.positions + window // 2, right=True)
    total = sums.gather(1, stop) - sums.gather(1, start)
    return (total / (stop - start).clamp(min=1)).to(worth.dtype)


def select(
    slots: Slots, policy: Policy, keep: int, now: Int[Tensor, " batch"], guard: Guard | None = None
) -> Int[Tensor, "batch keep"]:
    """The indices of the ``keep`` slots that stay in each row, in the order of their positions.

    Invalid slots go first, guarded slots stay before anything else, the rest by priority; ties keep the newer slot.
    """
    guard = guard or Guard()
    batch, count = slots.valid.shape
    if keep >= count:
        return torch.arange(count, device=slots.valid.device).expand(batch, count)
    priority = policy.priority(slots, now)
    # Three stable sorts, least important key first: position, then priority, then invalid < free < guarded.
    order = _by_position(slots)
    order = order.gather(1, priority.gather(1, order).argsort(dim=1, stable=True))
    rank = slots.valid.long() * (1 + guard.holds(slots, now).long())
    order = order.gather(1, rank.gather(1, order).argsort(dim=1, stable=True))
    kept = order[:, count - keep :]
    # Back into the order of positions, invalid ones first.
    place = torch.empty_like(order).scatter_(
        1, _by_position(slots), torch.arange(count, device=order.device).expand(batch, -1)
    )
    return kept.gather(1, place.gather(1, kept).argsort(dim=1))


def _by_position(slots: Slots) -> Int[Tensor, "batch slots"]:
    return torch.where(slots.valid, slots.positions, -1).argsort(dim=1, stable=True)
