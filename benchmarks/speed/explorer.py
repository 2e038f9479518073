"""How long one waits in the app of `vqmem explore`: for the first answer, the slider, and what an eviction cost.

    python benchmarks/speed/explorer.py [--quick] [--json] [--save] [--model RUN]

The app runs in a process of its own, and headless Chromium uses it as a person does: 2,000 words are pasted. Times are
those of the browser, from the click until what it asked for is drawn. The model is that of `make demo`. An idle machine
is needed.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vqmem.benchmarks._results import figure, options, present
from vqmem.registry import build
from vqmem.tests.e2e.explorer import chromium, in_page, open_app, paste, show, start_app, wait

WORDS = 2000
FIRST_SECONDS, SLIDER_MS, COST_SECONDS = 2.0, 100.0, 5.0
SLIDE = """
const [index, done] = arguments, slider = document.getElementById("time"), began = performance.now();
slider.value = index;
slider.dispatchEvent(new Event("input"));
requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
"""
"""Moves the slider, and answers with the milliseconds until the next frame is drawn."""


def main() -> None:
    """Measure, print, save."""
    parser = options(__doc__)
    parser.add_argument("--model", type=Path, default=Path("runs/demo/seed-0"), help="run of a small language model")
    flags = parser.parse_args()
    if not flags.model.is_dir():
        sys.exit(f"no model at {flags.model}; run `make demo`, or give --model RUN")
    count = 1 if flags.quick else 3
    text = passage(200 if flags.quick else WORDS)
    try:
        with chromium() as browser:
            scored = measure(browser, text, count, [])
            read = measure(browser, text, count, ["--model", str(flags.model)])
    except pytest.skip.Exception as missing:  # of `chromium`, which tests skip by where there is no browser
        sys.exit(str(missing))
    present(
        "explorer",
        {
            "first answer, packaged scorer": seconds(scored["first"], FIRST_SECONDS),
            "first answer, small model": seconds(read["first"], FIRST_SECONDS),
            "slider": figure(
                max(scored["slider"]), "ms", SLIDER_MS, least=False, median=statistics.median(scored["slider"])
            ),
            "what one eviction cost": seconds(read["cost"], COST_SECONDS),
            "all that the page shows of the model": seconds(read["all"], None),
        },
        flags,
        title="Waiting for the explorer",
        question="Is one kept waiting in `vqmem explore`?",
        measured=(
            f"{len(text.split()):,} words of Python's documentation ({len(text):,} characters), three strategies, "
            f"{count} times; the slowest of them, and of the slider the slowest of all segments. In headless Chromium, "
            "from the click until it is drawn. The small model is that of `make demo`."
        ),
    )


def passage(words: int) -> str:
    """The first words of the test split of the texts that come with the package."""
    documents = build("data", "builtin_text").documents("test")
    return " ".join(" ".join(document.text for document in documents).split()[:words])


def seconds(times: list[float], goal: float | None) -> dict[str, Any]:
    """The figure of some times: the slowest, and the median."""
    return figure(round(max(times), 2), "s", goal, least=False, median=round(statistics.median(times), 2))


def measure(browser: Any, text: str, count: int, arguments: list[str]) -> dict[str, list[float]]:
    """Use the app ``count`` times after once to load it.

    Args:
        browser: Chromium.
        text: what is pasted.
        count: how often.
        arguments: those of the app.

    Returns:
        ``first`` seconds until the page is there, ``slider`` milliseconds of each segment, and with a model ``all``
        seconds until what evictions cost is there, and ``cost`` seconds of one more eviction.
    """
    found: dict[str, list[float]] = {"first": [], "slider": [], "all": [], "cost": []}
    with start_app(*arguments) as address:
        use(browser, address, "A short text, by which all is loaded.", is_model=False)
        for _ in range(count):
            for name, times in use(browser, address, text, is_model=bool(arguments)).items():
                found[name] += times
    return found


def use(browser: Any, address: str, text: str, *, is_model: bool) -> dict[str, list[float]]:
    """Use the app once.

    Args:
        browser: Chromium.
        address: that of the app.
        text: what is pasted.
        is_model: whether the page has the costs of evictions too.

    Returns:
        The times as `measure` gives them.
    """
    paste(open_app(browser, address), text)
    found = {"first": [clock(lambda: (show(browser), in_page(browser)))], "slider": slide(browser)}
    if is_model:
        more = clock(lambda: wait(lambda: browser.find_element("id", "costs-part").is_displayed(), seconds=600))
        found |= {"all": [found["first"][0] + more], "cost": [clock(lambda: try_one(browser))]}
    browser.switch_to.default_content()
    return found


def clock(work: Callable[[], Any]) -> float:
    """The seconds that it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def slide(browser: Any) -> list[float]:
    """The milliseconds of every step of the slider."""
    last = int(browser.find_element("id", "time").get_attribute("max"))
    return [round(browser.execute_async_script(SLIDE, index), 1) for index in range(last + 1)]


def try_one(browser: Any) -> None:
    """Ask for the cost of an evicted token that the page has not tried."""
    tried = {int(button.get_attribute("data-at")) for button in browser.find_elements("css selector", "#costs button")}
    place = next(place for place in range(5, 500) if place not in tried)
    token = browser.find_element("css selector", f"#cost-text span[data-i='{place}']")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].click()", token)
    wait(lambda: len(browser.find_elements("css selector", "#costs button")) > len(tried))


if __name__ == "__main__":
    main()
