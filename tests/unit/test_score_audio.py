"""Scores of recordings: causal, the same however a recording is read, and by units that were fitted before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from vqmem.artifacts import save_model
from vqmem.data.reading.audio import RATE, Audio, is_recording
from vqmem.models.speech.frame_scorer import FOLDER, KIND, FrameScorer, is_frame_scorer, load_frame_scorer
from vqmem.models.vq_lm import VQLMConfig
from vqmem.recipes.scoring.audio import load_audio_scorer, score_audio
from vqmem.recipes.scoring.sound_plot import ticks
from vqmem.recipes.speech.units import load_units
from vqmem.registry import build
from vqmem.tokenizers_.base import load_tokenizer, save_tokenizer

SHAPE = {"dim": 8, "hidden": 8, "codes": 4}


def write(path: Path, samples: np.ndarray) -> Audio:
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return Audio(str(path))


@pytest.fixture
def noise() -> np.ndarray:
    """45 seconds: more than two windows of the features."""
    loudness = 0.1 + 0.1 * np.sin(np.arange(45 * RATE) / 3000)
    return np.random.default_rng(0).standard_normal(45 * RATE) * loudness


@pytest.fixture
def frames_run(tmp_path: Path) -> Path:
    """A frame scorer whose weights are as they are drawn."""
    torch.manual_seed(0)
    scorer = FrameScorer("mfcc39", VQLMConfig(frame_dim=39, **SHAPE))
    scorer.standardise_by(10 * torch.randn(100, 39) + 3)
    save_model(tmp_path / "frames" / FOLDER, KIND, scorer.fields(), scorer)
    return tmp_path / "frames"


def test_frames_in_chunks_score_as_at_once(noise, frames_run, tmp_path, monkeypatch):
    audio, scorer = write(tmp_path / "noise.wav", noise), load_frame_scorer(frames_run)
    assert is_frame_scorer(frames_run)
    scores = score_audio(audio, frames_run)
    frames = scorer.extractor()(audio.read())
    at_once, _ = scorer.score(frames[None], scorer.initial_state(1))
    assert scores.signals.shape == (len(frames), 3) == (45 * 50 - 1, 3)
    torch.testing.assert_close(scores.signals, at_once[0], atol=1e-5, rtol=0)
    assert scores.ids is None
    assert scores.codes is not None
    assert scores.codes.tolist() == scorer.codes(frames[None])[0].tolist()
    assert scores.starts[:3].tolist() == [0, 0.02, 0.04]
    assert torch.equal(scores.starts[1:], scores.ends[:-1])
    state, parts = scorer.initial_state(1), []
    for part in frames.split(7):
        signals, state = scorer.score(part[None], state)
        parts.append(signals[0])
    torch.testing.assert_close(torch.cat(parts), at_once[0], atol=1e-5, rtol=0)
    stream = Audio.stream
    monkeypatch.setattr(Audio, "stream", lambda self, seconds=0.31, rate=RATE: stream(self, seconds, rate))
    torch.testing.assert_close(score_audio(audio, frames_run).signals, scores.signals, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["frames", "units"])
def test_what_comes_later_changes_no_score(noise, frames_run, tmp_path, kind):
    model = frames_run if kind == "frames" else None
    changed = noise.copy()
    changed[20 * RATE :] = np.random.default_rng(1).standard_normal(25 * RATE)
    one, other = (
        score_audio(write(tmp_path / f"{i}.wav", samples), model) for i, samples in enumerate((noise, changed))
    )
    before = 20 * 50 - 3  # a frame has 25 ms, and its deltas see 40 ms ahead
    torch.testing.assert_close(one.signals[:before], other.signals[:before], atol=1e-5, rtol=0)
    assert not torch.allclose(one.signals[before + 5 :, 0], other.signals[before + 5 :, 0], atol=1e-3)


def test_the_packaged_scorer_reads_the_packaged_units(noise, tmp_path):
    audio = write(tmp_path / "noise.wav", noise[: 3 * RATE])
    scores, stream = score_audio(audio), load_units().encode(audio)
    assert scores.ids is not None
    assert scores.ids.tolist() == stream.ids.tolist()
    assert torch.equal(scores.ends, stream.ends)
    assert torch.isfinite(scores.signals).all()
    torch.testing.assert_close(scores.signals[:, 2], scores.signals[:, 1] - scores.signals[:, 0])
    folder = Path(__file__).parents[2] / "models" / "pretrained" / "speech"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 1_000_000


def test_frames_are_standardised_and_constant_dimensions_left(frames_run):
    scorer = FrameScorer("mfcc39", VQLMConfig(frame_dim=3, **SHAPE))
    frames = torch.randn(50, 3) * torch.tensor([5.0, 0.1, 0.0]) + torch.tensor([1.0, -20.0, 7.0])
    scorer.standardise_by(frames)
    inner = (frames - scorer.mean) / scorer.deviation
    torch.testing.assert_close(inner.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(inner.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-4, rtol=0)
    report = scorer.report(frames[None], torch.ones(1, 50, dtype=torch.bool))
    assert {"surprise", "rarity", "gain", "rate", "residual", "codes_used"} <= set(report)


def test_units_that_were_fitted_are_taken_as_they_are(tmp_path):
    spec = {"name": "hubert_units", "fitted": "packaged", "deduplicate": True}
    taken = build("front-ends", spec).fit(iter(()))
    assert torch.equal(taken.centroids, load_units().centroids)
    assert taken.deduplicate
    save_tokenizer(taken, spec, tmp_path / "run" / "front_end")
    assert torch.equal(load_tokenizer(tmp_path / "run" / "front_end").centroids, taken.centroids)
    again = build("front-ends", {"name": "hubert_units", "fitted": str(tmp_path / "run")}).fit([])
    assert torch.equal(again.centroids, taken.centroids)
    for keys, message in (
        ({"clusters": 50}, "were made with clusters = 100, not 50"),
        ({"features": {"name": "hubert"}}, "were made with features = 'mfcc39'"),
        ({"fitted": str(tmp_path / "rum")}, "did you mean"),
        ({"fitted": str(tmp_path)}, "no front_end.json"),
    ):
        with pytest.raises(ValueError, match=message):
            build("front-ends", {"name": "hubert_units", "fitted": "packaged", **keys}).fit([])


def test_a_model_that_reads_no_recordings_is_refused(frames_run, tmp_path):
    english = Path(__file__).parents[2] / "models" / "pretrained" / "english"
    with pytest.raises(ValueError, match="reads text, not recordings"):
        load_audio_scorer(english)
    with pytest.raises(ValueError, match="did you mean"):
        load_audio_scorer(tmp_path / "frame")
    config = json.loads((frames_run / FOLDER / "config.json").read_text())
    (frames_run / FOLDER / "config.json").write_text(json.dumps(config | {"kind": "other"}))
    with pytest.raises(ValueError, match="is damaged or was edited"):
        load_audio_scorer(frames_run)


@pytest.mark.parametrize(
    ("name", "data", "recording"),
    [
        ("letter.txt", b"Dear RIFF,", False),
        ("riff", b"RIFF and more", False),
        ("utf16", "Call me Ishmael.".encode("utf-16"), False),
        ("empty", b"", False),
        ("text.wav", b"no sound", True),
        ("text.FLAC", b"no sound", True),
    ],
)
def test_recordings_are_recognised_by_name_and_content(name, data, recording, tmp_path, capfd):
    (tmp_path / name).write_bytes(data)
    assert is_recording(tmp_path / name) == recording
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3"])
def test_recordings_are_recognised_whatever_their_name(form, tmp_path):
    soundfile.write(tmp_path / "notes.txt", np.sin(np.arange(RATE) / 20), RATE, format=form)
    assert is_recording(tmp_path / "notes.txt")
    assert not is_recording(tmp_path)
    assert not is_recording("-")


def test_ticks_enclose_or_lie_between() -> None:
    for low, high in ((0.0, 1.0), (0.13, 0.87), (-3.0, 5000.0), (2.0, 2.0), (0.0, 0.0)):
        outer, inner = ticks(low, high), ticks(low, high, inside=True)
        assert outer[0] - 1e-6 <= low <= high <= outer[-1] + 1e-6
        assert outer[0] < outer[-1]
        assert len(outer) <= 9
        assert outer[0] > low - (outer[1] - outer[0])
        assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in inner)
