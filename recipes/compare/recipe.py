"""Compare memory strategies at equal capacity: strategy x capacity x seed, with intervals and a report."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from ...data.base import Split
from ...files import append_line, atomic_write, file_sha256
from ...memory.fitted import ABOUT
from ...registry import UnknownNameError, build
from ...schema import PathText, PositiveInt, TwoOrMore, Validated, expand
from ...tokenizers_.base import output_kind, unit_of_size
from ..engine.config import as_dict, digest, dump, resolve_device
from ..engine.distributed import on_main_process
from ..engine.progress import Bar, model_of, progress
from ..engine.task import TrainConfig
from ..fit_policy.run import fit_missing, require_policy
from ..lm.corpus import Passage, require
from ..lm.language_model import PassageScores, score_passages
from ..lm.strategies import Strategy, refuse_fitted, require_gates, strategies
from ..reporting.provenance import provenance
from ..text_lm import recipe as text_lm
from .findings import headline
from .measure import Cell, measure, rare_tokens, trace
from .report import write_report
from .table import summarise

RUN_IS = (
    "a comparison: {folder}/report.html shows it, and `vqmem generate {folder}/seed-N --prompt TEXT` uses a model of it"
)
"""Describes a run and the commands that use it."""


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
    """How policies in the folder of a model are fitted to it where there are none, as by `vqmem fit_policy`."""

    passages: PositiveInt = 48
    """Training passages from which the attention to come is predicted."""
    stream_passages: TwoOrMore = 12
    """Further training passages, read with bounded slots."""
    ahead: Literal["auto", "next", "later"] = "auto"
    """The attention to come that decides: next, the mean of the next segment; later, the greatest of all that follows;
    auto, what loses less on the stream passages, or the age alone where that does. Tokens weigh as in training."""


@dataclass(frozen=True)
class Config(Validated):
    """A comparison. One model per seed is trained with random strategies and capacities.

    At a capacity as long as a passage nothing is evicted: there only the baseline is measured, as full memory.

    ``lm`` is a ``text_lm`` config; the comparison sets its ``out``, ``seed``, ``strategies`` and ``capacities``.
    """

    out: PathText = "runs/compare"
    """Folder of the comparison; with the same folder it continues where it stopped."""
    title: str = "Which memory keeps what, and does it help?"
    """Heading of the report."""
    strategies: dict[str, Any] = field(default_factory=dict)
    """Name -> ``policy`` and optionally ``compression`` (default: drop)."""
    trained: tuple[str, ...] = ()
    """The strategies used in training; the others, without compression, are only measured. Empty is all but those of
    `vqmem fit_policy`."""
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
        refuse_fitted(
            [s for s in built if s.name in trained], "leave it out of trained, and do not make it the baseline"
        )
        for name in set(names).difference(self._drawn()):
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
        for seed in self.seeds:
            self.mixed(seed)

    def _drawn(self) -> dict[str, Any]:
        """The strategies of training."""
        fitted = self._fitted()
        return {name: self.strategies[name] for name in self.trained or self.strategies if name not in fitted}

    def _fitted(self) -> set[str]:
        """The strategies whose policies are fitted to trained models."""
        return {strategy.name for strategy in strategies(self.strategies) if strategy.is_fitted}

    def mixed(self, seed: int) -> text_lm.Config:
        """The config of the model that is trained with every strategy and capacity."""
        out, drawn = str(Path(self.out) / f"seed-{seed}"), self._drawn()
        return replace(self.lm, out=out, seed=seed, strategies=drawn, capacities=self.capacities)

    def model_of(self, cell: Cell) -> text_lm.Config:
        """The config of the model that a cell measures."""
        return self.mixed(cell.seed) if cell.train == "mixed" else self.natively(cell.strategy, cell.seed)

    def natively(self, name: str, seed: int) -> text_lm.Config:
        """The config of the model that is trained only with ``name``, at the native capacity, with the mixed scorer.

        No model is trained with a fitted policy: it is fitted to that of the baseline.
        """
        mixed = self.mixed(seed)
        name = self.baseline if name in self._fitted() else name
        return replace(
            mixed,
            out=f"{mixed.out}-{name}-{self.native.capacity}",
            scorer_from=mixed.out,
            strategies={name: self.strategies[name]},
            capacities=(self.native.capacity,),
            train=self.native.train,
        )


class EvalData(NamedTuple):
    """The data that the models of a seed are measured on."""

    items: list[Passage]
    scores: PassageScores
    rare: torch.Tensor


def run(config: Config) -> dict[str, Any]:
    """Train and measure what is missing, and write the report; returns the summary.

    Under ``torchrun`` all processes train, and the first one does the rest.
    """
    began = time.monotonic()
    text_lm.start(config.lm)
    require(config.lm.data, config.split)
    strategies(config.strategies, text_lm.scorer_of(config.lm))
    for folder, model in _policies(config).items():
        require_policy(folder, model)
    models = list(_models(config))
    for number, model in enumerate(models, start=1):
        with model_of(number, len(models)):
            text_lm.fit(model)
    return _compare(config, began)


@on_main_process
def _compare(config: Config, began: float) -> dict[str, Any]:
    """Measure the missing cells and write the report; returns the summary."""
    out = Path(config.out)
    passage: dict[str, Any] = {}
    figures: dict[str, float] = {}
    for folder, model in _policies(config).items():
        fit_missing(folder, model, **asdict(config.fit))
    for seed in config.seeds:
        run = text_lm.fit(config.mixed(seed))  # loads the models trained in `run`
        data = _eval_data(config, run)
        cells = list(_cells(config, seed))
        for cell in progress(cells, len(cells), f"memories of seed {seed}", transient=True):
            _measure(config, cell, run, data)
        if seed == config.seeds[0]:
            passage = _passage(config, run, data)
            figures = text_lm.scorer_report(run.config, run.scorer, data.items)
            figures = figures if "rate" in figures else {}  # the report shows the figures of a bottleneck only
    rows = measured(config)
    counted = unit_of_size(build("front-ends", config.lm.front_end))
    with Bar("intervals of the figures", None, transient=True):
        table = summarise(rows, config.baseline, counted)
    summary = table | {
        "title": config.title,
        **provenance(began),
        "config": as_dict(config),
        "corpus": json.dumps(config.lm.data) if isinstance(config.lm.data, dict) else config.lm.data,
        "split": config.split,
        "seeds": list(config.seeds),
        "scorer": figures | _codes(config),
        "passage": passage,
        "beside": _beside(config),
    }
    atomic_write(out / "config.yaml", dump(config))
    atomic_write(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    with Bar("report", None, transient=True):
        write_report(summary, out / "report.html")
    return summary


def measured(config: Config) -> list[dict[str, Any]]:
    """What every cell of a finished comparison measured, as in ``results.jsonl``, in the order of the seeds."""
    known = _known(config)
    return [known[_key(config, cell)] for seed in config.seeds for cell in _cells(config, seed)]


def _models(config: Config) -> Iterator[text_lm.Config]:
    """The configs of the mixed and native models of each seed."""
    for seed in config.seeds:
        yield config.mixed(seed)
        native = (config.natively(name, seed) for name in config.native.strategies)
        yield from {model.out: model for model in native}.values()


def _policies(config: Config) -> dict[Path, text_lm.Config]:
    """The folder of every fitted policy, and the config of the model that it is for."""
    found = {}
    for cell in (cell for seed in config.seeds for cell in _cells(config, seed)):
        policy: Any = _strategy(config, cell).policy
        if "learned" in getattr(policy, "attention_signals", ()):
            found[Path(expand(policy.folder))] = config.model_of(cell)
    return found


def _eval_data(config: Config, run: text_lm.Run) -> EvalData:
    items = text_lm.read_split(run.config, run.tokenizer, config.split, count=config.passages)
    device = resolve_device(config.lm.device)
    scores = score_passages(run.scorer, items, run.config.batch_size, run.config.segment, device)
    training = text_lm.read_split(run.config, run.tokenizer, "train", limit=run.config.train_tokens)
    return EvalData(items, scores, rare_tokens(training, run.tokenizer.vocab_size, config.rare))


def _cells(config: Config, seed: int) -> Iterator[Cell]:
    for name in config.strategies:
        for capacity in config.capacities:
            if capacity < config.lm.passage or name == config.baseline:
                yield Cell(name, capacity, seed, "mixed")
    for name in config.native.strategies:
        yield Cell(name, config.native.capacity, seed, "native")


def _key(config: Config, cell: Cell) -> str:
    """A hash of everything that affects a cell's result; a cell with a known key is not measured again."""
    run = config.model_of(cell)
    trained = {
        key: value
        for key, value in as_dict(run).items()
        if key not in ("out", "scorer_from", "eval_strategies", "device", "compile")
    }
    asked = {"cell": asdict(cell), "split": config.split, "passages": config.passages, "rare": config.rare}
    if cell.strategy not in run.strategies:
        asked["strategy"] = config.strategies[cell.strategy]
        folder = getattr(_strategy(config, cell).policy, "folder", "")
        if folder and (file := Path(expand(folder)) / ABOUT).is_file():
            asked["fitted"] = file_sha256(file)
    return digest(asked | {"run": trained, "scorer": as_dict(config.lm.scorer_train)})


def _strategy(config: Config, cell: Cell) -> Strategy:
    run = config.model_of(cell).out
    return next(s for s in strategies(config.strategies, run=run) if s.name == cell.strategy)


def _results(config: Config) -> Path:
    return Path(config.out) / "results.jsonl"


def _known(config: Config) -> dict[str, dict[str, Any]]:
    """Results so far, by key. Incomplete lines, left by a killed run, are ignored."""
    path, known = _results(config), {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            found = json.loads(line)
        except json.JSONDecodeError:
            continue
        known[found["key"]] = found
    return known


def _measure(config: Config, cell: Cell, run: text_lm.Run, data: EvalData) -> None:
    key = _key(config, cell)
    if key in _known(config):
        return
    model = run.model
    if cell.train == "native":
        folder = Path(config.model_of(cell).out) / "transformer"
        model = text_lm.load_language_model(folder, run.scorer, resolve_device(config.lm.device))
    strategy = _strategy(config, cell)
    found = measure(model, strategy, cell, config.lm, data.items, data.scores, data.rare)
    append_line(_results(config), json.dumps({"key": key, **asdict(cell), **found}))


def _passage(config: Config, run: text_lm.Run, data: EvalData) -> dict[str, Any]:
    """One passage, its signals, and the tokens that each strategy keeps over time at the smallest capacity."""
    middle = len(data.items) // 2
    item = data.items[middle]
    shown = min(config.shown, len(item.ids))
    item = item[:shown]
    scores = PassageScores(data.scores.signals, [data.scores.values[middle][:shown].cpu()])
    is_text = output_kind(run.tokenizer) == "text"
    memories = {}
    for strategy in strategies(config.strategies, run=run.config.out):
        kept = trace(run.model, strategy, min(config.capacities), config.lm, item, scores)
        memories[strategy.name] = {"capacity": min(config.capacities), "segment": config.lm.segment, "kept": kept}
    columns = [[round(x, 3) for x in column] for column in scores.values[0].T.tolist()]
    return {
        "name": item.name,
        "tokens": [run.tokenizer.decode([i]) if is_text else str(i) for i in item.ids.tolist()],
        "signals": dict(zip(scores.signals, columns, strict=True)),
        "memories": memories,
    }


def _beside(config: Config) -> dict[str, Any] | None:
    """What the comparison in ``beside`` found; None if there is none."""
    path = Path(config.beside or config.out) / "summary.json"
    if config.beside is None or not path.is_file():
        return None
    other = json.loads(path.read_text(encoding="utf-8"))
    report = path.with_name("report.html")
    link = Path(os.path.relpath(report, config.out)).as_posix()
    return {"title": other["title"], "headline": headline(other), "report": str(report.resolve()), "link": link}


def _codes(config: Config) -> dict[str, Any]:
    scorer = config.lm.scorer
    return {"codes": scorer["codes"]} if isinstance(scorer, dict) and "codes" in scorer else {}
