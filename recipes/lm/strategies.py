"""Strategies of the memory of a run: what their config names, and which of them can be trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from ...memory.bank import Memory
from ...memory.compressor import Compression
from ...memory.policy import Guard, Policy, require_signals, variant_name
from ...registry import UnknownNameError, build
from ...schema import expand

RUN = "{run}"
"""Stands for the folder of the run in the folder of a policy that was fitted to its model."""

Scores = Literal["given", "shuffled", "inverted", "random"]
"""The scores that a policy sees: those of the scorer, or a control of the same shape that says nothing of the token."""

_KEYS = ("policy", "compression", "sinks", "recent", "scores")


@dataclass(frozen=True)
class Strategy:
    """A named policy and compression of a memory, the scores that it sees, and its guard if that is not the run's."""

    name: str
    policy: Policy
    compression: Compression
    sinks: int | None = None
    recent: int | None = None
    scores: Scores = "given"

    def __post_init__(self) -> None:
        """Raise `ValueError` for a policy that needs the layers of a pretrained model for more than ``learned``.

        Also for a control of scores that the policy does not read.
        """
        if self.is_control and "scores" not in self.policy.requires:
            raise ValueError(f"strategy {self.name!r}: scores={self.scores}, but its policy reads no scores; drop it")
        if "layers" in self.policy.requires and getattr(self.policy, "attention_signals", ()) != ("learned",):
            raise ValueError(
                f"strategy {self.name!r}: its policy looks into the layers of a pretrained model (requires 'layers'), "
                "which the trained memory does not show; use it in vqmem.VQMemCache, or weigh learned alone"
            )

    @property
    def needs_gates(self) -> bool:
        """Whether its policy reads the decay of forget gates."""
        return "decay" in self.policy.requires

    @property
    def is_fitted(self) -> bool:
        """Whether its policy was fitted to a trained model, so that none can be trained with it."""
        return "learned" in getattr(self.policy, "attention_signals", ())

    @property
    def is_control(self) -> bool:
        """Whether its policy sees other scores than the scorer's, which only measurements of a passage can arrange."""
        return self.scores != "given"

    def controlled(self, scores: Sequence[Float[Tensor, "_ signal"]]) -> Sequence[Float[Tensor, "_ signal"]]:
        """The scores of passages that its policy sees, in place of those of the scorer.

        ``shuffled`` permutes the tokens of each passage, ``inverted`` changes the sign, and ``random`` draws uniformly.
        """
        if not self.is_control:
            return scores
        if self.scores == "inverted":
            return [-values for values in scores]
        made = []
        for number, values in enumerate(scores):
            generator = torch.Generator().manual_seed(number)
            if self.scores == "shuffled":
                made.append(values[torch.randperm(len(values), generator=generator)])
            else:
                made.append(torch.rand(values.shape, generator=generator))
        return made

    @property
    def fitted_folder(self) -> Path | None:
        """The folder of its policy, if that was fitted to a trained model."""
        return Path(expand(getattr(self.policy, "folder", ""))) if self.is_fitted else None

    def memory(self, capacity: int, guard: Guard) -> Memory:
        """A memory of ``capacity`` slots with this strategy; ``guard`` is the run's."""
        sinks = guard.sinks if self.sinks is None else self.sinks
        recent = guard.recent if self.recent is None else self.recent
        return Memory(capacity, self.policy, self.compression, Guard(sinks, recent))


def strategies(nodes: Mapping[str, Any], scorer: Any = None, run: str | Path = RUN) -> list[Strategy]:
    """Build strategies from their YAML form: name → ``policy`` and optionally ``compression`` (default: drop).

    ``sinks`` and ``recent`` replace the guard of the run for one strategy; ``scores`` names a control (`Scores`).

    ``scorer``, a model or the YAML form of one, has to give the signals that the policies use; None skips the check.
    ``run`` is the folder of the run, which stands for `RUN` in the folders of fitted policies.
    """
    made = []
    scorer = build("scorers", scorer, "scorer") if isinstance(scorer, str | Mapping) else scorer
    for name, node in nodes.items():
        if not isinstance(node, Mapping) or "policy" not in node:
            raise ValueError(f"strategy {name!r} is {node!r}; it needs the key policy, as in {{policy: fifo}}")
        for unknown in set(node) - {*_KEYS}:
            raise UnknownNameError(f"key of the strategy {name!r}:", unknown, [*_KEYS])
        if (scores := node.get("scores", "given")) not in (known := get_args(Scores)):
            raise UnknownNameError(f"scores of the strategy {name!r}:", str(scores), list(known))
        key = f"strategies.{name}"
        compression = build("compressions", node.get("compression", "drop"), f"{key}.compression")
        policy = build("policies", node["policy"], f"{key}.policy")
        if "future" in policy.requires:
            raise ValueError(
                f"strategy {name!r}: policy {node['policy']!r} looks ahead, which no model can; for analysis"
            )
        if scorer is not None:
            require_signals(policy, scorer, f"strategy {name!r}: ")
        if RUN in getattr(policy, "folder", ""):
            policy = replace(policy, folder=policy.folder.replace(RUN, str(run)))
        made.append(Strategy(name, policy, compression, node.get("sinks"), node.get("recent"), scores))
    return made


def require_gates(choices: Sequence[Strategy], forget_gate: bool, key: str) -> None:
    """Raise `ValueError` for a strategy that needs forget gates where a model has none; ``key`` turns them on."""
    for strategy in choices:
        if strategy.needs_gates and not forget_gate:
            raise ValueError(
                f"strategy {strategy.name!r}: policy {variant_name(strategy.policy)} reads the decay of forget gates; "
                f"give the model some with {key}=true, or use another policy"
            )


def refuse_untrainable(choices: Sequence[Strategy], instead: str) -> None:
    """Raise `ValueError` for a strategy of training that is fitted afterwards, or a control; do ``instead``."""
    for strategy in choices:
        if strategy.is_control:
            raise ValueError(
                f"strategy {strategy.name!r}: scores={strategy.scores} is a control, with which no model is trained; "
                f"{instead}"
            )
        if strategy.is_fitted:
            raise ValueError(
                f"strategy {strategy.name!r} weighs learned, which `vqmem fit_policy RUN` fits to a trained model, so "
                f"that none is trained with it; {instead}"
            )
