"""Align units with letters: a hidden Markov model whose states are the letters of the text."""

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

from ..engine.progress import progress

ROUNDS = 5
"""Training rounds with single letters; as many follow with pairs of neighbouring letters."""
MOVES = (-0.7, -0.7, -3.0, -5.0)
"""Log-probabilities of staying at a letter, and of advancing by one, two (a letter is silent) or three."""
SMOOTH, BACK_OFF = 0.1, 20.0
"""Pseudo-count of each unit for a letter, and weight in counts of a letter's distribution in that of a pair."""


class LetterUnitPair(NamedTuple):
    """The letters of a text, and its units without repeats."""

    letters: Int[Tensor, " letters"]
    units: Int[Tensor, " runs"]


@dataclass(frozen=True)
class Aligner:
    """A trained aligner: log-probabilities of units, a row for each pair of a letter and the next one."""

    table: Float[Tensor, "pairs units"]
    alphabet: int

    @classmethod
    def fit(cls, pairs: Sequence[LetterUnitPair], alphabet: int, units: int) -> Aligner:
        """Viterbi training from a flat start, in which all letters of a text have equally many units.

        The first rounds train single letters, as for monophones. Later rounds train pairs of a letter and the next one,
        and rare pairs back off to their first letter.

        Args:
            pairs: letters and units of the training texts.
            alphabet: number of different letters.
            units: number of different units.

        Returns:
            The trained aligner.
        """
        assert pairs, "nothing to align"
        owners = [_evenly(pair) for pair in pairs]
        aligner = cls(torch.zeros(alphabet**2, units), alphabet)
        for number in progress(range(2 * ROUNDS), 2 * ROUNDS, "aligning letters with units", transient=True):
            counts = torch.zeros(alphabet**2, units)
            for pair, path in zip(pairs, owners, strict=True):
                states = _letter_pairs(pair.letters, alphabet)[path]
                counts.index_put_((states, pair.units), torch.ones(1), accumulate=True)
            aligner = cls(_table(counts, alphabet, number >= ROUNDS), alphabet)
            owners = aligner.owners(pairs)
        return aligner

    def owners(self, pairs: Sequence[LetterUnitPair], batch_size: int = 64) -> list[Int[Tensor, " _"]]:
        """The likeliest path of each text: the index of the letter of each unit, in non-decreasing order.

        A path begins at one of the first three letters and ends at one of the last three, or as close to them as its
        units allow.
        """
        paths = []
        for first in range(0, len(pairs), batch_size):
            paths += self._paths(pairs[first : first + batch_size])
        return paths

    def _paths(self, pairs: Sequence[LetterUnitPair]) -> list[Int[Tensor, " _"]]:
        states = pad_sequence([_letter_pairs(pair.letters, self.alphabet) for pair in pairs], batch_first=True)
        units = pad_sequence([pair.units for pair in pairs])
        score = torch.full(states.shape, -torch.inf)
        score[:, : len(MOVES) - 1] = torch.tensor(MOVES[1:])[: score.shape[1]]
        scores = [score + self.table[states, units[0, :, None]]]
        moves: list[Tensor] = []
        for unit in units[1:]:
            padded = F.pad(scores[-1], (len(MOVES) - 1, 0), value=-torch.inf)
            best = torch.stack([padded.roll(by, 1)[:, len(MOVES) - 1 :] + cost for by, cost in enumerate(MOVES)]).max(0)
            scores.append(best.values + self.table[states, unit[:, None]])
            moves.append(best.indices)
        history = torch.stack(moves or [torch.zeros_like(states)], dim=1).numpy()
        return [
            _trace(scores[len(pair.units) - 1][row, : len(pair.letters)], history[row, : len(pair.units) - 1])
            for row, pair in enumerate(pairs)
        ]


def _trace(last: Float[Tensor, " letters"], moves: np.ndarray) -> Int[Tensor, " runs"]:
    """Trace the ``moves`` ``[runs - 1, letters]`` back from the best end."""
    possible = last.isfinite().nonzero()[:, 0]
    least = min(max(0, len(last) - 3), int(possible[-1]))
    place = least + int(last[least:].argmax())
    path = [place]
    for move in moves[::-1]:
        place -= int(move[place])
        path.append(place)
    return torch.tensor(path[::-1])


def _evenly(pair: LetterUnitPair) -> Int[Tensor, " runs"]:
    return torch.arange(len(pair.units)) * len(pair.letters) // len(pair.units)


def _letter_pairs(letters: Int[Tensor, " letters"], alphabet: int) -> Int[Tensor, " letters"]:
    """The index of each pair of a letter and the next one; the last letter is paired with itself."""
    return letters * alphabet + torch.cat([letters[1:], letters[-1:]])


def _table(counts: Float[Tensor, "pairs units"], alphabet: int, by_pair: bool) -> Float[Tensor, "pairs units"]:
    by_letter = counts.view(alphabet, alphabet, -1).sum(1) + SMOOTH
    by_letter = (by_letter / by_letter.sum(1, keepdim=True)).repeat_interleave(alphabet, 0)
    if not by_pair:
        return by_letter.log()
    return ((counts + BACK_OFF * by_letter) / (counts.sum(1, keepdim=True) + BACK_OFF)).log()
