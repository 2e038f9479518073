"""Train a Jukebox-style VQ-VAE on speech: waveforms to codes at several rates, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ...artifacts import load_model
from ...data.base import Split, take_evenly
from ...data.reading.files import Skipping
from ...files import atomic_write
from ...models.device import resolve_device
from ...models.loss import Loss
from ...models.speech.spectral import bandwidth
from ...models.speech.vqvae import VQVAE, VQVAEConfig
from ...registry import DataSpec
from ...schema import NonNegativeInt, PathText, PositiveFloat, PositiveInt
from ..engine.config import as_dict
from ..engine.data_record import documents
from ..engine.distributed import on_main_process, ranks, save_model, start_processes
from ..engine.loader import BatchLoader, crop_sampler
from ..engine.lock import locked
from ..engine.progress import progress
from ..engine.run_config import RunConfig
from ..engine.run_dir import fingerprint, init_run_dir, is_trained
from ..engine.task import TrainConfig
from ..engine.trainer import seed_all, train
from .report import Sample, write_report

NON_IDENTITY_KEYS = ("out", "device", "dtype", "eval_clips", "eval_seconds", "samples")
"""Keys that do not change the trained model: where it runs, and what is evaluated and reported."""
SEEDING = 64
"""Crops that initialise the codebooks."""
RUN_IS = "a VQ-VAE of speech: `vqmem text_lm codes front_end.path={folder}` uses it"
"""Description of a finished run, with the command that uses it."""


@dataclass(frozen=True)
class Config(RunConfig):
    """A run: one VQ-VAE."""

    out: PathText = "runs/vqvae"
    data: DataSpec = "spoken_text"
    """Data source of recordings: a name, or ``name`` and its keys (`vqmem list data NAME`)."""
    train_seconds: PositiveFloat = 3600.0
    """Keep at most this many seconds of training recordings, the first ones, in memory (64 kB a second)."""
    eval_clips: PositiveInt = 32
    """Recordings of the dev split to evaluate on, evenly spaced."""
    eval_seconds: PositiveFloat = 4.0
    """Seconds of each recording to evaluate on, from its start."""
    samples: NonNegativeInt = 3
    """How many of these the report has players for."""
    batch_size: PositiveInt = 8
    """Batch size: crops a step in each process."""
    crop: PositiveInt = 8192
    """Samples of a crop."""
    model: VQVAEConfig = field(default_factory=VQVAEConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(lr=3e-3, weight_decay=0.0))

    def __post_init__(self) -> None:
        """Raise `ValueError` for sizes out of range."""
        super().__post_init__()
        if self.model.step_samples != VQVAEConfig().step_samples:
            raise ValueError("model.step_samples is set by batch_size and crop; leave it out")


def run(config: Config) -> dict[str, Any]:
    """Train what is not trained yet, evaluate on dev, save and report. Returns the contents of ``evaluation.json``."""
    start_processes(config.train.parallel, resolve_device(config.device))
    with locked(Path(config.out)):
        init_run_dir(config, NON_IDENTITY_KEYS)
        clips = held_out(config, "dev")
        return _evaluated(config, fit(config, clips), clips)


@on_main_process
def _evaluated(config: Config, model: VQVAE, clips: Sequence[tuple[str, Float[Tensor, " _"]]]) -> dict[str, Any]:
    out = Path(config.out)
    waveforms = [clip for _, clip in clips]
    figures: dict[str, Any] = {"split": "dev", "clips": len(clips), "levels": _by_level(_report(model, waveforms))}
    atomic_write(out / "evaluation.json", json.dumps(figures, indent=2) + "\n")
    shown = [Sample(name, clip) for name, clip in take_evenly(clips, config.samples)] if config.samples else []
    write_report(out / "report.html", model, figures, waveforms, shown, as_dict(config))
    return figures


def fit(config: Config, clips: Sequence[tuple[str, Float[Tensor, " _"]]]) -> VQVAE:
    """Train and save the VQ-VAE in ``model/``, or load it if it is trained."""
    folder, device = Path(config.out) / "model", resolve_device(config.device)
    if is_trained(folder, config.train.steps):
        return load_vqvae(Path(config.out), device)
    corpus = list(read(config, "train", config.train_seconds))
    shape = replace(config.model, step_samples=config.batch_size * config.crop * ranks()[1])
    seed_all(config.seed)
    model = VQVAE(shape, bandwidth(corpus)).to(device)
    model.seed_codebooks(crop_loader(corpus, SEEDING, config.crop, config.seed).next().to(device))
    loader = crop_loader(corpus, config.batch_size, config.crop, config.seed, *ranks())
    settings = replace(config.train, seed=config.seed, device=config.device, dtype=config.dtype)
    task = VQVAETask(model)
    train(
        task,
        loader,
        settings,
        folder / "training",
        describe="VQ-VAE",
        identity=fingerprint(config, NON_IDENTITY_KEYS),
        evaluate=lambda: _with_mean(_report(model, [clip for _, clip in clips])),
        best_by="stft_error",
    )
    save_model(folder, VQVAE.kind, model.fields(), task.module)
    return task.module.eval()


class VQVAETask:
    """Training of a VQ-VAE on crops."""

    def __init__(self, model: VQVAE) -> None:
        self.module: Any = model
        self.model = model

    def initial_state(self) -> None:
        """There is no state between batches."""

    def step(self, batch: Float[Tensor, "batch time"], state: None) -> tuple[Loss, None]:
        """The loss of one batch of crops."""
        return self.model.training_step(batch), None


def crop_loader(
    clips: Sequence[Float[Tensor, " _"]], batch_size: int, length: int, seed: int, rank: int = 0, world: int = 1
) -> BatchLoader:
    """Endless batches of random crops, every position equally likely; short recordings are padded.

    Args:
        clips: the recordings.
        batch_size: crops in a batch.
        length: samples of a crop.
        seed: seed of the positions.
        rank: number of this process.
        world: number of processes.

    Returns:
        The loader; a batch is a tensor ``[batch_size, length]`` of samples.
    """

    def crop(clip: int, start: int) -> Float[Tensor, " length"]:
        part = clips[clip][start : start + length]
        return F.pad(part, (0, length - len(part)))

    sampler = crop_sampler([len(clip) for clip in clips], batch_size, length, seed, rank, world)
    return BatchLoader(sampler, lambda crops: torch.stack([crop(*place) for place in crops]))


def read(config: Config, split: Split, seconds: float) -> Iterator[Float[Tensor, " _"]]:
    """Read the first ``seconds`` of a split, a recording at a time; unreadable ones are skipped and listed.

    Raises `ValueError` if there is no recording.
    """
    left = round(seconds * config.model.rate)
    skipping = Skipping()
    is_empty = True
    for document in documents(config.data, split, config.out):
        with skipping:
            clip = document.content("audio").read(config.model.rate)[:left]
            left -= len(clip)
            is_empty = False
            yield clip
        if left <= 0:
            break
    skipping.report()
    if is_empty:
        raise ValueError(f"the split {split} of {config.data!r} has no recordings; give data that has some")


def held_out(config: Config, split: Split) -> list[tuple[str, Float[Tensor, " _"]]]:
    """Names and starts of the recordings to evaluate on, evenly spaced. Raises as `read` does."""
    chosen = take_evenly(list(documents(config.data, split, config.out)), config.eval_clips)
    skipping, clips = Skipping(), []
    for document in progress(chosen, len(chosen), f"reading {split}", transient=True):
        with skipping:
            parts = document.content("audio").stream(config.eval_seconds, config.model.rate)
            clips.append((document.name, next(parts)))
    skipping.report()
    if not clips:
        raise ValueError(f"the split {split} of {config.data!r} has no recordings; give data that has some")
    return clips


def load_vqvae(run_folder: Path, device: torch.device | str = "cpu") -> VQVAE:
    """Load the VQ-VAE of a finished run, in eval mode. Raises `ValueError` if it is missing or damaged."""
    return load_model(Path(run_folder) / "model", VQVAE.from_fields, kind=VQVAE.kind, device=device)


def _report(model: VQVAE, clips: Sequence[Float[Tensor, " _"]]) -> dict[str, float]:
    device = next(model.parameters()).device
    return model.report(clip.to(device) for clip in progress(clips, len(clips), "evaluating", transient=True))


def _with_mean(figures: dict[str, float]) -> dict[str, float]:
    """Add the mean error of all levels, by which the best checkpoint is chosen."""
    errors = [value for name, value in figures.items() if name.endswith("/stft_error")]
    return figures | {"stft_error": sum(errors) / len(errors)}


def _by_level(figures: dict[str, float]) -> dict[str, dict[str, float]]:
    levels: dict[str, dict[str, float]] = {}
    for key, value in figures.items():
        level, name = key.split("/")
        levels.setdefault(level, {})[name] = value
    return levels
