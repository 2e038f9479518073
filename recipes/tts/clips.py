"""Recordings with their units, pitch and text, kept in memory; and the batches that both models learn from."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from ...data._reading import Skipping, UnreadableError
from ...data.base import Document, Split, take_evenly
from ...models.speech.pitch import track
from ...models.speech.unit_speaker import SentenceBatch, SpokenSentence, UnitRuns, UnitSpeaker
from ...models.speech.unit_vocoder import FRAME, HOP, RATE, REACH, VocoderBatch, letter_windows
from ...tokenizers_.hubert_units import UnitTokenizer
from ..engine.data_record import documents
from ..engine.progress import progress
from ..lm.corpus import epoch_order
from .alignment import Aligner, LetterUnitPair
from .text import alphabet, plain, spell

LONGEST = 60
"""Seconds of a recording: alignment and pitch take memory by what is said at once."""
PAIRS = 1 << 28
"""Entries of the alignment's table of pairs of letters and units: a gigabyte."""


class VoiceClip(NamedTuple):
    """A recording at 16 kHz, as long as its units say; ``text`` is empty where it is not known.

    ``letter_windows`` are the letters of each unit, as `unit_vocoder.letter_windows` numbers them; 0 where nothing is
    known of them.
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
        """Units without repeats, and how many frames each lasts."""
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
    """The recordings of a split: the first ``seconds`` of them, or ``count``, taken evenly.

    Unreadable ones are skipped and listed. Raises `ValueError` where there is none, and where they are others than the
    run in ``out`` began with.
    """
    given, total = documents(data, split, out), None
    if seconds is None:  # else what lies behind them should not even be listed: the source may be streamed
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
    """The alphabet of the texts, and what its letters sound like. Raises `ValueError` where no text is known."""
    told = [clip for clip in clips if plain(clip.text)]
    letters = alphabet(clip.text for clip in told)
    if len(letters) < 2:
        raise ValueError(f"{len(clips)} training recordings have no texts to learn from; give a manifest with `text`")
    if len(letters) ** 2 * units > PAIRS:
        raise ValueError(f"texts of {len(letters)} characters are too many to align; write them in an alphabet")
    return letters, Aligner.fit([_pair(clip, letters) for clip in told], len(letters), units)


def aligned(clips: Sequence[VoiceClip], letters: str, aligner: Aligner) -> tuple[list[VoiceClip], list[SpokenSentence]]:
    """The clips with the letters of their units, and their texts as letters with the units of each.

    Clips without a text stay as they are and give no sentence.
    """
    told = [number for number, clip in enumerate(clips) if plain(clip.text)]
    pairs = [_pair(clips[number], letters) for number in told]
    known, read = list(clips), []
    for number, of, owners in zip(told, pairs, aligner.owners(pairs), strict=True):
        spoken = UnitRuns(*known[number].runs, owners)
        frames = owners.repeat_interleave(spoken.frames)
        known[number] = known[number]._replace(letter_windows=letter_windows(of.letters, frames, len(letters)))
        read.append(SpokenSentence(of.letters, spoken))
    return known, read


def _pair(clip: VoiceClip, letters: str) -> LetterUnitPair:
    return LetterUnitPair(spell(clip.text, letters)[0], clip.runs[0])


class VocoderCrops:
    """Endless stretches of clips, every place equally likely; short clips are padded with their last unit.

    What batch comes next depends on ``seed``, ``rank`` and how many came before, which is all its state.
    """

    def __init__(self, clips: Sequence[VoiceClip], rows: int, frames: int, seed: int, rank: int = 0) -> None:
        self.clips, self.rows, self.frames, self.seed, self.rank, self.drawn = clips, rows, frames, seed, rank, 0
        self.places = [max(1, len(clip.units) - frames + 1) for clip in clips]
        self.ends = list(accumulate(self.places))

    def next(self) -> VocoderBatch:
        """The next batch."""
        draw = random.Random(f"{self.seed}:{self.rank}:{self.drawn}")
        self.drawn += 1
        chosen = draw.choices(range(len(self.clips)), cum_weights=self.ends, k=self.rows)
        rows = [self._cut(self.clips[clip], draw.randrange(self.places[clip])) for clip in chosen]
        return VocoderBatch(*(torch.stack(column) for column in zip(*rows, strict=True)))

    def _cut(self, clip: VoiceClip, start: int) -> tuple[Tensor, ...]:
        def part(x: Tensor, size: int) -> Tensor:
            cut = x[start * size : (start + self.frames) * size]
            return torch.cat([cut, cut.new_zeros(self.frames * size - len(cut), *cut.shape[1:])])

        units = clip.units[start : start + self.frames]
        units = torch.cat([units, units[-1:].expand(self.frames - len(units))])
        two = FRAME // HOP
        return (
            units,
            part(clip.letter_windows, 1),
            part(clip.waveform, FRAME),
            part(clip.hz, two),
            part(clip.voiced, two),
        )

    def state_dict(self) -> dict[str, Any]:
        """How many batches were drawn."""
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to where `state_dict` was taken."""
        self.drawn = state["drawn"]


class SentenceLoader:
    """Endless batches of sentences, in an order shuffled anew each epoch; those of like length stand side by side.

    What batch comes next depends on ``seed``, ``rank`` and how many came before, which is all its state.
    """

    def __init__(
        self, model: UnitSpeaker, items: Sequence[SpokenSentence], rows: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        ranked = sorted(range(len(items)), key=lambda i: len(items[i].letters) + len(items[i].spoken.units))
        self.groups = [ranked[first : first + rows] for first in range(0, len(ranked), rows)]
        self.model, self.items, self.seed, self.rank, self.world, self.drawn = model, items, seed, rank, world, 0

    def next(self) -> SentenceBatch:
        """The next batch."""
        epoch, index = divmod(self.drawn * self.world + self.rank, len(self.groups))
        self.drawn += 1
        group = self.groups[epoch_order(len(self.groups), self.seed, epoch)[index]]
        return self.model.batch([self.items[i] for i in group])

    def state_dict(self) -> dict[str, Any]:
        """How many batches were drawn."""
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to where `state_dict` was taken."""
        self.drawn = state["drawn"]


def batches(model: UnitSpeaker, items: Sequence[SpokenSentence], rows: int) -> Iterator[SentenceBatch]:
    """Every sentence once."""
    for first in range(0, len(items), rows):
        yield model.batch(items[first : first + rows])
