"""Clips of speech with the units they are to be taught: listed once, then cropped into batches without end."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ...artifacts import read_sealed, read_tensors, seal, write_tensors
from ...data._audio import Audio
from ...data._reading import Skipping, UnreadableError
from ...data.base import Document
from ...files import atomic_write
from ...models.speech.hubert import HubertConfig, span_mask
from ...tokenizers_.base import Tokenizer
from ..engine.progress import progress
from ..lm.corpus import epoch_order

SLACK = 2
"""Frames by which front-ends may differ at the end of a clip."""


@dataclass(frozen=True)
class PretrainingClip:
    """A recording, which is opened when it is asked for, and one unit a frame."""

    name: str
    audio: Audio
    units: Int[Tensor, " frames"]

    def waveform(self, config: HubertConfig) -> Float[Tensor, " samples"]:
        """The 16 kHz samples that its frames see."""
        return self.audio.read()[: config.samples(len(self.units))]


class PretrainingBatch(NamedTuple):
    """Crops side by side, padded at their ends. ``mask`` marks the frames to hide; none of them is padding."""

    waveforms: Float[Tensor, "batch samples"]
    lengths: Int[Tensor, " batch"]
    units: Int[Tensor, "batch frames"]
    mask: Bool[Tensor, "batch frames"]


class PretrainingLoader:
    """Endless batches: clips in an order shuffled anew each epoch, a random crop of each, and its mask.

    A batch depends on ``seed``, the process and how many batches came before, so that its `state_dict` is one number.
    """

    def __init__(
        self,
        clips: Sequence[PretrainingClip],
        config: HubertConfig,
        rows: int,
        crop: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.clips, self.config, self.rows, self.crop = clips, config, rows, crop
        self.seed, self.rank, self.world, self.drawn = seed, rank, world, 0

    def next(self) -> PretrainingBatch:
        """The next ``rows`` crops of at most ``crop`` frames."""
        draw = torch.Generator().manual_seed(random.Random(f"{self.seed}:{self.rank}:{self.drawn}").getrandbits(62))
        first = (self.drawn * self.world + self.rank) * self.rows
        self.drawn += 1
        return batch([self._crop(self._clip(first + row), draw) for row in range(self.rows)], self.config, draw)

    def state_dict(self) -> dict[str, Any]:
        """How many batches were drawn."""
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where ``state`` was taken."""
        self.drawn = state["drawn"]

    def _clip(self, number: int) -> PretrainingClip:
        epoch, index = divmod(number, len(self.clips))
        return self.clips[epoch_order(len(self.clips), self.seed, epoch)[index]]

    def _crop(self, clip: PretrainingClip, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        spare = max(0, len(clip.units) - self.crop)
        start = int(torch.randint(spare + 1, (), generator=draw))
        units = clip.units[start : start + self.crop]
        begin = start * self.config.hop
        return clip.waveform(self.config)[begin : begin + self.config.samples(len(units))], units


def batch(crops: Sequence[tuple[Tensor, Tensor]], config: HubertConfig, draw: torch.Generator) -> PretrainingBatch:
    """Waveforms and units of several crops, padded, with a mask drawn for each."""
    waveforms, units = [waveform for waveform, _ in crops], [units for _, units in crops]
    mask = span_mask([len(row) for row in units], config.mask_prob, config.mask_length, draw)
    lengths = torch.tensor([len(row) for row in waveforms])
    return PretrainingBatch(
        pad_sequence(waveforms, batch_first=True), lengths, pad_sequence(units, batch_first=True), mask
    )


def list_clips(
    documents: Iterable[Document], targets: Tokenizer, config: HubertConfig, cache: Path, split: str
) -> tuple[list[PretrainingClip], list[str]]:
    """The clips of a split, and a line for each recording that is left out: unreadable, or too short for a frame.

    Their units are kept in ``cache``, since making them takes a while. Raises `ValueError` where no clip is left, where
    ``targets`` does not give a unit a frame, and where the cache is damaged or of other recordings.
    """
    listed = list(documents)
    index = cache / f"{split}.json"
    if not index.is_file():
        _make_units(listed, targets, config, cache, split)
    about = read_sealed(index)
    units = read_tensors(cache / f"{split}.safetensors", about["sha256"])
    if [document.name for document in listed] != about["documents"]:
        raise ValueError(f"the recordings of the split {split} are not those of {index}; use another out")
    numbered = [(document, units.get(str(number))) for number, document in enumerate(listed)]
    clips = [
        PretrainingClip(document.name, document.content("audio"), of.long())
        for document, of in numbered
        if of is not None
    ]
    if not clips:
        raise ValueError(f"the split {split} of the data has no recordings; give data that has some")
    return clips, about["skipped"]


def _make_units(
    documents: Sequence[Document], targets: Tokenizer, config: HubertConfig, cache: Path, split: str
) -> None:
    units: dict[str, Tensor] = {}
    skipping = Skipping()
    for number, document in enumerate(progress(documents, len(documents), f"units of {split}")):
        with skipping:
            units[str(number)] = _units(document, targets, config).to(torch.int16)
    skipping.report()
    sha256 = write_tensors(cache / f"{split}.safetensors", units)
    names = [document.name for document in documents]
    index = seal({"sha256": sha256, "documents": names, "skipped": skipping.reasons})
    atomic_write(cache / f"{split}.json", json.dumps(index, indent=1) + "\n")


def _units(document: Document, targets: Tokenizer, config: HubertConfig) -> Int[Tensor, " frames"]:
    audio: Audio = document.content("audio")
    samples = sum(len(part) for part in audio.stream())
    frames = config.frames(samples)
    if not frames:
        raise UnreadableError(f"{document.name!r} has {samples} samples, fewer than a frame's {config.field}")
    units = targets.encode(audio).ids[:frames]
    if len(units) < frames - SLACK:
        raise ValueError(
            f"the targets give {len(units)} units for the {frames} frames of {document.name!r}; give a front-end with "
            f"one unit every {config.hop} samples, repeats included"
        )
    return units
