"""`vqmem score` of recordings and `vqmem frame_scorer`, through the command line; the page in a browser."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import struct
import zlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
from vqmem.cli import main
from vqmem.recipes.engine.config import load
from vqmem.recipes.frame_scorer.recipe import Config, FrameScorerTask, run

RATE = 16_000


def voice(seconds: float, hz: float) -> np.ndarray:
    """A buzz that rises and falls."""
    time = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * hz * (time + 0.01 * np.sin(7 * time))
    return sum(np.sin(k * phase) / k for k in range(1, 9)) * 0.1


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two words of a second at 150 Hz, half a second of silence between them and after; its name is hostile."""
    path = tmp_path_factory.mktemp("speech") / "a <b>clip & 'more'.flac"
    silence = np.zeros(RATE // 2)
    soundfile.write(path, np.concatenate([voice(1, 150), silence, voice(1, 150), silence]), RATE)
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny config on ten recordings, of which one is cut off; its ``out`` is to be given."""
    folder = tmp_path_factory.mktemp("recordings")
    for number in range(12):
        soundfile.write(folder / f"{number}.flac", voice(0.6 + number / 10, 90 + 20 * number), RATE)
    (folder / "0.flac").write_bytes((folder / "0.flac").read_bytes()[:3000])
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(
        f"""\
data: {{name: audio_files, path: {folder}}}
device: cpu
passage: 50
batch_size: 2
segment: 8
scorer: {{dim: 8, hidden: 8, codes: 4}}
train: {{steps: 6, eval_every: 3, save_every: 2, log_every: 2, tensorboard: false}}
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="module")
def frames(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of `vqmem frame_scorer`."""
    out = tmp_path_factory.mktemp("trained") / "frames"
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        assert main(["frame-scorer", str(config), f"out={out}"]) == 0
    return out


def objects(capsys: pytest.CaptureFixture[str], *argv: object) -> list[dict]:
    assert main(["score", *map(str, argv), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_units_of_a_recording_with_nothing_trained(clip, capsys, tmp_path):
    rows = objects(capsys, clip)
    assert len(rows) == 149
    assert list(rows[0]) == ["unit", "start", "end", "score", "rarity", "gain", "code"]
    for number, row in enumerate(rows):
        assert (row["start"], row["end"]) == (round(0.02 * number, 5), round(0.02 * (number + 1), 5))
        assert row["gain"] == pytest.approx(row["rarity"] - row["score"], abs=2e-5)
        assert row["score"] >= 0
    main(["units", str(clip)])
    assert [str(row["unit"]) for row in rows] == capsys.readouterr().out.split()
    (tmp_path / "notes.txt").write_bytes(clip.read_bytes())
    assert objects(capsys, tmp_path / "notes.txt") == rows, "what is in a file counts, not its name"
    assert objects(capsys, clip, "--span", "1:1.5") == rows[50:75], "scores know what came before the span"


def test_frames_of_a_recording(clip, frames, capsys):
    rows = objects(capsys, clip, "--model", frames)
    assert list(rows[0]) == ["frame", "start", "end", "score", "rarity", "gain", "code"]
    assert [row["frame"] for row in rows] == list(range(149))
    assert objects(capsys, clip, "--model", frames, "--span", "2:") == rows[100:]


@pytest.mark.parametrize("model", ["packaged", "frames"])
def test_lines_of_half_a_second_in_the_terminal(clip, frames, capsys, model, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    more = ["--model", str(frames)] if model == "frames" else []
    assert main(["score", str(clip), "--signal", "rarity", *more]) == 0
    out, err = capsys.readouterr()
    lines = re.sub(r"\x1b\[[\d;]*m", "", out).splitlines()
    assert [line.split()[0] for line in lines] == ["0.00", "0.50", "1.00", "1.50", "2.00", "2.50"]
    assert "\x1b[" in out
    assert "149 frames; nats per dimension: " in err if more else "149 units; nats per unit: " in err
    assert "orange = high rarity" in err
    if not more:
        main(["units", str(clip)])
        assert " ".join(word for line in lines for word in line.split()[2:]) == capsys.readouterr().out.strip()


def png(address: str) -> np.ndarray:
    """The shades in a ``data:`` address of a PNG."""
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, parts = 8, {}
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size]) == (zlib.crc32(kind + content),)
        parts[kind], at = content, at + 12 + size
    width, height = struct.unpack(">II", parts[b"IHDR"][:8])
    return np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, width + 1)[:, 1:]


def test_a_picture(clip, capsys, tmp_path):
    assert main(["score", str(clip), "--image", str(tmp_path / "clip.svg"), "--signal", "gain"]) == 0
    assert capsys.readouterr().out == ""
    drawn = ElementTree.parse(tmp_path / "clip.svg").getroot()
    name = "{http://www.w3.org/2000/svg}"
    assert drawn.findtext(f"{name}title") == clip.name
    found = {kind: [e for e in drawn.iter() if e.get("class") == kind] for kind in ("pause", "curve", "signal")}
    assert [e.get("data-signal") for e in found["signal"]] == ["gain"]
    assert len(found["curve"]) == 1
    x, wide = zip(*((float(e.get("x", 0)), float(e.get("width", 0))) for e in found["pause"]), strict=True)
    across = 1000 / 3  # pixels a second
    assert x == pytest.approx([58 + across, 58 + 2.5 * across], abs=0.1 * across)
    assert wide == pytest.approx([across / 2, across / 2], abs=0.1 * across)
    (line,) = (e.get("d", "") for e in drawn.iter() if e.get("class") == "pitch over")
    heights = [float(y) for _, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", line)]
    at150 = 398 - np.log(150 / 60) / np.log(500 / 60) * 230
    assert np.median(heights) == pytest.approx(at150, abs=6)
    (image,) = (e for e in drawn.iter() if e.tag == f"{name}image")
    shades = png(image.get("href", ""))
    assert shades.shape == (80, 301)
    assert shades[:, 120:140].max() == 0, "silence is dark"
    assert shades.max() == 255


def test_a_page_contains_all_it_needs(clip, frames, capsys, tmp_path):
    page = tmp_path / "deep" / "page.html"
    assert main(["score", str(clip), "--html", str(page), "--model", str(frames), "--span", "0.5:2.5"]) == 0
    text = page.read_text(encoding="utf-8")
    assert "<b>clip" not in text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    data = json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[0])
    assert (data["plot"]["start"], data["plot"]["seconds"]) == (0.5, 2.0)
    assert (data["units"], data["first"], len(data["starts"])) == (None, 25, 100)
    (tmp_path / "heard.wav").write_bytes(base64.b64decode(data["sound"].split(",")[1]))
    heard, rate = soundfile.read(tmp_path / "heard.wav")
    assert rate == RATE
    assert heard == pytest.approx(soundfile.read(clip)[0][RATE // 2 : 5 * RATE // 2], abs=1e-4)


def test_the_page_plays_along(clip, browser, open_page, assert_quiet, tmp_path):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait

    page = tmp_path / "page.html"
    assert main(["score", str(clip), "--html", str(page), "--signal", "rarity"]) == 0
    open_page(page)

    def find(selector):
        return browser.find_element("css selector", selector)

    def cursor():
        return float(find("#chart .cursor").get_attribute("x1"))

    def curves():
        return browser.execute_script(
            "return [...document.querySelectorAll('.signal')].filter(g => getComputedStyle(g).display !== 'none')"
            ".map(g => g.dataset.signal)"
        )

    assert browser.title == clip.name
    assert curves() == ["rarity"]
    browser.execute_script("document.querySelector('input[value=gain]').click()")
    assert curves() == ["gain"]
    WebDriverWait(browser, 10).until(lambda _: browser.execute_script("return audio.readyState") > 0)
    assert browser.execute_script("return audio.duration") == pytest.approx(3.0, abs=0.01)

    data = json.loads(find("#data").get_attribute("textContent") or "")
    box = find("#chart svg").rect

    def offset(second):  # of a place, from the middle of the picture
        return round(data["plot"]["left"] + second / 3 * data["plot"]["width"] - box["width"] / 2)

    ActionChains(browser).move_to_element_with_offset(find("#chart"), offset(1.01), 0).perform()
    tip = find("#tip").text
    assert f"unit {data['units'][50]}" in tip
    assert "1.00\u20131.02 s" in tip
    assert f"{data['signals']['surprise'][50]:.3f} nats".replace("-", "\u2212") in tip
    ActionChains(browser).click().perform()
    assert browser.execute_script("return audio.currentTime") == pytest.approx(1.01, abs=0.01)
    assert cursor() == pytest.approx(58 + 1000 * 1.01 / 3, abs=5)

    chart = find("#chart")
    chart.send_keys("\ue014")  # the right arrow key: the next unit
    assert browser.execute_script("return audio.currentTime") == pytest.approx(1.02, abs=0.001)
    assert chart.get_attribute("aria-valuenow") == "1.02"
    assert f"unit {data['units'][51]}" in (chart.get_attribute("aria-valuetext") or "")
    before = cursor()
    browser.execute_script("audio.playbackRate = 0.1")  # it is still to play when the next key comes
    chart.send_keys(" ")
    WebDriverWait(browser, 20).until(lambda _: cursor() > before + 5)
    chart.send_keys(" ")
    assert browser.execute_script("return audio.paused")
    chart.send_keys("\ue010")  # the End key
    assert chart.get_attribute("aria-valuenow") == f"{data['starts'][-1]:.2f}"
    find("#theme").click()
    assert find("#theme").text == "Theme: light"
    assert_quiet()


# --- what is refused -----------------------------------------------------------------------------------------------


def test_recordings_that_cannot_be_scored(bad_recordings, refused, contents, tmp_path):
    before = contents(tmp_path)
    for name, message in bad_recordings.items():
        assert message in refused("score", tmp_path / name, "--json")
        assert message in refused("score", tmp_path / name, "--html", tmp_path / "page.html")
        assert contents(tmp_path) == before


def test_models_and_options_of_the_other_kind(clip, frames, tiny_run, refused, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("Call me Ishmael.")
    assert "reads text, not recordings" in refused("score", clip, "--model", tiny_run)
    assert "reads recordings, not text" in refused("score", text, "--model", frames)
    speech = Path(__file__).parents[2] / "models" / "pretrained" / "speech"
    assert "reads audio, not text" in refused("score", text, "--model", speech)
    assert "makes tokens of text" in refused("score", clip, "--tokenizer", "gpt2")
    assert "--image x.svg is for recordings" in refused("score", text, "--image", "x.svg")
    assert "--span 0:1 is for recordings" in refused("score", text, "--span", "0:1")
    assert "--image" in refused("score", clip, "--image", tmp_path)
    assert "unknown signal 'gian'; did you mean gain" in refused("score", clip, "--signal", "gian")


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ("1", "is not START:END in seconds"),
        ("a:b", "is not START:END in seconds"),
        ("2:1", "is empty"),
        ("-1:1", "is empty"),
        ("nan:", "is empty"),
        ("5:9", "ends at 3.00 s; give an earlier one"),
    ],
)
def test_spans_that_cannot_be(clip, refused, span, message):
    assert message in refused("score", clip, f"--span={span}")


def test_more_than_can_be_drawn(refused, capsys, tmp_path):
    soundfile.write(tmp_path / "long.flac", np.tile(voice(1, 150), 130), RATE)
    message = refused("score", tmp_path / "long.flac", "--html", tmp_path / "page.html")
    assert "is 130 s long, and at most 120 s can be drawn" in message
    assert "--span 0:120" in message
    assert not (tmp_path / "page.html").exists()
    assert len(objects(capsys, tmp_path / "long.flac")) == 130 * 50 - 1


# --- vqmem frame_scorer --------------------------------------------------------------------------------------------


def test_a_killed_run_resumes_to_the_bit(config, frames, tmp_path, interrupted_once):
    settings = load(Config, config, [f"out={tmp_path / 'run'}"])
    done = interrupted_once(FrameScorerTask, 6)
    with pytest.raises(InterruptedError):
        run(settings)
    run(settings)
    assert len(done) == 6 + 2  # from step 4 on
    for name in ("model/model.safetensors", "model/training/metrics.jsonl", "evaluation.json"):
        assert (tmp_path / "run" / name).read_bytes() == (frames / name).read_bytes()


def test_given_again_nothing_is_trained(config, frames, monkeypatch, capsys):
    monkeypatch.setattr(FrameScorerTask, "step", None)
    before = (frames / "evaluation.json").read_bytes()
    assert main(["frame_scorer", str(config), f"out={frames}"]) == 0
    assert (frames / "evaluation.json").read_bytes() == before
    printed = capsys.readouterr().out
    assert "of the dev split, nats per dimension: surprise" in printed
    assert f"vqmem score FILE --model {frames}" in printed
    figures = json.loads(before)
    assert figures["frames"] > 20
    assert figures["scorer"]["gain"] == pytest.approx(figures["scorer"]["rarity"] - figures["scorer"]["surprise"])
    assert {"rate", "residual", "codes_used"} <= set(figures["scorer"])


def test_frame_scorers_that_cannot_be(config, frames, refused, tmp_path):
    out = f"out={tmp_path}/x"
    assert "contains another run" in refused("frame_scorer", config, f"out={frames}", "passage=60")
    assert "segment = 0 must be at least 1" in refused("frame_scorer", config, out, "segment=0")
    assert "train.seed is set by seed" in refused("frame_scorer", config, out, "train.seed=3")
    assert "cutoffs" in refused("frame_scorer", config, out, "scorer.cutoffs=[5]")
    assert "reads audio" in refused("frame_scorer", config, out, "data=builtin_text")
    assert "unknown kind of features 'mfcc93'; did you mean mfcc39" in refused(
        "frame_scorer", config, out, "features=mfcc93"
    )
    assert "scorer.quantiser = 'qv' is not one of" in refused("frame_scorer", config, out, "scorer.quantiser=qv")
