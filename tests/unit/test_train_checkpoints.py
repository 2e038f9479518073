"""Checkpoints: what damages them costs little, and what they contain cannot run."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from vqmem.recipes.engine.checkpoint import decode, encode
from vqmem.recipes.engine.distributed import UNSAVED, save_model
from vqmem.recipes.engine.run_dir import is_trained
from vqmem.tests.unit.toy_training import CONFIG, Toy, run, same_weights

pytestmark = pytest.mark.usefixtures("signals_not_ignored")


def test_nothing_is_pickled(tmp_path):
    run(tmp_path)
    kinds = {path.suffix for path in tmp_path.rglob("*") if path.is_file() and path.name != UNSAVED}
    assert kinds == {".json", ".jsonl", ".safetensors"}


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("pattern", ["shared/*", "rank-0.json", "checkpoint.json"])
def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(tmp_path, pattern, capsys):
    first, _ = run(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    newest, older = tmp_path / "checkpoints/step-000000020", tmp_path / "checkpoints/step-000000011"
    flip_a_bit(next(newest.glob(pattern)))
    again, _ = run(tmp_path)
    assert f"checkpoint {newest} is damaged" in capsys.readouterr().err
    assert again.steps == 2 * 9
    assert same_weights(first.module, again.module)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    for path in (newest, older):
        flip_a_bit(next(path.glob(pattern)))
    with pytest.raises(ValueError, match=r"step-000000020 is damaged: .*, and no other is left; delete"):
        run(tmp_path)


@pytest.mark.parametrize("damage", ["emptied", "shortened", "removed", "folder"])
def test_other_damages_of_the_newest_checkpoint(tmp_path, damage):
    """What a crash of the machine leaves of files that were not flushed."""
    first, _ = run(tmp_path)
    newest = tmp_path / "checkpoints/step-000000020"
    for path in sorted(newest.rglob("*.*")):
        if damage == "removed":
            path.unlink()
        elif damage != "folder":
            path.write_bytes(b"" if damage == "emptied" else path.read_bytes()[:-9])
    if damage == "folder":
        shutil.rmtree(newest)
        newest.mkdir()
    again, _ = run(tmp_path)
    assert again.steps == 2 * 9
    assert same_weights(first.module, again.module)


def test_a_later_damaged_checkpoint_does_not_outlive_the_run(tmp_path):
    run(tmp_path)
    flip_a_bit(next((tmp_path / "checkpoints/step-000000020").glob("rank-0.json")))
    with pytest.raises(SystemExit):
        run(tmp_path, stop_at=4)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000000011", "step-000000013"]


def test_what_else_lies_among_the_checkpoints_is_left_alone(tmp_path):
    straight, _ = run(tmp_path / "straight")
    with pytest.raises(SystemExit):
        run(tmp_path / "run", stop_at=4)
    checkpoints = tmp_path / "run" / "checkpoints"
    saved = next(checkpoints.iterdir())
    shutil.copytree(saved, checkpoints / f"{saved.name} copy")
    (checkpoints / "step-notes.txt").write_text("mine")
    (checkpoints / "step-best").mkdir()
    resumed, _ = run(tmp_path / "run")
    assert same_weights(straight.module, resumed.module)
    assert (checkpoints / f"{saved.name} copy" / "checkpoint.json").is_file()
    assert (checkpoints / "step-notes.txt").read_text() == "mine"
    assert (checkpoints / "step-best").is_dir()


def limited(folder: Path, size: int) -> str:
    """The error of a run that can write no file beyond ``size`` bytes, as on a disk that is full."""
    report = folder / "error.txt"
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    report.write_text("")
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            run(folder / "run", replace(CONFIG, save_every=4))
        except BaseException as error:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            report.write_text(f"{type(error).__name__} {error}")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    return report.read_text()


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path):
    with pytest.raises(SystemExit):
        run(tmp_path / "run", replace(CONFIG, save_every=4), stop_at=2 * 6)
    checkpoints = tmp_path / "run/checkpoints"
    files = [path.stat().st_size for path in (checkpoints / "step-000000004").rglob("*") if path.is_file()]
    before = sorted(path.name for path in checkpoints.iterdir())
    for size in sorted({0, 1, 100, *files, *(size - 1 for size in files)}):
        error = limited(tmp_path, size)
        if size >= max(files):
            continue
        assert re.fullmatch(r"OSError cannot write '.*': File too large(; the checkpoints .*)?", error), (size, error)
        assert sorted(path.name for path in checkpoints.iterdir()) == before
    complete, _ = run(tmp_path / "complete", replace(CONFIG, save_every=4))
    resumed, _ = run(tmp_path / "run", replace(CONFIG, save_every=4))
    assert same_weights(complete.module, resumed.module)


@pytest.mark.parametrize("place", ["os.fsync", "vqmem.recipes.engine.checkpoint.save_file", "pathlib.Path.rename"])
def test_a_disk_that_is_full_at_any_moment_of_saving(tmp_path, monkeypatch, place):
    with pytest.raises(SystemExit):
        run(tmp_path, stop_at=2 * 6)

    def full(*_: object, **__: object) -> None:
        if place.endswith("save_file"):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "something")

    with monkeypatch.context() as patch:
        patch.setattr(place, full)
        with pytest.raises(
            OSError, match=r"\Acannot write '.*/step-000000011': No space left on device; the check.*\Z"
        ):
            run(tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000000006"]
    resumed, _ = run(tmp_path)
    assert resumed.steps == 2 * 14


def test_state_that_is_no_value_is_refused():
    with pytest.raises(TypeError, match="cannot checkpoint a Toy"):
        encode({"task": Toy()})


def test_checkpoint_does_not_choose_what_is_made():
    with pytest.raises(ValueError, match=r"subprocess\.Popen, which this program does not know"):
        decode({}, {"record": ["subprocess", "Popen"], "fields": {"args": "true"}}, torch.device("cpu"))


def test_a_model_of_fewer_steps_is_not_taken_for_the_trained_one(tmp_path):
    """Training that went on after the model was saved may have been interrupted at any step."""
    for steps in (20, 24):
        task, _ = run(tmp_path / "training", config=replace(CONFIG, steps=steps))
        assert not is_trained(tmp_path, steps)
        save_model(tmp_path, "toy", {}, task.module)
        assert is_trained(tmp_path, steps)
