"""The training loop: it learns, stops, goes on to the bit, and refuses what does not fit."""

from __future__ import annotations

import copy
import errno
import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from vqmem.models.loss import Loss
from vqmem.recipes.engine.task import TrainConfig
from vqmem.recipes.engine.trainer import NonFiniteError, learning_rate, train
from vqmem.tests.unit.toy_training import CONFIG, Stream, Toy, run, same_weights

pytestmark = pytest.mark.usefixtures("signals_not_ignored")


def test_the_bar_names_what_a_task_counts(tmp_path, capsys):
    run(tmp_path / "tokens")
    assert re.search(r"20/20  loss \d\.\d{4}  [\d,]+ tokens/s", capsys.readouterr().err)

    class Writer(Toy):
        token_unit = "letters"

    train(Writer(), Stream(), CONFIG, tmp_path / "letters")
    assert re.search(r"20/20  loss \d\.\d{4}  [\d,]+ letters/s", capsys.readouterr().err)


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
    message = "continuing from step 20 to 30, not 20; the learning rate follows the schedule of 30 steps from here"
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


@pytest.mark.parametrize(
    ("spoil_at", "step", "saved"),
    [
        (23, 12, ["step-000000011"]),
        (13, 7, []),  # seen when step 8 is logged
        (21, 11, []),  # seen before step 11 is saved
        (27, 14, ["step-000000011"]),  # seen before step 15 is evaluated
    ],
)
def test_divergence_names_the_step_and_saves_nothing(tmp_path, spoil_at, step, saved):
    with pytest.raises(
        NonFiniteError, match=rf"loss is nan at step {step};.*last checkpoint is .*{saved[0] if saved else None}\Z"
    ):
        run(tmp_path, spoil_at=spoil_at)
    assert [path.name for path in (tmp_path / "checkpoints").glob("*")] == saved
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert max((line["step"] for line in lines), default=0) < step


def test_another_run_in_the_folder_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match=r"another run \(train.lr 0.01 -> 0.5\)"):
        run(tmp_path, replace(CONFIG, lr=0.5))
    toy = Toy()
    toy.module.out = nn.Linear(8, 12)
    with pytest.raises(ValueError, match="another model"):
        train(toy, Stream(), CONFIG, tmp_path)


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
