"""Result files are checked when written and read, the page shows any of them, and the one committed is up to date."""

import argparse
import importlib
import json
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def results() -> ModuleType:
    return importlib.import_module("vqmem.benchmarks._results")


@pytest.fixture
def page(results: ModuleType) -> ModuleType:
    return importlib.import_module("vqmem.benchmarks.report.results_page")


def example(results: ModuleType, **changes: object) -> Any:
    series = results.Series("a < b", [[1, 0.5, 0.4, 0.6], [64, 0.75, 0.7, 0.8], [4096, 0.25, 0.2, 0.3]])
    fields = {
        "title": "A title",
        "question": "What does it show?",
        "answer": "It does.",
        "measured": "How.",
        "split": "dev",
        "seeds": [0, 1],
        "values": {"Scores": {"ours": {"rho": 0.12345, "n": 12000}, "theirs": {"rho": None}}, "speed": 31.5},
        "intervals": {"Scores": {"ours": {"rho": [0.1, 0.15]}}},
        "interval_kind": "95 % of something",
        "charts": [results.Chart("Curve & co", "codes", "bits", [series], log_x=True)],
        "effect": ["Scores", "ours", "rho"],
        "notes": ["It is not so."],
        "history": ["Chosen on dev."],
        "topic": "kv",
    }
    return results.Result(**(fields | changes))


def test_a_result_is_written_with_its_circumstances_and_read_back(results: ModuleType, tmp_path: Path) -> None:
    path = results.write_result("some_name", example(results), tmp_path)
    back = results.read_result(path)
    assert (back.title, back.values, back.charts) == (
        "A title",
        example(results).values,
        example(results).charts,
    )
    assert set(back.versions) == {"vqmem", "torch", "python"}
    assert back.command.startswith("python ")
    assert back.machine["cores"] is None or back.machine["cores"] > 0
    assert back.date
    assert back.seconds >= 0
    assert "[1, 0.5, 0.4, 0.6]" in path.read_text()


def test_what_is_no_result_is_refused(results: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give numbers, texts or None"):
        results.write_result("x", example(results, values={"a": math.nan}), tmp_path)
    assert not list(tmp_path.iterdir())
    path = results.write_result("x", example(results), tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"titel": "typo"}))
    with pytest.raises(ValueError, match=r"x\.json: unknown key 'titel'; did you mean title"):
        results.read_result(path)
    with pytest.raises(ValueError, match="point"):
        results.Series("s", [[1.0, math.inf]])


def test_benchmarks_print_and_save_figures(
    results: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = {"scoring": results.figure(2.0, "x", 3.0, ours=4), "bytes": results.figure(2, "MB", 3, least=False)}
    about = {"title": "T", "question": "Q", "measured": "M"}
    results.present("b", figures, argparse.Namespace(quick=False, json=True, save=False), **about)
    printed = json.loads(capsys.readouterr().out)
    assert printed["scoring"] == {"value": 2.0, "unit": "x", "goal": 3.0, "ok": False, "ours": 4}
    assert printed["bytes"]["ok"]
    results.present("b", figures, argparse.Namespace(quick=False, json=False, save=False), **about)
    assert re.search("scoring .* MISSED", capsys.readouterr().out)
    with pytest.raises(SystemExit):
        results.options(None).parse_args(["--quick", "--save"])
    monkeypatch.setattr(results, "write_result", lambda name, result: results_seen.append((name, result)))
    results_seen: list[tuple[str, Any]] = []
    results.present("b", figures, argparse.Namespace(quick=False, json=True, save=True), **about)
    [(name, saved)] = results_seen
    assert (name, saved.values) == ("b", figures)
    assert saved.answer == "1 of 2 goals reached; missed: scoring (2 x, goal 3)."


def test_the_page_shows_tables_intervals_pictures_and_circumstances(
    results: ModuleType, page: ModuleType, tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    results.write_result("some_name", example(results), folder)
    assert page.main([], folder) == 0
    text = (folder / "kv.md").read_text()
    for part in (
        "# The cache of a pretrained model",
        "## A title",
        "### Scores",
        "| ours | 0.123 [0.100, 0.150] | 12,000 |",
        "| theirs | n/a |  |",
        "| speed | 31.5 |",
        "![Curve & co](some_name-1.svg)",
        "**Question:** What does it show?",
        "**Answer:** It does.",
        "- It is not so.",
        "seeds 0, 1",
        "In brackets: 95 % of something.",
    ):
        assert part in text
    index = (tmp_path / "results.md").read_text()
    assert "| [What does it show?](results/kv.md#some-name) | It does. | ours, rho: 0.123 [0.100, 0.150] |" in index
    assert 'id="some-name"' in text
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (folder / link).exists(), link


def test_what_was_read_to_choose_by_is_folded(results: ModuleType, page: ModuleType, tmp_path: Path) -> None:
    values = {"Dev, to choose by": {"a": {"x": 1}}, "Test": {"a": {"x": 2}}}
    results.write_result("one", example(results, values=values, intervals={}, effect=["Test", "a", "x"]), tmp_path)
    text = page.generate(tmp_path)[tmp_path / "kv.md"]
    folded = re.findall(r"<details>.*?</details>", text, re.DOTALL)
    assert ["Dev, to choose by" in folded[0], "| a | 1 |" in folded[0], "Chosen on dev." in folded[1]] == [True] * 3
    assert "### Test" in re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)


def test_many_figures_behind_a_figure_have_a_separate_table(page: ModuleType) -> None:
    behind = {f"layer {layer}, {name}": layer for layer in range(9) for name in ("pnmi", "purity")}
    shown = dict(page.tables({"best": {"value": 0.5, "unit": "%", "goal": 0.4, "ok": True, **behind}}, {}))
    assert shown[""].splitlines()[2] == "| best | 0.500 | % | 0.400 | yes |"
    assert shown["best"].splitlines()[0] == "|  | pnmi | purity |"
    assert shown["best"].splitlines()[-1] == "| layer 8 | 8 | 8 |"


def test_the_index_shows_what_was_missed_first(results: ModuleType, page: ModuleType) -> None:
    figures = {"a": results.figure(2.0, "x", 1.0), "b": results.figure(2.5, "MB", 3.0)}
    assert page.effect(example(results, values=figures, effect=[], intervals={})) == "b: 2.500 MB (goal 3)"
    assert page.effect(example(results, values={"T": {"r": {"c": 1}}}, effect=[], intervals={})) == ""


def test_the_readme_chart_has_points_where_a_policy_was_measured(results: ModuleType, page: ModuleType) -> None:
    chart = page.capacity_chart(results.read_result(results.RESULTS / f"{page.README_RESULT}.json"))
    places = {series.name: [point[0] for point in series.points] for series in chart.series}
    assert places["newest"] == places["ours: reuse"] == [128, 256, 512]
    assert places["ExpectedAttention"] == [128]


def test_the_check_names_what_is_not_up_to_date(
    results: ModuleType, page: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results"
    path = results.write_result("one", example(results), folder)
    page.main([], folder)
    assert page.main(["--check"], folder) == 0
    results.write_result("one", example(results, question="Another?"), folder)
    assert page.main(["--check"], folder) == 1
    assert "kv.md, results.md" in capsys.readouterr().err
    path.unlink()
    assert page.main(["--check"], folder) == 1
    assert "one-1.svg" in capsys.readouterr().err
    page.main([], folder)
    assert not list(folder.iterdir())
    assert "No result" in (tmp_path / "results.md").read_text()


@pytest.mark.parametrize("points", [[[1, 2]], [[1, 2], [2, 2]], [[0.001, -5], [1000, 1e6]], [[3, 1], [1, 2, 1.5, 9]]])
@pytest.mark.parametrize("log_x", [False, True])
def test_any_chart_is_drawn_inside_its_frame(
    results: ModuleType, page: ModuleType, points: list[list[float]], log_x: bool
) -> None:
    chart = importlib.import_module("vqmem.benchmarks.report._chart")
    root = ET.fromstring(chart.draw(results.Chart("t < u", "x", "y", [results.Series("s & r", points)], log_x)))
    marks = root.findall(".//{*}g[@class='mark-symbol role-mark layer_2_marks']/{*}path")
    places = [tuple(map(float, re.findall(r"[-\d.]+", mark.get("transform", "")))) for mark in marks]
    assert len(places) == len(points)
    assert all(0 <= x <= chart.WIDTH and 0 <= y <= chart.HEIGHT for x, y in places)
    shown = {text.text for text in root.findall(".//{*}text")}
    assert {"t < u", "x", "y", "s & r"} <= shown


@pytest.mark.parametrize(("log_x", "ratio"), [(True, 2 ** (2 * 5 / 460)), (False, 1 + 3 * 5 / 460)])
def test_intervals_at_one_x_stand_side_by_side(results: ModuleType, log_x: bool, ratio: float) -> None:
    chart = importlib.import_module("vqmem.benchmarks.report._chart")
    series = [results.Series(name, [[x, 1.0, 0.5, 1.5] for x in (128, 512)]) for name in "abc"]
    apart = chart.side_by_side(results.Chart("t", "x", "y", series, log_x), [128, 512])
    assert [apart(number, 128) for number in (1, 2)] == pytest.approx([128, 128 * ratio], rel=1e-5)
    assert apart(0, 128) < 128
    crowded = results.Chart("t", "x", "y", [results.Series(str(n), series[0].points) for n in range(200)], log_x)
    assert chart.side_by_side(crowded, [128, 512])(199, 128) < chart.side_by_side(crowded, [128, 512])(0, 512)
    without = results.Chart("t", "x", "y", [results.Series(name, [[128, 1.0], [512, 1.0]]) for name in "abc"], log_x)
    assert [chart.side_by_side(without, [128, 512])(number, 128) for number in range(3)] == [128, 128, 128]


def test_a_chart_of_nothing_is_refused(results: ModuleType, page: ModuleType) -> None:
    chart = importlib.import_module("vqmem.benchmarks.report._chart")
    with pytest.raises(ValueError, match="no points"):
        chart.draw(results.Chart("t", "x", "y", []))
    with pytest.raises(ValueError, match="logarithmic"):
        chart.draw(results.Chart("t", "x", "y", [results.Series("s", [[0, 1]])], True))


def test_the_committed_page_is_up_to_date(page: ModuleType) -> None:
    assert page.main(["--check"]) == 0


def test_committed_results_name_no_host_or_folder(results: ModuleType) -> None:
    for path in results.RESULTS.glob("*.json"):
        assert not re.search(r"/(home|work|root|tmp|Users)/", path.read_text()), path.name
