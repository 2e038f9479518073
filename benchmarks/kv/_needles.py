"""The needle part of `kv_cache`: the published quizzes, how many each setting gets right, and the goals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vqmem.benchmarks._results import Chart, Result, Series, figure
from vqmem.benchmarks.kv._bench import BASELINES, CANDIDATES, NEWEST, SINKS, SURPRISE, Bench, Size
from vqmem.recipes.kv_cache.needles import Asked, Quizzes, ask_all, hits_at, quiz_table
from vqmem.recipes.kv_cache.presses import KVZIP, PREFIX, PRESSES
from vqmem.recipes.kv_cache.settings import FULL, Setting
from vqmem.registry import build

TASKS = ("niah_single_1", "niah_single_2", "niah_single_3")
SHARES = (0.125, 0.25, 0.5)
"""Shares of a quiz's text that are kept."""
GOAL_SHARE = 0.25
"""The share to which the goals apply."""
PLAIN = (NEWEST, "knorm", "tova", "kvpress StreamingLLM", "kvpress Knorm", "kvpress TOVA")
"""Settings that `scored` should beat."""
LEFT_OUT = ("h2o", "lru", "lfu")
"""Settings left out: they need the attention of every token of the text."""
QUIZZED = ("StreamingLLM", "Knorm", "TOVA", "SnapKV", "ExpectedAttention", "KeyDiff", "Compactor")
"""The presses that are quizzed."""
STREAMED = "reuse"
"""What `stream` chose on the dev books; it is shown too."""

HISTORY = (
    "Window and weights of `reuse, spans` were picked by which tokens of the value are kept in dev quizzes. Quizzes of "
    "dev and test differ in text, key and value, not in how the needle is worded. It was added after two thirds of the "
    "test quizzes had been answered by the others, `reuse` among them, which had failed."
)
"""How dev and test were used over time."""


def needles(bench: Bench, size: Size) -> tuple[dict[str, Any], Result]:
    """Choose on quizzes of the dev books, report those of the test books; figures and what they say."""
    candidates = {setting.name: setting for setting in CANDIDATES}
    dev = _ask(bench, [*BASELINES[:2], *candidates.values()], "dev", size.texts[:2], size.dev_quizzes)
    found = {name: mean_found(dev, name, SHARES.index(GOAL_SHARE)) for name in candidates}
    ours = max(found, key=lambda name: found[name])
    scored = [setting for name, setting in candidates.items() if name in (ours, SURPRISE.name, STREAMED)]
    presses = [name for name in PRESSES if name.removeprefix(PREFIX) in QUIZZED]
    peers = [Setting(name, press=name) for name in (*presses, *([KVZIP] if PRESSES else []))]
    settings = [setting for setting in (*BASELINES, *scored, *peers) if setting.name not in LEFT_OUT]
    return summarise(dev, _ask(bench, settings, "test", size.texts, size.quizzes), ours)


def _ask(bench: Bench, settings: Sequence[Setting], split: Any, texts: Sequence[int], count: int) -> list[Asked]:
    """Ask the quizzes of a split."""
    prose = " ".join(document.text for document in build("data", bench.scorers.config.data).documents(split))
    quizzes = Quizzes(TASKS, texts, count, SHARES, label=split)
    return ask_all(bench.caches, settings, quizzes, prose, bench.folder / "needles")


def mean_found(asked: Sequence[Asked], name: str, share: int) -> float:
    """The share of the values that a setting finds, over all quizzes."""
    return sum(one.found[name][share] for one in asked) / len(asked)


def summarise(dev: Sequence[Asked], test: Sequence[Asked], ours: str) -> tuple[dict[str, Any], Result]:
    """Compute the figures and write the result.

    Args:
        dev: the quizzes of the dev books with their answers.
        test: those of the test books.
        ours: the setting of ``scored`` that was chosen on dev.

    Returns:
        The figures with their goals, by name, and the result for the page.
    """
    with_goal, chosen = (f"{part}% found, {GOAL_SHARE:.1%} kept" for part in ("", "Dev, to choose by: "))
    values, intervals = {}, {}
    for name, share, quizzes in [(chosen, GOAL_SHARE, dev), *((f"% found, {s:.1%} kept", s, test) for s in SHARES)]:
        values[name], intervals[name] = quiz_table(hits_at(quizzes, SHARES.index(share)), ours)
    more = f"all - {ours}"
    figures = {}
    for name in (name for name in PLAIN if name in values[with_goal]):
        ends = intervals[with_goal].get(name, {}).get(more)
        between = {"low": -ends[1], "high": -ends[0]} if ends else {}
        figures[f"against {name}"] = figure(-values[with_goal][name][more], "points more found", 5.0, **between)
    missed = [f"{key} ({one['value']:g}, goal {one['goal']:g})" for key, one in figures.items() if not one["ok"]]
    lengths = [one.tokens for one in test]
    each = len(lengths) // len(TASKS)
    notes = [
        f"{', '.join(LEFT_OUT)} are left out: they would need the attention of every token of the text.",
    ]
    if KVZIP in values[with_goal]:
        notes.append(
            "Rows of kvpress let every layer and head keep its slots, with its defaults. "
            f"{KVZIP} is shown as a ceiling: it reads the text twice, shares the slots out over layers and heads, "
            "and guards its sinks alone."
        )
    return figures, Result(
        title="A needle, after most of the haystack is gone",
        question=(
            "With a quarter of the text kept, does `scored` find the needle at least 5 points more often than guarded"
            " fifo, knorm, tova and StreamingLLM?"
        ),
        answer=f"{ours}: {len(figures) - len(missed)} of {len(figures)} goals reached"
        + (f"; missed: {', '.join(missed)}" if missed else "")
        + ".",
        measured=(
            f"RULER's single-needle tasks, {each} quizzes each, texts of {min(lengths)} to {max(lengths)} tokens: "
            "% of SmolLM2-135M-Instruct's greedy answers that contain the value. The text is read in full; then a "
            f"share of its tokens is kept, {SINKS} sinks and the newest half of them guarded; then comes the question. "
            "Prose is that of books, where RULER takes essays. The settings of `scored` are those of `kv_stream_nll`; "
            f"the one with a goal was chosen on {len(dev)} quizzes of dev."
        ),
        values=values,
        intervals=intervals,
        interval_kind="95 %, paired bootstrap over quizzes",
        split=f"test, {len(lengths)} quizzes",
        seeds=[0],
        charts=[chart({name: rows for name, rows in values.items() if name != chosen}, ours)],
        effect=[with_goal, NEWEST, f"all - {ours}"],
        notes=notes,
        history=[
            HISTORY,
            "The time is that of the last run, without what earlier runs had answered and kept.",
        ],
    )


def chart(values: Mapping[str, Any], ours: str) -> Chart:
    """% found by the share kept, for the settings that the goals compare."""
    every = next(iter(values.values()))
    names = [name for name in (FULL, KVZIP, ours, NEWEST, "kvpress Knorm", "kvpress TOVA") if name in every]
    lines = [
        Series(name, [[100 * share, rows[name]["all"]] for share, rows in zip(SHARES, values.values(), strict=True)])
        for name in names
    ]
    return Chart("Needles found", "% of the text's tokens kept", "% found", lines)
