"""The report and the heat map, opened from disk in headless Chromium as a reader would open them."""

import csv
import io
import xml.etree.ElementTree as ET
from urllib.parse import unquote

import numpy as np
import pytest
from rich.console import Console
from vqmem.recipes.compare.findings import findings, headline
from vqmem.recipes.compare.report import write_report
from vqmem.recipes.kv_cache.report import write_report as write_cache_report
from vqmem.recipes.reporting.heatmap import heatmap_page, heatmap_terminal
from vqmem.tests.e2e.comparison_summary import HOSTILE, PROSE, STRATEGIES, summary


def find_all(browser, selector):
    return browser.find_elements("css selector", selector)


def find(browser, selector):
    return browser.find_element("css selector", selector)


def kept_on_screen(browser, strategy):
    script = "return [...document.querySelectorAll(arguments[0])].map(e => Number(e.dataset.i))"
    return browser.execute_script(script, f"#panels [data-strategy='{strategy}'] .tokens .kept")


def move_slider(browser, step):
    script = "const e = document.getElementById('time'); e.value = arguments[0]; e.dispatchEvent(new Event('input'))"
    browser.execute_script(script, step)


def texts(browser, selector):
    return [found.text for found in find_all(browser, selector)]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    data = summary()
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(data, path)
    return data, path


@pytest.fixture
def opened(browser, open_page, assert_quiet, report):
    data, path = report
    open_page(path)
    yield browser, data
    assert_quiet()


def test_report_says_what_won(opened):
    browser, data = opened
    assert browser.title == data["title"]
    assert texts(browser, ".headline p") == headline(data)
    cards = [(found.setting, found.title) for found in findings(data)]
    assert len(cards) == len(find_all(browser, ".card"))
    assert ("64 slots, trained mixed", "scored gain") in cards
    assert texts(browser, ".card h4") == [title for _, title in cards]


def wait(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20).until(condition)


def test_slider_shows_exactly_what_each_memory_keeps(opened):
    browser, data = opened
    memories = data["passage"]["memories"]
    steps = len(memories["fifo"]["kept"])
    for step in (0, 3, steps - 1, 1):
        move_slider(browser, step)
        assert f"segment {step + 1} of {steps}" in find(browser, ".player output").text
        for strategy, memory in memories.items():
            assert kept_on_screen(browser, strategy) == memory["kept"][step]
    slider = find(browser, "#time")
    slider.send_keys("\ue014")  # the right arrow key
    assert kept_on_screen(browser, "random") == memories["random"]["kept"][2]
    before = kept_on_screen(browser, "fifo")
    find(browser, "#play").click()
    wait(browser, lambda page: kept_on_screen(page, "fifo") != before)
    find(browser, "#play").click()


def test_strategies_can_be_hidden(opened):
    browser, _ = opened
    panel = find(browser, "#panels [data-strategy='random']")
    button = find(browser, "#memory-legend [data-strategy='random']")
    assert panel.is_displayed()
    browser.execute_script("arguments[0].click()", button)
    assert not panel.is_displayed()
    assert button.get_attribute("aria-pressed") == "false"
    points = "#by-slots .mark-symbol path[aria-label='random']"
    wait(browser, lambda page: len(find_all(page, points)) == 3)
    browser.execute_script("document.querySelector('#legend [data-strategy=random]').click()")
    wait(browser, lambda page: not find_all(page, points))
    assert len(find_all(browser, "#by-slots .mark-symbol.role-mark path")) == 3 * (len(STRATEGIES) - 1)


def test_charts_have_titles_and_show_the_figures_of_a_point(opened):
    from selenium.webdriver import ActionChains

    browser, data = opened
    row = next(row for row in data["rows"] if (row["strategy"], row["capacity"]) == ("scored gain", 64))
    points = "#{} .mark-symbol path[aria-label='scored gain']"
    for chart, title in (("by-slots", "capacity, slots"), ("by-bytes", "memory of a row")):
        wait(browser, lambda page, chart=chart: len(find_all(page, points.format(chart))) == 3)
        assert {title, "bits per byte · ↓ lower is better"} <= set(texts(browser, f"#{chart} text"))
        point = find(browser, points.format(chart))
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", point)
        ActionChains(browser).move_to_element(point).perform()
        wait(browser, lambda page: f"{row['metrics']['bpb']['value']:.3f}" in find(page, "#tip").text)
        browser.execute_script("tip.hide(); arguments[0].focus()", point)
        assert "scored gain" in find(browser, "#tip").text
        browser.execute_script("arguments[0].blur()", point)
    browser.execute_script("document.querySelector('#curve-tools input[value=difference]').click()")
    wait(browser, lambda page: "difference from fifo · ↓ lower is better" in texts(page, "#by-slots text"))


def test_charts_can_be_enlarged(opened):
    browser, _ = opened
    ticks = "#by-slots .role-axis-label text"
    wait(browser, lambda page: find_all(page, "#by-slots .mark-symbol path[aria-label='random']"))
    before = texts(browser, ticks)
    turn = """const plot = document.querySelector('#by-slots .role-frame .background');
    const box = plot.getBoundingClientRect();
    plot.dispatchEvent(new WheelEvent('wheel', {deltaY: -400, ctrlKey: arguments[0], bubbles: true, cancelable: true,
        clientX: box.left + box.width / 2, clientY: box.top + box.height / 2}))"""
    browser.execute_script(turn, False)  # the page scrolls
    assert texts(browser, ticks) == before
    browser.execute_script(turn, True)
    wait(browser, lambda page: texts(page, ticks) != before)


def test_charts_can_be_saved_with_their_figures(opened):
    browser, data = opened
    wait(browser, lambda page: find_all(page, "#by-slots .mark-symbol path[aria-label='random']"))
    browser.execute_script(
        "window.saved = {}; HTMLAnchorElement.prototype.click = function () { saved[this.download] = this.href }"
    )
    for kind in ("svg", "png", "csv"):
        browser.execute_script(f"document.querySelector('#by-slots-export [data-export={kind}]').click()")
    wait(browser, lambda page: page.execute_script("return Object.keys(saved).length") == 3)
    saved = browser.execute_script("return saved")
    assert saved["by-slots.png"].startswith("data:image/png;base64,")
    picture = ET.fromstring(unquote(saved["by-slots.svg"].partition(",")[2]))
    assert set(STRATEGIES) <= {text.text for text in picture.findall(".//{*}text")}
    table = list(csv.DictReader(io.StringIO(unquote(saved["comparison.csv"].partition(",")[2]))))
    shown = [(line["strategy"], int(line["capacity"]), line["metric"], float(line["value"])) for line in table]
    assert shown == [
        (row["strategy"], row["capacity"], metric, entry["value"])
        for row in data["rows"]
        for metric, entry in row["metrics"].items()
    ]


def test_heat_map_follows_the_chosen_signal(opened):
    browser, data = opened
    spans = "[...document.querySelectorAll('#map .tokens span')]"
    script = f"return {spans}.map(e => Number(e.style.getPropertyValue('--heat')))"
    for signal in ("surprise", "rarity"):
        browser.execute_script(f"document.querySelector('#map input[value={signal}]').click()")
        values = np.array(data["passage"]["signals"][signal])
        low, high = np.quantile(values, [0.02, 0.98])
        expected = np.clip((values - low) / (high - low), -1, 1)
        np.testing.assert_allclose(browser.execute_script(script), abs(expected) * 100, atol=0.06)


def test_hostile_text_is_shown_and_inert(opened):
    browser, _ = opened
    shown = browser.execute_script("return [...document.querySelectorAll('#map .tokens span')].map(e => e.textContent)")
    assert shown[-len(HOSTILE) :] == [*HOSTILE[:-1], "\u241b[31m"]
    assert "</script><script>alert(2)</script>" in browser.execute_script(
        "return document.getElementById('config').textContent"
    )


def test_table_sorts_and_filters(opened):
    browser, data = opened
    mixed = [row for row in data["rows"] if row["train"] == "mixed"]
    click = "document.querySelector(`#table [data-column='${arguments[0]}']`).click()"
    for times in (1, 2):
        browser.execute_script(click, "bits per byte")
        order = sorted(mixed, key=lambda row: row["metrics"]["bpb"]["value"], reverse=times == 2)
        assert texts(browser, "#table tbody th") == [row["strategy"] for row in order]
    assert find_all(browser, "th[aria-sort='descending']")
    browser.execute_script(
        "const e = document.getElementById('by-capacity'); e.value = '128'; e.dispatchEvent(new Event('change'))"
    )
    assert len(texts(browser, "#table tbody tr")) == len(STRATEGIES)
    browser.execute_script("document.querySelector('#filters input[value=long_gap_nll]').click()")
    assert "long-gap NLL, nats" in find(browser, "#table thead").text
    browser.execute_script("document.querySelector('#filters input[value=native]').click()")
    best = min(
        (row for row in data["rows"] if row["train"] == "native"), key=lambda row: row["metrics"]["bpb"]["value"]
    )
    assert f"{best['metrics']['long_gap_nll']['value']:.3f}" in find(browser, "#table").text


@pytest.mark.parametrize(
    "case", ["no passage", "one seed", "three documents", "only the baseline", "no rows", "bare passage"]
)
def test_a_report_with_less_in_it_still_stands(browser, open_page, assert_quiet, tmp_path, case):
    data = summary(seeds=(0,) if case == "one seed" else (0, 1, 2), documents=3 if case == "three documents" else 24)
    if case == "no passage":
        data = {key: value for key, value in data.items() if key not in ("passage", "scorer")}
    if case == "only the baseline":
        data["rows"] = [row for row in data["rows"] if row["strategy"] == "fifo"]
    if case == "no rows":
        data["rows"] = []
    if case == "bare passage":
        data["passage"] = {"name": "x", "tokens": ["only ", "text"]}
    path = tmp_path / "report.html"
    write_report(data, path)
    open_page(path)
    assert_quiet()
    assert ("undecided" in texts(browser, ".card h4")) == (case == "three documents")
    assert find(browser, "#memory").is_displayed() == (case not in ("no passage", "bare passage"))


@pytest.mark.parametrize("count", [0, 1, 400])
def test_heat_map_page(browser, open_page, assert_quiet, tmp_path, count):
    from selenium.webdriver import ActionChains

    rng = np.random.default_rng(1)
    words = [*HOSTILE, *(PROSE * 10).split(" ")][:count]
    tokens = [
        {"text": word, "start": 5 * i, "end": 5 * i + len(word), "score": s, "rarity": r, "gain": r - s, "code": i % 7}
        for i, (word, s, r) in enumerate(zip(words, rng.gamma(2, 2, count), rng.gamma(2, 2, count), strict=True))
    ]
    path = tmp_path / "score.html"
    path.write_text(heatmap_page(tokens, "A <b>file</b>"), encoding="utf-8")
    open_page(path)
    assert_quiet()
    assert browser.title == "A <b>file</b>"
    spans = find_all(browser, "#map .tokens span")
    assert len(spans) == count
    if count:
        ActionChains(browser).move_to_element(spans[0]).perform()
        tip = find(browser, "#tip").text
        assert f"{tokens[0]['score']:.3f} nats" in tip
        assert words[0] in tip
        find(browser, "#map .tokens").send_keys("\ue010")  # the End key
        assert words[-1].strip() in find(browser, "#tip").text
        find(browser, "#theme").click()
        assert find(browser, "#theme").text == "Theme: light"


def test_heat_map_in_the_terminal():
    texts = ["the ", "\x1b]0;title\x07", "whale\n", "sea"]
    tokens = [
        {"text": t, "score": s, "rarity": s, "gain": g}
        for t, s, g in zip(texts, (0, 1, 9, 3), (2, -5, 1, 0), strict=True)
    ]
    shown = heatmap_terminal(tokens, "surprise")
    assert shown.plain == "the \u241b]0;title\u2407whale⏎\nsea"
    words = {word: shown.plain.index(word) for word in ("the", "whale")}
    coloured = {word: shown.get_style_at_offset(Console(), at).bgcolor for word, at in words.items()}
    assert coloured["the"] is None
    assert coloured["whale"] is not None
    assert heatmap_terminal([], "gain").plain == ""
    with pytest.raises(ValueError, match="no signal 'length'"):
        heatmap_terminal(tokens, "length")


def test_a_report_is_written_completely_or_not_at_all(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("before")
    with pytest.raises(TypeError):
        write_report({**summary(), "config": {"model": object()}}, path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_null_result_is_reported_as_one():
    data = summary()
    for row in data["rows"]:
        for entry in row["metrics"].values():
            if entry["verdict"] != "baseline":
                entry["verdict"] = "no difference"
    assert "no memory beats fifo" in headline(data)[0]
    assert {found.title for found in findings(data)} == {"no winner"}
    assert "too few passages" in headline(summary(documents=3))[0]


def test_of_memories_that_win_as_often_the_one_that_wins_by_more_is_named():
    rows = [
        {
            "strategy": name,
            "capacity": 64,
            "train": "mixed",
            "metrics": {"nll": {"value": 1, "difference": by, "verdict": verdict}},
        }
        for name, by, verdict in (("fifo", 0.0, "baseline"), ("a", -0.1, "better"), ("b", -0.3, "better"))
    ]
    spec = {"label": "loss", "better": "lower"}
    assert headline({"baseline": "fifo", "metrics": {"nll": spec}, "rows": rows})[0].startswith("On loss, b beats fifo")
    for row in rows:
        row["metrics"]["nll"]["difference"] *= -1
    higher = {"baseline": "fifo", "metrics": {"nll": {**spec, "better": "higher"}}, "rows": rows}
    assert headline(higher)[0].startswith("On loss, b beats fifo")


def test_the_report_of_caches_adds_what_to_choose_needles_and_costs(browser, open_page, assert_quiet, tmp_path):
    data = summary(seeds=(0,))
    over = {"difference": 0.0461, "difference_low": 0.03, "difference_high": 0.06}
    for row in data["rows"]:
        row |= {"over_full": over, "against_best": "no difference"}
    quizzes = [
        {
            "strategy": HOSTILE[0],
            "share": 0.125,
            "values": {"niah_single_1": 50.0, "all": 50.0},
            "difference": 0.0,
            "interval": None,
            "against": {},
        },
        {
            "strategy": "auto",
            "share": 0.125,
            "values": {"niah_single_1": 75.0, "all": 75.0},
            "difference": 25.0,
            "interval": [5.0, 45.0],
            "against": {HOSTILE[0]: {"difference": 25.0, "low": 5.0, "high": 45.0, "verdict": "better"}},
        },
    ]
    cost = {"bytes": 94_371_840, "byte_seconds": 5.4e8, "prefill_seconds": 6.88, "decode_seconds": 0.0638}
    data |= {
        "seeds": [],
        "split": None,
        "model": HOSTILE[1],
        "choice": ["Take auto.", HOSTILE[2]],
        "quizzes": quizzes,
        "asked": 2,
        "left_out": {"vt": 20.0},
        "costs": [{"strategy": "full cache", "capacity": None, **cost}],
        "notes": ["kvpress is left out."],
        "config": {"costs": {"prompt": 2048, "chunk": 512, "answer": 16}, "needles": {"threshold": 50.0}},
    }
    write_cache_report(data, tmp_path / "report.html")
    open_page(tmp_path / "report.html")
    assert texts(browser, "section:first-of-type h2") == [f"What to choose for {HOSTILE[1]}"]
    assert texts(browser, "section:first-of-type .headline p") == data["choice"]
    assert "seed" not in find(browser, "#about").text
    assert len(find_all(browser, "#over-full tbody tr")) == len(data["rows"])
    assert "+0.0461" in find(browser, "#over-full tbody tr").text
    assert texts(browser, "#quizzes tbody th") == [HOSTILE[0], "auto"]
    assert texts(browser, "#quizzes tbody tr:last-child td")[:3] == ["12.5 %", "75", "75"]
    assert "below 50%: vt (20%)." in find(browser, "[aria-labelledby=quizzes-title]").text
    assert texts(browser, "#costs tbody td") == ["all", "94,371,840", "540.0", "6.88", "63.8"]
    assert len(find_all(browser, "#table tbody tr")) > 0
    assert_quiet()
