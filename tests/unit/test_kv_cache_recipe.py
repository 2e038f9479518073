"""The recipe kv_cache from the text to the report, on a random model, and what it refuses."""

import importlib.util
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from vqmem import registry
from vqmem.cli import main
from vqmem.recipes.engine.config import load
from vqmem.recipes.kv_cache.choice import choose
from vqmem.recipes.kv_cache.needles import Asked, split_by_full
from vqmem.recipes.kv_cache.report import report_page
from vqmem.recipes.kv_cache.settings import FULL
from vqmem.recipes.kv_cache.summary import format_summary
from vqmem.tests.unit.tiny_host import tiny_host

recipe = registry.load("recipes", "kv_cache")
SMALL = [
    "presses=[]",
    "capacities=[40,60]",
    "streams={passages: 6, length: 128, chunk: 32, rare: 2.0}",
    "needles={tasks: [niah_single_1, niah_single_2, niah_single_3], texts: [400], quizzes: 1, shares: [0.25]}",
    "needles.threshold=0",
    "costs={prompt: 64, chunk: 32, answer: 2}",
]


@pytest.fixture(scope="module")
def model(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    host = tiny_host(tokenizer_folder)
    host.model.save_pretrained(folder)
    host.tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def done(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, Any]]:
    """The overrides of a run, and its summary."""
    overrides = [f"model={model}", f"out={tmp_path_factory.mktemp('run')}", *SMALL]
    return overrides, recipe.run(load(recipe.Config, None, overrides))


def test_rows_are_policies_at_capacities_beside_the_baseline(done: tuple[list[str], dict[str, Any]]) -> None:
    summary = done[1]
    assert [(row["strategy"], row["capacity"]) for row in summary["rows"]] == [
        (name, capacity) for capacity in (40, 60) for name in ("auto", "document", "fifo")
    ]
    for row in summary["rows"]:
        assert (row["metrics"]["nll"]["verdict"] == "baseline") == (row["strategy"] == "fifo")
        assert row["metrics"]["kl"]["value"] > 0
        loss, perplexity = row["metrics"]["nll"], row["metrics"]["perplexity"]
        assert perplexity["value"] == pytest.approx(math.exp(loss["value"]))
        assert perplexity["low"] == pytest.approx(math.exp(loss["low"]))
        assert perplexity["verdict"] == loss["verdict"]
        assert row["memory_bytes"] > 0
    assert sum(row["against_best"] == "best" for row in summary["rows"]) == 2
    assert {row["strategy"] for row in summary["quizzes"]} >= {"full cache", "auto", "document", "fifo"}
    assert [row["capacity"] for row in summary["costs"]] == [None, 40, 40, 40, 60, 60, 60]


def test_a_run_goes_on_where_it_stopped(
    done: tuple[list[str], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides, summary = done
    out = Path(summary["config"]["out"])
    files = {
        path: path.stat().st_mtime_ns
        for part in ("streams", "needles", "costs")
        for path in out.rglob(f"{part}/**/*.*")
    }
    assert len(files) > 6 * 7
    again = recipe.run(load(recipe.Config, None, overrides))
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert (again["rows"], again["quizzes"], again["costs"]) == (summary["rows"], summary["quizzes"], summary["costs"])
    more = recipe.run(
        load(recipe.Config, None, [*overrides, "policies.knorm=knorm", "costs.prompt=0", "needles.quizzes=0"])
    )
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert next(row for row in more["rows"] if row["strategy"] == "auto")["metrics"] == summary["rows"][0]["metrics"]
    assert (more["quizzes"], more["costs"]) == ([], [])


def test_the_report_says_what_to_choose(done: tuple[list[str], dict[str, Any]]) -> None:
    page = report_page(done[1])
    for sentence in done[1]["choice"]:
        assert sentence.split(":")[0] in page
    assert {"over-full", "table", "quizzes", "costs"} <= {*re.findall(r'<table id="([\w-]+)"', page)}
    assert "Loss compared with the full cache" in page
    assert '<table id="presses"' not in page


def test_tasks_at_which_the_full_cache_fails_are_left_out_and_named(
    done: tuple[list[str], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides, summary = done
    scores = {"niah_single_1": 100.0, "niah_single_2": 0.0, "niah_single_3": 40.0}

    def split(asked: list[Any], threshold: float) -> tuple[list[str], dict[str, float]]:
        assert [list(one.found) for one in asked] == [["full cache"]] * 3  # the others are not asked yet
        return split_by_full(
            [Asked(one.task, one.length, one.tokens, {FULL: [scores[one.task] / 100]}) for one in asked], threshold
        )

    monkeypatch.setattr("vqmem.recipes.kv_cache.measure.split_by_full", split)
    less = recipe.run(load(recipe.Config, None, [*overrides, "needles.threshold=50"]))
    assert less["left_out"] == {"niah_single_2": 0.0, "niah_single_3": 40.0}
    assert less["asked"] == summary["asked"] - 2
    assert all("niah_single_1" in row["values"] and "niah_single_2" not in row["values"] for row in less["quizzes"])
    sentence = "Left out, because even the full cache scores below 50%: niah_single_2 (0%), niah_single_3 (40%)."
    assert sentence in report_page(less)
    assert sentence in format_summary(load(recipe.Config, None, overrides), less)
    assert "Left out" not in report_page(summary)


def test_a_choice_follows_from_the_figures() -> None:
    def row(name: str, capacity: int, more: float, verdict: str, gap: float) -> dict[str, Any]:
        over = {"difference": more, "difference_low": more - 0.01, "difference_high": more + 0.01}
        metrics = {"gap_closed": {"value": gap}} if name != "fifo" else {}
        return {"strategy": name, "capacity": capacity, "over_full": over, "against_best": verdict, "metrics": metrics}

    rows = [
        row("auto", 9, 0.06, "best", 61.0),
        row("h2o", 9, 0.065, "no difference", 40.0),
        row("fifo", 9, 0.2, "worse", 0.0),
    ]
    rows += [
        row("auto", 20, 0.03, "best", 80.0),
        row("h2o", 20, 0.04, "worse", 60.0),
        row("fifo", 20, 0.1, "worse", 0.0),
    ]
    quizzes = [
        {"strategy": name, "share": 0.25, "values": {"all": found}}
        for name, found in (("full cache", 90.0), ("auto", 40.0), ("h2o", 70.0), ("fifo", 10.0))
    ]
    cost = {"bytes": 100, "byte_seconds": 50.0, "decode_seconds": 1.0, "prefill_seconds": 2.0}
    costs = [{"strategy": "full cache", "capacity": None, **cost}]
    costs += [{"strategy": "auto", "capacity": n, **cost, "bytes": n, "byte_seconds": n / 2} for n in (9, 20)]
    summary = {"rows": rows, "baseline": "fifo", "tolerance": 0.05, "quizzes": quizzes, "asked": 9, "costs": costs}
    summary |= {"left_out": {}, "config": {"needles": {"threshold": 50.0}}}
    nine, twenty, capacity, prompts, cheap, dear = choose(summary)
    assert nine == (
        "Streams, 9 tokens kept: auto loses 0.060 [0.050, 0.070] nats a token to the full cache, fifo 0.200 [0.190, "
        "0.210]; on rare tokens last seen further back it recovers 61% of what fifo loses. Beside it, no different: "
        "h2o; worse: fifo."
    )
    assert "Beside it, worse: h2o, fifo." in twenty
    assert capacity == "Capacity: 20 is the smallest measured that stays within 0.05 nats of the full cache."
    assert prompts == "Prompts, 25% kept: h2o scores 70% at the tasks of RULER (full cache 90%, fifo 10%)."
    assert "9.0% of the full cache's bytes and 9.0% of its byte-seconds" in cheap
    assert "a token takes 1.00 times as long" in dear
    assert choose(summary | {"asked": 3})[3].endswith("These are 3 quizzes, too few to decide.")
    for row in quizzes[1:]:
        row["values"] = {"all": 0.0}
    assert choose(summary)[3] == "Prompts, 25% kept: no policy answers a quiz (full cache 90%)."
    failed = choose(summary | {"quizzes": [], "left_out": {"vt": 20.0, "cwe": 0.0}, "costs": []})[-1]
    assert failed == (
        "Prompts: nothing to compare. Left out, because even the full cache scores below 50%: vt (20%), cwe (0%)."
    )
    assert "none stays within 0.01 nats" in choose(summary | {"tolerance": 0.01, "costs": [], "quizzes": []})[2]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=''"], "model is not given; give model=FOLDER or the name"),
        (["model=./nowhere"], "nowhere"),
        (["policies.x=fiffo"], "did you mean fifo"),
        (["policies.x={name: scored, rarety: 1}"], "did you mean .*rarity"),
        (["baseline=h2o"], "unknown baseline 'h2o'"),
        (["capacities=[]"], "must name at least one"),
        (["capacities=[2048]"], "must be below streams.length=2048"),
        (["needles.threshold=101"], r"needles\.threshold"),
        (["needles.tasks=[niah_single_4]"], "did you mean niah_single_"),
        (["presses=[Snap]"], "presses: 'Snap' is not one that can be measured"),
        (["policies.oracle=oracle"], "policies.oracle with 128 slots: policy oracle looks ahead"),
        (["policies.x={policy: fifo, recent: 500}"], "policies.x with 128 slots: "),
        (["streams.passages=1000"], "passages of 2048 tokens, fewer than 1000"),
        (["data={name: text_files, path: MY_FOLDER}"], "data.path is not given: MY_FOLDER stands for your data"),
    ],
)
def test_bad_input_is_one_line(
    overrides: list[str], message: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"model={model}", "capacities=[128]", "streams.length=2048", *overrides, f"out={tmp_path / 'run'}"]
    assert main(["kv_cache", "quick", *given]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vqmem: ")]
    assert len(lines) == 1
    assert re.search(message, lines[0])
    assert not (tmp_path / "run").exists()


def test_it_says_once_that_presses_are_left_out(
    done: tuple[list[str], dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqmem.recipes.kv_cache.measure.PRESSES", ())
    monkeypatch.setattr("vqmem.recipes.kv_cache.presses.PRESSES", ())
    assert main(["kv_cache", "quick", *done[0], "presses=[SnapKV]"]) == 0
    out, err = capsys.readouterr()
    assert err.count("kvpress, which needs transformers below 5.3, is not installed: its presses are left out.") == 1
    for part in ("streams: 6 passages", "needles: ", "one request: ", "Capacity: ", "report: "):
        assert part in out
    assert json.loads((Path(done[1]["config"]["out"]) / "summary.json").read_text())["notes"]


@pytest.mark.skipif(not importlib.util.find_spec("kvpress"), reason="kvpress is not installed (extra 'kvpress')")
def test_presses_are_rows_where_kvpress_is_installed(done: tuple[list[str], dict[str, Any]], tmp_path: Path) -> None:
    presses = ["presses=[ExpectedAttention,SnapKV,Compactor]", "streams.chunk=64", f"out={tmp_path}"]
    summary = recipe.run(load(recipe.Config, None, [*done[0], *presses]))
    streamed = ["auto", "document", "fifo", "kvpress ExpectedAttention", "kvpress SnapKV"]
    assert [row["strategy"] for row in summary["rows"]] == streamed * 2
    presses_asked = [f"kvpress {name}" for name in ("ExpectedAttention", "SnapKV", "Compactor")]
    presses_asked = [row for name in presses_asked for row in (name, f"{name}, our guards")]
    assert [row["strategy"] for row in summary["quizzes"]] == ["full cache", *streamed[:3], *presses_asked]
    against = {row["strategy"]: list(row["against"]) for row in summary["quizzes"]}
    assert against["document"] == ["full cache", "fifo", *presses_asked]
    assert against["fifo"] == ["full cache", *presses_asked]
    assert against["kvpress SnapKV"] == ["full cache", "fifo"]
    page = report_page(summary)
    assert ">kvpress SnapKV, our guards<" in page
    assert '<table id="presses"' in page
    assert not any("kvpress" in row["strategy"] for row in summary["costs"])
    assert "Compactor of kvpress want a prompt in one pass" in " ".join(summary["notes"])
    with pytest.raises(ValueError, match=r"streams\.chunk = 32 must be above 32"):
        recipe.run(load(recipe.Config, None, [*done[0], *presses, "streams.chunk=32"]))
