"""Align the letters of training texts with units, by a small bidirectional network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ....artifacts import load_model
from ....data.reading.files import Skipping, UnreadableError
from ....models.speech.ctc import BLANK, fits
from ....models.speech.unit_ctc import FRAMES_PER_UNIT, UnitCTC, UnitCTCConfig
from ....schema import coerce
from ...engine.distributed import ranks, save_model
from ...engine.loader import BatchLoader
from ...engine.run_dir import is_trained
from ...engine.task import TrainConfig
from ...engine.trainer import seed_all, train
from ..base import TrainingJob
from ..ctc.batches import UtteranceRequest, utterance_sampler
from ..ctc.task import CTCBatch, CTCTask

KIND = "unit_ctc"


@dataclass(frozen=True)
class Aligner:
    """A network for alignment; its recognition is reported as a baseline."""

    model: UnitCTCConfig = field(default_factory=UnitCTCConfig)
    """Size of the network."""
    batch_size: int = 16
    """Utterances in a batch."""
    noise: float = 0.1
    """Share of units that training replaces by random ones."""
    train: TrainConfig = field(default_factory=lambda: TrainConfig(steps=600, lr=3e-3, weight_decay=0.01))
    """Training of the network."""


class SpokenUtterance(NamedTuple):
    """The units of an utterance, and the letters of its text."""

    name: str
    units: Int[Tensor, " units"]
    letters: Int[Tensor, " letters"]


class Aligned(NamedTuple):
    """An aligned utterance: ``places`` are the indices of the units of its letters, in non-decreasing order."""

    units: Int[Tensor, " units"]
    letters: Int[Tensor, " letters"]
    places: Int[Tensor, " letters"]


def fit(
    aligner: Aligner, spoken: Sequence[SpokenUtterance], vocab_size: int, job: TrainingJob, settings: TrainConfig
) -> UnitCTC:
    """Train and save the network in ``aligner/``, or load it if it is trained.

    Args:
        aligner: size and training of the network.
        spoken: the training utterances.
        vocab_size: number of units.
        job: alphabet, device and folder of the run.
        settings: ``aligner.train`` with seed, device and dtype of the run.

    Returns:
        The trained network, on the device of ``job``.
    """
    folder = job.out / "aligner"
    if is_trained(folder, settings.steps, needed_by=job.out / "scorer"):
        return load(folder, job.device)
    kept = list(_learnable(spoken))
    seed_all(settings.seed)
    model = UnitCTC(aligner.model, vocab_size, len(job.alphabet)).to(job.device)
    task = CTCTask(model)

    def make_batch(request: UtteranceRequest) -> CTCBatch:
        draw = torch.Generator().manual_seed(request.seed)
        units = [_noisy(utterance.units, aligner.noise, vocab_size, draw) for utterance in request.utterances]
        inputs = (pad_sequence(units, batch_first=True), torch.tensor([len(row) for row in units]))
        return CTCBatch.of(inputs, [utterance.letters for utterance in request.utterances])

    lengths = [len(utterance.units) for utterance in kept]
    loader = BatchLoader(utterance_sampler(kept, lengths, aligner.batch_size, settings.seed, *ranks()), make_batch)
    train(task, loader, settings, folder / "training", describe="aligner", identity=job.identity)
    fields = {"config": asdict(aligner.model), "units": vocab_size, "letters": len(job.alphabet)}
    save_model(folder, KIND, fields, task.module)
    return load(folder, job.device)


def load(folder: Path, device: torch.device) -> UnitCTC:
    """Load the network in ``folder``. Raises `ValueError` if it is missing or damaged."""

    def make(fields: dict[str, Any]) -> UnitCTC:
        return UnitCTC(coerce(UnitCTCConfig, fields["config"], ""), fields["units"], fields["letters"])

    return load_model(folder, make, kind=KIND, device=device)


@torch.no_grad()
def align(model: UnitCTC, spoken: Sequence[SpokenUtterance]) -> list[Aligned | None]:
    """The likeliest alignment of each utterance; None if it has too few units for its letters."""
    return [_align(model, utterance) if _can_align(utterance) else None for utterance in spoken]


def _align(model: UnitCTC, utterance: SpokenUtterance) -> Aligned:
    from torchaudio.functional import forced_align

    device = next(model.parameters()).device
    log_probs, _ = model(utterance.units[None].to(device), torch.tensor([len(utterance.units)], device=device))
    classes = forced_align(log_probs.float().cpu(), (utterance.letters + 1)[None].int(), blank=BLANK)[0][0]
    before = torch.cat([torch.tensor([BLANK]), classes[:-1]])
    first = ((classes != BLANK) & (classes != before)).nonzero()[:, 0]
    return Aligned(utterance.units, utterance.letters, first // FRAMES_PER_UNIT)


def _learnable(spoken: Sequence[SpokenUtterance]) -> Iterator[SpokenUtterance]:
    """The utterances that can be aligned; the others are reported."""
    skipping = Skipping()
    for utterance in spoken:
        with skipping:
            if not _can_align(utterance):
                count = f"{len(utterance.letters)} letters for {len(utterance.units)} units"
                raise UnreadableError(f"{utterance.name!r} has {count}; is its text another's?")
            yield utterance
    skipping.report()


def _can_align(utterance: SpokenUtterance) -> bool:
    """Whether there are letters, and enough units for them."""
    return len(utterance.letters) > 0 and fits(utterance.letters, FRAMES_PER_UNIT * len(utterance.units))


def _noisy(units: Tensor, share: float, vocab_size: int, draw: torch.Generator) -> Int[Tensor, " units"]:
    changed = torch.rand(len(units), generator=draw) < share
    return torch.where(changed, torch.randint(vocab_size, units.shape, generator=draw), units)
