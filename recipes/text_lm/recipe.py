"""Train a scorer and a language model with a bounded memory that it fills; evaluate and save both."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...artifacts import CONFIG, FRONT_END, WEIGHTS, read_config
from ...data.base import Split, take_evenly
from ...files import atomic_write, missing_file
from ...folders import loading
from ...memory.scorer import ScorerModel, load_scorer, signals_of
from ...models.device import resolve_device
from ...models.memory_transformer import TransformerConfig
from ...registry import build
from ...tokenizers_.base import Tokenizer, input_kind, load_tokenizer, unit_of_size
from ..engine.config import load
from ..engine.data_record import documents
from ..engine.distributed import main_process_first, on_main_process, ranks, save_model, start_processes
from ..engine.front_end import load_or_fit
from ..engine.lock import locked
from ..engine.progress import Bar, model_of, progress
from ..engine.run_dir import fingerprint, init_run_dir, is_trained
from ..engine.task import Task, TrainConfig
from ..engine.trainer import seed_all, train
from ..lm.corpus import Passage, passages, require, segment_loader, sweep
from ..lm.language_model import (
    LanguageModel,
    LanguageModelTask,
    PassageScores,
    Schedule,
    load_language_model,
    read_passages,
    score_passages,
)
from ..lm.scorer_task import ScorerTask
from ..lm.strategies import Strategy, strategies
from .config import NON_IDENTITY_KEYS, Config, scorer_of

RUN_IS = "a scorer or language model: `vqmem score FILE --model {folder}` or `vqmem generate {folder} --prompt TEXT`"
"""Describes a run and the commands that use it."""


class Run(NamedTuple):
    """A finished run, loaded."""

    config: Config
    tokenizer: Tokenizer
    scorer: ScorerModel
    model: LanguageModel


def run(config: Config) -> dict[str, Any]:
    """Train what is not trained yet, evaluate on dev and save; returns the content of ``evaluation.json``.

    Without strategies there is no language model to train: the run ends with the scorer.
    """
    if config.strategies:
        return _evaluated(config, evaluate, fit(config))
    start(config)
    with locked(Path(config.out)):
        tokenizer, scorer, _ = fit_scorer(config)
    return _evaluated(config, _evaluate_scorer, config, tokenizer, scorer)


@on_main_process
def _evaluated(config: Config, evaluate: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
    figures = evaluate(*given)
    atomic_write(Path(config.out) / "evaluation.json", json.dumps(figures, indent=2) + "\n")
    return figures


def _evaluate_scorer(config: Config, tokenizer: Tokenizer, scorer: Any) -> dict[str, Any]:
    items = read_split(config, tokenizer, "dev", count=config.eval_passages)
    return {"split": "dev", "scorer": scorer_report(config, scorer, items), "memories": {}}


def start(config: Config) -> None:
    """Join the processes that ``torchrun`` started, if any."""
    for settings in (config.train, config.scorer_train):
        start_processes(settings.parallel, resolve_device(config.device))


def fit(config: Config) -> Run:
    """Train and save front-end, scorer and language model, or load those that are finished.

    Raises `ValueError` if another run uses the same folder.
    """
    start(config)
    with locked(Path(config.out)):
        tokenizer, scorer, corpus = fit_scorer(config)
        with _model_of(config, 2):
            return Run(config, tokenizer, scorer, train_model(config, tokenizer, scorer, corpus))


def fit_scorer(config: Config) -> tuple[Tokenizer, Any, list[Passage]]:
    """Train or load front-end and scorer; also returns the training passages if a training is not finished."""
    _find_source(config)
    trained = _is_trained(config)
    if not trained:
        require(config.data, "dev")
    init_run_dir(config, NON_IDENTITY_KEYS)
    with main_process_first():
        tokenizer = fit_front_end(config)
    corpus = [] if trained else read_split(config, tokenizer, "train", limit=config.train_tokens)
    if config.off_target_weight != 1 and corpus and not any(passage.target_mask.any() for passage in corpus):
        raise ValueError(
            f"off_target_weight={config.off_target_weight} weighs tokens beside marked answers, and no document of "
            f"train marks any (data={config.data!r}); use 1"
        )
    with _model_of(config, 1):
        return tokenizer, train_scorer(config, tokenizer, corpus), corpus


def _is_trained(config: Config) -> bool:
    steps = {"scorer": config.scorer_train.steps, "transformer": config.train.steps}
    return all(is_trained(Path(config.out) / part, count) for part, count in steps.items())


def is_finished(config: Config) -> bool:
    """Whether `fit` has nothing left to train. Raises `ValueError` if another run uses the same folder."""
    if not _is_trained(config):
        return False
    init_run_dir(config, NON_IDENTITY_KEYS)
    return True


def _model_of(config: Config, number: int) -> AbstractContextManager[None]:
    """Number the models that the run trains: the scorer, unless another run provides it, and the language model."""
    return model_of(number, 2 if config.strategies and config.scorer_from is None else 1)


def fit_front_end(config: Config) -> Tokenizer:
    """The front-end of this run: loaded if it exists, copied from ``scorer_from``, or fitted on the training split."""
    folder = Path(config.out) / "front_end"
    if (folder / FRONT_END).is_file():
        return load_tokenizer(folder)
    if config.scorer_from is not None:
        source = Path(config.scorer_from) / "front_end"
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns(FRONT_END), dirs_exist_ok=True)
        atomic_write(folder / FRONT_END, (source / FRONT_END).read_bytes())  # last: it marks the folder as complete
        return load_tokenizer(folder)
    given = documents(config.data, "train", config.out)
    # Not every front-end reads them: missing data raises an error before a front-end is saved.
    first = list(islice(given, 1))
    kind = input_kind(build("front-ends", config.front_end, "front_end"))
    contents = (document.content(kind) for document in chain(first, given))
    return load_or_fit(config.front_end, contents, folder)


def read_split(
    config: Config, tokenizer: Tokenizer, split: Split, *, limit: int | None = None, count: int | None = None
) -> list[Passage]:
    """Read the passages of a split.

    Args:
        config: the data and the length of a passage.
        tokenizer: the front-end.
        split: ``train``, ``dev`` or ``test``.
        limit: tokens to read from the start of the split; None reads all.
        count: passages to return, evenly spaced among those read; None returns all.

    Returns:
        The passages in the order of the documents, of 2 tokens or more each.

    Raises:
        ValueError: if no passage has a token to predict.
    """
    return take_evenly(passages(documents(config.data, split, config.out), tokenizer, config.passage, limit), count)


def train_scorer(config: Config, tokenizer: Tokenizer, corpus: list[Passage]) -> Any:
    """Train the scorer and save it in ``scorer/``, or load it if it is finished."""
    folder, device = Path(config.out) / "scorer", resolve_device(config.device)
    if config.scorer_from is not None:
        scorer = load_scorer(Path(config.scorer_from), device)
        # The language model of this run was trained with the scorer in this folder.
        if (folder / CONFIG).is_file() and read_config(folder) != read_config(Path(config.scorer_from) / "scorer"):
            raise ValueError(
                f"{config.out} was trained with a different scorer than {config.scorer_from} has; use another out"
            )
        _copy_scorer(Path(config.scorer_from) / "scorer", folder)
        return scorer
    if is_trained(folder, config.scorer_train.steps, needed_by=Path(config.out) / "transformer"):
        return load_scorer(Path(config.out), device)
    seed_all(config.seed)
    spec = build("scorers", config.scorer, "scorer")
    # A scorer that reads the characters of tokens needs the tokenizer, the others its size.
    scorer = (spec.build_for(tokenizer) if hasattr(spec, "build_for") else spec.build(tokenizer.vocab_size)).to(device)
    if hasattr(scorer, "rank_by"):
        ids = torch.cat([passage.ids for passage in corpus])
        scorer.rank_by(torch.bincount(ids, minlength=tokenizer.vocab_size))
    task = ScorerTask(scorer, config.batch_size)
    dev = _dev(config, config.scorer_train, tokenizer)
    figures = partial(scorer_report, config, task.module, dev)
    _train(config, config.scorer_train, task, corpus, folder, "scorer", figures, "surprise")
    name = config.scorer if isinstance(config.scorer, str) else config.scorer["name"]
    save_model(folder, f"scorers/{name}", {"scorer": config.scorer, "vocab_size": tokenizer.vocab_size}, task.module)
    return task.module.eval()


@on_main_process
def _copy_scorer(source: Path, folder: Path) -> None:
    for name in (CONFIG, WEIGHTS):
        atomic_write(folder / name, (source / name).read_bytes())


def train_model(config: Config, tokenizer: Tokenizer, scorer: Any, corpus: list[Passage]) -> LanguageModel:
    """Train the language model and save it in ``transformer/``, or load it if it is finished.

    Args:
        config: the run.
        tokenizer: the front-end.
        scorer: scores the tokens for the policies.
        corpus: the training passages; unused if the model is finished.

    Returns:
        The model in evaluation mode.
    """
    folder, device = Path(config.out) / "transformer", resolve_device(config.device)
    if is_trained(folder, config.train.steps):
        return load_language_model(folder, scorer, device)
    choices = strategies(config.strategies)
    shape = TransformerConfig(tokenizer.vocab_size, **asdict(config.shape), signals=signals_of(scorer))
    seed_all(config.seed)
    model = LanguageModel(shape, choices).to(device)
    if config.compile:
        model.transformer.compile_blocks()
    schedule = Schedule(choices, config.capacities, config.guard, config.resample_every, config.seed)
    task = LanguageModelTask(model, scorer, schedule, config.batch_size, off_target_weight=config.off_target_weight)
    dev = _dev(config, config.train, tokenizer)
    scores = score_passages(scorer, dev, config.batch_size, config.segment, device)

    def figures() -> dict[str, float]:
        """Dev figures of the first strategy at the largest capacity."""
        return _figures(config, task.module, choices[0], max(config.capacities), dev, scores, unit_of_size(tokenizer))

    _train(config, config.train, task, corpus, folder, "language model", figures, "nll")
    fields = {"shape": asdict(shape), "strategies": config.strategies}
    save_model(folder, "language_model", json.loads(json.dumps(fields)), task.module)
    return task.module.eval()


def evaluate(run: Run, split: Split = "dev") -> dict[str, Any]:
    """Evaluate the scorer's bottleneck and the perplexity of every trained memory on ``split``."""
    config, tokenizer, scorer, model = run
    items = read_split(config, tokenizer, split, count=config.eval_passages)
    scores = score_passages(scorer, items, config.batch_size, config.segment, resolve_device(config.device))
    cells = [(strategy, capacity) for strategy in config.memories() for capacity in config.capacities]
    memories = {}
    for strategy, capacity in progress(cells, len(cells), "evaluating memories", transient=True):
        figures = _figures(config, model, strategy, capacity, items, scores, unit_of_size(tokenizer))
        memories[f"{strategy.name}@{capacity}"] = figures
    return {"split": split, "scorer": scorer_report(config, scorer, items), "memories": memories}


def _figures(
    config: Config,
    model: LanguageModel,
    strategy: Strategy,
    capacity: int,
    items: list[Passage],
    scores: PassageScores,
    size_unit: str,
) -> dict[str, float]:
    """Perplexity per token, and bits per ``size_unit``, the unit of the front-end's source (byte, frame)."""
    memory = strategy.memory(capacity, config.guard)
    readings, peak_bytes = read_passages(model, strategy, memory, items, scores, config.batch_size, config.segment)
    nats = sum(float(reading.nll.double().sum()) for reading in readings)
    tokens = sum(len(reading.nll) for reading in readings)
    size = sum(int(item.sizes[1:].sum()) for item in items)
    bits = nats / torch.log(torch.tensor(2.0)).item() / size
    return {
        f"bits_per_{size_unit}": bits,
        "nll": nats / tokens,
        "perplexity": math.exp(nats / tokens),
        "tokens": tokens,
        "memory_bytes": peak_bytes,
    }


def scorer_report(config: Config, scorer: Any, items: list[Passage]) -> dict[str, float]:
    """The scorer's report on ``items``: for a bottleneck its rate, residual and code usage."""
    if not hasattr(scorer, "report"):
        return {}
    _, batch = next(sweep(items, len(items), max(len(item.ids) for item in items)))
    batch = batch.to(resolve_device(config.device))
    with Bar("evaluating the scorer", None, transient=True):
        return scorer.report(batch.tokens, batch.valid)


def load_run(folder: Path, device: torch.device | str = "cpu") -> Run:
    """Load a finished run. Raises `ValueError` if a part is missing or damaged."""
    with loading(folder, "language model", "text_lm"):
        config = replace(load(Config, folder / "config.yaml"), out=str(folder))  # it may have moved
        if not config.strategies:
            raise ValueError(f"{folder} contains only a scorer, which `vqmem score FILE --model {folder}` uses")
        scorer = load_scorer(folder, device)
        model = load_language_model(folder / "transformer", scorer, device)
        return Run(config, load_tokenizer(folder / "front_end"), scorer, model)


def _find_source(config: Config) -> None:
    """Raise `ValueError` if ``scorer_from`` lacks a part, or if its scorer does not suit the strategies."""
    if config.scorer_from is None:
        return
    source, wanted = Path(config.scorer_from), "the folder of a finished `vqmem text_lm`"
    if not source.is_dir():
        raise missing_file(f"scorer_from ({wanted})", source)
    for part in (f"front_end/{FRONT_END}", f"scorer/{CONFIG}", f"scorer/{WEIGHTS}"):
        if not (source / part).is_file():
            raise ValueError(f"scorer_from = {config.scorer_from!r} has no {part}; give {wanted}")
    strategies(config.strategies, scorer_of(config))


def _dev(config: Config, settings: TrainConfig, tokenizer: Tokenizer) -> list[Passage]:
    """The dev passages for evaluation during training; none if ``eval_every`` is 0."""
    return read_split(config, tokenizer, "dev", count=config.eval_passages) if settings.eval_every else []


def _train(
    config: Config,
    settings: TrainConfig,
    task: Task,
    corpus: list[Passage],
    folder: Path,
    what: str,
    evaluate: Callable[[], dict[str, float]],
    best_by: str,
) -> None:
    loader = segment_loader(corpus, config.batch_size, config.segment, config.seed, *ranks())
    settings = replace(settings, seed=config.seed, device=config.device, dtype=config.dtype)
    train(
        task,
        loader,
        settings,
        folder / "training",
        describe=what,
        identity=fingerprint(config, NON_IDENTITY_KEYS),
        evaluate=evaluate if settings.eval_every else None,
        best_by=best_by,
    )
