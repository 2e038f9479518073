"""Channels are averaged, and where that would cancel what is said, one is taken and a line says so."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import torch
from vqmem.data.reading.audio import RATE, Audio

NOISE = np.random.default_rng(0).standard_normal((15 * RATE, 8)).astype(np.float32) * 0.1
VOICE = NOISE[:, 7] * np.sin(np.arange(len(NOISE), dtype=np.float32) / 3000)
FIRST = "'clip': its channels cancel each other out, so that channel 1 alone is read\n"


def clip(*channels: np.ndarray, rate: int = RATE) -> Audio:
    file = io.BytesIO()
    soundfile.write(file, np.stack(channels, axis=1), rate, format="WAV", subtype="FLOAT")
    return Audio("clip", file.getvalue())


@pytest.mark.parametrize("leak", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("silence", [0, 12])
def test_a_channel_that_is_wired_the_wrong_way_round(leak, silence, capsys):
    """Leaving nothing, or only the noise of two microphones, whatever silence comes first."""
    quiet = np.zeros(silence * RATE, np.float32)
    left, right = (np.concatenate([quiet, sign * VOICE + leak * NOISE[:, i] / 2]) for i, sign in enumerate((1, -1)))
    audio = clip(left, right)
    loudest = max((left, right), key=lambda channel: np.square(channel[silence * RATE :][: 10 * RATE][::8]).sum())
    assert np.array_equal(audio.read().numpy(), loudest)
    assert torch.equal(torch.cat(list(audio.stream(0.7))), audio.read())
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("'clip': its channels cancel each other out, so that channel ")


def test_resampled_and_of_several_channels(capsys):
    audio = clip(VOICE, -VOICE, VOICE, -VOICE, rate=22_050)
    assert torch.equal(audio.read(), clip(VOICE, rate=22_050).read())
    assert capsys.readouterr().err == FIRST


@pytest.mark.parametrize(
    "channels",
    [
        (VOICE, VOICE),
        (VOICE, 0 * VOICE),
        (VOICE, -0.3 * VOICE),
        (NOISE[:, 0], NOISE[:, 1]),
        (VOICE + NOISE[:, 0], -VOICE + NOISE[:, 1]),
        tuple(NOISE[:, :6].T),
        (VOICE, *[0 * VOICE] * 5),
    ],
    ids=range(7),
)
def test_ordinary_channels_are_averaged(channels, capsys):
    average = np.stack(channels, axis=1).mean(axis=1)
    assert np.array_equal(clip(*channels).read().numpy(), average)
    assert capsys.readouterr().err == ""


def test_channels_that_cancel_later_on_are_said(capsys):
    hiss = NOISE[: 13 * RATE, :2] * 0.01
    left, right = (np.concatenate([hiss[:, i], sign * VOICE]) for i, sign in enumerate((1, -1)))
    assert np.array_equal(clip(left, right).read().numpy(), (left + right) / 2)
    assert capsys.readouterr().err == (
        "'clip': its channels cancel each other out, so that little is left of it; give one channel\n"
    )
