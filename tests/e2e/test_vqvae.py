"""From recordings to codes and back, through the command line: train, resume, encode, learn codes, go on speaking."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from vqmem.cli import main
from vqmem.data.reading.audio import Audio
from vqmem.recipes.engine.config import load
from vqmem.recipes.text_lm import recipe as text_lm
from vqmem.recipes.text_lm.summary import format_summary
from vqmem.recipes.vqvae.recipe import Config, VQVAETask, crop_loader, load_vqvae, run
from vqmem.registry import build
from vqmem.tokenizers_.base import input_kind, load_tokenizer, output_kind, save_tokenizer
from vqmem.tokenizers_.vqvae_codes import PACKAGED

RATE = 16000


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve wavering tones of half a second to a second and a half."""
    folder = tmp_path_factory.mktemp("recordings")
    noise = np.random.default_rng(0)
    for i in range(12):
        time = np.arange(RATE // 2 + i * 1400) / RATE
        tone = np.sin(2 * np.pi * (100 + 60 * i) * time) * (1 + np.sin(11 * time)) * 0.2
        soundfile.write(folder / f"{i}.wav", tone + 0.01 * noise.standard_normal(len(time)), RATE)
    return folder


@pytest.fixture(scope="module")
def config(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny config; its ``out`` is to be given."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(
        f"""\
data: {{name: audio_files, path: {recordings}}}
device: cpu
batch_size: 2
crop: 1024
eval_clips: 1
eval_seconds: 0.3
samples: 1
model: {{strides: [[4, 2], [8, 8]], width: 4, depth: 1, dim: 4, codes: 12}}
train: {{steps: 6, eval_every: 3, save_every: 2, log_every: 2, tensorboard: false}}
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="module")
def trained(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        assert main(["vqvae", str(config), f"out={out}"]) == 0
    return out


def test_every_evaluation_reports_how_codes_are_used(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "model/training/metrics.jsonl").read_text().splitlines()]
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    assert [line["step"] for line in evaluations] == [3, 6]
    for line in evaluations:
        for hop in (8, 64):
            assert 1 <= line[f"hop{hop}/perplexity"] <= line[f"hop{hop}/codes_used"] <= 12
    evaluation = json.loads((trained / "evaluation.json").read_text())
    assert evaluation["levels"]["hop64"]["stft_error"] == evaluations[-1]["hop64/stft_error"]


def test_a_killed_run_resumes_to_the_bit(
    config: Path, trained: Path, tmp_path: Path, interrupted_once: Callable[[Any, int], list[int]]
) -> None:
    settings = load(Config, config, [f"out={tmp_path / 'run'}"])
    done = interrupted_once(VQVAETask, 6)
    with pytest.raises(InterruptedError):
        run(settings)
    run(settings)
    assert len(done) == 6 + 2  # from step 4 on
    for name in ("model/model.safetensors", "model/training/metrics.jsonl", "evaluation.json"):
        assert (tmp_path / "run" / name).read_bytes() == (trained / name).read_bytes()


def test_given_again_nothing_is_trained(
    config: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(VQVAETask, "step", None)
    before = (trained / "evaluation.json").read_bytes()
    assert main(["vqvae", str(config), f"out={trained}"]) == 0
    assert (trained / "evaluation.json").read_bytes() == before
    assert "codes used, perplexity" in capsys.readouterr().out


def test_report_plays_and_shows_from_one_file(trained: Path) -> None:
    page = (trained / "report.html").read_text(encoding="utf-8")
    data = json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[0])
    (sample,) = data["samples"]
    assert [version["label"] for version in sample["versions"]] == ["original", "hop 8", "hop 64"]
    for version in sample["versions"]:
        assert version["sound"].startswith("data:audio/wav;base64,UklGR")
        assert version["picture"].startswith("data:image/png;base64,iVBOR")
    assert all(sum(level["usage"]) == -(-4800 // level["hop"]) for level in data["levels"])
    assert "media-src data:" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)


def test_front_end_gives_codes_with_times_and_a_waveform_back(trained: Path, recordings: Path, tmp_path: Path) -> None:
    spec = {"name": "vqvae_codes", "path": str(trained), "level": 1}
    front_end = build("front-ends", spec)
    tokenizer = front_end.fit([])
    assert (input_kind(front_end), input_kind(tokenizer), output_kind(tokenizer)) == ("audio", "audio", "audio")
    audio = Audio(str(recordings / "3.wav"))
    samples = audio.read()
    stream = tokenizer.encode(audio)
    assert stream.ids.tolist() == load_vqvae(trained).encode(samples[None], 1)[0].tolist()
    assert stream.starts[:3].tolist() == pytest.approx([0, 64 / RATE, 128 / RATE])
    assert float(stream.ends[-1]) == pytest.approx(len(samples) / RATE)
    assert int(stream.sizes.sum()) == len(samples)
    assert len(tokenizer.decode(stream.ids.tolist())) == 64 * len(stream)
    save_tokenizer(tokenizer, spec, tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert again.encode(audio).ids.tolist() == stream.ids.tolist()
    assert torch.equal(again.decode([1, 2, 3]), tokenizer.decode([1, 2, 3]))
    assert again.decode([]).shape == (0,)


def test_a_long_recording_has_the_same_codes_in_chunks(trained: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).standard_normal(50 * RATE) * 0.1
    soundfile.write(tmp_path / "long.wav", noise, RATE)
    tokenizer = build("front-ends", {"name": "vqvae_codes", "path": str(trained)}).fit([])
    assert tokenizer.hop == 64
    longest = []
    handle = tokenizer.model.levels[1].encoder.register_forward_pre_hook(lambda _, x: longest.append(x[0].shape[-1]))
    audio = Audio(str(tmp_path / "long.wav"))
    codes = tokenizer.encode(audio).ids
    assert len(longest) > 2
    assert max(longest) < 20 * RATE
    handle.remove()
    at_once = tokenizer.model.encode(audio.read()[None], 1)[0]
    assert (
        float((codes != at_once).float().mean()) < 1e-4
    )  # single precision: two codes may be as near as makes no matter


@pytest.fixture(scope="module")
def prior(trained: Path, recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model on the codes."""
    folder = tmp_path_factory.mktemp("prior")
    (folder / "prior.yaml").write_text(
        f"""\
out: {folder / "run"}
data: {{name: audio_files, path: {recordings}}}
front_end: {{name: vqvae_codes, path: {trained}}}
device: cpu
passage: 128
batch_size: 2
segment: 16
eval_passages: 2
scorer: {{name: vq_lm, dim: 8, hidden: 8, codes: 4}}
scorer_train: {{steps: 2, tensorboard: false}}
shape: {{layers: 1, dim: 16, heads: 2}}
train: {{steps: 2, tensorboard: false}}
capacities: [24]
strategies: {{transformer_xl: {{policy: fifo}}, surprise: {{policy: scored}}}}
""",
        encoding="utf-8",
    )
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        assert main(["text_lm", str(folder / "prior.yaml")]) == 0
    return folder / "run"


def test_a_prior_over_the_codes_goes_on_from_a_recording(
    prior: Path, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation = json.loads((prior / "evaluation.json").read_text())
    assert evaluation["memories"]["surprise@24"]["nll"] > 0
    after = format_summary(load(text_lm.Config, prior / "config.yaml"), evaluation)
    assert "bits a sample" in after
    assert f"vqmem generate {prior} --prompt FILE -o out.wav" in after
    asked = ["generate", str(prior), "--prompt", str(recordings / "0.wav"), "--tokens", "30", "--strategy", "surprise"]
    for name in ("one.wav", "other.wav"):
        assert main([*asked, "-o", str(tmp_path / name)]) == 0
    assert "wrote" in capsys.readouterr().out
    sound, rate = soundfile.read(tmp_path / "one.wav")
    assert rate == RATE
    assert len(sound) == (RATE // 2 // 64 + 30) * 64
    assert np.abs(sound).max() > 0
    assert (tmp_path / "one.wav").read_bytes() == (tmp_path / "other.wav").read_bytes()


def test_what_cannot_be_is_refused_in_a_line(
    refused, trained: Path, prior: Path, tiny_run: Path, recordings: Path, config: Path, tmp_path: Path
) -> None:
    prompt = ["--prompt", recordings / "0.wav"]
    assert "give -o out.wav" in refused("generate", prior, *prompt)
    assert "leave out -o" in refused("generate", tiny_run, "--prompt", "x", "-o", tmp_path / "x.wav")
    assert "did you mean" in refused("generate", prior, "--prompt", recordings / "0.wave", "-o", tmp_path / "x.wav")
    (tmp_path / "text.wav").write_text("no sound at all")
    message = refused("generate", prior, "--prompt", tmp_path / "text.wav", "-o", tmp_path / "x.wav")
    assert "is not audio" in message
    assert not (tmp_path / "x.wav").exists()
    assert "reads audio" in refused("vqvae", config, "data=builtin_text", f"out={tmp_path}/a")
    assert "strides" in refused("vqvae", config, "model.strides=[[1]]", f"out={tmp_path}/b")
    assert "set by batch_size and crop" in refused("vqvae", config, "model.step_samples=5", f"out={tmp_path}/b")
    assert "contains another run" in refused("vqvae", config, f"out={trained}", "model.codes=13")
    codes = {"name": "vqvae_codes", "path": str(trained)}
    with pytest.raises(ValueError, match="level 2 is not there"):
        build("front-ends", codes | {"level": 2}).fit([])
    with pytest.raises(ValueError, match="not found"):
        build("front-ends", codes | {"path": str(trained) + "x"}).fit([])
    with pytest.raises(ValueError, match="has no path"):
        build("front-ends", {"name": "vqvae_codes", "path": ""}).fit([])


def test_the_packaged_codes_need_no_training(recordings: Path) -> None:
    tokenizer = build("front-ends", "vqvae_codes").fit([])
    stream = tokenizer.encode(Audio(str(recordings / "0.wav")))
    assert (tokenizer.vocab_size, len(stream)) == (512, -(-RATE // 2 // 128))
    assert len(tokenizer.decode(stream.ids.tolist())) == len(stream) * 128
    assert sum(path.stat().st_size for path in PACKAGED.rglob("*") if path.is_file()) < 3_000_000


def test_crops_are_drawn_alike_and_go_on_where_they_stopped() -> None:
    clips = [torch.arange(1, 100.0), torch.arange(1000, 1005.0)]
    unbroken, part = crop_loader(clips, 4, 10, 3), crop_loader(clips, 4, 10, 3)
    batches = [unbroken.next() for _ in range(400)]
    part.load_state_dict({"drawn": 30})
    assert torch.equal(part.next(), batches[30])
    assert not torch.equal(crop_loader(clips, 4, 10, 3, rank=1).next(), batches[0])
    firsts = {float(row[0]) for batch in batches for row in batch}
    assert {1.0, 90.0} <= firsts <= {*map(float, range(1, 91)), 1000.0}
    short = next(row for batch in batches for row in batch if row[0] == 1000)
    assert short.tolist() == [1000, 1001, 1002, 1003, 1004, 0, 0, 0, 0, 0]


def test_learns_to_rebuild_speakers_it_never_heard(real_data: Path, tmp_path: Path) -> None:
    if not (real_data / "speech").is_dir():
        pytest.skip(f"no speech in {real_data}")
    files = f"{{name: audio_files, path: {real_data}/speech, splits: SPLITS}}"
    splits = '{train: {path: "librispeech_train_clean_100/1[0-2]*"}, dev: {path: "librispeech_test_other/*"}}'
    (tmp_path / "real.yaml").write_text(f"data: {files.replace('SPLITS', splits)}\n", encoding="utf-8")
    small = ["model.strides=[[8,8]]", "model.depth=1", "model.width=24", "model.codes=64", "batch_size=8", "crop=2048"]
    brief = ["train_seconds=60", "eval_clips=6", "eval_seconds=1.5", "samples=0", "train.tensorboard=false"]
    settings = load(Config, tmp_path / "real.yaml", [*small, *brief, f"out={tmp_path}/run", "train.steps=60"])
    figures = run(settings)["levels"]["hop64"]
    first = load(Config, tmp_path / "real.yaml", [*small, *brief, f"out={tmp_path}/first", "train.steps=1"])
    start = run(first)["levels"]["hop64"]
    assert figures["stft_error"] < 0.8 * start["stft_error"]
    assert figures["used"] > 0.5
