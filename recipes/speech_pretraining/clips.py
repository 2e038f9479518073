"""Clips of speech with their target units, and endless batches of crops of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ...artifacts import read_sealed, read_tensors, seal, write_tensors
from ...data.base import Document
from ...data.reading.audio import Audio
from ...data.reading.files import Skipping, UnreadableError
from ...files import atomic_write
from ...models.speech.hubert import HubertConfig, span_mask
from ...tokenizers_.base import Tokenizer
from ..engine.loader import BatchIndex, IndexSampler, shuffled
from ..engine.progress import progress

SLACK = 2
"""Frames that the targets may lack at the end of a clip."""


@dataclass(frozen=True)
class PretrainingClip:
    """A recording, which is read only when needed, and its units, one a frame."""

    name: str
    audio: Audio
    units: Int[Tensor, " frames"]

    def waveform(self, config: HubertConfig) -> Float[Tensor, " samples"]:
        """The samples of its frames at 16 kHz."""
        return self.audio.read()[: config.samples(len(self.units))]


class PretrainingBatch(NamedTuple):
    """Crops, padded at their ends. ``mask`` marks the frames to mask and never padding."""

    waveforms: Float[Tensor, "batch samples"]
    lengths: Int[Tensor, " batch"]
    units: Int[Tensor, "batch frames"]
    mask: Bool[Tensor, "batch frames"]


class PretrainingRequest(NamedTuple):
    """The clips of a batch, and the seed of its crops and masks."""

    clips: list[PretrainingClip]
    seed: int


@dataclass(frozen=True)
class CropLoading:
    """Makes batches of random crops of at most ``crop`` frames, with their masks."""

    config: HubertConfig
    crop: int

    def __call__(self, request: PretrainingRequest) -> PretrainingBatch:
        """Read the clips of a batch and crop them."""
        draw = torch.Generator().manual_seed(request.seed)
        return batch([self._crop(clip, draw) for clip in request.clips], self.config, draw)

    def _crop(self, clip: PretrainingClip, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        spare = max(0, len(clip.units) - self.crop)
        start = int(torch.randint(spare + 1, (), generator=draw))
        units = clip.units[start : start + self.crop]
        begin = start * self.config.hop
        return clip.waveform(self.config)[begin : begin + self.config.samples(len(units))], units


def pretraining_sampler(
    clips: Sequence[PretrainingClip], batch_size: int, seed: int, rank: int = 0, world: int = 1
) -> IndexSampler:
    """Sample the clips of each batch; clips are shuffled each epoch.

    Args:
        clips: the recordings.
        batch_size: clips in a batch.
        seed: seed of order, crops and masks.
        rank: number of this process.
        world: number of processes.

    Returns:
        The sampler; each of its items asks for the clips of one batch, with the seed of its crops and masks.
    """

    def choose(index: BatchIndex) -> PretrainingRequest:
        numbers = range(index.number * batch_size, (index.number + 1) * batch_size)
        chosen = [clips[shuffled(len(clips), seed, number)] for number in numbers]
        return PretrainingRequest(chosen, index.random(seed).getrandbits(62))

    return IndexSampler(choose, rank, world)


def batch(crops: Sequence[tuple[Tensor, Tensor]], config: HubertConfig, draw: torch.Generator) -> PretrainingBatch:
    """Pad the waveforms and units of crops into a batch, and sample its mask."""
    waveforms = [waveform for waveform, _ in crops]
    units = [units for _, units in crops]
    mask = span_mask([len(row) for row in units], config.mask_prob, config.mask_length, draw)
    lengths = torch.tensor([len(row) for row in waveforms])
    return PretrainingBatch(
        pad_sequence(waveforms, batch_first=True), lengths, pad_sequence(units, batch_first=True), mask
    )


def list_clips(
    documents: Iterable[Document], targets: Tokenizer, config: HubertConfig, cache: Path, split: str
) -> tuple[list[PretrainingClip], list[str]]:
    """The clips of a split, and a line for each recording that is left out: unreadable, or too short for a frame.

    Args:
        documents: the recordings of the split.
        targets: front-end that makes the units.
        config: the shape of the model, which sets the frames.
        cache: folder where the units are saved, because making them takes a while.
        split: name of the split.

    Returns:
        The clips with their units, in the order of ``documents``, and the lines.

    Raises:
        ValueError: No clip is left, ``targets`` does not make one unit a frame, or the cache is damaged or of other
            recordings.
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
        PretrainingClip(document.name, document.content("audio"), ids.long())
        for document, ids in numbered
        if ids is not None
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
            f"the targets have {len(units)} units for the {frames} frames of {document.name!r}; give a front-end with "
            f"one unit every {config.hop} samples, repeats included"
        )
    return units
