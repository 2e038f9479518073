"""The training loop: it learns, stops, goes on to the bit, and refuses what does not fit."""

from __future__ import annotations

import copy
import errno
import json
import os
import re
import resource
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from vqmem.models.loss import Loss
from vqmem.recipes.engine.checkpoint import decode, encode
from vqmem.recipes.engine.task import TrainConfig
from vqmem.recipes.engine.trainer import NonFiniteError, learning_rate, seed_all, train

CONFIG = TrainConfig(
    steps=20, lr=1e-2, warmup=3, log_every=4, save_every=11, eval_every=5, device="cpu", tensorboard=False, accumulate=2
)


@pytest.fixture(autouse=True)
def _signals_are_not_ignored() -> Iterator[None]:
    """As they are where the tests run in the background or under ``nohup``, and training respects that."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


class Hidden(NamedTuple):
    now: Tensor


@dataclass(frozen=True)
class Memory:
    hidden: Hidden
    filled: Tensor | None
    seen: int


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.cell = nn.GRUCell(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.2)
        self.out = nn.Linear(8, 11)
        self.out.weight = self.embed.weight
        self.unused = nn.Linear(2, 2)


class Toy:
    """A recurrent net whose state, buffers and dropout all matter to the result."""

    def __init__(self, stop_at: int = 0, number: int = signal.SIGTERM, spoil_at: int = 0) -> None:
        seed_all(3)
        self.module = Net()
        self.stop_at, self.number, self.spoil_at, self.steps = stop_at, number, spoil_at, 0

    def initial_state(self) -> Memory:
        return Memory(Hidden(torch.zeros(4, 8)), None, 0)

    def step(self, batch: Tensor, state: Memory) -> tuple[Loss, Memory]:
        self.steps += 1
        if self.stop_at and self.steps == self.stop_at:
            os.kill(os.getpid(), self.number)
        net = self.module
        hidden = net.cell(net.embed(batch), state.hidden.now)
        logits = net.out(net.drop(net.norm(hidden)) + torch.rand(4, 1))
        value = nn.functional.cross_entropy(logits, batch)
        if self.steps == self.spoil_at:
            value = value * float("nan")
        metrics = {"tokens": 4.0, "filled": float(state.filled is not None)}
        return Loss(value, metrics), Memory(Hidden(hidden.detach()), hidden.detach() > 0, state.seen + 4)


class Stream:
    def __init__(self) -> None:
        self.position = 0

    def next(self) -> Tensor:
        self.position += 1
        return torch.arange(4).mul(self.position).remainder(11)

    def state_dict(self) -> dict:
        return {"position": self.position}

    def load_state_dict(self, state: dict) -> None:
        self.position = state["position"]


def run(folder: Path, config: TrainConfig = CONFIG, best_by: str = "", **kinds) -> tuple[Toy, dict[str, float]]:
    toy = Toy(**kinds)
    return toy, train(toy, Stream(), config, folder, evaluate=lambda: {"dev": float(torch.rand(()))}, best_by=best_by)


def same_weights(left: nn.Module, right: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left.state_dict().values(), right.state_dict().values(), strict=True))


def test_loss_falls_and_the_log_is_complete(tmp_path):
    _, figures = run(tmp_path, replace(CONFIG, steps=200))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert losses[-1] < 0.5 * losses[0]
    assert len(losses) == 50
    assert lines[0]["tokens"] == 4 * 4 * 2
    assert figures["loss"] == losses[-1]
    assert {"dev", "gradient_norm", "tokens_per_second"} <= figures.keys()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_interrupted_run_resumes_to_the_bit(tmp_path, number, capsys):
    unbroken, figures = run(tmp_path / "unbroken")
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "parts", stop_at=18, number=number)
    assert stopped.value.code == 128 + number
    assert "stopped at step 9 of 20" in capsys.readouterr().err
    resumed, again = run(tmp_path / "parts")
    assert resumed.steps == 2 * (20 - 9)
    assert same_weights(unbroken.module, resumed.module)
    assert (tmp_path / "parts/metrics.jsonl").read_bytes() == (tmp_path / "unbroken/metrics.jsonl").read_bytes()
    assert {**figures, "seconds": 0, "tokens_per_second": 0} == {**again, "seconds": 0, "tokens_per_second": 0}


def test_killed_run_resumes_to_the_bit(tmp_path):
    unbroken, _ = run(tmp_path / "unbroken")
    child = os.fork()
    if child == 0:  # dies in step 14, after the checkpoint of step 11 and the log line of step 12
        run(tmp_path / "parts", stop_at=27, number=signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    with (tmp_path / "parts/metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "half a li')
    resumed, _ = run(tmp_path / "parts")
    assert resumed.steps == 2 * 9
    assert same_weights(unbroken.module, resumed.module)
    assert (tmp_path / "parts/metrics.jsonl").read_bytes() == (tmp_path / "unbroken/metrics.jsonl").read_bytes()


def test_finished_run_says_so_and_loads(tmp_path, capsys):
    first, figures = run(tmp_path)
    second, again = run(tmp_path)
    assert second.steps == 0
    assert again == figures
    assert same_weights(first.module, second.module)
    assert "finished earlier" in capsys.readouterr().err


def test_steps_may_be_added(tmp_path, capsys):
    run(tmp_path)
    longer = replace(CONFIG, steps=30)
    again, _ = run(tmp_path, longer)
    assert again.steps == 2 * 10
    message = "going on from step 20 to 30, not 20; the learning rate follows the schedule of 30 steps from here"
    assert message in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "evaluation"] == [5, 10, 15, 20, 25, 30]
    assert run(tmp_path, longer)[0].steps == 0
    assert "going on" not in capsys.readouterr().err
    with pytest.raises(
        ValueError, match=r"\Asteps = 29 is below the 30 that are done in .*; give more, or use another"
    ):
        run(tmp_path, replace(CONFIG, steps=29))


def test_steps_of_an_unfinished_run_may_change(tmp_path):
    with pytest.raises(SystemExit):
        run(tmp_path / "a", stop_at=2 * 7)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    fewer, _ = run(tmp_path / "a", replace(CONFIG, steps=9))
    assert fewer.steps == 2 * 2
    more, _ = run(tmp_path / "b", replace(CONFIG, steps=40))
    assert more.steps == 2 * 33
    finished, _ = run(tmp_path / "c", replace(CONFIG, steps=40))
    assert not same_weights(more.module, finished.module)  # the first steps followed another schedule
    shutil.rmtree(tmp_path / "b")
    with pytest.raises(SystemExit):
        run(tmp_path / "b", stop_at=2 * 7)
    with pytest.raises(SystemExit):
        run(tmp_path / "b", replace(CONFIG, steps=40), stop_at=2 * 9)
    in_parts, _ = run(tmp_path / "b", replace(CONFIG, steps=40))
    assert same_weights(more.module, in_parts.module)


def test_nothing_is_pickled(tmp_path):
    run(tmp_path)
    kinds = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert kinds == {".json", ".jsonl", ".safetensors"}


class Counter(nn.Module):
    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(11))


class Counting:
    def __init__(self) -> None:
        self.module = Counter()

    def initial_state(self) -> None:
        return None

    def step(self, batch: Tensor, state: None) -> tuple[Loss, None]:
        self.module.counts += torch.bincount(batch, minlength=11)
        return Loss(torch.tensor(1.0)), None


def test_task_without_gradient(tmp_path):
    task = Counting()
    assert train(task, Stream(), CONFIG, tmp_path)["loss"] == 1.0
    again = Counting()
    train(again, Stream(), CONFIG, tmp_path)
    assert again.module.counts.sum() == 20 * 2 * 4


def test_divergence_names_the_step_and_saves_nothing(tmp_path):
    with pytest.raises(NonFiniteError, match=r"loss is nan at step 12;.*step-000000011"):
        run(tmp_path, spoil_at=23)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000000011"]


def test_another_run_in_the_folder_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match=r"another run \(train.lr 0.01 -> 0.5\)"):
        run(tmp_path, replace(CONFIG, lr=0.5))
    toy = Toy()
    toy.module.out = nn.Linear(8, 12)
    with pytest.raises(ValueError, match="another model"):
        train(toy, Stream(), CONFIG, tmp_path)


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


def chosen_by(folder: Path, figures: dict[int, float], config: TrainConfig = CONFIG, **kinds) -> tuple[Toy, dict]:
    """A run whose evaluations give ``figures``, and the weights at each of them."""
    toy, seen = Toy(**kinds), {}

    def evaluate() -> dict[str, float]:
        step = 5 * (len(list((folder / "seen").glob("*"))) + 1)
        (folder / "seen").mkdir(parents=True, exist_ok=True)
        (folder / "seen" / str(step)).touch()
        seen[step] = copy.deepcopy(toy.module)
        return {"dev": figures[step]}

    train(toy, Stream(), config, folder / "run", evaluate=evaluate, best_by="dev")
    return toy, seen


NAN = float("nan")


@pytest.mark.parametrize(
    ("figures", "best", "why"),
    [
        ({5: 3.0, 10: 1.0, 15: 2.0, 20: 9.0}, 10, "step 10, better than those of step 20: dev 1 on dev was the lowest"),
        ({5: 3.0, 10: 1.0, 15: 1.0, 20: NAN}, 15, "step 15, better than those of step 20"),
        ({5: 3.0, 10: 2.5, 15: 2.0, 20: 1.25}, 20, "step 20, the last ones: dev 1.25"),
        ({5: NAN, 10: NAN, 15: float("inf"), 20: NAN}, 20, "kept the last weights, as no evaluation gave a finite dev"),
    ],
)
def test_the_best_evaluation_is_kept(tmp_path, figures, best, why, capsys):
    toy, seen = chosen_by(tmp_path / "a", figures)
    assert same_weights(toy.module, seen[best])
    assert why in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "a/run/metrics.jsonl").read_text().splitlines()]
    assert [line["best_step"] for line in lines if line["kind"] == "best"] == ([] if "no evaluation" in why else [best])
    with pytest.raises(SystemExit):
        chosen_by(tmp_path / "b", figures, stop_at=2 * 13)  # between the evaluations of steps 10 and 15
    again, _ = chosen_by(tmp_path / "b", figures)
    assert same_weights(toy.module, again.module)
    assert (tmp_path / "b/run/metrics.jsonl").read_bytes() == (tmp_path / "a/run/metrics.jsonl").read_bytes()
    finished, _ = chosen_by(tmp_path / "b", figures)
    assert finished.steps == 0
    assert same_weights(toy.module, finished.module)


def test_a_single_evaluation_keeps_the_last_weights(tmp_path, capsys):
    once, _ = run(tmp_path / "once", replace(CONFIG, eval_every=0), best_by="dev")
    plain, _ = run(tmp_path / "plain", replace(CONFIG, eval_every=0))
    assert same_weights(once.module, plain.module)
    assert "kept" not in capsys.readouterr().err


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


def test_ignored_signals_stay_ignored(tmp_path):
    """As under ``nohup``."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        toy, _ = run(tmp_path, stop_at=18, number=signal.SIGHUP)
        assert toy.steps == 40
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_training_goes_on_after_the_terminal_is_closed(tmp_path, monkeypatch):
    def closed(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("sys.stderr.write", closed)
    with pytest.raises(SystemExit):
        run(tmp_path, stop_at=18, number=signal.SIGHUP)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000000009"]


def test_tensorboard_by_default(tmp_path):
    run(tmp_path, replace(CONFIG, steps=2, tensorboard=True))
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_learning_rate_warms_up_and_falls():
    rates = [learning_rate(step, CONFIG) for step in range(21)]
    assert rates[0] == pytest.approx(CONFIG.lr / 3)
    assert max(rates) == rates[2] == CONFIG.lr
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[20] == pytest.approx(CONFIG.lr * CONFIG.min_lr_ratio)


def test_bad_config_is_refused():
    with pytest.raises(ValueError, match="accumulate = 0 must be at least 1"):
        TrainConfig(accumulate=0)


def test_state_that_is_no_value_is_refused():
    with pytest.raises(TypeError, match="cannot checkpoint a Toy"):
        encode({"task": Toy()})


def test_checkpoint_does_not_choose_what_is_made():
    with pytest.raises(ValueError, match=r"subprocess\.Popen, which this program does not know"):
        decode({}, {"record": ["subprocess", "Popen"], "fields": {"args": "true"}}, torch.device("cpu"))
