"""Train a speech recogniser: by CTC on waveforms, or as a language model that reads units and writes text."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...artifacts import read_sealed, seal
from ...data.base import Split, take_evenly
from ...data.reading.files import require_path
from ...files import atomic_write, file_sha256
from ...folders import loading
from ...models.device import resolve_device
from ...registry import DataSpec, RecogniserSpec, build
from ...schema import NonNegativeInt, PathText, PositiveInt
from ..engine.config import load
from ..engine.distributed import main_process_first, on_main_process, start_processes
from ..engine.lock import locked
from ..engine.progress import progress
from ..engine.run_config import RunConfig
from ..engine.run_dir import fingerprint, init_run_dir
from ..engine.task import TrainConfig
from ..lm.corpus import require
from ..speech.text_normalisation import Alphabet, format_characters
from .base import Decoding, DecodingMode, Letter, Recogniser, TrainingJob, Transcriber, Utterance
from .error_rates import TranscriptPair, error_rates, part, worst_utterances
from .text import text_of
from .utterances import read, recordings

NON_IDENTITY_KEYS = ("out", "device", "dtype", "decoding", "eval_recordings", "worst_utterances")
"""Keys that do not change the trained model: where it runs, and what is evaluated and reported."""
ALPHABET, EVALUATION = "alphabet.json", "evaluation.json"
LM_SHA256 = "lm_sha256"
"""Key of ``evaluation.json``: the checksum of the language model that decoding used."""
EVAL_BATCH_SIZE = 16
"""Recordings that an evaluation transcribes as one batch, if the recogniser can."""
RUN_IS = "a recogniser: `vqmem transcribe FILE --run {folder}` uses it"
"""Description of a finished run, with the command that uses it."""


@dataclass(frozen=True)
class Config(RunConfig):
    """A run: one recogniser, trained on the recordings of a data source that have a text."""

    out: PathText = "runs/asr"
    data: DataSpec = "spoken_text"
    """Data source whose documents have a text: a name, or ``name`` and its keys (`vqmem list data NAME`)."""
    joint: str = ""
    """Neighbours whose names agree up to the last of these are parts of one recording; empty = each is a recording."""
    recogniser: RecogniserSpec = "ctc"
    """The recogniser: a name, or ``name`` and its keys (`vqmem list recognisers NAME`)."""
    characters: str = ""
    """Characters that the recogniser writes, besides the space; empty = those of the normalised training texts."""
    batch_size: PositiveInt = 16
    """Utterances, or streams of utterances, in a batch."""
    train: TrainConfig = field(default_factory=lambda: TrainConfig(weight_decay=0.01, betas=(0.9, 0.98)))
    decoding: Decoding = field(default_factory=Decoding)
    eval_recordings: PositiveInt | None = 64
    """Recordings of the dev split to evaluate on, evenly spaced; null = all."""
    worst_utterances: NonNegativeInt = 20
    """How many of the utterances with the most errors ``evaluation.json`` lists."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for sizes out of range, and for characters that the alphabet refuses."""
        super().__post_init__()
        if self.characters:
            Alphabet.of([self.characters])


class Run(NamedTuple):
    """The parts of a finished run, loaded."""

    config: Config
    alphabet: Alphabet
    recogniser: Recogniser
    transcriber: Transcriber


def run(config: Config) -> dict[str, Any]:
    """Train what is not trained yet, evaluate on dev and save. Returns the contents of ``evaluation.json``."""
    return _evaluated(fit(config))


@on_main_process
def _evaluated(run: Run) -> dict[str, Any]:
    figures = evaluate(run)
    if (lm := run.config.decoding.lm) is not None:
        figures[LM_SHA256] = file_sha256(Path(lm))
    atomic_write(Path(run.config.out) / EVALUATION, json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    return figures


def fit(config: Config) -> Run:
    """Train and save the recogniser, or load it if it is trained."""
    recogniser: Recogniser = build("recognisers", config.recogniser, "recogniser")
    recogniser.check(Path(config.out), config.decoding)
    start_processes(config.train.parallel, resolve_device(config.device))
    require(config.data, "dev", "recordings")
    with locked(Path(config.out)):
        return _fit(config, recogniser)


def _fit(config: Config, recogniser: Recogniser) -> Run:
    out, device = Path(config.out), resolve_device(config.device)
    init_run_dir(config, NON_IDENTITY_KEYS)
    with main_process_first():
        utterances, _ = read(config.data, "train", recogniser, out / "utterances")
        alphabet = _alphabet(config, utterances)
        dev, _ = read(config.data, "dev", recogniser, out / "utterances")
    held_out = _chosen(config, dev)

    def figures(transcriber: Transcriber) -> dict[str, float]:
        return error_rates(recognise(next(iter(transcriber.decoding_modes.values())), held_out, "recognising dev"))

    job = TrainingJob(
        out,
        alphabet,
        utterances,
        recordings(utterances, config.joint),
        config.batch_size,
        replace(config.train, seed=config.seed, device=str(device), dtype=config.dtype),
        fingerprint(config, NON_IDENTITY_KEYS),
        config.decoding,
        figures,
    )
    return Run(config, alphabet, recogniser, recogniser.fit(job))


def load_run(folder: Path, device: torch.device | str = "cpu", beam: int | None = None) -> Run:
    """Load a finished run.

    Args:
        folder: the run's ``out``.
        device: where the models go.
        beam: replaces the ``beam`` of the config; 0 decodes greedily, without lexicon and language model.

    Returns:
        The run: its config, alphabet, recogniser and models in eval mode.

    Raises:
        ValueError: A part is missing or damaged, the recogniser does not support this decoding, or the language model
            is not the one that the run was evaluated with.
    """
    with loading(folder, "run (the folder of a finished `vqmem asr`)", "asr"):
        config = load(Config, folder / "config.yaml")
    recogniser: Recogniser = build("recognisers", config.recogniser, "recogniser")
    if not (folder / ALPHABET).is_file():
        raise ValueError(f"{folder} has no {ALPHABET}: it is not a finished run of `vqmem asr`; run its command again")
    alphabet = Alphabet(read_sealed(folder / ALPHABET)["characters"])
    decoding = config.decoding
    if beam is not None:
        decoding = replace(decoding, beam=beam) if beam else Decoding()
    _check_lm(folder, decoding)
    transcriber = recogniser.load(folder, alphabet, decoding, torch.device(device))
    return Run(config, alphabet, recogniser, transcriber)


def _check_lm(folder: Path, decoding: Decoding) -> None:
    """Raise `ValueError` if the language model is not the one that the run in ``folder`` was evaluated with."""
    path = folder / EVALUATION
    if decoding.lm is None or not path.is_file():
        return
    recorded = json.loads(path.read_bytes()).get(LM_SHA256)
    if recorded not in (None, file_sha256(require_path(decoding.lm))):
        raise ValueError(
            f"decoding.lm {decoding.lm!r} differs from the file that {folder} was evaluated with; put that file "
            f"back, or evaluate with this one: `vqmem asr {folder / 'config.yaml'}`"
        )


def evaluate(run: Run, split: Split = "dev", decoding_modes: Sequence[str] | None = None) -> dict[str, Any]:
    """Error rates on ``split`` in each of ``decoding_modes`` (default: all), and the worst utterances."""
    config, alphabet, recogniser, transcriber = run
    utterances, skipped = read(config.data, split, recogniser, Path(config.out) / "utterances")
    chosen = _chosen(config, utterances) if split == "dev" else recordings(utterances, config.joint)
    texts = [utterance.text for recording in chosen for utterance in recording]
    pairs = {
        name: recognise(mode, chosen, f"recognising {split} ({name})")
        for name, mode in transcriber.decoding_modes.items()
        if decoding_modes is None or name in decoding_modes
    }
    first = next(iter(pairs))
    return {
        "split": split,
        "decoding_mode": first,
        "decoding_modes": {name: error_rates(of_mode) for name, of_mode in pairs.items()},
        "worst_utterances": worst_utterances(pairs[first], config.worst_utterances),
        "alphabet": alphabet.characters,
        "outside_alphabet": alphabet.outside(texts),
        "skipped": skipped,
    }


def recognise(mode: DecodingMode, chosen: Sequence[Sequence[Utterance]], description: str) -> list[TranscriptPair]:
    """The reference and the hypothesis of each utterance.

    A recording of several utterances is transcribed as one; its transcript is cut into utterances afterwards.
    """
    # Recordings of a batch should be about equally long, so that little of it is padding.
    order = sorted(range(len(chosen)), key=lambda i: sum(utterance.length for utterance in chosen[i]))
    groups = [order[i : i + EVAL_BATCH_SIZE] for i in range(0, len(order), EVAL_BATCH_SIZE)]
    letters: list[list[Letter]] = [[] for _ in chosen]
    for group in progress(groups, len(groups), description, transient=True):
        for number, letter in mode([[utterance.content for utterance in chosen[i]] for i in group]):
            letters[group[number]].append(letter)
    pairs = []
    for recording, recognised in zip(chosen, letters, strict=True):
        parts = part([utterance.text for utterance in recording], text_of(recognised))
        pairs += [
            TranscriptPair(utterance.name, utterance.text, hypothesis)
            for utterance, hypothesis in zip(recording, parts, strict=True)
        ]
    return pairs


def _chosen(config: Config, utterances: Sequence[Utterance]) -> list[list[Utterance]]:
    return take_evenly(recordings(utterances, config.joint), config.eval_recordings)


def _alphabet(config: Config, utterances: Sequence[Utterance]) -> Alphabet:
    """The alphabet of the run: saved earlier, given, or learnt. Reports training characters outside of it."""
    path, texts = Path(config.out) / ALPHABET, [utterance.text for utterance in utterances]
    if path.is_file():
        return Alphabet(read_sealed(path)["characters"])
    alphabet = Alphabet.of([config.characters]) if config.characters else Alphabet.of(texts)
    if outside := alphabet.outside(texts):
        print(
            f"left out of the training texts, because `characters` lacks them: {format_characters(outside)}",
            file=sys.stderr,
        )
    atomic_write(path, json.dumps(seal({"characters": alphabet.characters}), ensure_ascii=False, indent=2) + "\n")
    return alphabet
