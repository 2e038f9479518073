"""The config of a comparison, and the points and models of its grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ...data.base import Split
from ...registry import UnknownNameError
from ...schema import PathText, PositiveInt, TwoOrMore, Validated
from ..engine.grid import GridConfig
from ..engine.task import TrainConfig
from ..lm.strategies import Strategy, refuse_untrainable, require_gates, strategies
from ..text_lm import recipe as text_lm


@dataclass(frozen=True)
class Point:
    """One point of the grid of strategies, capacities and seeds."""

    strategy: str
    capacity: int
    seed: int
    train: Literal["mixed", "native"]


@dataclass(frozen=True)
class Native:
    """Models that are each trained for one strategy and one capacity, besides the mixed models; none by default."""

    strategies: tuple[str, ...] = ()
    """The strategies with a separate model; if there are any, the baseline must be one of them."""
    capacity: int = 128
    """Capacity: slots per row."""
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass(frozen=True)
class Fit(Validated):
    """How policies in the folder of a model are fitted to it, as by `vqmem fit_policy`; those made by hand are kept."""

    passages: PositiveInt = 48
    """Training passages from which the attention to come is predicted."""
    stream_passages: TwoOrMore = 12
    """Further training passages, read with bounded slots."""
    ahead: Literal["auto", "next", "later"] = "auto"
    """The attention to come that decides: next, the mean of the next segment; later, the greatest of all that follows;
    auto, what loses less on the stream passages, or the age alone where that does. Tokens weigh as in training."""


@dataclass(frozen=True)
class Config(GridConfig):
    """A comparison. One model per seed is trained with random strategies and capacities.

    At a capacity as long as a passage nothing is evicted: there only the baseline is measured, as full memory.

    ``lm`` is a ``text_lm`` config; the comparison sets its ``out``, ``seed``, ``strategies`` and ``capacities``.
    """

    out: PathText = "runs/compare"
    """Folder of the comparison; with the same folder it continues where it stopped."""
    title: str = "Which memory keeps what, and does it help?"
    """Heading of the report."""
    strategies: dict[str, Any] = field(default_factory=dict)
    """Name -> ``policy``, optionally ``compression`` (default: drop), and ``scores``: shuffled, inverted or random, a
    control whose policy sees these in place of the scorer's."""
    trained: tuple[str, ...] = ()
    """The strategies used in training; the others, without compression, are only measured. Empty is all but those of
    `vqmem fit_policy` and controls."""
    baseline: str = "transformer_xl"
    """The strategy that all others are compared with."""
    capacities: tuple[int, ...] = (64, 128, 256)
    """Capacities: slots per row."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One model is trained for each seed."""
    split: Split = "test"
    """Choose on ``dev``, report on ``test`` once."""
    passages: PositiveInt | None = None
    """Passages of the split to read, evenly spaced; null is all."""
    rare: float = 8.0
    """Lowest unigram surprisal, in nats, of tokens that count as rare in the long-gap figure."""
    shown: TwoOrMore = 512
    """Tokens of the passage that the report shows."""
    lm: text_lm.Config = field(default_factory=text_lm.Config)
    native: Native = field(default_factory=Native)
    fit: Fit = field(default_factory=Fit)
    beside: PathText | None = None
    """Folder of another comparison; if it is finished, the summary and the report show what it found as well."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for unknown strategies and memories without room."""
        super().__post_init__()
        scorer = None if self.lm.scorer_from else self.lm.scorer
        built = strategies(self.strategies, scorer)
        require_gates(built, self.lm.shape.forget_gate, "lm.shape.forget_gate")
        names = [strategy.name for strategy in built]
        for name in (self.baseline, *self.trained, *self.native.strategies):
            if name not in names:
                raise UnknownNameError("strategy", name, names)
        trained = (*self.trained, self.baseline) if self.native.strategies else self.trained
        refuse_untrainable(
            [s for s in built if s.name in trained], "leave it out of trained, and do not make it the baseline"
        )
        for name in set(names).difference(self._drawn):
            if "compression" in self.strategies[name]:
                raise ValueError(f"strategy {name!r} has a compression, which has to be trained; add it to trained")
        if self.native.strategies and self.baseline not in self.native.strategies:
            raise ValueError(
                f"native.strategies has no {self.baseline}, the baseline to compare the others with; add it"
            )
        for name in ("seeds", "capacities"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name}={list(values)} must name at least one, and none twice")
        idle = {"out": "out", "seed": "seeds", "strategies": "strategies", "capacities": "capacities"}
        idle["eval_strategies"] = "strategies"
        for name, instead in idle.items():
            if getattr(self.lm, name) != getattr(text_lm.Config(), name):
                raise ValueError(f"lm.{name} is set from {instead} of the comparison; leave it out and set {instead}")
        self.mixed(self.seeds[0])

    @cached_property
    def _drawn(self) -> dict[str, Any]:
        """The strategies of training."""
        names = self.trained or self.strategies
        return {name: self.strategies[name] for name in names if name not in self._only_measured}

    @cached_property
    def _only_measured(self) -> set[str]:
        """The strategies with which no model is trained: those that are fitted to one afterwards, and controls."""
        return {strategy.name for strategy in strategies(self.strategies) if strategy.is_fitted or strategy.is_control}

    def mixed(self, seed: int) -> text_lm.Config:
        """The config of the model that is trained with every strategy and capacity."""
        return self._mixed[seed]

    @cached_property  # making a config checks it, and a grid asks for the same ones thousands of times
    def _mixed(self) -> dict[int, text_lm.Config]:
        """The configs of the mixed models by seed."""
        changes: dict[str, Any] = {"strategies": self._drawn, "capacities": self.capacities}
        outs = {seed: str(Path(self.out) / f"seed-{seed}") for seed in self.seeds}
        return {seed: replace(self.lm, out=out, seed=seed, **changes) for seed, out in outs.items()}

    def model_of(self, point: Point) -> text_lm.Config:
        """The config of the model that a point measures."""
        return self.mixed(point.seed) if point.train == "mixed" else self.natively(point.strategy, point.seed)

    def strategy_of(self, point: Point) -> Strategy:
        """The strategy of a point, built."""
        nodes = {point.strategy: self.strategies[point.strategy]}
        return strategies(nodes, run=self.model_of(point).out)[0]

    def models(self, seed: int) -> list[text_lm.Config]:
        """The configs of the mixed model of a seed and of its native models."""
        native = (self.natively(name, seed) for name in self.native.strategies)
        return [self.mixed(seed), *{model.out: model for model in native}.values()]

    def points(self, seed: int) -> Iterator[Point]:
        """The points of the grid for one seed."""
        for name in self.strategies:
            for capacity in self.capacities:
                if capacity < self.lm.passage or name == self.baseline:
                    yield Point(name, capacity, seed, "mixed")
        for name in self.native.strategies:
            yield Point(name, self.native.capacity, seed, "native")

    def policies(self, seed: int) -> dict[Path, text_lm.Config]:
        """The folder of every fitted policy of a seed, and the config of the model that it is for."""
        found = {}
        for point in self.points(seed):
            if folder := self.strategy_of(point).fitted_folder:
                found[folder] = self.model_of(point)
        return found

    def natively(self, name: str, seed: int) -> text_lm.Config:
        """The config of the model that is trained only with ``name``, at the native capacity, with the mixed scorer.

        No model is trained with a fitted policy, which is fitted to that of the baseline, or with a control.
        """
        return self._natively[name, seed]

    @cached_property
    def _natively(self) -> dict[tuple[str, int], text_lm.Config]:
        """The configs of the native models by strategy and seed."""
        made = {}
        for asked in self.native.strategies:
            name = self.baseline if asked in self._only_measured else asked
            for seed, mixed in self._mixed.items():
                made[asked, seed] = replace(
                    mixed,
                    out=f"{mixed.out}-{name}-{self.native.capacity}",
                    scorer_from=mixed.out,
                    strategies={name: self.strategies[name]},
                    capacities=(self.native.capacity,),
                    train=self.native.train,
                )
        return made
