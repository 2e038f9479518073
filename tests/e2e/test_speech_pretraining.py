"""A run of the HuBERT recipe on files: figures, what is left out, stopping and going on, what it is good for."""

import json
import multiprocessing
import os
import shutil
import signal

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from vqmem.cli import main
from vqmem.data.reading.audio import Audio
from vqmem.recipes.engine.config import load
from vqmem.recipes.speech_pretraining import recipe
from vqmem.registry import build

MODEL = """
  extractor_mode: layer_norm
  extractor_conv_layer_config: [[8, 20, 20], [8, 8, 4], [8, 4, 4]]
  encoder_embed_dim: 16
  encoder_pos_conv_kernel: 4
  encoder_num_layers: 2
  encoder_num_heads: 2
  encoder_ff_interm_features: 16
  encoder_layer_drop: 0.5
  final_dim: 8
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tones that change every 0.1 s, their labels, and three files that cannot be used."""
    folder, draw = tmp_path_factory.mktemp("speech"), np.random.default_rng(0)
    lines = ["name\tstart\tend\tphone"]
    for number in range(8):
        split = "train" if number < 5 else "dev"
        tones = draw.integers(0, 4, 9 + number)
        time = np.arange(1600) / 16000
        samples = np.concatenate([0.3 * np.sin(2 * np.pi * 300 * (2 + tone) * time) for tone in tones])
        (folder / split).mkdir(exist_ok=True)
        soundfile.write(folder / split / f"{number}.flac", samples, 16000)
        spans = [f"{split}/{number}.flac\t{i / 10}\t{(i + 1) / 10}\ttone {tone}" for i, tone in enumerate(tones)]
        lines += spans if split == "dev" else []
    (folder / "train" / "text.wav").write_text("not a recording")
    soundfile.write(folder / "train" / "short.wav", np.ones(399) / 9, 16000)
    soundfile.write(folder / "train" / "silent.wav", np.zeros(16000), 16000)
    (folder / "phones.tsv").write_text("\n".join(lines) + "\n")
    (folder / "config.yaml").write_text(
        f"data: {{name: audio_files, path: {folder}}}\n"
        "targets: {name: hubert_units, features: mfcc39, clusters: 6}\n"
        f"model: {MODEL}\n"
        f"batch_size: 3\ncrop: 0.6\nlabels: {folder / 'phones.tsv'}\nprobe_clusters: 5\n"
        "train: {steps: 6, lr: 0.003, warmup: 2, log_every: 2, eval_every: 3, save_every: 3, tensorboard: false}\n"
    )
    return folder


@pytest.fixture(scope="module")
def finished(folder):
    """A finished run."""
    out = folder / "run"
    assert main(["speech_pretraining", str(folder / "config.yaml"), f"out={out}"]) == 0
    return out


def test_a_run_reports_figures_and_what_was_left_out(finished):
    figures = json.loads((finished / "evaluation.json").read_text())
    assert 0 <= figures["masked_accuracy"] <= 1
    assert 1 <= figures["units_used"] <= 6
    assert 1 <= figures["target_unit_perplexity"] <= figures["target_units_used"] <= 6
    assert set(figures["layers"]) == {"layer_1", "layer_2"}
    assert all(0 <= value <= 1 for layer in figures["layers"].values() for value in layer.values())
    assert len(figures["skipped"]) == 3
    assert any("399 samples" in line for line in figures["skipped"])
    assert any("silent" in line for line in figures["skipped"])
    lines = [json.loads(line) for line in (finished / "model/training/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "evaluation"] == [3, 6]
    assert {"masked_accuracy", "layer_1/pnmi", "layer_2/boundary_f1", "unit_perplexity"} < set(lines[-2])
    assert lines[-1].keys() == {"step", "kind", "best_step", "masked_nll"}


def test_a_stopped_run_goes_on_to_the_bit(folder, finished, monkeypatch):
    calls = _stop_at(4, monkeypatch)
    config = load(recipe.Config, folder / "config.yaml", [f"out={folder / 'parts'}"])
    with pytest.raises(SystemExit):
        recipe.run(config)
    recipe.run(config)
    assert len(calls) == 6
    _are_equal(finished, folder / "parts")


def _stop_at(step, monkeypatch):
    """Send SIGTERM in this step. Returns a list with one item a step."""
    original, calls = recipe.PretrainingTask.step, []

    def stopping(self, batch, state):
        calls.append(1)
        if len(calls) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, state)

    monkeypatch.setattr(recipe.PretrainingTask, "step", stopping)
    return calls


def _are_equal(unbroken, parts):
    weights = [load_file(run / "model" / "model.safetensors") for run in (unbroken, parts)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    logs = [(run / "model/training/metrics.jsonl").read_bytes() for run in (unbroken, parts)]
    assert logs[0] == logs[1]


def test_workers_change_nothing_and_report_a_damaged_recording_in_one_line(
    folder, finished, monkeypatch, capfd, tmp_path
):
    for split in ("train", "dev"):
        shutil.copytree(folder / split, tmp_path / split)
    command = ["speech_pretraining", str(folder / "config.yaml"), f"data.path={tmp_path}", f"out={tmp_path / 'run'}"]
    _stop_at(4, monkeypatch)
    with pytest.raises(SystemExit):
        main([*command, "workers=1"])
    intact = {path: path.read_bytes() for path in (tmp_path / "train").glob("*.flac")}
    for path, data in intact.items():
        path.write_bytes(data[: len(data) // 2])
    capfd.readouterr()
    assert main([*command, "workers=1"]) == 2
    *lines, last = capfd.readouterr().err.strip().split("\n")
    assert last.startswith("vqmem: ")
    assert ".flac" in last
    assert not any("Traceback" in line for line in lines)
    for path, data in intact.items():
        path.write_bytes(data)
    assert main([*command, "workers=2"]) == 0
    assert multiprocessing.active_children() == []
    _are_equal(finished, tmp_path / "run")


def test_its_layers_are_features_of_units_and_targets(folder, finished):
    features = {"name": "hubert", "folder": str(finished), "layer": 2}
    units = build("front-ends", {"name": "hubert_units", "features": features, "clusters": 4})
    audio = [Audio(str(folder / "train" / f"{number}.flac")) for number in range(3)]
    stream = units.fit(audio).encode(audio[0])
    assert len(stream) == 1 + (9 * 1600 - 400) // 320
    second = [f"out={folder / 'second'}", "train.steps=1", f"targets.features={{name: hubert, folder: {finished}}}"]
    assert main(["speech_pretraining", str(folder / "config.yaml"), *second]) == 0


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["targets.deduplicate=true"], "one unit every 320 samples, repeats included"),
        (["targets.cluster=7"], "did you mean targets.clusters"),
        (["targets.clusters=1000"], "fewer than 1000 clusters"),
        (["probe_clusters=1000"], "probe_clusters = 1000 is more than the"),
        (["labels=nowhere.tsv"], "no such file or folder: 'nowhere.tsv'"),
        (["targets.features={name: hubert, folder: nowhere}"], "'nowhere' not found"),
        (["model.encoder_num_head=2"], "did you mean model.encoder_num_heads"),
        (["data.splits={train: {path: '*'}}"], "the split dev of the data has no recordings"),
    ],
)
def test_mistakes_are_one_line(folder, overrides, reason, capsys, tmp_path):
    command = ["speech_pretraining", str(folder / "config.yaml"), f"out={tmp_path / 'run'}"]
    assert main([*command, *overrides]) == 2
    message = capsys.readouterr().err.strip().split("\n")[-1]
    assert message.startswith("vqmem: ")
    assert reason in message
    assert not (tmp_path / "run" / "model").exists()


def test_labels_of_other_clips_are_an_error_before_training(folder, tmp_path, capsys):
    (tmp_path / "phones.tsv").write_text("name\tstart\tend\tphone\nother.flac\t0\t1\tAH\n")
    asked = [f"out={tmp_path / 'run'}", f"labels={tmp_path / 'phones.tsv'}"]
    assert main(["speech_pretraining", str(folder / "config.yaml"), *asked]) == 2
    assert "labels has none of the 3 dev clips, the first of which is called 'dev/5.flac'" in capsys.readouterr().err
    assert not (tmp_path / "run" / "model").exists()


def test_a_damaged_cache_of_units_is_an_error(folder, finished, capsys):
    path = finished / "units" / "dev.safetensors"
    intact = path.read_bytes()
    path.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))
    try:
        assert main(["speech_pretraining", str(folder / "config.yaml"), f"out={finished}"]) == 2
        assert "dev.safetensors is damaged" in capsys.readouterr().err
    finally:
        path.write_bytes(intact)


def test_features_refuse_layers_that_are_not_there(finished):
    with pytest.raises(ValueError, match="has 2 layers, not 3; give 1 to 2"):
        build("features", {"name": "hubert", "folder": str(finished), "layer": 3}).build()
    with pytest.raises(ValueError, match="layer = 0 must be at least 1"):
        build("features", {"name": "hubert", "folder": str(finished), "layer": 0})
