"""Recordings with units, pitch and text, kept in memory, and the training batches of vocoder and speaker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from ...data.base import Document, Split, take_evenly
from ...data.reading.files import Skipping, UnreadableError
from ...models.speech.pitch import track
from ...models.speech.unit_speaker import SentenceBatch, SpokenSentence, UnitRuns, UnitSpeaker
from ...models.speech.unit_vocoder import FRAME, HOP, RATE, REACH, VocoderBatch, letter_windows
from ...tokenizers_.hubert_units import UnitTokenizer
from ..engine.data_record import documents
from ..engine.loader import BatchIndex, BatchLoader, IndexSampler, crop_sampler, shuffled
from ..engine.progress import progress
from .alignment import Aligner, LetterUnitPair
from .text import alphabet, plain, spell

LONGEST = 60
"""Maximum seconds of a recording, because the memory of alignment and pitch tracking grows with it."""
PAIRS = 1 << 28
"""Maximum entries of the alignment table, letter pairs times units: a gigabyte."""


class VoiceClip(NamedTuple):
    """A recording at 16 kHz, padded or cropped to the length of its units; ``text`` is empty if unknown.

    ``letter_windows`` are the letters of each unit, as numbered by `unit_vocoder.letter_windows`; 0 if unknown.
    """

    name: str
    text: str
    waveform: Float[Tensor, " samples"]
    units: Int[Tensor, " frames"]
    hz: Float[Tensor, " columns"]
    voiced: Bool[Tensor, " columns"]
    letter_windows: Int[Tensor, "frames window"]

    @property
    def runs(self) -> tuple[Int[Tensor, " runs"], Int[Tensor, " runs"]]:
        """Units without repeats, and the duration of each in frames."""
        units, frames = torch.unique_consecutive(self.units, return_counts=True)
        return units, frames


def read_clips(
    data: str | dict[str, Any],
    split: Split,
    tokenizer: UnitTokenizer,
    out: Path | None = None,
    *,
    seconds: float | None = None,
    count: int | None = None,
) -> list[VoiceClip]:
    """Read the recordings of a split. Unreadable ones are skipped and listed.

    Args:
        data: a data source: a name, or ``name`` and its keys.
        split: train, dev or test.
        tokenizer: makes their units.
        out: folder of the run; None = do not compare the recordings with those that it began with.
        seconds: read only the first recordings, of this length together.
        count: without ``seconds``: read this many recordings, evenly spaced; None = all.

    Returns:
        The clips: waveforms with their units and pitch.

    Raises:
        ValueError: There is no recording, or the run in ``out`` began with other recordings.
    """
    given, total = documents(data, split, out), None
    if seconds is None:  # else do not list the rest: the source may be streamed
        given = take_evenly(list(given), count)
        total = len(given)
    clips, skipping, left = [], Skipping(), float("inf") if seconds is None else seconds
    for document in progress(given, total, f"recordings of {split}"):
        with skipping:
            clips.append(_clip(document, tokenizer))
            left -= len(clips[-1].waveform) / RATE
        if left <= 0:
            break
    skipping.report()
    if not clips:
        raise ValueError(f"the split {split} of {data!r} has no recordings; give data that has some")
    return clips


def _clip(document: Document, tokenizer: UnitTokenizer) -> VoiceClip:
    audio = document.content("audio")
    waveform = audio.read()
    if len(waveform) > LONGEST * RATE:
        raise UnreadableError(f"{document.name!r} lasts {len(waveform) / RATE:.0f} s; cut it to at most {LONGEST} s")
    units = tokenizer.encode(audio).ids
    waveform = F.pad(waveform, (0, max(0, FRAME * len(units) - len(waveform))))[: FRAME * len(units)]
    unknown = torch.zeros(len(units), 2 * REACH + 1, dtype=torch.long)
    return VoiceClip(document.name, document.text, waveform, units, *track(waveform, RATE, HOP), unknown)


def align(clips: Sequence[VoiceClip], units: int) -> tuple[str, Aligner]:
    """Fit the alphabet of the texts and the aligner. Raises `ValueError` if no recording has a text."""
    with_text = [clip for clip in clips if plain(clip.text)]
    letters = alphabet(clip.text for clip in with_text)
    if len(letters) < 2:
        raise ValueError(f"{len(clips)} training recordings have no texts to learn from; give a manifest with `text`")
    if len(letters) ** 2 * units > PAIRS:
        raise ValueError(f"texts of {len(letters)} characters are too many to align; write them in an alphabet")
    return letters, Aligner.fit([_pair(clip, letters) for clip in with_text], len(letters), units)


def aligned(clips: Sequence[VoiceClip], letters: str, aligner: Aligner) -> tuple[list[VoiceClip], list[SpokenSentence]]:
    """Align the clips: returns them with the letters of their units, and their texts with the units of each letter.

    Clips without a text stay unchanged and yield no sentence.
    """
    with_text = [number for number, clip in enumerate(clips) if plain(clip.text)]
    pairs = [_pair(clips[number], letters) for number in with_text]
    aligned_clips = list(clips)
    sentences = []
    for number, pair, owners in zip(with_text, pairs, aligner.owners(pairs), strict=True):
        clip = clips[number]
        runs = UnitRuns(*clip.runs, owners)
        windows = letter_windows(pair.letters, owners.repeat_interleave(runs.frames), len(letters))
        aligned_clips[number] = clip._replace(letter_windows=windows)
        sentences.append(SpokenSentence(pair.letters, runs))
    return aligned_clips, sentences


def _pair(clip: VoiceClip, letters: str) -> LetterUnitPair:
    return LetterUnitPair(spell(clip.text, letters)[0], clip.runs[0])


def vocoder_loader(
    clips: Sequence[VoiceClip], batch_size: int, frames: int, seed: int, rank: int = 0, world: int = 1
) -> BatchLoader:
    """Endless batches of random crops, every position equally likely; short clips are padded with their last unit.

    Args:
        clips: the recordings.
        batch_size: crops in a batch.
        frames: units in a crop.
        seed: seed of the positions.
        rank: number of this process.
        world: number of processes.

    Returns:
        The loader; a batch has ``batch_size`` crops of ``frames`` units.
    """

    def load(crops: list[tuple[int, int]]) -> VocoderBatch:
        rows = [_crop(clips[clip], start, frames) for clip, start in crops]
        return VocoderBatch(*(torch.stack(column) for column in zip(*rows, strict=True)))

    return BatchLoader(crop_sampler([len(clip.units) for clip in clips], batch_size, frames, seed, rank, world), load)


def _crop(clip: VoiceClip, start: int, frames: int) -> tuple[Tensor, ...]:
    def part(x: Tensor, size: int) -> Tensor:
        cut = x[start * size : (start + frames) * size]
        return torch.cat([cut, cut.new_zeros(frames * size - len(cut), *cut.shape[1:])])

    units = clip.units[start : start + frames]
    units = torch.cat([units, units[-1:].expand(frames - len(units))])
    two = FRAME // HOP
    return units, part(clip.letter_windows, 1), part(clip.waveform, FRAME), part(clip.hz, two), part(clip.voiced, two)


def sentence_loader(
    model: UnitSpeaker, items: Sequence[SpokenSentence], batch_size: int, seed: int, rank: int = 0, world: int = 1
) -> BatchLoader:
    """Endless batches of sentences of similar length, shuffled each epoch.

    Args:
        model: makes the batches.
        items: the sentences.
        batch_size: sentences in a batch.
        seed: seed of the order.
        rank: number of this process.
        world: number of processes.

    Returns:
        The loader; a batch has at most ``batch_size`` sentences, padded.
    """
    ranked = sorted(items, key=lambda item: len(item.letters) + len(item.spoken.units))
    groups = [ranked[first : first + batch_size] for first in range(0, len(ranked), batch_size)]

    def choose(index: BatchIndex) -> list[SpokenSentence]:
        return groups[shuffled(len(groups), seed, index.number)]

    return BatchLoader(IndexSampler(choose, rank, world), model.batch)


def batches(model: UnitSpeaker, items: Sequence[SpokenSentence], batch_size: int) -> Iterator[SentenceBatch]:
    """Yield each sentence once, in batches."""
    for first in range(0, len(items), batch_size):
        yield model.batch(items[first : first + batch_size])
