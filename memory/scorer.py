"""What a memory needs of a scorer: causal signals for each token, in nats, the same for any chunking of the stream."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils._pytree import tree_map

from ..artifacts import load_model
from ..folders import loading
from ..registry import build
from ..schema import expand

SIGNALS = ("surprise", "rarity", "gain", "reuse")
"""The signals that scorers of the package give, and for which its policies have weights. Scorers may give others."""

State = Any
"""What a scorer carries from chunk to chunk: a tree of tensors whose first axis is the batch, or None."""


def replace_rows(state: State, new: State, rows: Bool[Tensor, " batch"]) -> State:
    """``state`` with the rows where ``rows`` is set taken from ``new``, and all non-tensor leaves."""

    def choose(old: Any, other: Any) -> Any:
        if not (isinstance(old, Tensor) and isinstance(other, Tensor)):
            return other
        return torch.where(rows.view(-1, *[1] * (other.ndim - 1)), other, old)

    return tree_map(choose, state, new)


@runtime_checkable
class ScorerModel(Protocol):
    """An ``nn.Module`` that scores token streams.

    A scorer of a fixed vocabulary declares its ``vocab_size`` and never gets larger ids. It may declare ``policy`` as
    its `Scorer` does, and ``input_kind`` where it reads frames (see `input_kind`).
    """

    @property
    def signals(self) -> tuple[str, ...]:
        """The names of the signals that `score` returns, in order, the most useful first; may be a class variable."""
        ...

    def initial_state(self, batch: int) -> State:
        """The state before the first token, on the module's device."""
        ...

    def score(
        self, tokens: Int[Tensor, "batch time"], state: State
    ) -> tuple[Float[Tensor, "batch time signal"], State]:
        """The ``signals`` of each token, and the state after the last one. Runs without gradients."""
        ...


def signals_of(scorer: Any) -> tuple[str, ...]:
    """The signals that a `ScorerModel` or `Scorer` gives; none where there is no scorer.

    Raises `ValueError` where it does not declare them.
    """
    if scorer is None:
        return ()
    if not hasattr(scorer, "signals"):
        raise ValueError(
            f"the scorer {type(scorer).__name__} does not name what its `score` returns; give it a class variable, "
            'such as signals = ("surprise",)'
        )
    return tuple(scorer.signals)


def policy_of(scorer: Any) -> str | Mapping[str, Any]:
    """The default policy of a `ScorerModel` or `Scorer`: the one it declares, else ``scored`` by its first signal.

    Signals that are none of `SIGNALS` do not count.
    """
    first = next((name for name in signals_of(scorer) if name in SIGNALS), "surprise")
    default = "scored" if first == "surprise" else {"name": "scored", "surprise": 0.0, first: 1.0}
    return getattr(scorer, "policy", default)


def input_kind(scorer: Any) -> Literal["tokens", "frames"]:
    """What a `ScorerModel` reads: token ids, unless it declares ``frames``."""
    return getattr(scorer, "input_kind", "tokens")


def load_scorer(folder: str | Path, device: torch.device | str = "cpu") -> Any:
    """The scorer of a run of ``vqmem text_lm`` or ``vqmem train-scorer``: a `ScorerModel` in eval mode.

    Raises `ValueError` where it is missing, damaged or of another architecture.
    """

    def make(fields: dict[str, Any]) -> Any:
        return build("scorers", fields["scorer"]).build(fields["vocab_size"])

    folder = Path(expand(str(folder)))
    with loading(folder, "scorer", "text_lm"):
        return load_model(folder / "scorer", make, kind="scorers", device=device)
