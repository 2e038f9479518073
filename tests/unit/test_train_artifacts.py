"""Model folders: what is saved is what is loaded, and what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from vqmem.recipes._artifacts import atomic_write, load_model, read_config, save_model
from vqmem.recipes._progress import Bar, duration, progress


class Tied(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(size, 4)
        self.out = nn.Linear(4, size, bias=False)
        self.out.weight = self.embed.weight
        self.lstm = nn.LSTM(4, 4)
        self.register_buffer("counts", torch.arange(size))


def build(fields: dict[str, Any]) -> nn.Module:
    return Tied(fields["size"])


@pytest.fixture
def saved(tmp_path) -> Path:
    save_model(tmp_path / "model", "toys/tied", {"size": 7}, Tied(7))
    return tmp_path / "model"


def test_round_trip_keeps_ties(tmp_path):
    module = Tied(7)
    save_model(tmp_path, "toys/tied", {"size": 7}, module)
    loaded = load_model(tmp_path, build, kind="toys/tied")
    assert not loaded.training
    assert loaded.out.weight is loaded.embed.weight
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in module.state_dict().items())
    assert read_config(tmp_path)["tied"] == {"out.weight": "embed.weight"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_every_flipped_byte_is_found(saved):
    path = saved / "model.safetensors"
    data = path.read_bytes()
    for at in (0, 9, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
            load_model(saved, build)
    path.write_bytes(data[:-5])
    with pytest.raises(ValueError, match="damaged"):
        load_model(saved, build)


def test_another_architecture_is_named(saved):
    with pytest.raises(ValueError, match="kind 'toys/tied', but 'toys/other' is wanted"):
        load_model(saved, build, kind="toys/other")
    with pytest.raises(ValueError, match=r"another architecture than Tied: of another shape: .*\[7, 4\] for \[9, 4\]"):
        load_model(saved, lambda fields: Tied(9))
    with pytest.raises(ValueError, match=r"missing: weight, bias; unexpected: counts, embed") as caught:
        load_model(saved, lambda fields: nn.Linear(2, 2))
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named(saved):
    with pytest.raises(ValueError, match=r"model folder .*modle' not found; did you mean .*model\?"):
        load_model(saved.with_name("modle"), build)
    (saved / "model.safetensors").rename(saved / "model.safetensor")
    with pytest.raises(ValueError, match=r"did you mean .*model\.safetensor"):
        load_model(saved, build)
    (saved / "config.json").unlink()
    with pytest.raises(ValueError, match=r"model config .*config.json' not found"):
        load_model(saved, build)


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"model_type": "llama"})])
def test_config_of_something_else(saved, text):
    (saved / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config.json"):
        load_model(saved, build)


def test_atomic_write_leaves_the_old_file_on_failure(tmp_path, monkeypatch):
    path = tmp_path / "a" / "file.txt"
    atomic_write(path, "old")

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", broken)
    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, b"new")
    assert path.read_text() == "old"
    assert len(list(path.parent.iterdir())) == 1


def test_progress_without_a_terminal(capsys):
    assert list(progress(iter("abc"), 3, "letters")) == ["a", "b", "c"]
    with Bar("quiet", 1, quiet=True) as bar:
        bar.update(1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "letters  100%  3/3  took 0s\n"
    assert (duration(59.7), duration(130.0), duration(8000.0)) == ("1m00s", "2m10s", "2h13m")
