"""The config of a run of `vqmem text_lm`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...artifacts import read_config
from ...memory.policy import Guard
from ...models.memory_transformer import TransformerConfig
from ...registry import DataSpec, FrontEndSpec, ScorerSpec
from ...schema import NonNegativeFloat, PathText, PositiveInt, TwoOrMore
from ..engine.run_config import RunConfig
from ..engine.task import TrainConfig
from ..lm.language_model import Shape
from ..lm.strategies import Strategy, refuse_untrainable, require_gates, strategies

NON_IDENTITY_KEYS = ("out", "device", "dtype", "compile", "eval_passages", "eval_strategies", "scorer_from")
"""Keys that do not change the trained models."""


@dataclass(frozen=True)
class Config(RunConfig):
    """A run. Training draws a strategy and a capacity of those given at random every ``resample_every`` segments."""

    out: PathText = "runs/text_lm"
    data: DataSpec = "builtin_text"
    """Data source: a name, or ``name`` and its keys (`vqmem list data NAME`)."""
    front_end: FrontEndSpec = "bpe"
    """Front-end: a name, or ``name`` and its keys (`vqmem list front-ends NAME`)."""
    compile: bool = False
    """Whether training runs the transformer's blocks through ``torch.compile``: faster on a GPU, after some seconds."""
    passage: TwoOrMore = 2048
    """Tokens read before the memory is emptied."""
    train_tokens: TwoOrMore | None = None
    """The most training tokens to read; null is all."""
    eval_passages: PositiveInt | None = 32
    """Passages of the dev split to evaluate on, evenly spaced; null is all."""
    batch_size: PositiveInt = 32
    """Batch size: passages that are read in parallel, each with a separate memory."""
    segment: PositiveInt = 64
    """Tokens read at once; earlier tokens are visible only through the memory."""
    scorer: ScorerSpec = "vq_lm"
    """Scorer: a name, or ``name`` and its keys (`vqmem list scorers NAME`)."""
    scorer_from: PathText | None = None
    """A finished run; its scorer and front-end are used instead of training new ones."""
    scorer_train: TrainConfig = field(default_factory=lambda: TrainConfig(steps=600, lr=3e-3))
    shape: Shape = field(default_factory=Shape)
    train: TrainConfig = field(default_factory=TrainConfig)
    strategies: dict[str, Any] = field(default_factory=dict)
    """Name -> ``policy`` and optionally ``compression`` (default: drop). Without any, only the scorer is trained."""
    eval_strategies: dict[str, Any] = field(default_factory=dict)
    """Further strategies, which are only evaluated, such as policies that `vqmem fit_policy` fitted to the run."""
    capacities: tuple[int, ...] = (128,)
    """Capacities: slots per row."""
    sinks: int = 0
    """A guard: number of first tokens that no policy evicts."""
    recent: int = 0
    """A guard: number of newest tokens that no policy evicts."""
    resample_every: PositiveInt = 4
    """Segments after which strategy and capacity are drawn again."""
    off_target_weight: NonNegativeFloat = 1.0
    """Weight of the loss on other tokens than marked answers, where 1 is that of an answer in the same batch."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for invalid sizes, and for memories without room for the guards."""
        super().__post_init__()
        TransformerConfig(1, **asdict(self.shape))  # raises for an invalid shape before anything is trained
        if not self.capacities:
            raise ValueError("capacities is empty; name at least one number of slots")
        # The config may be built before the run that provides the scorer exists; see `scorer_of`.
        scorer = None if self.scorer_from else self.scorer
        refuse_untrainable(strategies(self.strategies, scorer), "name it in eval_strategies")
        for name, node in self.eval_strategies.items():
            if name in self.strategies:
                raise ValueError(f"eval_strategies has {name!r}, as strategies has; give it another name")
            if isinstance(node, Mapping) and "compression" in node:
                raise ValueError(f"eval_strategies: {name!r} has a compression, which has to be trained; drop it")
        require_gates(self.memories(scorer), self.shape.forget_gate, "shape.forget_gate")
        for strategy in self.memories(scorer):
            for capacity in self.capacities:
                strategy.memory(capacity, self.guard)

    def memories(self, scorer: Any = None) -> list[Strategy]:
        """All strategies that are evaluated, built; ``scorer`` as for `vqmem.recipes.lm.strategies.strategies`."""
        return strategies(self.strategies | self.eval_strategies, scorer, self.out)

    @property
    def guard(self) -> Guard:
        """The guards that all strategies share."""
        return Guard(self.sinks, self.recent)


def scorer_of(config: Config) -> Any:
    """The YAML form of the run's scorer. Raises `ValueError` if ``scorer_from`` is set but has no scorer."""
    if config.scorer_from is None:
        return config.scorer
    return read_config(Path(config.scorer_from) / "scorer", "scorers")["fields"].get("scorer")
