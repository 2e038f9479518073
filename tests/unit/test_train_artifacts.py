"""Model folders: what is saved is what is loaded, and what is wrong is named."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import re
import struct
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as to_safetensors
from torch import nn
from vqmem.artifacts import load_model, read_config, read_sealed, save_model, seal
from vqmem.files import append_line, atomic_write
from vqmem.recipes.engine.lock import locked
from vqmem.recipes.engine.progress import Bar, duration, progress
from vqmem.registry import load, names
from vqmem.tests.peak import begin_anew, peak_mb


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


def test_every_changed_value_of_a_config_is_found(saved):
    path = saved / "config.json"
    config = json.loads(path.read_text())
    for key in config:
        for changed in ({**config, key: "x"}, {name: value for name, value in config.items() if name != key}):
            path.write_text(json.dumps(changed))
            with pytest.raises(ValueError, match=r"config\.json is damaged or was edited: its own_sha256 is not"):
                load_model(saved, build)
    path.write_text(json.dumps(dict(reversed(config.items()))))  # the same values
    load_model(saved, build)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fields": {}}, r"does not describe a toys/tied \(KeyError: 'size'\)"),
        ({"fields": {"size": "seven"}}, r"does not describe a toys/tied \(TypeError: "),
        ({"fields": {"size": -7}}, r"does not describe a toys/tied \(RuntimeError: "),
        ({"fields": [7]}, "it needs the keys kind, fields, tied, sha256"),
        ({"tied": {"out.weight": "nowhere"}}, r"does not describe a toys/tied \(KeyError: 'nowhere'\)"),
    ],
)
def test_sealed_configs_that_describe_nothing(saved, change, reason):
    path = saved / "config.json"
    path.write_text(json.dumps(seal(json.loads(path.read_text()) | change)))
    with pytest.raises(ValueError, match=reason) as caught:
        load_model(saved, build)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 8,
        b"\xff" * 8 + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 60) + b'{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}'[:60] + b"0000",
        struct.pack("<Q", 71)
        + b'{"a": {"dtype": "F32", "shape": [999999999999], "data_offsets": [0, 4]}}'[:71]
        + b"0000",
        to_safetensors({"embed.weight": torch.zeros(7, 4)}).replace(b"[7,4]", b"[4,8]"),
        to_safetensors({"embed.weight": torch.zeros(7, 4)})[:-4],
        to_safetensors({"embed.weight": torch.zeros(7, 4, dtype=torch.float16)}).replace(b'"F16"', b'"I99"'),
    ],
)
def test_weights_whose_sum_is_right_and_whose_header_is_not(saved, data):
    (saved / "model.safetensors").write_bytes(data)
    config = json.loads((saved / "config.json").read_text()) | {"sha256": hashlib.sha256(data).hexdigest()}
    (saved / "config.json").write_text(json.dumps(seal(config)))
    with pytest.raises(ValueError, match=r"\A.*model\.safetensors does not contain tensors \(.+\); make it again\Z"):
        load_model(saved, build)


def test_a_huge_model_is_compared_without_being_made(saved):
    path = saved / "config.json"
    for size in (10**9, 10**12):
        path.write_text(json.dumps(seal(json.loads(path.read_text()) | {"fields": {"size": size}})))
        before = begin_anew()
        with pytest.raises(ValueError, match=rf"embed.weight \[7, 4\] for \[{size}, 4\]"):
            load_model(saved, build)
        assert peak_mb() - before < 400
    with pytest.raises(ValueError, match=r"does not describe a toys/tied .*many more tensors than the weights"):
        load_model(saved, lambda fields: nn.Sequential(*(nn.Linear(1, 1) for _ in range(10**9))))


class Computing(nn.Module):
    """Needs the values of what it makes, and more memory than it saves."""

    def __init__(self) -> None:
        super().__init__()
        places = torch.arange(9)
        assert torch.linspace(0, 1, int(places.max()))[-1] == 1
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("table", torch.ones(1 << 27).cumsum(0), persistent=False)
        self.register_buffer("sum", torch.tensor(float(places.sum())))


def test_builders_that_compute(tmp_path):
    save_model(tmp_path, "toys/computing", {}, Computing())
    loaded = load_model(tmp_path, lambda fields: Computing())
    assert loaded.sum == 36
    assert loaded.table[1] == 2
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))


@pytest.mark.parametrize("name", names("scorers"))
def test_scorers_are_not_made_in_the_size_that_a_config_asks_for(tmp_path, name):
    kind = load("scorers", name)
    sizes = [field.name for field in fields(kind) if field.type == "int"]
    small = {size: 4 for size in sizes if size in ("dim", "hidden", "codes")}
    save_model(tmp_path, "toys", small, kind(**small).build(11))
    load_model(tmp_path, lambda fields: kind(**fields).build(11))
    before = begin_anew()
    for change in [{size: 40_000} for size in small]:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(seal(json.loads(path.read_text()) | {"fields": small | change})))
        with pytest.raises(ValueError, match=r"\A.*(another architecture|does not describe).*\Z"):
            load_model(tmp_path, lambda fields: kind(**fields).build(11))
    assert peak_mb() - before < 800


def test_a_kind_stands_for_those_below_it(saved):
    load_model(saved, build, kind="toys")
    with pytest.raises(ValueError, match="contains a model of kind 'toys/tied', but 'scorers' is wanted"):
        load_model(saved, build, kind="scorers")


def test_a_seal_is_of_what_json_makes_of_the_values(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(seal({"b": (1, 2.5), "a": {1: None}})))
    values = read_sealed(tmp_path / "x.json")
    assert values == seal({"a": {"1": None}, "b": [1, 2.5]})
    assert seal(values) == values


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


def test_what_cannot_be_written_is_named_as_it_was_asked_for(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    refused = {
        tmp_path / "folder": "it is a folder; give the name of a file",
        tmp_path / "file" / "page.html": f"'{tmp_path}/file' is a file, where a folder is needed",
        tmp_path / "file" / "deep" / "page.html": f"'{tmp_path}/file' is a file, where a folder is needed",
        tmp_path / ("n" * 300): "File name too long",
    }
    for path, reason in refused.items():
        with pytest.raises(OSError, match=re.escape(f"cannot write '{path}': {reason}")):
            atomic_write(path, "new")
    for number, reason in {errno.ENOSPC: "No space left on device", errno.EACCES: "Permission denied"}.items():

        def broken(*_: object, number: int = number, **__: object) -> None:
            raise OSError(number, os.strerror(number), f"{tmp_path}/.page.html-temporary")

        monkeypatch.setattr("tempfile.mkstemp", broken)
        with pytest.raises(OSError, match=re.escape(f"cannot write '{tmp_path}/page.html': {reason}")):
            atomic_write(tmp_path / "page.html", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_added_lines_are_complete(tmp_path):
    path = tmp_path / "results.jsonl"
    append_line(path, "1")
    path.write_text("1\nhalf")
    append_line(path, "2")
    append_line(path, "3")
    assert path.read_text() == "1\nhalf\n2\n3\n"


def test_lines_of_several_processes_do_not_mix(tmp_path):
    path = tmp_path / "results.jsonl"

    def write() -> None:
        for i in range(30):
            append_line(path, f"{i % 10}" * 100_000)

    writers = [multiprocessing.get_context("fork").Process(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = path.read_text().split()
    assert len(lines) == 90
    assert all(line == line[0] * 100_000 for line in lines)


def test_one_run_at_a_time(tmp_path, monkeypatch):
    folder = tmp_path / "new" / "run"
    with locked(folder), locked(tmp_path / "other"):
        with pytest.raises(ValueError, match="run is in use by another run; wait for its end, or give another `out`"):
            locked(folder).__enter__()
        monkeypatch.setenv("RANK", "1")
        with locked(folder):  # a process of the same run
            pass
        monkeypatch.delenv("RANK")
    with locked(folder):
        pass


def test_progress_without_a_terminal(capsys):
    assert list(progress(iter("abc"), 3, "letters")) == ["a", "b", "c"]
    with Bar("quiet", 1, quiet=True) as bar:
        bar.update(1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "letters  100%  3/3  took 0s\n"
    assert (duration(59.7), duration(130.0), duration(8000.0)) == ("1m00s", "2m10s", "2h13m")
