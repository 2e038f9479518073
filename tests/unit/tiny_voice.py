"""Tiny random models for the tests of synthesis."""

import random

import torch
from vqmem.models.speech.spectral import Bandwidth
from vqmem.models.speech.unit_speaker import SpeakerConfig, SpokenSentence, UnitRuns, UnitSpeaker
from vqmem.models.speech.unit_vocoder import UnitVocoder, VocoderConfig

LETTERS, UNITS = " abcde", 12


def sentence(seed):
    """A text and units of it at random; letters may have none."""
    draw = random.Random(seed)
    letters = torch.tensor([0, *(draw.randrange(len(LETTERS)) for _ in range(draw.randint(1, 9))), 0])
    owners = sorted(draw.randrange(len(letters)) for _ in range(draw.randint(1, 15)))
    units = torch.tensor([(5 * i + draw.randrange(5)) % UNITS for i in range(len(owners))])
    frames = torch.tensor([draw.randint(1, 70) for _ in owners])
    return SpokenSentence(letters, UnitRuns(units, frames, torch.tensor(owners)))


def speaker(**changes):
    torch.manual_seed(0)
    shape = {"dim": 16, "layers": 1, "heads": 2, "longest": 6}
    return UnitSpeaker(SpeakerConfig(**(shape | changes)), LETTERS, UNITS).eval()


def vocoder(**changes):
    torch.manual_seed(0)
    shape = {"width": 8, "dilations": (1, 2), "iterations": 2}
    return UnitVocoder(VocoderConfig(**(shape | changes)), UNITS, len(LETTERS), Bandwidth(), 120.0).eval()
