"""Train a voice: text to units by the memory transformer, durations of units, and a vocoder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...artifacts import CONFIG
from ...files import atomic_write
from ...models.device import resolve_device
from ...models.loss import Loss
from ...models.speech.mel_rvq import MelRVQ, MelRVQConfig, by_unit
from ...models.speech.spectral import bandwidth
from ...models.speech.unit_speaker import SpeakerConfig, SpokenSentence, UnitSpeaker
from ...models.speech.unit_vocoder import UnitVocoder, VocoderConfig
from ...registry import DataSpec, FrontEndSpec, build
from ...schema import NonNegativeInt, PathText, PositiveFloat, PositiveInt
from ...tokenizers_.hubert_units import UnitTokenizer
from ..engine.config import as_dict
from ..engine.data_record import documents
from ..engine.distributed import main_process_first, on_main_process, ranks, save_model, start_processes
from ..engine.front_end import load_or_fit
from ..engine.lock import locked
from ..engine.progress import Bar, model_of, progress
from ..engine.run_config import RunConfig
from ..engine.run_dir import fingerprint, init_run_dir, is_trained
from ..engine.task import TrainConfig
from ..engine.trainer import seed_all, train
from ..lm.corpus import require
from .clips import VoiceClip, align, aligned, read_clips, sentence_loader, vocoder_loader
from .evaluate import evaluate, mel_residual, speaker_figures, vocoder_figures
from .reading import read_aloud
from .report import write_report
from .voice import Voice, load_part, part_of

NON_IDENTITY_KEYS = ("out", "device", "dtype", "eval_clips", "samples", "language")
"""Keys that do not change the trained models: where they run, and what is evaluated and reported."""
RVQ_UNITS = 16_000
"""Approximate number of units that fit the codebooks of the RVQ, from random recordings of the training split."""
RUN_IS = "a voice: `vqmem speak TEXT -o out.wav --run {folder}` uses it"
"""Description of a finished run, with the command that uses it."""


@dataclass(frozen=True)
class Config(RunConfig):
    """A run: one voice. Train on recordings of one speaker, because units carry little of a speaker's identity."""

    out: PathText = "runs/tts"
    data: DataSpec = field(default_factory=lambda: {"name": "spoken_text", "voices": ["en-us"], "speeds": [150]})
    """Data source of recordings with their texts: a name, or ``name`` and its keys (`vqmem list data NAME`)."""
    units: FrontEndSpec = field(default_factory=lambda: {"name": "hubert_units", "clusters": 300})
    """Front-end of units, fitted on the training split; a single voice can use more clusters than many voices."""
    language: str = "en"
    """Language in which `vqmem speak` reads numbers and abbreviations: de or en; empty = leave them. Training texts are
    always used as written."""
    train_seconds: PositiveFloat = 7200.0
    """Keep at most this many seconds of training recordings, the first ones, in memory (64 kB a second)."""
    eval_clips: PositiveInt = 24
    """Recordings of the dev split to evaluate on, evenly spaced."""
    samples: NonNegativeInt = 4
    """How many of these the report has players for."""
    vocoder_batch_size: PositiveInt = 8
    """Batch size of the vocoder: crops a step in each process."""
    crop: PositiveInt = 48
    """Units of a crop, 20 ms each."""
    vocoder: VocoderConfig = field(default_factory=VocoderConfig)
    vocoder_train: TrainConfig = field(
        default_factory=lambda: TrainConfig(steps=1500, weight_decay=0.01, eval_every=500)
    )
    rvq: MelRVQConfig = field(default_factory=MelRVQConfig)
    batch_size: PositiveInt = 16
    """Batch size of the speaker: sentences a step in each process."""
    speaker: SpeakerConfig = field(default_factory=SpeakerConfig)
    speaker_train: TrainConfig = field(
        default_factory=lambda: TrainConfig(steps=2000, lr=2e-3, weight_decay=0.05, eval_every=100)
    )

    def __post_init__(self) -> None:
        """Raise `ValueError` for sizes out of range, and for settings that the front-end refuses."""
        super().__post_init__()
        front_end = build("front-ends", self.units, "units")
        if getattr(front_end, "input_kind", "text") != "audio" or front_end.deduplicate:
            raise ValueError(
                f"units = {self.units!r} must be hubert_units without deduplicate, which makes one unit a frame"
            )
        read_aloud("", self.language)


class ModelTask:
    """Training of a model that has `training_step`; there is no state between steps."""

    def __init__(self, model: Any) -> None:
        self.module: nn.Module = model
        self.model = model

    def initial_state(self) -> None:
        """There is none."""

    def step(self, batch: Any, state: None) -> tuple[Loss, None]:
        """The loss of one batch."""
        return self.model.training_step(batch), None


def run(config: Config) -> dict[str, Any]:
    """Train what is not trained yet, evaluate on dev, save and report. Returns the contents of ``evaluation.json``."""
    out = Path(config.out)
    for settings in (config.vocoder_train, config.speaker_train):
        start_processes(settings.parallel, resolve_device(config.device))
    require(config.data, "dev", "recordings")
    with locked(out):
        init_run_dir(config, NON_IDENTITY_KEYS)
        with main_process_first():
            tokenizer = fit_units(config)
        clips = read_clips(config.data, "train", tokenizer, out, seconds=config.train_seconds)
        dev = read_clips(config.data, "dev", tokenizer, out, count=config.eval_clips)
        letters, aligner = align(clips, tokenizer.vocab_size)
        clips, sentences = aligned(clips, letters, aligner)
        dev, held_out = aligned(dev, letters, aligner)
        with model_of(1, 2):
            vocoder = fit_vocoder(config, tokenizer, letters, clips, dev)
        with main_process_first():
            rvq = fit_rvq(config, vocoder, clips)
        with model_of(2, 2):
            speaker = fit_speaker(config, tokenizer, letters, sentences, held_out)
        voice = Voice(tokenizer, speaker, vocoder, rvq, config.language)
        return _evaluated(config, voice, dev, held_out)


@on_main_process
def _evaluated(
    config: Config, voice: Voice, dev: Sequence[VoiceClip], held_out: Sequence[SpokenSentence]
) -> dict[str, Any]:
    figures = {"split": "dev", "clips": len(dev), **evaluate(voice, dev, held_out)}
    out = Path(config.out)
    atomic_write(out / "evaluation.json", json.dumps(figures, indent=2) + "\n")
    write_report(out / "report.html", voice, figures, dev, config.samples, as_dict(config))
    return figures


def fit_units(config: Config) -> UnitTokenizer:
    """Fit and save the front-end on the training split, or load it if it is saved."""
    given = (document.content("audio") for document in documents(config.data, "train", config.out))
    tokenizer = load_or_fit(config.units, given, Path(config.out) / "front_end")
    assert isinstance(tokenizer, UnitTokenizer)
    return tokenizer


def fit_vocoder(
    config: Config, tokenizer: UnitTokenizer, letters: str, clips: Sequence[VoiceClip], dev: Sequence[VoiceClip]
) -> UnitVocoder:
    """Train and save the vocoder in ``vocoder/``, or load it if it is trained.

    Args:
        config: the run.
        tokenizer: the front-end of units.
        letters: the alphabet.
        clips: aligned training recordings.
        dev: aligned recordings to evaluate on.

    Returns:
        The trained vocoder, in eval mode.

    Raises:
        ValueError: No training recording is voiced.
    """
    folder, device = Path(config.out) / "vocoder", resolve_device(config.device)
    if is_trained(folder, config.vocoder_train.steps, needed_by=Path(config.out) / part_of(MelRVQ)):
        return load_part(folder, UnitVocoder, device)
    pitch = torch.cat([clip.hz[clip.voiced] for clip in clips])
    if not len(pitch):
        raise ValueError(f"no voice is found in the split train of {config.data!r}; give recordings of speech")
    size = bandwidth(clip.waveform for clip in progress(clips, len(clips), "bandwidth", transient=True))
    seed_all(config.seed)
    hz = float(pitch.log().mean().exp())
    model = UnitVocoder(config.vocoder, tokenizer.vocab_size, len(letters), size, hz)
    model.init_embeddings(tokenizer.centroids)
    model = model.to(device)
    loader = vocoder_loader(clips, config.vocoder_batch_size, config.crop, config.seed, *ranks())
    # Spectra need full precision.
    settings = replace(config.vocoder_train, seed=config.seed, device=config.device, dtype="float32")
    return _fitted(config, model, loader, settings, lambda: vocoder_figures(model, dev), "mel_error_with_text")


def fit_rvq(config: Config, vocoder: UnitVocoder, clips: Sequence[VoiceClip]) -> MelRVQ | None:
    """Fit and save the codebooks of mel residuals in ``rvq/``, or load them; None if there are no quantizers."""
    folder = Path(config.out) / part_of(MelRVQ)
    if not config.rvq.num_quantizers:
        return None
    if not (folder / CONFIG).is_file():
        seed_all(config.seed)
        start: list[torch.Tensor] = []
        with Bar("codebooks of mel residuals", None, transient=True):
            for number in torch.randperm(len(clips)).tolist():
                start.append(by_unit(mel_residual(vocoder, clips[number])).cpu())
                if sum(map(len, start)) >= RVQ_UNITS:
                    break
            rvq = MelRVQ(config.rvq, torch.cat(start))
        save_model(folder, rvq.kind, rvq.fields(), rvq)
    return load_part(folder, MelRVQ, resolve_device(config.device))


def fit_speaker(
    config: Config,
    tokenizer: UnitTokenizer,
    letters: str,
    sentences: Sequence[SpokenSentence],
    held_out: Sequence[SpokenSentence],
) -> UnitSpeaker:
    """Train and save the speaker in ``speaker/``, or load it if it is trained.

    Args:
        config: the run.
        tokenizer: the front-end of units.
        letters: the alphabet.
        sentences: aligned training texts.
        held_out: aligned texts to evaluate on.

    Returns:
        The trained speaker, in eval mode.
    """
    folder, device = Path(config.out) / "speaker", resolve_device(config.device)
    if is_trained(folder, config.speaker_train.steps):
        return load_part(folder, UnitSpeaker, device)
    seed_all(config.seed)
    max_train_letters = max(len(sentence.letters) - 2 for sentence in sentences)  # without the edges
    model = UnitSpeaker(config.speaker, letters, tokenizer.vocab_size, max_train_letters)
    model.init_embeddings(tokenizer.centroids)
    model = model.to(device)
    loader = sentence_loader(model, sentences, config.batch_size, config.seed, *ranks())
    settings = replace(config.speaker_train, seed=config.seed, device=config.device, dtype=config.dtype)
    return _fitted(config, model, loader, settings, lambda: speaker_figures(model, held_out), "perplexity")


def _fitted(
    config: Config, model: Any, loader: Any, settings: TrainConfig, figures: Callable[[], Any], best_by: str
) -> Any:
    """Train and save a model in the folder of its kind."""
    name = part_of(model)
    folder = Path(config.out) / name
    task = ModelTask(model)
    train(
        task,
        loader,
        settings,
        folder / "training",
        describe=name,
        identity=fingerprint(config, NON_IDENTITY_KEYS),
        evaluate=figures,
        best_by=best_by,
    )
    save_model(folder, model.kind, model.fields(), task.module)
    return task.module.eval()
