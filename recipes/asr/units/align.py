"""Which unit each letter of a training text is said in, by a small network that reads units in both directions."""

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
from ....data._reading import Skipping, UnreadableError
from ....models.speech.ctc import BLANK, fits
from ....models.speech.unit_ctc import SLOTS, UnitCTC, UnitCTCConfig
from ....schema import coerce
from ...engine.distributed import ranks, save_model
from ...engine.run_dir import is_trained
from ...engine.task import TrainConfig
from ...engine.trainer import seed_all, train
from ..base import Job
from ..ctc.batches import Loader
from ..ctc.task import Batch, CTCTask

KIND = "unit_ctc"


@dataclass(frozen=True)
class Aligner:
    """A network for alignment alone; what it recognises is told as a baseline."""

    model: UnitCTCConfig = field(default_factory=UnitCTCConfig)
    """Its size."""
    rows: int = 16
    """Utterances a batch."""
    noise: float = 0.1
    """Share of units that are replaced in training by others, at random."""
    train: TrainConfig = field(default_factory=lambda: TrainConfig(steps=600, lr=3e-3, weight_decay=0.01))
    """How to train it."""


class Spoken(NamedTuple):
    """The units of an utterance, and the letters of its text."""

    name: str
    units: Int[Tensor, " units"]
    letters: Int[Tensor, " letters"]


class Aligned(NamedTuple):
    """An utterance whose letters know their units: ``places`` are these units' numbers, and never fall."""

    units: Int[Tensor, " units"]
    letters: Int[Tensor, " letters"]
    places: Int[Tensor, " letters"]


def fit(aligner: Aligner, spoken: Sequence[Spoken], vocab_size: int, job: Job, settings: TrainConfig) -> UnitCTC:
    """The network, trained and saved in ``aligner/`` (or loaded, where that has been done)."""
    folder = job.out / "aligner"
    if is_trained(folder, settings.steps, needed_by=job.out / "scorer"):
        return load(folder, job.device)
    kept = list(_learnable(spoken))
    seed_all(settings.seed)
    model = UnitCTC(aligner.model, vocab_size, len(job.alphabet)).to(job.device)
    task = CTCTask(model)

    def collate(numbers: list[int], draw: torch.Generator) -> Batch:
        units = [_noisy(kept[number].units, aligner.noise, vocab_size, draw) for number in numbers]
        letters = [kept[number].letters for number in numbers]
        lengths, counts = (torch.tensor([len(own) for own in each]) for each in (units, letters))
        return Batch((pad_sequence(units, batch_first=True), lengths), pad_sequence(letters, batch_first=True), counts)

    loader = Loader([len(own.units) for own in kept], collate, aligner.rows, settings.seed, *ranks())
    train(task, loader, settings, folder / "training", describe="aligner", identity=job.identity)
    fields = {"config": asdict(aligner.model), "units": vocab_size, "letters": len(job.alphabet)}
    save_model(folder, KIND, fields, task.module)
    return load(folder, job.device)


def load(folder: Path, device: torch.device) -> UnitCTC:
    """The network in ``folder``. Raises `ValueError` where it is missing or damaged."""

    def make(fields: dict[str, Any]) -> UnitCTC:
        return UnitCTC(coerce(UnitCTCConfig, fields["config"], ""), fields["units"], fields["letters"])

    model = load_model(folder, make, kind=KIND, device=device)
    assert isinstance(model, UnitCTC)
    return model


@torch.no_grad()
def align(model: UnitCTC, spoken: Sequence[Spoken]) -> list[Aligned | None]:
    """The likeliest places of each utterance's letters; None where there is no room for them."""
    return [_align(model, own) if len(own.letters) and _room(own) else None for own in spoken]


def _align(model: UnitCTC, own: Spoken) -> Aligned:
    from torchaudio.functional import forced_align

    device = next(model.parameters()).device
    log_probs, _ = model(own.units[None].to(device), torch.tensor([len(own.units)], device=device))
    classes = forced_align(log_probs.float().cpu(), (own.letters + 1)[None].int(), blank=BLANK)[0][0]
    before = torch.cat([torch.tensor([BLANK]), classes[:-1]])
    first = ((classes != BLANK) & (classes != before)).nonzero()[:, 0]
    return Aligned(own.units, own.letters, first // SLOTS)


def _learnable(spoken: Sequence[Spoken]) -> Iterator[Spoken]:
    """Those that have room for their letters; the others are listed."""
    skipping = Skipping()
    for own in spoken:
        with skipping:
            if not len(own.letters) or not _room(own):
                count = f"{len(own.letters)} letters for {len(own.units)} units"
                raise UnreadableError(f"{own.name!r} has {count}; is its text another's?")
            yield own
    skipping.report()


def _room(own: Spoken) -> bool:
    return fits(own.letters, SLOTS * len(own.units))


def _noisy(units: Tensor, share: float, vocab_size: int, draw: torch.Generator) -> Int[Tensor, " units"]:
    changed = torch.rand(len(units), generator=draw) < share
    return torch.where(changed, torch.randint(vocab_size, units.shape, generator=draw), units)
