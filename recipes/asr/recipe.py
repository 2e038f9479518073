"""Train a recogniser of speech, by CTC on waveforms or as a language model that reads units and writes text."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...artifacts import read_sealed, seal
from ...data._reading import require_path
from ...data.base import Split, take_evenly
from ...files import atomic_write, file_sha256
from ...folders import loading
from ...registry import build
from ...schema import PathText
from ..engine.config import load, resolve_device
from ..engine.distributed import main_process_first, on_main_process, start_processes
from ..engine.lock import locked
from ..engine.progress import progress
from ..engine.run_config import RunConfig
from ..engine.run_dir import fingerprint, init_run_dir
from ..engine.task import TrainConfig
from ..lm.corpus import require
from ..speech.text_normalisation import Alphabet, told
from .base import Decoding, Job, Letter, Recogniser, Transcriber, Utterance, Way
from .error_rates import Pair, error_rates, part, worst
from .text import text_of
from .utterances import read, recordings

NON_IDENTITY_KEYS = ("out", "device", "dtype", "decoding", "eval_recordings", "worst")
"""Keys that say where a run is made and what is shown of it, not what it is."""
ALPHABET, EVALUATION = "alphabet.json", "evaluation.json"
LM_SHA256 = "lm_sha256"
"""Key of the evaluation: the sum of the language model that it was made with."""
SIDE_BY_SIDE = 16
"""Recordings that an evaluation reads at once, where the recogniser can."""
RUN_IS = "a recogniser: `vqmem transcribe FILE --run {folder}` uses it"
"""What a run is, and which command uses it."""


@dataclass(frozen=True)
class Config(RunConfig):
    """A run: one recogniser, trained on the recordings of a data source that come with text."""

    out: PathText = "runs/asr"
    data: str | dict[str, Any] = "spoken_text"
    """Data source whose documents have a text: a name, or ``name`` and its keys (`vqmem list data NAME`)."""
    joint: str = ""
    """Neighbours whose names are alike up to the last of these are parts of one recording; empty = each is one."""
    recogniser: str | dict[str, Any] = "ctc"
    """What recognises: a name, or ``name`` and its keys (`vqmem list recognisers NAME`)."""
    characters: str = ""
    """The characters that are written, besides the space; empty = those of the normalised training texts."""
    rows: int = 16
    """Utterances, or streams of them, a batch."""
    train: TrainConfig = field(default_factory=lambda: TrainConfig(weight_decay=0.01, betas=(0.9, 0.98)))
    decoding: Decoding = field(default_factory=Decoding)
    eval_recordings: int | None = 64
    """Recordings of the dev split to evaluate on, taken evenly; null is all."""
    worst: int = 20
    """Utterances with the most errors that ``evaluation.json`` lists."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for sizes that cannot be, and for what the alphabet refuses."""
        super().__post_init__()
        self.require_at_least(1, "rows", "eval_recordings")
        self.require_at_least(0, "worst")
        if self.characters:
            Alphabet.of([self.characters])


class Run(NamedTuple):
    """What a finished run holds, loaded."""

    config: Config
    alphabet: Alphabet
    recogniser: Recogniser
    transcriber: Transcriber


def run(config: Config) -> dict[str, Any]:
    """Train what is not trained yet, evaluate on dev, save; gives what ``evaluation.json`` says."""
    return _evaluated(fit(config))


@on_main_process
def _evaluated(run: Run) -> dict[str, Any]:
    figures = evaluate(run)
    if (lm := run.config.decoding.lm) is not None:
        figures[LM_SHA256] = file_sha256(Path(lm))
    atomic_write(Path(run.config.out) / EVALUATION, json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    return figures


def fit(config: Config) -> Run:
    """The recogniser, trained and saved, or loaded where that has been done."""
    recogniser: Recogniser = build("recognisers", config.recogniser)
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
        return error_rates(recognise(next(iter(transcriber.ways.values())), held_out))

    job = Job(
        out,
        alphabet,
        utterances,
        recordings(utterances, config.joint),
        config.rows,
        replace(config.train, seed=config.seed, device=str(device), dtype=config.dtype),
        fingerprint(config, NON_IDENTITY_KEYS),
        config.decoding,
        figures,
    )
    return Run(config, alphabet, recogniser, recogniser.fit(job))


def load_run(folder: Path, device: torch.device | str = "cpu", beam: int | None = None) -> Run:
    """A finished run, with another ``beam`` than its own where that is given: 0 is greedy, without lexicon and lm.

    Raises `ValueError` where a part is missing or damaged, the recogniser cannot decode so, or the language model is
    another than the run was evaluated with.
    """
    with loading(folder, "run (the folder of a finished `vqmem asr`)", "asr"):
        config = load(Config, folder / "config.yaml")
    recogniser: Recogniser = build("recognisers", config.recogniser)
    if not (folder / ALPHABET).is_file():
        raise ValueError(f"{folder} has no {ALPHABET}: it holds no finished `vqmem asr`; run its command again")
    alphabet = Alphabet(read_sealed(folder / ALPHABET)["characters"])
    decoding = config.decoding
    if beam is not None:
        decoding = replace(decoding, beam=beam) if beam else Decoding()
    _check_lm(folder, decoding)
    transcriber = recogniser.load(folder, alphabet, decoding, torch.device(device))
    return Run(config, alphabet, recogniser, transcriber)


def _check_lm(folder: Path, decoding: Decoding) -> None:
    """Raise `ValueError` where the language model is not the one that the run in ``folder`` was evaluated with."""
    path = folder / EVALUATION
    if decoding.lm is None or not path.is_file():
        return
    recorded = json.loads(path.read_bytes()).get(LM_SHA256)
    if recorded not in (None, file_sha256(require_path(decoding.lm))):
        raise ValueError(
            f"decoding.lm {decoding.lm!r} is another file than when {folder} was evaluated; put that back, or evaluate "
            f"with this one: `vqmem asr {folder / 'config.yaml'}`"
        )


def evaluate(run: Run, split: Split = "dev", ways: Sequence[str] | None = None) -> dict[str, Any]:
    """Error rates of all ``ways`` of the recogniser (default: every one) on ``split``, and its worst utterances."""
    config, alphabet, recogniser, transcriber = run
    utterances, skipped = read(config.data, split, recogniser, Path(config.out) / "utterances")
    chosen = _chosen(config, utterances) if split == "dev" else recordings(utterances, config.joint)
    texts = [utterance.text for recording in chosen for utterance in recording]
    pairs = {
        name: recognise(way, chosen, f"recognising {split} ({name})")
        for name, way in transcriber.ways.items()
        if ways is None or name in ways
    }
    first = next(iter(pairs))
    return {
        "split": split,
        "way": first,
        "ways": {name: error_rates(own) for name, own in pairs.items()},
        "worst": worst(pairs[first], config.worst),
        "alphabet": alphabet.characters,
        "outside_alphabet": alphabet.outside(texts),
        "skipped": skipped,
    }


def recognise(way: Way, chosen: Sequence[Sequence[Utterance]], what: str = "") -> list[Pair]:
    """What was said and recognised in each utterance; recordings of several are read as one, and cut afterwards."""
    # Those that are read side by side should be of one length, so that none waits long for the others.
    order = sorted(range(len(chosen)), key=lambda i: sum(utterance.length for utterance in chosen[i]))
    groups = [order[i : i + SIDE_BY_SIDE] for i in range(0, len(order), SIDE_BY_SIDE)]
    letters: list[list[Letter]] = [[] for _ in chosen]
    for group in progress(groups, len(groups), what) if what else groups:
        for number, letter in way([[utterance.content for utterance in chosen[i]] for i in group]):
            letters[group[number]].append(letter)
    pairs = []
    for recording, own in zip(chosen, letters, strict=True):
        parts = part([utterance.text for utterance in recording], text_of(own))
        pairs += [Pair(one.name, one.text, heard) for one, heard in zip(recording, parts, strict=True)]
    return pairs


def _chosen(config: Config, utterances: Sequence[Utterance]) -> list[list[Utterance]]:
    return take_evenly(recordings(utterances, config.joint), config.eval_recordings)


def _alphabet(config: Config, utterances: Sequence[Utterance]) -> Alphabet:
    """The alphabet of the run: saved earlier, given, or learnt; training text outside of it is told of."""
    path, texts = Path(config.out) / ALPHABET, [utterance.text for utterance in utterances]
    if path.is_file():
        return Alphabet(read_sealed(path)["characters"])
    alphabet = Alphabet.of([config.characters]) if config.characters else Alphabet.of(texts)
    if outside := alphabet.outside(texts):
        print(f"left out of the training texts, as `characters` has them not: {told(outside)}", file=sys.stderr)
    atomic_write(path, json.dumps(seal({"characters": alphabet.characters}), ensure_ascii=False, indent=2) + "\n")
    return alphabet
