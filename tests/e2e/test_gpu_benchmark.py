"""The benchmark of a GPU in miniature: every phase ends, all models read the same tokens, and it writes a result."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
MODELS = ["mixed", "transformer_xl", "surprise", "compressive"]


@pytest.mark.timeout(900)
def test_in_miniature_all_phases_end_and_write_a_result(tmp_path):
    """In another process, as one calls it."""
    arguments = ["--quick", "--json", "--seconds", "3000", "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = importlib.import_module("vqmem.benchmarks._results").read_result(tmp_path / "gpu.json")
    assert json.loads(done.stdout) == result.values
    phases = ["matmul", "tests", "scorer", "warm-up", "training", "reading", "learned"]
    assert {name: phase["state"] for name, phase in result.values["Phases"].items()} == dict.fromkeys(phases, "done")
    assert not result.notes
    training = result.values["Training"]
    assert list(training) == MODELS
    assert {(row["steps"], row["tokens"]) for row in training.values()} == {(5, 5 * 4 * 16)}
    for row in training.values():
        assert row["tokens/s"] > 0
        assert 0 <= row["% of the peak, by 6 N"] <= row["% of the peak, counted"] < 100
    heading = "bits per byte (lower is better)"
    native, mixed = (result.values[f"{heading}, {how} training"] for how in ("native", "mixed"))
    assert list(native) == ["transformer_xl @ 16", "surprise @ 16", "compressive @ 16"]
    assert {f"{name} @ {size}" for name in MODELS[1:] for size in (16, 32)} | {"learned @ 16"} <= {*mixed}
    for how, table in (("native", native), ("mixed", mixed)):
        assert table["transformer_xl @ 16"]["against transformer_xl"] == 0
        for name, cells in result.intervals[f"{heading}, {how} training"].items():
            for column, (low, high) in cells.items():
                assert low <= table[name][column] <= high
    assert result.machine["device"] == "CPU, in miniature: no evidence"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_card_it_says_so_in_one_line(tmp_path, capsys):
    assert importlib.import_module("vqmem.benchmarks.gpu").main(["--out", str(tmp_path)]) == 2
    line = "gpu.py: no CUDA device here; run it where there is one, or give --quick\n"
    assert capsys.readouterr() == ("", line)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("winner", "message"), [("suprise", "did you mean surprise"), ("compressive", "is trained anyway")]
)
def test_a_winner_that_cannot_be_is_named(tmp_path, winner, message, capsys):
    assert importlib.import_module("vqmem.benchmarks.gpu").main(["--quick", "--winner", winner, "--out", "x"]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def session(tmp_path):
    gpu = importlib.import_module("vqmem.benchmarks._gpu")
    flags = SimpleNamespace(quick=True, save=False, seconds=100.0, split="dev", winner="surprise", out=tmp_path / "out")
    config = gpu.make_config(flags, gpu.QUICK, tmp_path / "models")
    return gpu.Session(flags, gpu.QUICK, config, tmp_path, gpu.time.monotonic() + 100)


def test_a_phase_without_time_is_skipped_and_one_that_fails_costs_no_other(session, capsys):
    gpu = importlib.import_module("vqmem.benchmarks._gpu")

    def fail() -> None:
        raise RuntimeError("out of memory\nin many lines")

    assert gpu.run_phase(session, "one", 1000, fail) is None
    assert gpu.run_phase(session, "two", 1, fail) is None
    assert gpu.run_phase(session, "three", 1, lambda: 3) == 3
    phases = json.loads((session.flags.out / "gpu.json").read_text())["values"]["Phases"]
    assert [phase["state"] for phase in phases.values()] == ["skipped", "failed", "done"]
    assert session.notes[0].startswith("one: skipped, 100 s are left and it takes 1000")
    assert session.notes[1] == "two: failed (RuntimeError: out of memory)"


def test_the_model_of_the_card_has_about_40_million_parameters_and_equal_batches():
    gpu = importlib.import_module("vqmem.benchmarks._gpu")
    flags = SimpleNamespace(quick=False, data=Path("data"), split="dev", winner="h2o")
    config = gpu.make_config(flags, gpu.FULL, Path("out"))
    from vqmem.models.memory_transformer import MemoryTransformer, TransformerConfig

    shape = config.lm.shape
    with torch.device("meta"):
        model = MemoryTransformer(TransformerConfig(4096, shape.layers, shape.dim, shape.heads, shift=shape.shift))
    assert sum(weight.numel() for weight in model.parameters()) == pytest.approx(40e6, rel=0.02)
    assert (config.lm.compile, config.lm.dtype, shape.layers) == (True, "bfloat16", 12)
    assert config.native.strategies == ("transformer_xl", "compressive", "h2o")
    assert gpu.FULL.warm_up <= min(config.lm.train.warmup, config.native.train.warmup)
    assert gpu.FULL.warm_up % config.lm.train.log_every == 0
