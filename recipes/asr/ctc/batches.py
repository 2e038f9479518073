"""Batches of utterances: of similar length, read and padded, with their letters."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ....models.speech.hubert import HubertConfig, span_mask
from ...engine.loader import BatchIndex, IndexSampler
from ...speech.text_normalisation import Alphabet
from .task import CTCBatch

POOL = 16
"""Batches whose utterances are sampled together and then sorted by length, for little padding."""


class UtteranceRequest(NamedTuple):
    """The utterances of a batch, and the seed of its random numbers."""

    utterances: list[Any]
    seed: int


def utterance_sampler(
    utterances: Sequence[Any], lengths: Sequence[int], batch_size: int, seed: int, rank: int = 0, world: int = 1
) -> IndexSampler:
    """Sample batches of utterances of similar length, shuffled each epoch; an incomplete last batch is dropped.

    Args:
        utterances: of any type.
        lengths: length of each utterance.
        batch_size: utterances in a batch.
        seed: seed of order and requests.
        rank: number of this process.
        world: number of processes.

    Returns:
        The sampler; each of its items asks for the utterances of one batch.

    Raises:
        ValueError: There is no utterance.
    """
    if not utterances:
        raise ValueError("there is no utterance to train on; give data with recordings and their texts")
    size = min(batch_size, len(utterances))

    @lru_cache(maxsize=2)
    def batches_of(epoch: int) -> list[list[int]]:
        draw, order = random.Random(f"{seed}:{epoch}"), list(range(len(utterances)))
        draw.shuffle(order)
        del order[len(order) // size * size :]
        pools = [sorted(order[i : i + size * POOL], key=lengths.__getitem__) for i in range(0, len(order), size * POOL)]
        batches = [pool[i : i + size] for pool in pools for i in range(0, len(pool), size)]
        draw.shuffle(batches)
        return batches

    def choose(index: BatchIndex) -> UtteranceRequest:
        epoch, place = divmod(index.number, len(utterances) // size)
        chosen = [utterances[number] for number in batches_of(epoch)[place]]
        return UtteranceRequest(chosen, random.Random(f"{seed}:{index.number}").getrandbits(62))

    return IndexSampler(choose, rank, world)


@dataclass(frozen=True)
class RecordingLoading:
    """Makes batches of recordings with their letters: reads, perturbs the speed, masks and pads.

    Args:
        alphabet: the letters.
        config: the shape of the encoder.
        speed: maximum change of the speed as a share.
        mask_prob: share of frames masked by spans in half of the recordings.
        mask_length: frames of a masked span.
    """

    alphabet: Alphabet
    config: HubertConfig
    speed: float
    mask_prob: float
    mask_length: int

    def __call__(self, request: UtteranceRequest) -> CTCBatch:
        """Read the utterances of a batch."""
        draw = torch.Generator().manual_seed(request.seed)
        waves = [self._perturb_speed(utterance.content.read(), draw) for utterance in request.utterances]
        lengths = torch.tensor([len(wave) for wave in waves])
        inputs: tuple[Tensor, ...] = (pad_sequence(waves, batch_first=True), lengths)
        if self.mask_prob:
            counts = [self.config.frames(len(wave)) for wave in waves]
            # Half of them stay unmasked: a network trained only on masked recordings cannot read unmasked ones.
            hidden = torch.rand(len(waves), 1, generator=draw) < 0.5
            inputs = (*inputs, span_mask(counts, self.mask_prob, self.mask_length, draw) & hidden)
        return CTCBatch.of(inputs, [self.alphabet.encode(utterance.text) for utterance in request.utterances])

    def _perturb_speed(self, wave: Float[Tensor, " _"], draw: torch.Generator) -> Float[Tensor, " _"]:
        """Make a recording faster or slower, by up to ``speed``."""
        if not self.speed:
            return wave
        factor = 1 + self.speed * (2 * float(torch.rand((), generator=draw)) - 1)
        size = max(self.config.field, round(len(wave) * factor))
        return F.interpolate(wave[None, None], size, mode="linear")[0, 0]
