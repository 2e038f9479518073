"""From recordings and their texts to a voice that speaks, through the command line."""

import contextlib
import io
import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from vqmem.cli import main
from vqmem.recipes.engine.config import load
from vqmem.recipes.tts import recipe

RATE = 16_000
WORDS = ("abba", "cab", "dada", "bad", "cc", "ada")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on sentences whose letters are tones."""
    folder, noise = tmp_path_factory.mktemp("voice"), np.random.default_rng(0)
    rows = ["path\ttext"]
    for number in range(14):
        text = " ".join(WORDS[(number * step + step) % len(WORDS)] for step in (1, 2, 3))
        time = np.arange(RATE // 10) / RATE
        tones = [np.sign(np.sin(2 * np.pi * (80 + 30 * (ord(c) % 32)) * time)) * 0.2 * (c != " ") for c in text]
        said = np.concatenate(tones) + 0.005 * noise.standard_normal(len(text) * len(time))
        soundfile.write(folder / f"{number}.wav", said, RATE)
        rows.append(f"{number}.wav\t{text}." if number != 5 else f"{number}.wav\t")  # one whose text nobody knows
    (folder / "manifest.tsv").write_text("\n".join(rows), encoding="utf-8")
    config = folder / "tiny.yaml"
    config.write_text(
        f"""\
data: {{name: audio_files, path: {folder}}}
device: cpu
units: {{name: hubert_units, clusters: 8}}
eval_clips: 2
samples: 1
vocoder_batch_size: 2
crop: 16
rvq: {{num_quantizers: 2, codes: 4}}
vocoder: {{width: 8, dilations: [1], iterations: 2}}
vocoder_train: {{steps: 4, eval_every: 2, tensorboard: false}}
batch_size: 4
speaker: {{dim: 32, layers: 1, heads: 2, reach: [1]}}
speaker_train: {{steps: 60, lr: 0.01, warmup: 5, eval_every: 30, tensorboard: false}}
""",
        encoding="utf-8",
    )
    out = folder / "run"
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        assert main(["tts", str(config), f"out={out}"]) == 0
    return out


def test_a_run_reports_how_well_it_learnt(trained: Path) -> None:
    evaluation = json.loads((trained / "evaluation.json").read_text())
    assert evaluation["split"] == "dev"
    errors = {f"{of}_mel_error" for of in ("harmonic", "griffin_lim", "rvq", "mean")}
    assert set(evaluation["vocoder"]) == {*errors, "mel_error_with_text"}
    assert 1 < evaluation["speaker"]["perplexity"] < 6
    assert evaluation["speaker"]["accuracy"] > 0.5
    logged = [json.loads(line) for line in (trained / "speaker/training/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged if line["kind"] == "evaluation"] == [30, 60]
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert page.count("data:audio/wav;base64,") == page.count("data:image/png;base64,") == 7


def test_given_again_nothing_is_trained_anew(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {part: (trained / part / "model.safetensors").read_bytes() for part in ("vocoder", "rvq", "speaker")}
    figures = (trained / "evaluation.json").read_text()
    assert main(["tts", str(trained / "config.yaml"), "samples=0"]) == 0
    assert "to speak: vqmem speak" in capsys.readouterr().out
    assert before == {part: (trained / part / "model.safetensors").read_bytes() for part in before}
    assert (trained / "evaluation.json").read_text() == figures


@pytest.mark.parametrize("step", [3, 40])
def test_a_run_that_was_stopped_ends_as_if_it_was_not(step, trained: Path, tmp_path: Path, interrupted_once) -> None:
    interrupted_once(recipe.ModelTask, step)  # the first is of the vocoder, the other of the speaker
    changes = [f"out={tmp_path / 'run'}", "speaker_train.save_every=20", "vocoder_train.save_every=2"]
    with pytest.raises(InterruptedError):
        recipe.run(load(recipe.Config, trained / "config.yaml", changes))
    assert main(["tts", str(trained / "config.yaml"), *changes]) == 0
    for part in ("vocoder", "rvq", "speaker"):
        name = f"{part}/model.safetensors"
        assert (tmp_path / "run" / name).read_bytes() == (trained / name).read_bytes()


def test_a_run_keeps_to_the_recordings_that_it_began_with(trained: Path, tmp_path: Path, refused) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(trained.parent, data, ignore=shutil.ignore_patterns("run"))
    shutil.copytree(trained, run)
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace(str(trained.parent), str(data)))
    shutil.copy(data / "0.wav", data / "14.wav")
    with (data / "manifest.tsv").open("a") as file:
        file.write("\n14.wav\tcab dada zz.")
    before = (run / "evaluation.json").read_bytes()
    message = refused("tts", run / "config.yaml", f"out={run}", f"data.path={data}")
    assert "the split train had 12 documents when the run in" in message
    assert "'14.wav' is one more; put the old data back, or use another out" in message
    assert (run / "evaluation.json").read_bytes() == before


@pytest.mark.parametrize("name", ["long.wav", "long.flac", "long.ogg"])
def test_a_full_disk_is_an_error_of_one_line(name, trained: Path, tmp_path: Path, capfd) -> None:
    import resource  # as good as a full disk: files may not grow beyond this

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        assert main(["speak", "a dad cab. " * 40, "-o", str(tmp_path / name), "--run", str(trained)]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    lines = capfd.readouterr().err.splitlines()
    assert "is there room on the disk?" in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert not list(tmp_path.iterdir())


def test_text_is_spoken_into_a_file(trained: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    run = ["--run", str(trained), "--seed", "3"]
    files = [tmp_path / name for name in ("a.wav", "b.wav", "c.flac")]
    assert main(["speak", "A dad, cab.Ω", "-o", str(files[0]), *run]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"wrote {files[0]}, ")
    assert err == "left out, because this voice has not learnt them: ',' 'ω'\n"
    source = tmp_path / "text.txt"
    source.write_text("a dad cab.", encoding="utf-8")
    assert main(["speak", "--file", str(source), "-o", str(files[1]), *run]) == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a dad cab.\n")))
    assert main(["speak", "-", "-o", str(files[2]), *run]) == 0
    sounds = [soundfile.read(path) for path in files]
    assert [rate for _, rate in sounds] == [RATE] * 3
    assert np.array_equal(sounds[0][0], sounds[1][0])
    assert np.allclose(sounds[0][0], sounds[2][0], atol=1e-3)  # flac rounds otherwise
    assert 0.2 < len(sounds[0][0]) / RATE < 30
    assert np.abs(sounds[0][0]).max() > 0.001


def test_text_is_spoken_into_a_pipe(trained: Path, tmp_path: Path, monkeypatch, capfdbinary) -> None:
    """To standard output as wav; into other pipes as their name says."""
    monkeypatch.chdir(tmp_path)
    words = ["speak", "a dad cab.", "--run", str(trained), "-o"]
    assert main([*words, "-"]) == 0
    out, message = capfdbinary.readouterr()
    assert soundfile.read(io.BytesIO(out))[1] == RATE
    assert message.startswith(b"wrote /dev/stdout, ")
    assert list(tmp_path.iterdir()) == []
    os.mkfifo("pipe.flac")
    with ThreadPoolExecutor() as pool:
        read = pool.submit((tmp_path / "pipe.flac").read_bytes)
        assert main([*words, "pipe.flac"]) == 0
        assert read.result(10).startswith(b"fLaC")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.flac"]


def test_numbers_are_read_in_the_language_of_the_run(trained: Path, tmp_path: Path, capsys, refused) -> None:
    out = ["-o", str(tmp_path / "a.wav"), "--run", str(trained)]
    for language, left in (([], "'n' 'o'"), (["--language", "de"], "'e' 'i' 'n' 's'"), (["--language", ""], "'1'")):
        assert main(["speak", "a 1 dad/cab", *out, *language]) == 0
        assert set(left.split()) | {"'/'"} <= set(capsys.readouterr().err.split(": ")[1].split())
    assert "unknown language to read aloud 'eng'" in refused("speak", "1", *out, "--language", "eng")
    copy = shutil.copytree(trained, tmp_path / "copy")
    config = (copy / "config.yaml").read_text()
    assert "language: en" in config
    for written, letter in (("language: de", "'s'"), ("", "'o'")):
        (copy / "config.yaml").write_text(config.replace("language: en", written))
        assert main(["speak", "a 1", "-o", str(tmp_path / "a.wav"), "--run", str(copy)]) == 0
        assert letter in capsys.readouterr().err
    (copy / "config.yaml").write_text("a: [")
    assert "is damaged" in refused("speak", "a", "-o", tmp_path / "a.wav", "--run", copy)


def test_what_cannot_be_spoken_is_refused_in_a_line(trained: Path, tmp_path: Path, refused) -> None:
    out, run = tmp_path / "out.wav", ("--run", trained)
    out.write_bytes(b"before")
    assert "there is no text to speak" in refused("speak", "  ", "-o", out, *run)
    assert "give either a text or --file" in refused("speak", "-o", out, *run)
    assert "can be spoken: this voice knows abcd" in refused("speak", "語学", "-o", out, *run)
    assert "format of sound '.mp4'" in refused("speak", "bad", "-o", tmp_path / "x.mp4", *run)
    assert "temperature = -1.0" in refused("speak", "bad", "-o", out, *run, "--temperature", "-1")
    assert "did you mean" in refused("speak", "bad", "-o", out, "--run", f"{trained}s")
    assert "no such file" in refused("speak", "--file", tmp_path / "none.txt", "-o", out, *run)
    assert f"{str(out)!r} is a file, where a folder is needed" in refused("speak", "bad", "-o", out / "x.wav", *run)
    damaged = shutil.copytree(trained, tmp_path / "damaged")
    (damaged / "vocoder" / "model.safetensors").write_bytes(b"half")
    assert "is damaged" in refused("speak", "bad", "-o", out, "--run", damaged)
    assert out.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged", "out.wav"]


def test_recordings_that_teach_nothing_are_refused(trained: Path, tmp_path: Path, refused) -> None:
    config, out = trained / "config.yaml", tmp_path / "run"
    assert "without deduplicate" in refused("tts", config, f"out={out}", "units.deduplicate=true")
    assert "longest = 0" in refused("tts", config, f"out={out}", "speaker.longest=0")
    assert "heads=5" in refused("tts", config, f"out={out}", "speaker.heads=5")
    assert "needs torchrun" in refused("tts", config, f"out={out}", "speaker_train.parallel=fsdp")
    assert "speaker_train.seed is set by seed" in refused("tts", config, f"out={out}", "speaker_train.seed=1")
    silent = tmp_path / "silent"
    shutil.copytree(trained.parent, silent, ignore=shutil.ignore_patterns("run", "manifest.tsv", "*.yaml"))
    message = refused("tts", config, f"out={out}", f"data.path={silent}")
    assert "training recordings have no texts to learn from" in message
