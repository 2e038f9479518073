"""The cells of a comparison: what is trained, fitted and measured, each once. Results are kept in ``results.jsonl``."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ...files import append_line, atomic_write, file_sha256
from ...memory.fitted import ABOUT
from ...models.device import resolve_device
from ...tokenizers_.base import output_kind
from ..engine.config import as_dict, digest, from_dict
from ..engine.data_record import is_recorded
from ..engine.grid import Cell
from ..engine.progress import model_of
from ..fit_policy.run import fit_missing, is_fitted
from ..lm.language_model import PassageScores, score_passages
from ..lm.strategies import strategies
from ..text_lm import recipe as text_lm
from .classes import token_classes
from .config import Config, Point
from .kinds import token_kinds
from .measure import EvalData, measure, trace

RESULTS = "results.jsonl"
SHOWN = "passage.json"
"""What the report shows of one passage, and the figures of the scorer."""


def cells(config: Config) -> list[Cell]:
    """Every model to train, policy to fit and point to measure, in an order that loads each model once."""
    text = json.dumps(as_dict(config))
    outs = [model.out for seed in config.seeds for model in config.models(seed)]
    made: list[Cell] = []
    for seed in config.seeds:
        mixed = config.mixed(seed)
        for model in config.models(seed):
            is_mixed = model.out == mixed.out
            work = partial(_train, text, model, (outs.index(model.out) + 1, len(outs)), reads_split=is_mixed)
            needs = () if is_mixed else (_training(mixed),)
            made.append(Cell(_training(model), work, needs, partial(_is_trained, config, model)))
        for folder, model in config.policies(seed).items():
            asked = asdict(config.fit)
            fit, is_done = partial(fit_missing, folder, model, **asked), partial(is_fitted, folder, model, **asked)
            made.append(Cell(_fitting(folder), fit, (_training(model),), is_done))
        made += [_measuring(config, text, point) for point in config.points(seed)]
    return [*made, _showing(config, text)]


def known_results(config: Config) -> dict[str, dict[str, Any]]:
    """Results so far, by key. Incomplete lines, left by a killed run, are ignored."""
    path, known = Path(config.out) / RESULTS, {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            found = json.loads(line)
        except json.JSONDecodeError:
            continue
        known[found["key"]] = found
    return known


def key_of(config: Config, point: Point) -> str:
    """A hash of everything that affects a point's result; a point with a known key is not measured again."""
    run = config.model_of(point)
    trained = {
        key: value
        for key, value in as_dict(run).items()
        if key not in ("out", "scorer_from", "eval_strategies", "device", "compile")
    }
    asked = {"cell": asdict(point), "split": config.split, "passages": config.passages, "rare": config.rare}
    if point.strategy not in run.strategies:
        asked["strategy"] = config.strategies[point.strategy]
        folder = config.strategy_of(point).fitted_folder
        if folder and (file := folder / ABOUT).is_file():
            asked["fitted"] = file_sha256(file)
    return digest(asked | {"run": trained, "scorer": as_dict(config.lm.scorer_train)})


def shown(config: Config) -> dict[str, Any] | None:
    """What the cell of the shown passage found, if it did with the same models; None otherwise."""
    path = Path(config.out) / SHOWN
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found if found.get("key") == _shown_key(config) else None


def release() -> None:
    """Free the model and the data that this process loaded for the cells, which another run may change."""
    _loaded.cache_clear()


# --- the kinds of cells ---


def _training(model: text_lm.Config) -> str:
    return f"train {Path(model.out).name}"


def _train(text: str, model: text_lm.Config, place: tuple[int, int], *, reads_split: bool) -> None:
    """Train a model, the first of so many in ``place``, or load it. ``reads_split`` records what will be measured."""
    with model_of(*place):
        run = text_lm.fit(model)
    if reads_split:
        text_lm.read_split(model, run.tokenizer, from_dict(Config, json.loads(text)).split)


def _is_trained(config: Config, model: text_lm.Config) -> bool:
    return text_lm.is_finished(model) and (model.scorer_from is not None or is_recorded(Path(model.out), config.split))


def _fitting(folder: Path) -> str:
    return f"fit {folder.as_posix()}"


def _measuring(config: Config, text: str, point: Point) -> Cell:
    mixed, model = config.mixed(point.seed), config.model_of(point)
    needs = [_training(mixed), *([_training(model)] if model.out != mixed.out else [])]
    folder = config.strategy_of(point).fitted_folder
    return Cell(
        f"measure {point.strategy}@{point.capacity} {point.train} seed-{point.seed}",
        partial(_measure, text, point),
        (*needs, *([_fitting(folder)] if folder else [])),
        lambda: key_of(config, point) in known_results(config),
        partial(_append, config, point),
    )


def _append(config: Config, point: Point, found: dict[str, Any]) -> None:
    line = {"key": key_of(config, point), **asdict(point), **found}
    append_line(Path(config.out) / RESULTS, json.dumps(line))


def _measure(text: str, point: Point) -> dict[str, Any]:
    config, run, data = _loaded(text, point.seed)
    model = run.model
    if point.train == "native":
        folder = Path(config.model_of(point).out) / "transformer"
        model = text_lm.load_language_model(folder, run.scorer, resolve_device(config.lm.device))
    strategy = config.strategy_of(point)
    return measure(model, strategy, point, config.lm, data)


@functools.lru_cache(maxsize=1)  # cells that follow each other measure the same model
def _loaded(text: str, seed: int) -> tuple[Config, text_lm.Run, EvalData]:
    """The comparison, the mixed model of a seed and the data to measure on. ``text`` is the config as JSON."""
    config = from_dict(Config, json.loads(text))
    device = resolve_device(config.lm.device)
    run = text_lm.load_run(Path(config.mixed(seed).out), device)
    items = text_lm.read_split(run.config, run.tokenizer, config.split, count=config.passages)
    scores = score_passages(run.scorer, items, run.config.batch_size, run.config.segment, device)
    training = text_lm.read_split(run.config, run.tokenizer, "train", limit=run.config.train_tokens)
    kinds = token_kinds(training, run.tokenizer, config.rare)
    return config, run, EvalData(items, scores, kinds, token_classes(items, run.tokenizer))


def _showing(config: Config, text: str) -> Cell:
    seed = config.seeds[0]
    needs = [_training(config.mixed(seed)), *(_fitting(folder) for folder in config.policies(seed))]
    path = Path(config.out) / SHOWN
    return Cell(
        "show a passage",
        partial(_show, text),
        tuple(needs),
        lambda: shown(config) is not None,
        lambda found: atomic_write(path, json.dumps({"key": _shown_key(config), **found})),
    )


def _shown_key(config: Config) -> str:
    return digest([config.shown, *(key_of(config, point) for point in config.points(config.seeds[0]))])


def _show(text: str) -> dict[str, Any]:
    config = from_dict(Config, json.loads(text))
    _, run, data = _loaded(text, config.seeds[0])
    figures = text_lm.scorer_report(run.config, run.scorer, data.items)
    return {
        "passage": _passage(config, run, data),
        "scorer": figures if "rate" in figures else {},  # the report shows the figures of a bottleneck only
    }


def _passage(config: Config, run: text_lm.Run, data: EvalData) -> dict[str, Any]:
    """One passage, its signals, and the tokens that each strategy keeps over time at the smallest capacity."""
    middle = len(data.items) // 2
    item = data.items[middle]
    length = min(config.shown, len(item.ids))
    item = item[:length]
    scores = PassageScores(data.scores.signals, [data.scores.values[middle][:length].cpu()])
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


def complete_points(config: Config, known: dict[str, Any]) -> Iterator[tuple[Point, dict[str, Any]]]:
    """The points, with their results, of strategies that were measured with every seed, as was the baseline there."""
    found = {point: known.get(key_of(config, point)) for seed in config.seeds for point in config.points(seed)}
    missing = {(point.strategy, point.capacity, point.train) for point, result in found.items() if result is None}
    for point, result in found.items():
        place = (point.capacity, point.train)
        if result is not None and not missing & {(point.strategy, *place), (config.baseline, *place)}:
            yield point, result
