"""Recordings and folders as other tools leave them, through the command line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from vqmem.cli import main

RATE = 16_000
TONE = (0.3 * np.sin(np.arange(4 * RATE) / 7) * np.sin(np.arange(4 * RATE) / 2000)).astype(np.float32)
NOISE = np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32) * 0.1


def encoded(samples: np.ndarray, form: str, **keys: object) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=form, **keys)
    return file.getvalue()


def without_xing(data: bytes) -> bytes:
    with av.open(io.BytesIO(data)) as container:
        return data[next(container.demux()).pos :]


@pytest.fixture
def units(tmp_path, capsys):
    """Gives the units of a file with these bytes, and what was said on standard error."""

    def call(data: bytes, name: str = "clip") -> tuple[list[str], str]:
        (tmp_path / name).write_bytes(data)
        assert main(["units", str(tmp_path / name)]) == 0
        out, err = capsys.readouterr()
        return out.split(), err

    return call


@pytest.mark.parametrize(("name", "count"), [("vbr_without_xing", 1000), ("mp3gain_tag", 104)])
def test_cases_of_mp3(name, count, real_data, units):
    path = real_data / "cases" / f"{name}.mp3"
    if not path.is_file():
        pytest.skip(f"no {path}")
    found, said = units(path.read_bytes())
    assert len(found) == pytest.approx(count, abs=6)
    assert said == ""


def test_all_of_a_recording_becomes_units(units):
    """Of noise and then silence, and the other way round: what a header or the first frames say of them is wrong."""
    clicks = np.zeros(8 * RATE, np.float32)
    clicks[::4000] = 0.3
    varying = np.concatenate([clicks, NOISE])
    mp3, ogg, flac = encoded(TONE, "MP3"), encoded(TONE, "OGG"), encoded(TONE, "FLAC")
    for data, seconds in (
        (without_xing(encoded(varying, "MP3", bitrate_mode="VARIABLE", compression_level=0.1)), 12),
        (mp3 + mp3, 8),
        (ogg + ogg, 8),
        (flac[:21] + bytes([flac[21] & 0xF0, 0, 0, 0, 0]) + flac[26:], 4),
    ):
        found, said = units(data)
        assert len(found) == pytest.approx(50 * seconds, abs=8)
        assert said == ""


def test_what_is_cut_is_said(units, tmp_path, refused):
    mp3 = encoded(TONE, "MP3")
    found, said = units(mp3[: len(mp3) // 2])
    assert 50 < len(found) < 150
    assert said.startswith(f"'{tmp_path}/clip' ends after ")
    assert said.count("\n") == 1
    for form in ("WAV", "FLAC"):
        data = encoded(TONE, form)
        (tmp_path / "cut").write_bytes(data[: len(data) * 6 // 10])
        assert "is damaged or cut off after 2." in refused("units", tmp_path / "cut")


def test_a_channel_the_wrong_way_round(units):
    right, said = units(encoded(np.stack([TONE, -TONE], axis=1), "WAV", subtype="FLOAT"))
    assert said.count("\n") == 1
    assert "channels cancel each other out, so that channel 1 alone is read" in said
    assert (right, "") == units(encoded(TONE, "WAV", subtype="FLOAT"))


SIZES = [
    "device=cpu",
    "passage=32",
    "batch_size=2",
    "segment=16",
    "train_tokens=2000",
    "eval_passages=2",
    "capacities=[24]",
]
SIZES += ["scorer.dim=8", "scorer.hidden=8", "scorer.codes=4", "scorer_train.steps=2", "scorer_train.tensorboard=false"]
SIZES += ["train.steps=2", "train.eval_every=0", "train.tensorboard=false", "shape.dim=16", "shape.heads=2"]
SIZES += ["shape.layers=1"]


def odd(folder: Path, suffix: str) -> list[Path]:
    """Twelve files with names that are not UTF-8, and what macOS leaves beside them."""
    folder.mkdir()
    paths = [folder / (os.fsdecode(b"caf\xe9%d" % number) + suffix) for number in range(12)]
    for path in paths:
        path.write_bytes(
            encoded(TONE[: 2 * RATE], "WAV") if suffix == ".wav" else b"the name of a function is bound. " * 40
        )
        (folder / f"._{path.name}").write_bytes(b"\0\5\x16\7")
    return paths


def test_recordings_whose_names_are_not_utf8(tmp_path, capsys):
    paths = odd(tmp_path / "in", ".wav")
    assert main(["units", str(paths[0])]) == 0
    assert len(capsys.readouterr().out.split()) == 99
    for option in (["--json"], ["--html", str(tmp_path / "a.html")], ["--image", str(tmp_path / "a.svg")]):
        assert main(["score", str(paths[0]), *option]) == 0
    assert len([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == 99
    for name in ("a.html", "a.svg"):
        (tmp_path / name).read_bytes().decode()
    front_end = "front_end={name: hubert_units, clusters: 9}"
    data = "data={name: audio_files, path: " + str(tmp_path / "in") + "}"
    assert main(["text_lm", "units", f"out={tmp_path / 'run'}", data, front_end, *SIZES]) == 0
    assert main(["fit_units", "demo", f"out={tmp_path / 'fit'}", data, "clusters=9"]) == 0
    assert "skipped" not in capsys.readouterr().err


def test_names_that_are_not_utf8_are_printed_as_escapes(tmp_path):
    paths = [str(path) for path in odd(tmp_path / "in", ".wav")[:2]]
    command = [sys.executable, "-m", "vqmem", "units", *paths, str(tmp_path / "in" / os.fsdecode(b"\xe9")), "--json"]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, capture_output=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr
    files = [json.loads(line)["file"] for line in done.stdout.decode().splitlines()]
    assert files == [paths[0]] * 99 + [paths[1]] * 99
    assert "skipped 1 of 3:\n" in done.stderr.decode()


def test_texts_whose_names_are_not_utf8(tmp_path, capsys):
    paths = odd(tmp_path / "in", ".txt")
    assert main(["score", str(paths[0]), "--html", str(tmp_path / "a.html")]) == 0
    (tmp_path / "a.html").read_bytes().decode()
    data = "data={name: text_files, path: " + str(tmp_path / "in") + "}"
    front_end = "front_end={name: bpe, vocab_size: 270}"
    assert main(["text_lm", "english", f"out={tmp_path / 'run'}", data, front_end, *SIZES]) == 0
