"""Pretrain a HuBERT-style speech encoder by masked prediction of units; a run is one iteration."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ...data.base import Split
from ...data.reading.audio import RATE
from ...files import atomic_write
from ...models.device import resolve_device
from ...models.features.hubert import load
from ...models.host import choose, on_host
from ...models.loss import Loss
from ...models.speech import hubert
from ...models.speech.hubert import KIND, HubertConfig
from ...registry import DataSpec, FrontEndSpec, build
from ...schema import NonNegativeFloat, NonNegativeInt, PathText, PositiveInt
from ...tokenizers_.base import Tokenizer, input_kind
from ..engine.data_record import documents
from ..engine.distributed import main_process_first, on_main_process, ranks, save_model, start_processes
from ..engine.front_end import load_or_fit
from ..engine.loader import BatchLoader
from ..engine.lock import locked
from ..engine.progress import Bar
from ..engine.run_config import RunConfig
from ..engine.run_dir import fingerprint, init_run_dir, is_trained
from ..engine.task import TrainConfig
from ..engine.trainer import seed_all, train
from ..lm.corpus import require
from .clips import CropLoading, PretrainingBatch, PretrainingClip, list_clips, pretraining_sampler
from .export import export
from .labels import Labels, read_labels
from .quality import accuracies, check, probe

NON_IDENTITY_KEYS = ("out", "device", "dtype", "labels", "eval_clips", "probe_clips", "probe_clusters", "export")
"""Keys that do not change the trained model: where it runs, and what is evaluated and exported."""
RUN_IS = "an encoder of speech: `vqmem asr CONFIG recogniser.encoder={folder}` uses it"
"""Description of a finished run, with the command that uses it."""


@dataclass(frozen=True)
class Config(RunConfig):
    """A run: one iteration. The targets of the next iteration are clusters of a layer of this one."""

    out: PathText = "runs/speech_pretraining"
    data: DataSpec = "spoken_text"
    """Data source with recordings: a name, or ``name`` and its keys (`vqmem list data NAME`)."""
    targets: FrontEndSpec = "hubert_units"
    """Front-end of the target units, one a frame; fitted on the training split."""
    model: HubertConfig = field(default_factory=HubertConfig)
    batch_size: PositiveInt = 8
    """Crops in a batch."""
    crop: float = 4.0
    """Maximum length of a crop in seconds; shorter clips are not cropped."""
    workers: NonNegativeInt | None = None
    """Processes that read recordings during training; 0 = none; null = by the CPUs, where reading takes long."""
    feature_weight: NonNegativeFloat = 10.0
    """Weight of the penalty on the mean square of the convolutional features."""
    off_target_weight: NonNegativeFloat = 0.0
    """Weight of the loss of unmasked frames, (1 - alpha) / alpha of equation 2; HuBERT has 0."""
    train: TrainConfig = field(default_factory=lambda: TrainConfig(lr=5e-4, betas=(0.9, 0.98), weight_decay=0.01))
    labels: PathText | None = None
    """Table of phones (name, start, end, phone) of dev clips: evaluations then measure the layers against it."""
    eval_clips: PositiveInt | None = 32
    """Number of clips of the dev split to evaluate on, the first ones; null = all."""
    probe_clips: PositiveInt = 64
    """Training clips to fit the clusters that are compared with ``labels``."""
    probe_clusters: PositiveInt = 100
    """Number of these clusters."""
    export: bool = False
    """Whether to write also ``transformers/``, a folder that `transformers.HubertModel` loads."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for sizes out of range, and for settings that the front-end refuses."""
        super().__post_init__()
        build("front-ends", self.targets, "targets")
        if self.model.frames(self.crop_samples) < 2:
            raise ValueError(f"crop={self.crop} seconds are fewer than two frames; give a longer crop")

    @property
    def crop_samples(self) -> int:
        """``crop`` in samples."""
        return round(self.crop * RATE)


class PretrainingTask:
    """Masked prediction: mask spans, predict their units."""

    token_unit = "frames"

    def __init__(self, model: nn.Module, feature_weight: float, off_target_weight: float = 0.0) -> None:
        self.module, self.feature_weight, self.off_target_weight = model, feature_weight, off_target_weight

    def initial_state(self) -> None:
        """There is no state between batches."""

    def step(self, batch: PretrainingBatch, state: None) -> tuple[Loss, None]:
        """The loss of masked frames, and the accuracy of masked and unmasked frames."""
        encoding = hubert.encode(self.module, batch.waveforms, batch.lengths, batch.mask)
        scores = hubert.logits(self.module, encoding.layers[-1])
        mask, unmasked = on_host(batch.mask), on_host(encoding.valid) & ~on_host(batch.mask)
        penalty = encoding.penalty
        loss = hubert.masked_loss(choose(scores, mask), choose(batch.units, mask), penalty, self.feature_weight)
        if self.off_target_weight and unmasked.any():
            nats = F.cross_entropy(choose(scores, unmasked), choose(batch.units, unmasked))
            loss = loss + self.off_target_weight * nats
        right = scores.detach().argmax(-1) == batch.units
        metrics = {
            "masked_accuracy": choose(right, mask).float().mean(),
            "unmasked_accuracy": choose(right, unmasked).float().mean(),
            "feature_penalty": penalty,
            "tokens": encoding.valid.sum(),
        }
        return Loss(loss, metrics), None


def run(config: Config) -> dict[str, Any]:
    """Train what is not trained yet, evaluate on dev and save. Returns the contents of ``evaluation.json``."""
    start_processes(config.train.parallel, resolve_device(config.device))
    require(config.data, "dev", "recordings")
    with locked(Path(config.out)):
        labels = None if config.labels is None else read_labels(config.labels)
        init_run_dir(config, NON_IDENTITY_KEYS)
        with main_process_first():
            targets = fit_targets(config)
            clips = {split: split_clips(config, targets, split) for split in ("train", "dev")}
        (train_clips, _), (dev, _) = clips.values()
        if labels is not None:
            check(train_clips[: config.probe_clips], dev[: config.eval_clips], labels, config.probe_clusters)
        classes = targets.vocab_size
        model = pretrain(config, classes, train_clips, dev, labels)
        skipped = [line for _, skipped in clips.values() for line in skipped]
        return _evaluated(config, model, classes, train_clips, dev, labels, skipped)


@on_main_process
def _evaluated(
    config: Config,
    model: Any,
    classes: int,
    train_clips: list[PretrainingClip],
    dev: list[PretrainingClip],
    labels: dict[str, Labels] | None,
    skipped: list[str],
) -> dict[str, Any]:
    out = Path(config.out)
    figures: dict[str, Any] = {"split": "dev", **evaluate(config, model, classes, dev)}
    if labels is not None:
        figures["layers"] = layers(config, model, train_clips, dev, labels)
    figures["skipped"] = skipped
    atomic_write(out / "evaluation.json", json.dumps(figures, indent=2) + "\n")
    if config.export:
        with Bar("exporting", None, transient=True):
            export(model, config.model, out / "transformers")
    return figures


def fit_targets(config: Config) -> Tokenizer:
    """Fit and save the front-end of the targets on the training split, or load it if it is saved."""
    reads = input_kind(build("front-ends", config.targets))
    given = (document.content(reads) for document in documents(config.data, "train", config.out))
    return load_or_fit(config.targets, given, Path(config.out) / "targets")


def split_clips(config: Config, targets: Tokenizer, split: Split) -> tuple[list[PretrainingClip], list[str]]:
    """The clips of a split, and a line for each recording that is left out."""
    given = documents(config.data, split, config.out)
    return list_clips(given, targets, config.model, Path(config.out) / "units", split)


def pretrain(
    config: Config,
    classes: int,
    train_clips: list[PretrainingClip],
    dev: list[PretrainingClip],
    labels: dict[str, Labels] | None,
) -> Any:
    """Train and save the model in ``model/``, or load it if it is trained.

    Args:
        config: the run.
        classes: number of units.
        train_clips: clips to train on.
        dev: clips to evaluate on.
        labels: phones by name of clip; None = do not measure the layers.

    Returns:
        The model of `transformers`, in eval mode.
    """
    folder, device = Path(config.out) / "model", resolve_device(config.device)
    if is_trained(folder, config.train.steps):
        return load(folder, device)[0]
    seed_all(config.seed)
    task = PretrainingTask(
        hubert.build(config.model, classes).to(device), config.feature_weight, config.off_target_weight
    )
    frames = config.model.frames(config.crop_samples)
    sampler = pretraining_sampler(train_clips, config.batch_size, config.seed, *ranks())
    settings = replace(config.train, seed=config.seed, device=config.device, dtype=config.dtype)

    def figures() -> dict[str, float]:
        metrics = evaluate(config, task.module, classes, dev)
        if labels is not None:
            for layer, quality in layers(config, task.module, train_clips, dev, labels).items():
                metrics |= {f"{layer}/{name}": value for name, value in quality.items()}
        return metrics

    with BatchLoader(sampler, CropLoading(config.model, frames), config.workers) as loader:
        train(
            task,
            loader,
            settings,
            folder / "training",
            describe="hubert",
            identity=fingerprint(config, NON_IDENTITY_KEYS),
            evaluate=figures if settings.eval_every else None,
            best_by="masked_nll",
        )
    fields = {"config": asdict(config.model), "num_classes": classes}
    save_model(folder, KIND, json.loads(json.dumps(fields)), task.module)
    return task.module.eval()


@torch.no_grad()
def evaluate(config: Config, model: Any, classes: int, dev: list[PretrainingClip]) -> dict[str, float]:
    """Evaluate a model on the first ``eval_clips`` dev clips.

    Args:
        config: the run; its seed draws the masks.
        model: the model.
        classes: number of units.
        dev: the dev clips with their target units.

    Returns:
        The figures by name; see `accuracies`.
    """
    return accuracies(model, config.model, dev[: config.eval_clips], classes, config.seed)


@torch.no_grad()
def layers(
    config: Config,
    model: Any,
    train_clips: list[PretrainingClip],
    dev: list[PretrainingClip],
    labels: dict[str, Labels],
) -> dict[str, dict[str, float]]:
    """Phone quality of each layer's clusters, which are fitted on training clips.

    Args:
        config: the run.
        model: the model.
        train_clips: the first ``probe_clips`` of these fit the clusters.
        dev: the first ``eval_clips`` of these are measured, if they have labels.
        labels: phones by name of clip.

    Returns:
        The figures of `unit_quality` by name, by layer.
    """
    fit, size, seed = train_clips[: config.probe_clips], config.probe_clusters, config.seed
    return probe(model, config.model, fit, dev[: config.eval_clips], labels, size, seed)
