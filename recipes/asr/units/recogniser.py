"""A language model that reads units of speech in chunks and writes letters between them, with a bounded memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from ....artifacts import FRONT_END
from ....data.base import InputKind
from ....memory.policy import Guard
from ....memory.scorer import load_scorer, signals_of
from ....models.memory_transformer import TransformerConfig
from ....models.speech.unit_ctc import FRAMES_PER_UNIT, UnitCTC
from ....registry import FrontEndSpec, ScorerSpec, build
from ....schema import NonNegativeFloat, NonNegativeInt, PositiveInt, ShareBelowOne, Validated
from ....tokenizers_.base import Stream, Tokenizer, input_kind, load_tokenizer
from ...engine.distributed import main_process_first, ranks, save_model
from ...engine.front_end import load_or_fit
from ...engine.progress import model_of, progress
from ...engine.run_dir import is_trained
from ...engine.task import Task, TrainConfig
from ...engine.trainer import seed_all, train
from ...lm.corpus import segment_loader
from ...lm.decoder import make_reader
from ...lm.language_model import LanguageModel, LanguageModelTask, Schedule, Shape, load_language_model
from ...lm.scorer_task import ScorerTask
from ...lm.strategies import refuse_untrainable, require_gates, strategies
from ...speech.text_normalisation import Alphabet
from ..base import Decoding, DecodingMode, Letter, TrainingJob, Utterance, one_by_one
from ..ctc.task import greedy
from ..utterances import size_of
from .align import Aligner, SpokenUtterance, align
from .align import fit as fit_aligner
from .align import load as load_aligner
from .interleave import Interleaving
from .streams import Streams, noise
from .write import write


@dataclass(frozen=True)
class Recogniser(Validated):
    """Units to text as one sequence. A small bidirectional network aligns the training texts with units first."""

    front_end: FrontEndSpec = field(default_factory=lambda: {"name": "hubert_units", "deduplicate": True})
    """Front-end that makes units; best with ``deduplicate``, so that a run of one unit is one token."""
    chunk: PositiveInt = 8
    """Units to read before letters are written."""
    lookahead: NonNegativeInt = 4
    """Units to read after a letter's unit before the letter is written."""
    passage: PositiveInt = 600
    """Units of neighbouring utterances that training reads before the memory is emptied."""
    segment: PositiveInt = 64
    """Tokens after which the memory is updated; older tokens are seen only through the memory."""
    aligner: Aligner = field(default_factory=Aligner)
    scorer: ScorerSpec = "vq_lm"
    """Scorer of tokens: a name, or ``name`` and its keys (`vqmem list scorers NAME`)."""
    scorer_train: TrainConfig = field(default_factory=lambda: TrainConfig(steps=300, lr=3e-3))
    shape: Shape = field(default_factory=lambda: Shape(layers=4, dropout=0.2))
    strategies: dict[str, Any] = field(default_factory=lambda: {"fifo": {"policy": "fifo"}})
    """Name -> ``policy`` and, unless evicted slots are dropped, ``compression``."""
    capacities: tuple[int, ...] = (128,)
    """Capacities of the memory, in slots per row."""
    sinks: int = 0
    """Guard: no policy may evict this many of the first tokens."""
    recent: int = 0
    """Guard: no policy may evict this many of the newest tokens."""
    resample_every: PositiveInt = 4
    """Segments after which training samples strategy and capacity again."""
    unit_noise: ShareBelowOne = 0.1
    """Share of units that training replaces by random ones."""
    letter_noise: ShareBelowOne = 0.1
    """Share of letters that training replaces by random ones, because the recogniser reads letters that it wrote."""
    unit_weight: NonNegativeFloat = 0.1
    """Weight of the loss on units; letters and switches have 1."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for values out of range, and for memories smaller than the guards."""
        super().__post_init__()
        if not self.capacities or not self.strategies:
            raise ValueError("strategies and capacities must name at least one memory; give strategies: {fifo: ...}")
        TransformerConfig(1, **asdict(self.shape))
        refuse_untrainable(strategies(self.strategies), "leave it out")
        require_gates(strategies(self.strategies), self.shape.forget_gate, "recogniser.shape.forget_gate")
        for strategy in strategies(self.strategies, self.scorer):
            for capacity in self.capacities:
                strategy.memory(capacity, self.guard)

    @property
    def guard(self) -> Guard:
        """The guard of all strategies."""
        return Guard(self.sinks, self.recent)

    @property
    def input_kind(self) -> InputKind:
        """The field of a document that the front-end reads."""
        return input_kind(build("front-ends", self.front_end))

    def length(self, content: Any) -> int:
        """The number of samples or units. Raises `UnreadableError` for an unreadable recording."""
        return size_of(content)

    def interleaving(self, units: int, letters: int) -> Interleaving:
        """The interleaving for this many different units and letters."""
        return Interleaving(units, letters, self.chunk, self.lookahead)

    def check(self, out: Path, decoding: Decoding) -> None:
        """Raise `ValueError` for a beam, which needs CTC, and for fitted units that are missing."""
        _refuse(decoding)
        front_end = build("front-ends", self.front_end)
        if getattr(front_end, "fitted", "") and not (out / "front_end" / FRONT_END).is_file():
            front_end.fit(())

    def fit(self, job: TrainingJob) -> UnitTranscriber:
        """Train and save front-end, aligner, scorer and language model, or load those that are trained."""
        with main_process_first():
            contents = (utterance.content for utterance in job.utterances)
            front_end = load_or_fit(self.front_end, contents, job.out / "front_end")
        made = job.out / "transformer"
        for part, settings in (("aligner", self.aligner.train), ("scorer", self.scorer_train)):
            is_trained(job.out / part, settings.steps, needed_by=made)
        if not is_trained(made, job.settings.steps):
            self._train(job, front_end)
        return self.load(job.out, job.alphabet, job.decoding, job.device)

    def load(self, out: Path, alphabet: Alphabet, decoding: Decoding, device: torch.device) -> UnitTranscriber:
        """Load what `fit` saved. Raises `ValueError` if a part is missing or damaged, and for a beam."""
        _refuse(decoding)
        scorer = load_scorer(out, device)
        model = load_language_model(out / "transformer", scorer, device)
        front_end = load_tokenizer(out / "front_end")
        return UnitTranscriber(self, front_end, alphabet, model, scorer, load_aligner(out / "aligner", device))

    def _train(self, job: TrainingJob, front_end: Tokenizer) -> None:
        total, alphabet = len(job.recordings), job.alphabet
        spoken = [
            [_spoken(one, front_end, alphabet) for one in recording]
            for recording in progress(job.recordings, total, "units of train", transient=True)
        ]
        settings = replace(self.aligner.train, **_shared(job))
        with model_of(1, 3):
            aligner = fit_aligner(self.aligner, list(chain.from_iterable(spoken)), front_end.vocab_size, job, settings)
        aligned = [
            [one for one in align(aligner, recording) if one is not None]
            for recording in progress(spoken, total, "aligning", transient=True)
        ]
        codes = self.interleaving(front_end.vocab_size, len(job.alphabet))
        streams = Streams(aligned, codes, job.alphabet, self.passage, job.settings.seed)
        with model_of(2, 3):
            scorer = self._scorer(job, streams, codes)
        seed_all(job.settings.seed)
        choices = strategies(self.strategies)
        shape = TransformerConfig(codes.vocab_size, **asdict(self.shape), signals=signals_of(scorer))
        model = LanguageModel(shape, choices).to(job.device)
        schedule = Schedule(choices, self.capacities, self.guard, self.resample_every, job.settings.seed)
        task = LanguageModelTask(
            model,
            scorer,
            schedule,
            job.batch_size,
            off_target_weight=self.unit_weight,
            alter=noise(codes, self.unit_noise, self.letter_noise),
        )
        held_out = UnitTranscriber(self, front_end, job.alphabet, model, scorer, aligner)
        folder = job.out / "transformer"
        with model_of(3, 3):
            self._run(job, job.settings, task, streams, folder, "language model", held_out)
        fields = {"shape": asdict(task.module.transformer.config), "strategies": self.strategies}
        save_model(folder, "language_model", json.loads(json.dumps(fields)), task.module)

    def _scorer(self, job: TrainingJob, streams: Streams, codes: Interleaving) -> Any:
        """Train and save the scorer of interleaved sequences in ``scorer/``, or load it if it is trained."""
        folder, name = job.out / "scorer", self.scorer if isinstance(self.scorer, str) else self.scorer["name"]
        if not is_trained(folder, self.scorer_train.steps):
            seed_all(job.settings.seed)
            task = ScorerTask(build("scorers", self.scorer).build(codes.vocab_size).to(job.device), job.batch_size)
            settings = replace(self.scorer_train, **_shared(job))
            self._run(job, settings, task, streams, folder, "scorer")
            fields = {"scorer": self.scorer, "vocab_size": codes.vocab_size}
            save_model(folder, f"scorers/{name}", fields, task.module)
        return load_scorer(job.out, job.device)

    def _run(
        self,
        job: TrainingJob,
        settings: TrainConfig,
        task: Task,
        streams: Streams,
        folder: Path,
        description: str,
        held_out: UnitTranscriber | None = None,
    ) -> None:
        loader = segment_loader(streams, job.batch_size, self.segment, settings.seed, *ranks())
        evaluate = (lambda: job.evaluate(held_out)) if held_out is not None and settings.eval_every else None
        train(
            task,
            loader,
            settings,
            folder / "training",
            describe=description,
            identity=job.identity,
            evaluate=evaluate,
            best_by="cer",
        )


class UnitTranscriber:
    """A decoding mode for each memory that the language model was trained with, and the aligner as a baseline.

    Args:
        recogniser: the settings: strategies, capacities, segment and interleaving.
        front_end: encodes recordings as units.
        alphabet: the characters that are written.
        model: the language model of interleaved units and letters.
        scorer: scores the tokens for the policies.
        aligner: the CTC network that aligns letters with units; it reads full utterances in both directions.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        front_end: Tokenizer,
        alphabet: Alphabet,
        model: LanguageModel,
        scorer: Any,
        aligner: UnitCTC,
    ) -> None:
        self.front_end, self.alphabet, self.aligner = front_end, alphabet, aligner
        codes = recogniser.interleaving(front_end.vocab_size, len(alphabet))
        self.decoding_modes: dict[str, DecodingMode] = {}
        for strategy in strategies(recogniser.strategies):
            for capacity in sorted(recogniser.capacities, reverse=True):
                memory = strategy.memory(capacity, recogniser.guard)
                reader = make_reader(model, scorer, recogniser.segment, strategy, memory)
                self.decoding_modes[f"{strategy.name}@{capacity}"] = lambda recordings, reader=reader: write(
                    reader, codes, alphabet, [self._stream(contents) for contents in recordings]
                )
        self.decoding_modes["offline (CTC)"] = one_by_one(self._offline)

    def _stream(self, contents: Sequence[Any]) -> Stream:
        """The units of consecutive contents, as one stream."""
        return joined([self.front_end.encode(content) for content in contents])

    @torch.no_grad()
    def _offline(self, contents: Sequence[Any]) -> Iterator[Letter]:
        """Transcribe each content with the aligner, which reads it completely and in both directions."""
        seconds, device = 0.0, next(self.aligner.parameters()).device
        self.aligner.eval()
        for content in contents:
            stream = self.front_end.encode(content)
            log_probs, _ = self.aligner(stream.ids[None].to(device), torch.tensor([len(stream)], device=device))
            for character, first, stop in greedy(log_probs.cpu(), self.alphabet, 1.0):
                start = stream.starts[int(first) // FRAMES_PER_UNIT]
                end = stream.ends[(int(stop) - 1) // FRAMES_PER_UNIT]
                yield Letter(character, seconds + start.item(), seconds + end.item())
            seconds += stream.ends[-1].item()
            yield Letter(" ", seconds, seconds)


def joined(streams: Sequence[Stream]) -> Stream:
    """Concatenate consecutive streams."""
    lengths = torch.tensor([0.0, *(stream.ends[-1] for stream in streams[:-1])], dtype=torch.float64).cumsum(0)
    parts = list(zip(streams, lengths, strict=True))
    return Stream(
        torch.cat([stream.ids for stream in streams]),
        torch.cat([stream.starts + offset for stream, offset in parts]),
        torch.cat([stream.ends + offset for stream, offset in parts]),
        torch.cat([stream.sizes for stream in streams]),
    )


def _spoken(utterance: Utterance, front_end: Tokenizer, alphabet: Alphabet) -> SpokenUtterance:
    return SpokenUtterance(utterance.name, front_end.encode(utterance.content).ids, alphabet.encode(utterance.text))


def _shared(job: TrainingJob) -> dict[str, Any]:
    """The settings that all trainings of a run share."""
    return {name: getattr(job.settings, name) for name in ("seed", "device", "dtype", "parallel")}


def _refuse(decoding: Decoding) -> None:
    if decoding.beam:
        raise ValueError(f"decoding.beam = {decoding.beam}, but the recogniser `units` has no beam; give 0")
