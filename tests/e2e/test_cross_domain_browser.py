"""The report of a grid of domains in headless Chromium: the answer, the matrix, and tables and pictures to save."""

import csv
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import unquote

import pytest
from vqmem.benchmarks import _results
from vqmem.benchmarks._results import read_result, write_result
from vqmem.benchmarks.text import cross_domain
from vqmem.cli import main
from vqmem.recipes.cross_domain import recipe
from vqmem.recipes.cross_domain.report import write_report
from vqmem.recipes.cross_domain.table import answer

HOSTILE = "<b>nov & els</b>"


def row(strategy: str, value: float, verdict: str, capacity: int = 64, kept: dict | None = None) -> dict:
    """A row of a domain, whose baseline has the value 1."""
    spread = 0.0 if verdict == "baseline" else 0.05
    found = {"strategy": strategy, "capacity": capacity, "value": value, "low": value - 0.1, "high": value + 0.1}
    found |= {"difference": value - 1, "difference_low": value - 1 - spread, "difference_high": value - 1 + spread}
    found |= {"verdict": verdict, "memory_bytes": 1024 * capacity, "tokens_per_second": 100.0}
    return found | {"kept": kept or {}}


def domain(rows: list[dict], winner: dict | None) -> dict:
    """A domain with those rows."""
    metric = {"name": "bpb", "label": "bits per byte", "better": "lower"}
    about = {"title": "A domain", "recipe": "compare", "metric": metric, "baseline": "fifo", "documents": 20}
    capacities = sorted({row["capacity"] for row in rows})
    return about | {
        "seeds": [0],
        "split": "test",
        "capacities": capacities,
        "rows": rows,
        "winner": winner,
        "report": f"{len(rows)}/report.html",
    }


def summary() -> dict:
    """Two domains: in one a strategy wins, in the other none does; and a cell that failed."""
    kept = {"age": 1234.5, "rarity": -0.25, "number": 2.0}
    rows = [
        row("fifo", 1.0, "baseline", kept=kept),
        row("surprise", 0.8, "better", kept=kept),
        row("lru", 1.2, "worse"),
    ]
    rows += [row("fifo", 1.0, "baseline", 128), row("surprise", 0.9, "better", 128)]
    domains = {
        "recall": domain(rows, rows[1]),
        HOSTILE: domain([row("fifo", 1.0, "baseline"), row("lru", 1.01, "no difference")], None),
    }
    pair = {"domains": ["recall", HOSTILE], "tau": -0.5, "low": -1.0, "high": 0.25, "strategies": 3}
    made = {
        "title": "What to keep <i>?</i>",
        "created": "2026-11-30",
        "machine": "a machine",
        "seconds": 12.0,
        "command": "vqmem x",
    }
    return made | {
        "config": {"out": "runs/x"},
        "domains": domains,
        "strategies": ["fifo", "surprise", "lru"],
        "agreement": [pair],
        "indifferent": ["dialogue"],
        "left_out": {"novels": "folder 'MY_FOLDER/text' not found"},
        "failed": {"code: train seed-0": "no space left <on> device"},
    }


def passage(word: str) -> dict:
    """A passage of four tokens, of which memories keep one after each segment of two."""
    kept = {"fifo": [[1], [3]], "surprise": [[0], [0]], "lru": [[0], [3]]}
    memories = {name: {"capacity": 1, "segment": 2, "kept": after} for name, after in kept.items()}
    tokens = [word, " that", " is", " read"]
    return {"name": word, "tokens": tokens, "signals": {"surprise": [3.0, 1.0, 2.0, 0.5]}, "memories": memories}


@pytest.fixture
def opened(browser, open_page, assert_quiet, tmp_path):
    data = summary()
    for name, found in data["domains"].items():
        folder = tmp_path / Path(found["report"]).parent
        folder.mkdir()
        (folder / "summary.json").write_text(json.dumps({"passage": passage(name)}))
    write_report(data, tmp_path / "report.html")
    open_page(tmp_path / "report.html")
    yield browser, data
    assert_quiet()


def texts(browser, selector: str) -> list[str]:
    """The text of all elements."""
    return [found.text for found in browser.find_elements("css selector", selector)]


def test_the_first_section_answers_and_names_what_failed(opened):
    browser, data = opened
    assert browser.title == data["title"]
    assert texts(browser, ".headline p") == answer(data)
    first, second = texts(browser, "table.answers tbody tr")
    assert "surprise 0.8" in first
    assert "none" in second
    assert HOSTILE in second
    missing = ["novels: folder 'MY_FOLDER/text' not found", "code: train seed-0: no space left <on> device"]
    assert texts(browser, "section li") == missing


def test_the_matrix_shows_every_capacity_and_what_was_not_measured(opened):
    browser, _ = opened
    cells = texts(browser, "[data-export=matrix-smallest] tbody tr:nth-child(2) td")
    assert cells[0].startswith("▲ \N{MINUS SIGN}0.20")
    assert cells[1] == "\N{EN DASH}"
    assert texts(browser, "[data-export=matrix-largest] tbody tr:nth-child(2) td")[0].startswith("▲ \N{MINUS SIGN}0.10")
    assert texts(browser, "[data-export=agreement] tbody td")[1] == "\N{MINUS SIGN}0.50 [\N{MINUS SIGN}1.00, +0.25]"
    assert texts(browser, "[data-export=kept-recall] tbody tr:first-child td") == [
        "1,234",
        "\N{MINUS SIGN}0.25",
        "2.00",
    ]


def test_the_slider_shows_what_each_memory_keeps_in_the_domain_that_is_chosen(opened):
    browser, data = opened
    assert texts(browser, "#memory h3") == ["fifo", "surprise", "lru"]
    for number, name in enumerate(data["domains"]):
        browser.find_elements("css selector", "#memory-tools input")[number].find_element("xpath", "..").click()
        assert texts(browser, "[data-strategy=surprise] .kept") == [name]
        assert texts(browser, "[data-strategy=fifo] .kept") == [" read"]
    browser.execute_script(
        "const slider = document.getElementById('time'); slider.value = 0; slider.dispatchEvent(new Event('input'))"
    )
    assert texts(browser, "[data-strategy=fifo] .kept") == [" that"]


def test_tables_and_pictures_are_saved(opened):
    browser, data = opened
    browser.execute_script(
        "window.saved = {}; HTMLAnchorElement.prototype.click = function () { saved[this.download] = this.href };"
        "document.querySelectorAll('.export button').forEach((button) => button.click())"
    )
    for _ in range(100):
        saved = browser.execute_script("return saved")
        if "quality.png" in saved:
            break
    assert saved["quality.png"].startswith("data:image/png;base64,")
    content = {name: unquote(address.partition(",")[2]) for name, address in saved.items()}
    picture = ET.fromstring(content["quality.svg"])
    assert {"fifo", "surprise", "lru"} <= {text.text for text in picture.findall(".//{*}text")}
    table = list(csv.reader(io.StringIO(content["matrix-smallest.csv"])))
    assert table[0] == ["Strategy", *data["domains"]]
    assert table[2][0] == "surprise"
    assert table[2][1].startswith("▲ \N{MINUS SIGN}0.20")
    latex = content["matrix-smallest.tex"]
    assert latex.startswith("\\begin{tabular}{lcc}\n")
    assert "nov \\& els" in latex
    assert latex.count("\\\\") == 1 + len(data["strategies"])


@pytest.mark.parametrize(("failed", "code"), [(summary()["failed"], 2), ({}, 0)])
def test_a_failed_cell_is_an_exit_code_and_a_domain_without_data_is_not(monkeypatch, capsys, failed, code):
    monkeypatch.setattr(recipe, "run", lambda config: summary() | {"failed": failed})
    assert main(["cross_domain", "quick"]) == code
    out, err = capsys.readouterr()
    assert "left out: novels: folder 'MY_FOLDER/text' not found\n" in out
    assert ("failed: code: train seed-0: no space left <on> device\n" in out) == bool(failed)
    line = "vqmem: a cell of the grid failed, see above; the same command tries again what failed\n"
    assert err == (line if failed else "")


def test_the_summary_becomes_a_result(tmp_path, monkeypatch, capsys):
    """The script of the results pages, whose tables have differences, and intervals at the same places."""
    (tmp_path / "summary.json").write_text(json.dumps(summary()))
    monkeypatch.setattr("sys.argv", ["x", str(tmp_path / "summary.json"), "--note", "A remark."])
    monkeypatch.setattr(_results, "write_result", lambda name, found: write_result(name, found, tmp_path))
    _results.convert_summary(cross_domain.__doc__, "cross_domain", cross_domain.result)
    assert capsys.readouterr().out.strip() == str(tmp_path / "cross_domain.json")
    found = read_result(tmp_path / "cross_domain.json")
    assert found.values[cross_domain.WINNERS]["recall"]["winner"] == "surprise"
    assert found.values[cross_domain.WINNERS][HOSTILE]["winner"] == "none"
    table = found.values["recall: bits per byte (lower is better), test"]
    assert table["fifo"] == {"64 slots": 1.0, "128 slots": 1.0}
    assert table["surprise"]["64 slots"] == pytest.approx(-0.2)
    interval = found.intervals["recall: bits per byte (lower is better), test"]["surprise"]["64 slots"]
    assert interval == pytest.approx([-0.25, -0.15])
    assert found.values[cross_domain.AGREEMENT][f"recall and {HOSTILE}"] == {"τ": -0.5, "strategies": 3}
    assert found.notes[1:] == ["A remark."]
