"""Train a scorer on frames of speech in place of units: the frame head of the VQ-LM."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ...data.base import Split, take_evenly
from ...data.reading.files import Skipping
from ...files import atomic_write
from ...models.device import resolve_device
from ...models.loss import Loss
from ...models.scorers.vq_lm import Scorer
from ...models.speech.frame_scorer import FOLDER, KIND, FrameScorer, load_frame_scorer
from ...models.vq_lm import State, VQLMConfig
from ...registry import DataSpec, FeaturesSpec, build
from ...schema import PathText, PositiveFloat, PositiveInt, TwoOrMore
from ...tokenizers_._pinned import pin
from ...tokenizers_.speech.frames import FRAMES_A_SECOND, Extractor, stream_frames
from ..engine.data_record import documents
from ..engine.distributed import on_main_process, ranks, save_model, start_processes
from ..engine.lock import locked
from ..engine.progress import Bar
from ..engine.run_config import RunConfig
from ..engine.run_dir import fingerprint, init_run_dir, is_trained
from ..engine.task import TrainConfig
from ..engine.trainer import seed_all, train
from ..lm.corpus import Passage, SegmentBatch, segment_loader, sweep
from ..lm.language_model import replace_rows

NON_IDENTITY_KEYS = ("out", "device", "dtype", "eval_clips")
"""Keys that do not change the trained model: where it runs, and what is evaluated."""
RUN_IS = "a scorer of frames of speech: `vqmem score FILE --model {folder}` uses it"
"""Description of a finished run, with the command that uses it."""


@dataclass(frozen=True)
class Config(RunConfig):
    """A run. `vqmem score FILE --model OUT` uses it."""

    out: PathText = "runs/frame_scorer"
    data: DataSpec = "spoken_text"
    """Data source with recordings: a name, or ``name`` and its keys (`vqmem list data NAME`)."""
    features: FeaturesSpec = "mfcc39"
    """Features of a frame: a name, or ``name`` and its keys (`vqmem list features NAME`)."""
    train_seconds: PositiveFloat = 3600.0
    """Keep the frames of at most this many seconds of training recordings, the first ones, in memory."""
    eval_clips: PositiveInt | None = 32
    """Passages of the dev split to evaluate on, evenly spaced; null = all."""
    passage: TwoOrMore = 2048
    """Frames to read before the state is reset, 50 a second."""
    batch_size: PositiveInt = 16
    """Batch size: passages read in parallel."""
    segment: PositiveInt = 64
    """Frames through which gradients flow."""
    scorer: Scorer = field(default_factory=lambda: Scorer(dim=64, hidden=128))
    """The scorer; its keys for token ids (``tie``, ``cutoffs``) are ignored."""
    train: TrainConfig = field(default_factory=lambda: TrainConfig(steps=600, lr=3e-3))

    def __post_init__(self) -> None:
        """Raise `ValueError` for sizes out of range."""
        super().__post_init__()
        self.shape(1)  # raises for a wrong scorer before anything is read

    def shape(self, dim: int) -> VQLMConfig:
        """The config of the scorer for frames of dimension ``dim``."""
        return VQLMConfig(frame_dim=dim, **asdict(self.scorer))


class Frames(NamedTuple):
    """All frames of a split in one table, and its passages, whose ids are indices of the table."""

    table: Float[Tensor, "frames dim"]
    passages: list[Passage]


def run(config: Config) -> dict[str, Any]:
    """Train what is not trained yet, evaluate on dev and save. Returns the contents of ``evaluation.json``."""
    start_processes(config.train.parallel, resolve_device(config.device))
    with locked(Path(config.out)):
        init_run_dir(config, NON_IDENTITY_KEYS)
        extractor = build("features", config.features, "features").build()
        dev = read_frames(config, extractor, "dev")
        dev = dev._replace(passages=take_evenly(dev.passages, config.eval_clips))
        return _evaluated(config, fit(config, extractor, dev), dev)


@on_main_process
def _evaluated(config: Config, scorer: FrameScorer, dev: Frames) -> dict[str, Any]:
    frames = sum(len(passage.ids) for passage in dev.passages)
    figures = {"split": "dev", "passages": len(dev.passages), "frames": frames, "scorer": report(scorer, dev)}
    atomic_write(Path(config.out) / "evaluation.json", json.dumps(figures, indent=2) + "\n")
    return figures


def fit(config: Config, extractor: Extractor, dev: Frames) -> FrameScorer:
    """Train and save the scorer in ``model/``, or load it if it is trained."""
    folder, device = Path(config.out) / FOLDER, resolve_device(config.device)
    if is_trained(folder, config.train.steps):
        return load_frame_scorer(Path(config.out), device)
    corpus = read_frames(config, extractor, "train", config.train_seconds)
    seed_all(config.seed)
    encoder = pin(extractor, folder)
    scorer = FrameScorer(config.features, config.shape(extractor.dim), encoder).to(device)
    scorer.standardise_by(corpus.table)
    task = FrameScorerTask(scorer, corpus.table, config.batch_size)
    train(
        task,
        segment_loader(corpus.passages, config.batch_size, config.segment, config.seed, *ranks()),
        replace(config.train, seed=config.seed, device=config.device, dtype=config.dtype),
        folder / "training",
        describe="frame scorer",
        identity=fingerprint(config, NON_IDENTITY_KEYS) | ({"encoder.sha256": encoder["sha256"]} if encoder else {}),
        evaluate=partial(report, scorer, dev) if config.train.eval_every else None,
        best_by="surprise",
    )
    save_model(folder, KIND, scorer.fields(), task.module)
    return task.module.eval()


class FrameScorerTask:
    """Training on segments of frames; tokens of a batch are indices of ``table``."""

    token_unit = "frames"

    def __init__(self, scorer: FrameScorer, table: Float[Tensor, "frames dim"], batch_size: int) -> None:
        self.module: Any = scorer
        self.scorer, self.batch_size = scorer, batch_size
        self.table = table.to(scorer.mean.device)

    def initial_state(self) -> State:
        """The initial state of the scorer."""
        return self.scorer.initial_state(self.batch_size)

    def step(self, batch: SegmentBatch, state: State) -> tuple[Loss, State]:
        """Train on one segment; rows in which a passage begins start from the initial state."""
        state = replace_rows(state, self.scorer.initial_state(self.batch_size), batch.is_start)
        loss, state = self.scorer.training_step(self.table[batch.tokens], state, batch.valid)
        return Loss(loss.value, {**loss.metrics, "tokens": batch.valid.sum()}), state


def read_frames(config: Config, extractor: Extractor, split: Split, seconds: float | None = None) -> Frames:
    """Read the frames of a split. Unreadable recordings are skipped and listed.

    Args:
        config: the run.
        extractor: computes the features.
        split: train, dev or test.
        seconds: maximum seconds together; None = all recordings.

    Returns:
        The frames of all recordings, ``[frame, feature]``, and passages whose ids are indices of frames.

    Raises:
        ValueError: The data source has no recordings, or none with two frames.
    """
    limit = None if seconds is None else max(2, round(seconds * FRAMES_A_SECOND))
    parts: list[Tensor] = []
    passages: list[Passage] = []
    count = 0
    skipping = Skipping()
    for document in documents(config.data, split, config.out):
        with skipping:
            frames = torch.cat(list(stream_frames(document.content("audio").stream(), extractor, document.name)))
            frames = frames if limit is None else frames[: limit - count]
            parts.append(frames)
            for ids in torch.arange(count, count + len(frames)).split(config.passage):
                if len(ids) >= 2:
                    name, sizes = f"{document.name}:{int(ids[0]) - count}", torch.ones_like(ids)
                    passages.append(Passage(name, ids, sizes, torch.zeros(len(ids), dtype=torch.bool)))
            count += len(frames)
        if limit is not None and count >= limit:
            break
    skipping.report()
    if not passages:
        raise ValueError(f"the split {split} of {config.data!r} has no recordings; give data that has some")
    return Frames(torch.cat(parts), passages)


def report(scorer: FrameScorer, frames: Frames) -> dict[str, float]:
    """Metrics of the scorer on passages (see `VQLM.report`); surprise, rarity and gain in nats per dimension."""
    passages, device = frames.passages, scorer.mean.device
    _, batch = next(sweep(passages, len(passages), max(len(passage.ids) for passage in passages)))
    with Bar("evaluating the scorer", None, transient=True):
        return scorer.report(frames.table[batch.tokens].to(device), batch.valid.to(device))
