"""A run of `vqmem text_lm` that takes seconds, for the tests of the command line; a browser, for those of pages."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from vqmem.cli import main
from vqmem.tests.e2e.explorer import chromium

TEXT = "Call me Ishmael. Some years ago, never mind how long precisely, I thought I would sail — naïve, à la 語学 🐋.\n"

CONFIG = """\
data: {name: text_files, path: DATA}
front_end: {name: bpe, vocab_size: 300}
device: cpu
passage: 64
batch_size: 2
segment: 16
train_tokens: 2000
eval_passages: 2
scorer: {name: vq_lm, dim: 8, hidden: 8, codes: 4}
scorer_train: {steps: 2, tensorboard: false}
shape: {layers: 2, dim: 16, heads: 2}
train: {steps: 2, tensorboard: false}
capacities: [24]
strategies:
  transformer_xl: {policy: fifo}
  gain: {policy: {name: scored, surprise: 0.0, gain: 1.0}}
  used: {policy: fifo, compression: {name: pool, how: most_used}}
"""


@pytest.fixture(scope="session")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny config of text_lm on a text of 20 kB; its ``out`` is to be given."""
    folder = tmp_path_factory.mktemp("tiny")
    data = folder / "text.txt"
    data.write_text("".join(f"{i} {TEXT}" for i in range(150)), encoding="utf-8")
    config = folder / "tiny.yaml"
    config.write_text(CONFIG.replace("DATA", str(data)), encoding="utf-8")
    return config


@pytest.fixture(scope="session")
def tiny_run(config_file: Path) -> Path:
    """The folder of a finished run; tests that damage it copy it first."""
    out = config_file.parent / "run"
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        assert main(["text_lm", str(config_file), f"out={out}"]) == 0
    return out


@pytest.fixture
def copy(tiny_run: Path, tmp_path: Path) -> Path:
    """A finished run to damage."""
    return shutil.copytree(tiny_run, tmp_path / "copy")


@pytest.fixture
def bad_recordings(clip: Path, tmp_path: Path) -> dict[str, str]:
    """Files in the temporary folder that no command reads as recordings: name -> what the error must say."""
    soundfile.write(tmp_path / "one.wav", [0.5], 16_000)
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16_000)
    soundfile.write(tmp_path / "zeros.wav", np.zeros(16_000), 16_000)
    soundfile.write(tmp_path / "nan.wav", np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    (tmp_path / "cut.flac").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    (tmp_path / "text.wav").write_text("no sound")
    return {
        "one.wav": "is too short for speech units: 1 samples",
        "none.wav": "has no samples",
        "zeros.wav": "is silent: all of its 16000 samples are 0",
        "nan.wav": "NaN or infinite at 0.000 s",
        "cut.flac": "is damaged or cut off after",
        "text.wav": "is not audio that can be read here",
        "zeroes.wav": f"did you mean '{tmp_path / 'zeros.wav'}'?",
    }


@pytest.fixture
def interrupted_once(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, int], list[int]]:
    """Makes the given step of a training task fail once; gives a list that grows by one each step."""

    def arrange(task: Any, at: int) -> list[int]:
        step, done = task.step, []

        def killed(self, batch, state):
            done.append(1)
            if len(done) == at:
                raise InterruptedError
            return step(self, batch, state)

        monkeypatch.setattr(task, "step", killed)
        return done

    return arrange


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Calls ``vqmem`` with what it must refuse, and gives the one line that says what is wrong."""

    def call(*argv: object) -> str:
        assert main([str(word) for word in argv]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "Traceback" not in err
        *progress, line = err.rstrip("\n").split("\n")
        assert line.startswith("vqmem: ")
        assert all(not other.startswith("vqmem: ") for other in progress)
        return line

    return call


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Gives every file of a folder, temporary ones that were left behind included."""

    def read(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    return read


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, which logs its console and what it asks for."""
    with chromium() as opened:
        yield opened


@pytest.fixture
def open_page(browser: Any) -> Callable[[Path], None]:
    """Opens a file, and forgets what was logged before."""

    def call(path: Path) -> None:
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        browser.get(path.as_uri())

    return call


@pytest.fixture
def assert_quiet(browser: Any, assert_accessible: Callable[[], None]) -> Callable[[], None]:
    """No complaint on the console, no script from the data, no address requested but the file itself; accessible."""

    def call() -> None:
        assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
        events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        asked = [
            event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
        ]
        # The browser requests the parts of its start page, sometimes after it opened our page.
        assert [url for url in asked if not url.startswith(("file:", "data:", "chrome:"))] == []
        assert sum(url.startswith("file:") for url in asked) <= 1
        assert len(browser.find_elements("css selector", "script")) == 2
        assert not browser.find_elements("css selector", "img, b script, main b > b")
        assert_accessible()

    return call


@pytest.fixture
def assert_accessible(browser: Any) -> Callable[[], None]:
    """No violation of the rules of axe (contrast, labels, roles, …) in light and in dark, and room on a telephone."""

    def call() -> None:
        axe = pytest.importorskip("axe_core_python.selenium").Axe()
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            found = axe.run(browser, options={"resultTypes": ["violations"]})["violations"]
            assert [(rule["id"], node["html"]) for rule in found for node in rule["nodes"]] == []
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        telephone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", telephone)
        ends = time.monotonic() + 10  # charts are drawn anew when the width changes
        fits = "return document.documentElement.scrollWidth <= innerWidth"
        while not (done := browser.execute_script(fits)) and time.monotonic() < ends:
            time.sleep(0.05)
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        assert done, "the page is wider than a telephone"

    return call
