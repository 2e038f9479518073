"""Starts the app of `vqmem explore`, and uses it as a person does."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar
from urllib.parse import urlencode

import pytest

T = TypeVar("T")


@contextmanager
def chromium() -> Iterator[Any]:
    """Headless Chromium, which logs its console and what it asks for; skips where there is none."""
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not (binary and driver and importlib.util.find_spec("selenium")):
        pytest.skip(
            "needs chromium and chromedriver on PATH (packages chromium, chromium-driver) and selenium (extra 'dev')"
        )
    from selenium import webdriver

    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        flags = "headless=new no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
        flags += " autoplay-policy=no-user-gesture-required mute-audio"
        for flag in (*flags.split(), "disable-component-update", "disable-sync", f"user-data-dir={profile}"):
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        opened.set_window_size(1280, 1000)
        yield opened
        opened.quit()


@contextmanager
def serve(*command: str) -> Iterator[str]:
    """The address of the app that a command starts, in a process of its own, since Gradio changes its process."""
    pytest.importorskip("gradio", reason="needs Gradio (extra 'explore')")
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            found = None
            while found is None:
                line = server.stdout.readline()
                assert line, "the app ended before it said where it is"
                found = re.search(r"http://127\.0\.0\.1:\d+", line)
            yield f"{found[0]}/"
        finally:
            server.kill()


def start_app(*arguments: str) -> AbstractContextManager[str]:
    """The address of the app of `vqmem explore`."""
    return serve("-m", "vqmem", "explore", *arguments)


def wait(find: Callable[[], T], seconds: float = 150.0) -> T:
    """What ``find`` returns, once that is true."""
    ends = time.monotonic() + seconds
    while not (found := find()) and time.monotonic() < ends:
        time.sleep(0.1)
    assert found
    return found


def open_app(browser: Any, address: str, **query: str) -> Any:
    """Open the app and wait until it is there."""
    browser.get(f"{address}?{urlencode(query)}")
    wait(lambda: browser.find_elements("css selector", "#text textarea"))
    return browser


def paste(browser: Any, text: str) -> None:
    browser.execute_script(
        "const [area, text] = arguments; area.value = text; area.dispatchEvent(new Event('input', {bubbles: true}))",
        browser.find_element("css selector", "#text textarea"),
        text,
    )


def show(browser: Any) -> None:
    wait(lambda: browser.find_elements("css selector", "#show"))[0].click()


def in_page(browser: Any) -> None:
    """Go into the frame of the page, once it is there."""
    wait(lambda: browser.find_elements("css selector", "#page iframe"))
    browser.switch_to.frame(browser.find_element("css selector", "#page iframe"))
    wait(lambda: browser.find_elements("css selector", "#memory h3"))
