"""What the language model of units is trained on: utterances interleaved, with borders of chunks that change."""

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
"""How often a passage is interleaved before the same borders of chunks come again."""


class Streams(Sequence[Passage]):
    """Passages of neighbouring utterances, up to ``length`` units each, in `VERSIONS` versions.

    A version has borders of chunks of its own; in it each utterance begins a passage, or goes on with one. Raises
    `ValueError` where no utterance has been aligned.
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
            raise ValueError("no utterance could be aligned with its units; give texts that belong to them")
        self.codes, self.seed = codes, seed
        self.space = alphabet.characters.index(" ")
        self._made = lru_cache(maxsize=256)(self._weave)

    def __len__(self) -> int:
        return VERSIONS * len(self.groups)

    def __getitem__(self, index: int) -> Passage:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._made(index)

    def _weave(self, index: int) -> Passage:
        version, number = divmod(index, len(self.groups))
        first = random.Random(f"{self.seed}:{version}:{number}").randint(1, self.codes.chunk)
        units, letters, places = _joined(self.groups[number], self.space)
        woven = self.codes.weave(units, letters, places, first)
        return Passage(f"{number}:{version}", woven.ids, torch.ones_like(woven.ids), woven.written)


def noise(codes: Interleaving, units: float, letters: float) -> Callable[[Tensor], Int[Tensor, "batch time"]]:
    """Replaces a share of the units by other units and of the letters by other letters, at random."""

    def alter(tokens: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
        chance = torch.rand(tokens.shape, device=tokens.device)
        spoken, written = tokens < codes.units, (tokens >= codes.units) & (tokens < codes.switch)
        tokens = torch.where(spoken & (chance < units), torch.randint_like(tokens, codes.units), tokens)
        return torch.where(
            written & (chance < letters), torch.randint_like(tokens, codes.letters) + codes.units, tokens
        )

    return alter


def _groups(recording: Sequence[Aligned], length: int) -> Iterator[list[Aligned]]:
    """Neighbours together, until the next one would make more than ``length`` units of them."""
    held: list[Aligned] = []
    for own in recording:
        if held and sum(len(one.units) for one in held) + len(own.units) > length:
            yield held
            held = []
        held.append(own)
    if held:
        yield held


def _joined(group: Sequence[Aligned], space: int) -> tuple[Tensor, Tensor, Tensor]:
    """The units, letters and places of utterances behind one another; each but the first begins with a space."""
    letters, places, offset = [], [], 0
    for own in group:
        if offset:
            letters.append(torch.tensor([space]))
            places.append(torch.tensor([offset]))
        letters.append(own.letters)
        places.append(own.places + offset)
        offset += len(own.units)
    return torch.cat([own.units for own in group]), torch.cat(letters), torch.cat(places)
