"""Bars: one inside another, short jobs, which of how many models, and results on standard output."""

from __future__ import annotations

import io
import json
import re

import pytest
from rich.console import Console
from vqmem.cli import main
from vqmem.recipes.engine import progress as module
from vqmem.recipes.engine.progress import Bar, model_of, progress


@pytest.fixture
def terminal(monkeypatch):
    """What is written to a terminal, without its control sequences."""
    written = io.StringIO()
    monkeypatch.setattr(module, "Console", lambda stderr: Console(file=written, force_terminal=True, width=100))
    return lambda: re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", written.getvalue())


def test_a_bar_in_a_bar_shares_its_display_and_disappears(terminal):
    with Bar("training", 10) as outer:
        outer.update(5, "loss 1.5")
        for _ in progress("ab", 2, "evaluating"):
            assert [task.description for task in outer.display.tasks] == ["training", "evaluating"]
            outer.display.refresh()
        assert [task.description for task in outer.display.tasks] == ["training"]
        outer.update(10)
    shown = terminal()
    assert re.search(r"training +\S+ +5/10 loss 1.5 .*\n.*evaluating +\S+ +0/2", shown)
    assert re.search(r"10/10 +00:00\s*\Z", shown)
    with Bar("next", 1) as bar:  # in its own display
        assert bar.display is not outer.display


def test_an_inner_bar_that_is_left_open_does_not_keep_the_display(terminal):
    left_open = progress("ab", 2, "inner")
    with Bar("outer", 1) as outer:
        next(left_open)
    with Bar("next", 1) as bar:
        assert bar.display is not outer.display
        left_open.close()
        with Bar("inner", 1) as inner:
            assert inner.display is bar.display


def test_a_transient_bar_prints_nothing_of_a_short_job(capsys, monkeypatch):
    list(progress("abc", 3, "evaluating", transient=True))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(module, "PLAIN_EVERY", 0.0)
    list(progress("ab", 2, "evaluating", transient=True))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "evaluating   50%  1/2"
    assert re.fullmatch(r"evaluating  100%  2/2  took \d+s", lines[1])
    list(progress("a", None, "documents", transient=True))
    assert capsys.readouterr().err == "documents  1\n"


def test_the_time_left_is_that_of_this_process(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module, "Console", lambda stderr: Console(stderr=stderr, get_time=lambda: now[0]))
    monkeypatch.setattr(module, "PLAIN_EVERY", 0.0)
    with Bar("training", 1000, start=600) as bar:
        for step in (610, 620):
            now[0] += 30.0
            bar.update(step, "loss 2")
    assert (
        capsys.readouterr().err == "training   61%  610/1000  loss 2\ntraining   62%  620/1000  loss 2  19m00s left\n"
    )


def test_descriptions_say_which_of_how_many_models(capsys):
    with model_of(1, 1), model_of(2, 2):
        list(progress("a", 1, "scorer"))
    with model_of(3, 6), model_of(1, 2):  # a comparison trains all parts of its third model
        list(progress("a", 1, "scorer"))
    list(progress("a", 1, "scorer"))
    lines = [line.partition("  ")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["model 2 of 2: scorer", "model 3 of 6: scorer", "scorer"]


def test_results_go_to_standard_output_as_they_are(terminal, capsys):
    result = json.dumps({"word": "x" * 200}) + "\n"
    with Bar("transcribing", 2, transient=True) as bar:
        bar.update(1)
        bar.write(result)
        print("a line")
        bar.update(2)
    assert capsys.readouterr().out == result + "a line\n"
    assert "transcribing" in terminal()


def test_other_processes_show_nothing(terminal, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with Bar("training", 1) as bar:
        bar.say("hello")
        bar.update(1)
    assert terminal() == ""
    assert capsys.readouterr().err == ""


def test_a_comparison_shows_its_models_and_evaluations(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "PLAIN_EVERY", 0.0)
    small = ["passage=96", "batch_size=4", "segment=16", "eval_passages=3", "train_tokens=3000", "train.eval_every=2"]
    small += ["scorer_train.steps=2", "train.steps=2", "shape.dim=16", "shape.heads=2", "shape.layers=1"]
    given = ["strategies={fifo: {policy: fifo}}", "trained=[]", "baseline=fifo", "capacities=[8]", "seeds=[0,1]"]
    given += ["passages=3", "native.strategies=[fifo]", "native.capacity=8", "native.train.steps=2"]
    assert main(["compare", "demo", f"out={tmp_path / 'run'}", *given, *(f"lm.{override}" for override in small)]) == 0
    captured = capsys.readouterr()
    shown = {line.partition("  ")[0] for line in captured.err.splitlines()}
    models = ["1 of 4: scorer", "1 of 4: language model", "2 of 4: language model", "3 of 4: scorer"]
    assert {f"model {model}" for model in models} <= shown
    assert {"model 1 of 4: documents of train", "model 1 of 4: reading passages"} <= shown
    assert {"cells", "fifo@8 mixed", "fifo@8 native", "scoring passages"} <= shown
    assert "model" not in captured.out.partition("\n")[0]
