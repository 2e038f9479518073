"""The app of `vqmem explore` in headless Chromium: paste, slide, upload, and what goes wrong; and its page alone."""

import html
import json
import re
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from vqmem.cli import main
from vqmem.recipes.explore.explored import Explored
from vqmem.recipes.explore.readers import CHARACTERS, ScoreReader
from vqmem.recipes.explore.settings import Settings
from vqmem.registry import ROOT
from vqmem.tests.e2e.explorer import in_page, open_app, paste, serve, show, start_app, wait

STORY = (
    "The harpooneer was nowhere. Queequeg came in with a candle. " * 30 + "Queequeg sat on the bed. <b>Never</b> mind."
)


@pytest.fixture(scope="module")
def app():
    """The address of the app on this machine."""
    with start_app("--capacity", "64") as address:
        yield address


@pytest.fixture
def tone(tmp_path) -> Path:
    """A recording of three seconds."""
    path = tmp_path / "tone.wav"
    time_of = np.arange(48_000) / 16_000
    soundfile.write(path, 0.2 * np.sin(2 * np.pi * 220 * time_of * (1 + time_of / 3)), 16_000)
    return path


def headings(browser) -> list[str]:
    return [found.text for found in browser.find_elements("css selector", "#memory h3")]


def slide(browser, index: int) -> None:
    browser.execute_script(
        "const s = document.getElementById('time'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))", index
    )


def test_a_text_is_pasted_and_the_slider_shows_what_each_memory_keeps(browser, app):
    paste(open_app(browser, app), STORY)
    show(browser)
    in_page(browser)
    assert headings(browser) == ["fifo", "surprise", "gain"]
    reader = ScoreReader()
    explored = Explored.follow(reader, reader.text(STORY, "story"), Settings(reader.usual, 64))
    for index in (0, 5):
        slide(browser, index)
        for name, reading in explored.followed.items():
            marked = browser.execute_script(
                "return [...document.querySelectorAll(`[data-strategy=${arguments[0]}] .tokens span`)]"
                ".flatMap((span, i) => span.classList.contains('kept') ? [i] : [])",
                name,
            )
            assert marked == reading.kept[index]
    browser.switch_to.default_content()
    assert wait(lambda: browser.find_elements("css selector", "#save"))


def test_a_link_restores_the_settings(browser, app):
    open_app(browser, app, strategies="random,rarity", capacity="48", recent="8")
    wait(lambda: browser.find_element("css selector", "input[type=number]").get_attribute("value") == "48")
    paste(browser, STORY)
    show(browser)
    in_page(browser)
    assert headings(browser) == ["random", "rarity"]
    assert "48 slots, the first 0 and the newest 8 are guarded" in browser.find_element("id", "about").text
    browser.switch_to.default_content()
    link = browser.find_element("css selector", "#link textarea, #link input").get_attribute("value")
    assert link == "?strategies=random,rarity&capacity=48&sinks=0&recent=8"


def test_a_clip_is_uploaded(browser, app, tone):
    upload(open_app(browser, app), tone)
    wait(lambda: browser.find_elements("css selector", "#clip audio, #clip .waveform-container"))
    show(browser)
    in_page(browser)
    assert len(browser.find_elements("css selector", "#kept-sounds audio")) == 3
    assert browser.find_element("css selector", "#chart path.kept").get_attribute("d").startswith("M")
    browser.switch_to.default_content()


def upload(browser, file: Path) -> None:
    browser.find_element("css selector", "#clip input[type=file]").send_keys(str(file))


def message(browser) -> str:
    """The text of the message that the app shows."""
    return wait(lambda: " ".join(found.text for found in browser.find_elements("css selector", ".toast-body")))


def test_a_text_that_is_too_long_is_refused(browser, app):
    paste(open_app(browser, app), "a" * (CHARACTERS + 1))
    show(browser)
    assert "your text has 50,001 characters, and at most 50,000 can be shown" in message(browser)


def test_a_number_that_is_missing_is_named(browser, app):
    paste(open_app(browser, app), STORY)
    number = browser.find_element("css selector", "input[type=number]")
    wait(lambda: number.get_attribute("value") == "64")
    number.send_keys("\ue003\ue003")  # backspace
    show(browser)
    assert "a number is missing; fill in the slots and the guards" in message(browser)


def test_a_file_that_is_too_large_is_refused(browser, app, tmp_path):
    path = tmp_path / "large.wav"
    soundfile.write(path, np.zeros(11_000_000, dtype=np.int16), 16_000)
    upload(open_app(browser, app), path)
    assert "20" in message(browser)


def test_a_broken_file_is_refused(browser, app, tmp_path):
    path = tmp_path / "broken.wav"
    path.write_bytes(b"no sound at all")
    upload(open_app(browser, app), path)
    wait(lambda: browser.find_elements("css selector", "#clip audio, #clip .waveform-container"))
    show(browser)
    assert "is not audio" in message(browser)


def test_two_users_at_once_get_their_own_pages(app):
    client = pytest.importorskip("gradio_client")
    texts = ["Call me Ishmael. " * 40, "It was the best of times. " * 40]

    def ask(text: str) -> str:
        page, *_ = client.Client(app, verbose=False).predict(text, None, ["fifo"], 16, 0, 0, api_name="/show")
        data = re.search(r'id="data">(.*?)</script>', html.unescape(page), re.DOTALL)
        assert data
        return "".join(json.loads(data[1])["tokens"])

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(ask, texts)) == texts


@pytest.mark.parametrize("path", ["/etc/passwd", "pyproject.toml", "../README.md"])
def test_no_file_of_the_machine_is_served(app, path):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{app}gradio_api/file={path}")
    assert refused.value.code in (403, 404)


def test_the_space_is_the_same_app():
    folder = ROOT / "docs" / "space"
    with serve("-u", str(folder / "app.py")) as address, urllib.request.urlopen(address) as page:
        assert b"vqmem explore" in page.read()
    assert yaml.safe_load((folder / "README.md").read_text().split("---")[1])["app_file"] == "app.py"


def test_a_text_and_a_recording_at_once_are_refused(browser, app, tone):
    paste(open_app(browser, app), STORY)
    upload(browser, tone)
    wait(lambda: browser.find_elements("css selector", "#clip audio, #clip .waveform-container"))
    show(browser)
    assert "there are a text and a recording; remove one of them" in message(browser)


def test_a_port_in_use_is_one_line(app, capsys):
    port = app.rstrip("/").rpartition(":")[2]
    assert main(["explore", "--port", port]) == 2
    said = f"vqmem: the app cannot listen at 127.0.0.1:{port}; is it in use? give another --port\n"
    assert capsys.readouterr().err == said


def test_the_page_is_one_offline_file(browser, open_page, assert_quiet, tmp_path, capsys, tone):
    (tmp_path / "story.txt").write_text(STORY)
    for file, name in ((tmp_path / "story.txt", "story"), (tone, "tone")):
        page = tmp_path / f"{name}.html"
        assert main(["explore", str(file), "--html", str(page), "--strategies", "fifo,rarity"]) == 0
        open_page(page)
        assert headings(browser) == ["fifo", "rarity"]
        assert "<b>Never</b>" in browser.find_element("id", "panels").text or name == "tone"
        assert_quiet()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["story.txt"], "story.txt needs --html OUT, the page to write; `vqmem explore` alone starts the app"),
        (["--html", "x.html"], "--html writes the page of a file; give FILE too"),
        (
            ["story.txt", "--html", "x.html", "--strategies", "fifo,h2o"],
            "unknown strategy 'h2o'; known: expire_span, fifo",
        ),
        (["story.txt", "--html", "x.html", "--capacity", "0"], "capacity=0; a memory needs at least 1 slot"),
        (["empty.txt", "--html", "x.html"], "there is no text; paste some, or give a file with words"),
        (["none.txt", "--html", "x.html"], "no such file or folder: 'none.txt'"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("story.txt").write_text(STORY)
    Path("empty.txt").write_text(" \n")
    assert main(["explore", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"vqmem: {said}")
    assert not Path("x.html").exists()


def test_every_strategy_keeps_the_capacity_and_fifo_the_newest(tone):
    reader = ScoreReader()
    for passage in (reader.text(STORY, "story"), reader.clip(tone, "tone")):
        known = reader.policies(passage.names)
        assert {"fifo", "surprise", "rarity", "gain", "random"} <= known.keys()
        kept = {
            name: reading.kept
            for name, reading in Explored.follow(reader, passage, Settings(tuple(known), 40, 2, 4)).followed.items()
        }
        for positions in kept.values():
            assert all(len(found) == min(40, 32 * i) for i, found in enumerate(positions[:-1], 1))
            assert {0, 1} <= set(positions[-1])
            assert set(range(len(passage.ids) - 4, len(passage.ids))) <= set(positions[-1])
        newest = set(range(len(passage.ids) - 38, len(passage.ids)))
        assert set(kept["fifo"][-1]) == {0, 1} | newest
