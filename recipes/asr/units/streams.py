"""Training sequences of the unit language model: interleaved utterances, with varying chunk borders."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import torch
from jaxtyping import Int
from torch import Tensor

from ...lm.corpus import Passage
from ...speech.text_normalisation import Alphabet
from .align import Aligned
from .interleave import Interleaving

VERSIONS = 20
"""Number of different chunk borders in which each passage occurs."""


class Streams(Sequence[Passage]):
    """Passages of neighbouring utterances in `VERSIONS` versions, which differ in the borders of chunks.

    Args:
        recordings: the aligned utterances of each recording.
        codes: the interleaving of units and letters.
        alphabet: the letters.
        length: units in a passage at most, unless a single utterance is longer.
        seed: seed of the chunk borders.

    Raises:
        ValueError: No utterance could be aligned.
    """

    def __init__(
        self,
        recordings: Sequence[Sequence[Aligned]],
        codes: Interleaving,
        alphabet: Alphabet,
        length: int,
        seed: int,
    ) -> None:
        self.groups = [group for recording in recordings for group in _groups(recording, length)]
        if not self.groups:
            raise ValueError("no utterance could be aligned with its units; give texts that match the recordings")
        self.codes, self.seed = codes, seed
        self.space = alphabet.characters.index(" ")
        self._passage = lru_cache(maxsize=256)(self._interleave)

    def __len__(self) -> int:
        return VERSIONS * len(self.groups)

    def __getitem__(self, index: int) -> Passage:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._passage(index)

    def _interleave(self, index: int) -> Passage:
        version, number = divmod(index, len(self.groups))
        first = random.Random(f"{self.seed}:{version}:{number}").randint(1, self.codes.chunk)
        units, letters, places = _joined(self.groups[number], self.space)
        sequence = self.codes.interleave(units, letters, places, first)
        return Passage(f"{number}:{version}", sequence.ids, torch.ones_like(sequence.ids), sequence.written)


def noise(codes: Interleaving, units: float, letters: float) -> Callable[[Tensor], Int[Tensor, "batch time"]]:
    """A function that replaces this share of ``units`` and ``letters`` by random ones of their kind."""

    def alter(tokens: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
        chance = torch.rand(tokens.shape, device=tokens.device)
        is_unit = tokens < codes.units
        is_letter = (tokens >= codes.units) & (tokens < codes.switch)
        tokens = torch.where(is_unit & (chance < units), torch.randint_like(tokens, codes.units), tokens)
        return torch.where(
            is_letter & (chance < letters), torch.randint_like(tokens, codes.letters) + codes.units, tokens
        )

    return alter


def _groups(recording: Sequence[Aligned], length: int) -> Iterator[list[Aligned]]:
    """Group neighbours, up to ``length`` units a group."""
    group: list[Aligned] = []
    for utterance in recording:
        if group and sum(len(one.units) for one in group) + len(utterance.units) > length:
            yield group
            group = []
        group.append(utterance)
    if group:
        yield group


def _joined(group: Sequence[Aligned], space: int) -> tuple[Tensor, Tensor, Tensor]:
    """Concatenate units, letters and places of utterances, with a space between them."""
    letters: list[Tensor] = []
    places: list[Tensor] = []
    offset = 0
    for utterance in group:
        if offset:
            letters.append(torch.tensor([space]))
            places.append(torch.tensor([offset]))
        letters.append(utterance.letters)
        places.append(utterance.places + offset)
        offset += len(utterance.units)
    return torch.cat([utterance.units for utterance in group]), torch.cat(letters), torch.cat(places)
