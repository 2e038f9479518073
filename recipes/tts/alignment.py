"""Which letter each unit of speech belongs to: a hidden Markov model whose states are the letters of the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

ROUNDS = 5
"""Of letters by themselves, and as many again with the letter after them."""
MOVES = (-0.7, -0.7, -3.0, -5.0)
"""Log-probabilities of staying at a letter, and of going on by one, two (a letter is silent) or three."""
SMOOTH, BACK_OFF = 0.1, 20.0
"""Added to the counts of units of a letter, and how many counts a letter's own units weigh among those of a pair."""


class LetterUnitPair(NamedTuple):
    """A text as letters and its units without repeats."""

    letters: Int[Tensor, " letters"]
    units: Int[Tensor, " runs"]


@dataclass(frozen=True)
class Aligner:
    """What letters sound like: log-probabilities of units, a row for every letter and the one after it."""

    table: Float[Tensor, "pairs units"]
    alphabet: int

    @classmethod
    def fit(cls, pairs: Sequence[LetterUnitPair], alphabet: int, units: int) -> Aligner:
        """Learn by Viterbi training from a flat start, in which every letter of a text has as many units.

        Letters with their own units first, as hidden Markov models of monophones are; then each with the letter after
        it, in which a pair that is rare sounds like its first letter.
        """
        assert pairs, "nothing to align"
        owners = [_evenly(pair) for pair in pairs]
        aligner = cls(torch.zeros(alphabet**2, units), alphabet)
        for number in range(2 * ROUNDS):
            counts = torch.zeros(alphabet**2, units)
            for pair, of in zip(pairs, owners, strict=True):
                counts.index_put_((_following(pair.letters, alphabet)[of], pair.units), torch.ones(1), accumulate=True)
            aligner = cls(_table(counts, alphabet, number >= ROUNDS), alphabet)
            owners = aligner.owners(pairs)
        return aligner

    def owners(self, pairs: Sequence[LetterUnitPair], rows: int = 64) -> list[Int[Tensor, " _"]]:
        """For each text the letter that each unit belongs to, an index that never falls; the likeliest such path.

        Begins at one of the first three letters and ends at one of the last three, or as near to them as so few units
        can come.
        """
        found = []
        for first in range(0, len(pairs), rows):
            found += self._paths(pairs[first : first + rows])
        return found

    def _paths(self, pairs: Sequence[LetterUnitPair]) -> list[Int[Tensor, " _"]]:
        following = pad_sequence([_following(pair.letters, self.alphabet) for pair in pairs], batch_first=True)
        units = pad_sequence([pair.units for pair in pairs])
        score = torch.full(following.shape, -torch.inf)
        score[:, : len(MOVES) - 1] = torch.tensor(MOVES[1:])[: score.shape[1]]
        scores, moves = [score + self.table[following, units[0, :, None]]], []
        for unit in units[1:]:
            padded = F.pad(scores[-1], (len(MOVES) - 1, 0), value=-torch.inf)
            best = torch.stack([padded.roll(by, 1)[:, len(MOVES) - 1 :] + cost for by, cost in enumerate(MOVES)]).max(0)
            scores.append(best.values + self.table[following, unit[:, None]])
            moves.append(best.indices)
        came = torch.stack(moves or [torch.zeros_like(following)], dim=1).numpy()
        return [
            _trace(scores[len(pair.units) - 1][row, : len(pair.letters)], came[row, : len(pair.units) - 1])
            for row, pair in enumerate(pairs)
        ]


def _trace(last: Float[Tensor, " letters"], came: np.ndarray) -> Int[Tensor, " runs"]:
    """Back along the moves, ``[runs - 1, letters]``, from the best end."""
    possible = last.isfinite().nonzero()[:, 0]
    least = min(max(0, len(last) - 3), int(possible[-1]))
    place = least + int(last[least:].argmax())
    path = [place]
    for move in came[::-1]:
        place -= int(move[place])
        path.append(place)
    return torch.tensor(path[::-1])


def _evenly(pair: LetterUnitPair) -> Int[Tensor, " runs"]:
    return torch.arange(len(pair.units)) * len(pair.letters) // len(pair.units)


def _following(letters: Int[Tensor, " letters"], alphabet: int) -> Int[Tensor, " letters"]:
    """A number for each letter and the one after it, which at the end is the letter itself."""
    return letters * alphabet + torch.cat([letters[1:], letters[-1:]])


def _table(counts: Float[Tensor, "pairs units"], alphabet: int, by_pair: bool) -> Float[Tensor, "pairs units"]:
    own = counts.view(alphabet, alphabet, -1).sum(1) + SMOOTH
    own = (own / own.sum(1, keepdim=True)).repeat_interleave(alphabet, 0)
    if not by_pair:
        return own.log()
    return ((counts + BACK_OFF * own) / (counts.sum(1, keepdim=True) + BACK_OFF)).log()
