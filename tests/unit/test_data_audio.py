"""Recordings in any format, rate and shape become the same samples, streamed or at once, or one line says why not."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vqmem.data.reading.audio import CHUNK, RATE, Audio
from vqmem.data.reading.files import Skipping, UnreadableError


def read_audio(path: Path, rate: int = RATE) -> torch.Tensor:
    return Audio(str(path)).read(rate)


def stream_audio(path: Path, seconds: float = CHUNK, rate: int = RATE) -> Iterator[torch.Tensor]:
    return Audio(str(path)).stream(seconds, rate)


def tones(rate: int, seconds: float = 3.0, channels: int = 1) -> np.ndarray:
    """Two tones well below half of 8 kHz, each channel a little louder than the one before."""
    time = np.arange(round(rate * seconds)) / rate
    wave = 0.3 * np.sin(2 * np.pi * 440 * time) + 0.1 * np.sin(2 * np.pi * 1234 * time)
    return (wave[:, None] * (1 + 0.1 * np.arange(channels))).squeeze().astype(np.float32)


@pytest.mark.parametrize(
    ("suffix", "rate", "channels", "tolerance"),
    [
        ("wav", 16_000, 1, 1e-4),
        ("wav", 8_000, 1, 1e-3),
        ("wav", 96_000, 6, 1e-3),
        ("flac", 44_100, 2, 1e-3),
        ("ogg", 48_000, 2, 0.05),
        ("mp3", 22_050, 1, 0.05),
    ],
)
def test_any_file_becomes_16_khz_mono(suffix, rate, channels, tolerance, tmp_path):
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, tones(rate, channels=channels), rate)
    samples = read_audio(path)
    wanted = tones(RATE) * (1 + 0.1 * (channels - 1) / 2)
    assert samples.dtype == torch.float32
    assert abs(len(samples) - len(wanted)) <= 0.1 * RATE * (suffix in ("ogg", "mp3"))
    middle = slice(RATE, 2 * RATE)
    assert np.abs(samples.numpy()[middle] - wanted[middle]).max() < tolerance


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000, 96_000])
def test_streaming_equals_resampling_in_one_go(rate, tmp_path):
    """Noise, so that a click at any border of blocks (65,536 frames) would show."""
    noise = np.random.default_rng(0).standard_normal(5 * rate).astype(np.float32) * 0.1
    soundfile.write(tmp_path / "noise.wav", noise, rate, subtype="FLOAT")
    full = soxr.resample(noise, rate, RATE)
    samples = read_audio(tmp_path / "noise.wav").numpy()
    assert len(samples) == len(full)
    assert np.abs(samples - full).max() < 1e-4


@given(seconds=st.floats(0.01, 4.0), rate=st.sampled_from([8_000, 16_000, 22_050]))
@settings(max_examples=25)
def test_chunks_of_any_size_concatenate_to_the_recording(seconds, rate, tmp_path_factory):
    path = tmp_path_factory.mktemp("chunks") / "noise.wav"
    soundfile.write(path, np.random.default_rng(1).standard_normal(44_100).astype(np.float32) * 0.1, 44_100)
    chunks = list(stream_audio(path, seconds, rate))
    assert {len(chunk) for chunk in chunks[:-1]} <= {round(seconds * rate)}
    assert torch.equal(torch.cat(chunks), read_audio(path, rate))


def test_parts_concatenate_to_the_recording(tmp_path):
    path = tmp_path / "clip.flac"
    soundfile.write(path, tones(RATE, 1.7), RATE)
    parts = [Audio(str(path), part=part) for part in ((0.0, 0.8), (0.8, 0.9), (0.9, 1.0))]
    assert torch.equal(torch.cat([part.read() for part in parts]), read_audio(path))
    assert sum(part.seconds() for part in parts) == pytest.approx(1.7)


def test_bytes_are_read_as_a_file_is(tmp_path):
    path = tmp_path / "clip.flac"
    soundfile.write(path, tones(RATE), RATE)
    assert torch.equal(Audio("row 3", path.read_bytes()).read(), read_audio(path))
    with pytest.raises(UnreadableError, match=r"'row 4' is not audio"):
        Audio("row 4", b"").read()


def test_real_recordings(real_data):
    for name in ("fsdd/0_george_0.wav", "ljspeech", "librispeech_test_other"):
        path = real_data / "speech" / name
        path = next(path.iterdir()) if path.is_dir() else path
        about = soundfile.info(path)
        samples = read_audio(path)
        assert len(samples) == pytest.approx(about.duration * RATE, abs=2)
        assert Audio(str(path)).seconds() == about.duration


def spoiled(folder: Path, what: str) -> Path:
    path = folder / f"{what}.wav"
    wave = tones(RATE, 0.5)
    if what == "nan":
        wave[4000] = np.nan
        soundfile.write(path, wave, RATE, subtype="FLOAT")
    elif what == "text":
        path.write_text("This is no sound.\n" * 100)
    elif what == "void":
        path.touch()
    elif what == "truncated":
        buffer = io.BytesIO()
        soundfile.write(buffer, np.random.default_rng(0).standard_normal(RATE) * 0.1, RATE, format="FLAC")
        path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    elif what == "folder":
        path.mkdir()
    elif what != "missing":
        soundfile.write(path, {"no samples": wave[:0], "zeros": 0 * wave}[what], RATE)
    return path


@pytest.mark.parametrize(
    ("what", "match"),
    [
        ("nan", r"has a sample that is NaN or infinite at 0\.250 s"),
        ("text", r"is not audio that can be read here \(Format not recognised\); give wav"),
        ("void", r"is not audio"),
        ("truncated", r"is damaged or cut off after 0\.\d\d of 1\.00 s"),
        ("folder", r"is a folder"),
        ("missing", r"no such file or folder"),
        ("no samples", r"has no samples"),
        ("zeros", r"is silent: all of its 8000 samples are 0"),
    ],
)
def test_what_is_wrong_is_one_line(what, match, tmp_path):
    path = spoiled(tmp_path, what)
    with pytest.raises(UnreadableError, match=match) as caught:
        read_audio(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_few_samples_are_no_error(tmp_path):
    soundfile.write(tmp_path / "one.wav", [0.5], RATE)
    assert read_audio(tmp_path / "one.wav").tolist() == [0.5]
    soundfile.write(tmp_path / "fast.wav", [0.5], 96_000)
    assert len(read_audio(tmp_path / "fast.wav")) == 0
    with pytest.raises(ValueError, match="contain no sample"):
        next(stream_audio(tmp_path / "one.wav", 0.0))


def test_a_long_job_goes_on_and_says_what_it_skipped(tmp_path, capsys):
    soundfile.write(tmp_path / "good.wav", tones(RATE), RATE)
    skipping, lengths = Skipping(), []
    for path in (spoiled(tmp_path, "nan"), tmp_path / "good.wav", spoiled(tmp_path, "missing")):
        with skipping:
            lengths.append(len(read_audio(path)))
    skipping.report()
    assert lengths == [3 * RATE]
    first, *others = capsys.readouterr().err.splitlines()
    assert first == "skipped 2 of 3:"
    assert ["NaN" in others[0], "no such file" in others[1]] == [True, True]


def test_a_job_in_which_nothing_can_be_read_fails(tmp_path):
    skipping = Skipping()
    for name in itertools.repeat("absent.wav", 3):
        with skipping:
            read_audio(tmp_path / name)
    with pytest.raises(UnreadableError, match="none of the 3 can be used; see above"):
        skipping.report()
    with pytest.raises(KeyError), skipping:
        raise KeyError("what is no fault of a document")
