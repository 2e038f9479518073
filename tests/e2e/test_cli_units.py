"""`vqmem units` and `vqmem fit_units`, through the command line."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from vqmem.cli import main
from vqmem.data.spoken_text import RATE, speak


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody speaking, with silence before and after, at 22.05 kHz."""
    path = tmp_path_factory.mktemp("speech") / "clip.flac"
    silence = np.zeros(RATE // 2, np.int16)
    soundfile.write(path, np.concatenate([silence, speak("Some years ago, never mind how long."), silence]), RATE)
    return path


def objects(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_an_object_a_unit(clip, capsys):
    assert main(["units", str(clip), "--json"]) == 0
    units = objects(capsys.readouterr().out)
    seconds = soundfile.info(clip).duration
    assert len(units) == pytest.approx(50 * seconds, abs=2)
    assert all(set(unit) == {"unit", "start", "end"} for unit in units)
    assert [unit["start"] for unit in units] == [round(0.02 * i, 2) for i in range(len(units))]
    assert len({unit["unit"] for unit in units[:20]}) == 1, "silence is one unit"
    assert len({unit["unit"] for unit in units}) > 20
    assert main(["units", str(clip), "--json", "--deduplicate"]) == 0
    runs = objects(capsys.readouterr().out)
    assert [run["unit"] for run in runs for _ in range(round(50 * (run["end"] - run["start"])))] == [
        unit["unit"] for unit in units
    ]
    assert all(one["unit"] != other["unit"] for one, other in itertools.pairwise(runs))
    assert main(["units", str(clip)]) == 0
    assert capsys.readouterr().out.split() == [str(unit["unit"]) for unit in units]


def test_several_files_name_theirs_and_what_is_wrong_is_listed(clip, tmp_path, capsys):
    (tmp_path / "text.wav").write_text("no sound")
    assert main(["units", str(tmp_path / "text.wav"), str(clip), str(tmp_path / "absent.wav")]) == 0
    out, err = capsys.readouterr()
    (line,) = out.splitlines()
    name, units = line.split("\t")
    assert name == str(clip)
    assert len(units.split()) > 50
    assert err.splitlines()[0] == "skipped 2 of 3:"
    assert len(err.splitlines()) == 3
    assert main(["units", str(clip), str(clip), "--json"]) == 0
    assert {unit["file"] for unit in objects(capsys.readouterr().out)} == {str(clip)}


@pytest.mark.parametrize("name", ["a\n\tb.flac", "\x1b]0;title\x07.flac", "\u202ecalf.flac"])
def test_names_of_files_cannot_command_the_terminal(name, clip, tmp_path, capsys):
    file = str(tmp_path / name)
    shutil.copy(clip, file)
    assert main(["units", str(clip), file]) == 0
    (first, second) = capsys.readouterr().out.splitlines()
    shown, units = second.split("\t")
    assert units == first.split("\t")[1]
    assert shown.isprintable()
    assert json.loads(f'"{shown}"') == file
    assert main(["units", str(clip), file, "--json"]) == 0
    out = capsys.readouterr().out
    assert {unit["file"] for unit in objects(out)} == {str(clip), file}
    assert out.replace("\n", "").isprintable()


def test_a_recording_at_full_scale_is_warned_of(tmp_path, capsys):
    tone = np.clip(3 * np.sin(np.arange(16_000) / 20), -1, 1)
    soundfile.write(tmp_path / "loud.wav", tone, 16_000)
    assert main(["units", str(tmp_path / "loud.wav")]) == 0
    out, err = capsys.readouterr()
    assert len(out.split()) == 49
    assert err.count("\n") == 1
    assert "is clipped: " in err


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (96_000, 6)])
def test_any_rate_and_number_of_channels(rate, channels, tmp_path, capsys):
    wave = np.random.default_rng(0).standard_normal((rate, channels)) * 0.1
    soundfile.write(tmp_path / "clip.wav", wave, rate)
    assert main(["units", str(tmp_path / "clip.wav")]) == 0
    out, err = capsys.readouterr()
    assert (len(out.split()), err) == (49, "")


def test_what_is_wrong_with_one_file_is_one_line(clip, bad_recordings, tmp_path, refused):
    for name, message in (bad_recordings | {"": "is a folder"}).items():
        assert message in refused("units", tmp_path / name)
    assert "did you mean" in refused("units", clip, "--model", clip.parent / "clip.fla")
    assert "see `vqmem units --help`" in refused("units")


@pytest.fixture(scope="module")
def fitted(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `vqmem fit_units` on three copies of a clip, and a file that is none."""
    folder = tmp_path_factory.mktemp("fitted")
    for split in ("train", "dev", "test"):
        (folder / "data" / split).mkdir(parents=True)
        shutil.copy(clip, folder / "data" / split / "clip.flac")
    (folder / "data" / "train" / "text.wav").write_text("no sound")
    (folder / "units.yaml").write_text(
        f"out: {folder / 'run'}\ndata: {{name: audio_files, path: {folder / 'data'}}}\n"
        "features: mfcc39\nclusters: 12\nseed: 3\n"
    )
    assert main(["fit-units", str(folder / "units.yaml")]) == 0
    return folder


def test_fitted_units(clip, fitted, capsys, contents):
    figures = json.loads((fitted / "run" / "evaluation.json").read_text())
    assert figures["frames"] == pytest.approx(50 * soundfile.info(clip).duration, abs=2)
    assert 1 < figures["perplexity"] <= figures["units_used"] <= 12
    assert main(["units", str(clip), "--model", str(fitted / "run")]) == 0
    units = capsys.readouterr().out.split()
    assert len(set(units)) == figures["units_used"]
    before = contents(fitted / "run")
    assert main(["fit_units", str(fitted / "units.yaml")]) == 0
    assert f"{figures['units_used']} of 12 units used" in capsys.readouterr().out
    assert contents(fitted / "run") == before
    assert main(["fit-units", str(fitted / "units.yaml"), f"out={fitted / 'again'}"]) == 0
    assert "skipped 1 of 2:" in capsys.readouterr().err
    again, first = (contents(fitted / name / "front_end") for name in ("again", "run"))
    assert again == first


def test_what_is_wrong_with_fitting_is_one_line(fitted, refused, tmp_path):
    config = fitted / "units.yaml"
    assert "contains another run (clusters 12 -> 13)" in refused("fit-units", config, "clusters=13")
    assert "fewer than 5000 clusters" in refused("fit-units", config, "clusters=5000", f"out={tmp_path / 'a'}")
    assert not (tmp_path / "a" / "front_end").exists()
    assert "did you mean mfcc39?" in refused("fit-units", config, "features=mfcc", f"out={tmp_path / 'b'}")
    assert "which document" in refused("fit-units", config, "data=builtin_text", f"out={tmp_path / 'c'}")
    (fitted / "damaged").mkdir()
    shutil.copytree(fitted / "run" / "front_end", fitted / "damaged" / "front_end")
    (fitted / "damaged" / "front_end" / "kmeans.safetensors").write_bytes(b"0")
    message = refused("units", fitted / "data" / "dev" / "clip.flac", "--model", fitted / "damaged")
    assert "is missing or damaged" in message


def test_a_language_model_of_recordings_and_of_given_units(fitted, tmp_path, refused, capsys):
    """The recipe for text, on speech: nothing behind the front-end knows it."""
    rows = [json.dumps({"id": f"c{i}-0", "units": [i % 5, i % 3, 7] * 30}) for i in range(12)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    sizes = ["passage=64", "batch_size=2", "segment=16", "scorer.dim=8", "scorer.hidden=8", "scorer.codes=4"]
    sizes += [
        "scorer_train.steps=2",
        "train.steps=2",
        "shape.dim=16",
        "shape.heads=2",
        "shape.layers=1",
        "capacities=[24]",
    ]
    sizes += ["train.eval_every=0", "device=cpu"]
    given = ["data={name: unit_files, path: " + str(tmp_path / "rows.jsonl") + "}", "front_end.vocab_size=8"]
    spoken = [
        "data={name: audio_files, path: " + str(fitted / "data") + "}",
        "front_end={name: hubert_units, clusters: 9}",
    ]
    for name, front_end in (("given", given), ("spoken", spoken), ("runs", [*given, "front_end.deduplicate=true"])):
        assert main(["text_lm", "units", f"out={tmp_path / name}", *sizes, *front_end]) == 0
        figures = json.loads((tmp_path / name / "evaluation.json").read_text())["memories"]["surprise@24"]
        assert figures["perplexity"] == pytest.approx(np.exp(figures["nll"]))
        assert figures["bits_per_frame"] <= figures["nll"] / np.log(2) + 1e-6
        assert ("vqmem score FILE" in capsys.readouterr().out) == (name == "spoken"), (
            "given units are in no file to score"
        )
    text = tmp_path / "text.txt"
    text.write_text("some words")
    assert "reads units, not text" in refused("score", text, "--model", tmp_path / "given")
    assert "reads audio, not text" in refused("generate", tmp_path / "spoken", "--prompt", "x", "--device", "cpu")
