"""The needle part of `kv_cache`: every setting answers the same quizzes; how many it gets right, with intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from _kv_bench import BASELINES, CANDIDATES, SURPRISE, Bench, Size
from _kv_needle import TASKS, answers
from _kv_streams import SINKS, Setting
from _kv_tables import NEWEST, RESAMPLES
from _results import Result, figure
from jaxtyping import Float
from vqmem.recipes._artifacts import atomic_write
from vqmem.recipes._config import digest
from vqmem.recipes.compare.statistics import paired_bootstrap
from vqmem.registry import build

SHARE = 0.25
"""Of a quiz's text that is kept."""
PLAIN = (NEWEST, "knorm", "tova")
"""What `scored` is to find more needles than."""
LEFT_OUT = ("lru", "lfu")
"""Policies that are not quizzed."""
CHOSEN = "count⁸"
"""What `stream` chose on the dev books."""


def needles(bench: Bench, size: Size, ours: str) -> tuple[dict[str, Any], Result]:
    """Quizzes on the test books, the same for all; figures of the candidate ``ours`` and what they say."""
    own = [setting for setting in CANDIDATES if setting.name in (ours, SURPRISE.name)]
    prose = " ".join(document.text for document in build("data", bench.scorers.config.data).documents("test"))
    settings = [*(setting for setting in BASELINES[: size.baselines] if setting.name not in LEFT_OUT), *own]
    given = {setting.name: quiz_all(bench, setting, prose, size) for setting in settings}
    values, intervals = table(
        {name: {task: 100.0 * np.array(found)[:, 0] for task, found in own.items()} for name, own in given.items()},
        ours,
    )
    peers = [name for name in PLAIN if name in values]
    more = f"all - {ours}"
    figures = {f"against {name}": figure(-values[name][more], "points more found", 5.0) for name in peers}
    lengths = [int(tokens) for found in given[ours].values() for _, tokens in found]
    missed = [f"{key} ({one['value']:g}, goal {one['goal']:g})" for key, one in figures.items() if not one["ok"]]
    return figures, Result(
        title="A needle, after most of the haystack is gone",
        claim="`scored` finds the needle at least 5 points more often than guarded fifo, knorm and tova.",
        verdict=f"{ours}: {len(figures) - len(missed)} of {len(figures)} goals reached"
        + f"; missed: {', '.join(missed)}" * bool(missed)
        + ".",
        measured=(
            f"RULER's single-needle tasks, {size.quizzes} quizzes each, texts of {min(lengths)} to {max(lengths)} "
            "tokens: % of greedy answers that contain the value. The text is read whole; then "
            f"{SHARE:.0%} of its tokens are kept, {SINKS} sinks and the newest half of them guarded; then comes the "
            "question. Prose is the test books, where RULER takes essays. The settings of `scored` are those of "
            "`kv_stream_nll`; none was chosen by needles."
        ),
        values={f"% found, {SHARE:.0%} kept": values},
        intervals={f"% found, {SHARE:.0%} kept": intervals},
        interval_kind="95 %, paired bootstrap over quizzes",
        split=f"test, {len(lengths)} quizzes",
        seeds=[0],
        notes=["The time below is that of the last run, without what earlier runs had answered and kept."],
    )


def quiz_all(bench: Bench, setting: Setting, prose: str, size: Size) -> dict[str, list[list[float]]]:
    """By task, whether each needle was found and the tokens of the text; kept on disk."""
    given = {}
    for task in TASKS:
        key = bench.streams.key(setting, 0) | {"task": task, "quizzes": size.quizzes, "words": size.words}
        path = bench.folder / "needles" / f"{digest(key)}.json"
        if not path.is_file():

            def make(tokens: int) -> Any:
                return bench.streams.cache(setting, round(SHARE * tokens))

            found = answers(bench.peer, make, task, prose, size.quizzes, size.words)
            atomic_write(path, json.dumps(found))
        given[task] = json.loads(path.read_text())
    return given


def table(
    hits: Mapping[str, Mapping[str, Float[np.ndarray, " quiz"]]], ours: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """% found of each task and of all, and the difference from ours with its interval."""
    values: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    joined = {name: np.concatenate(list(own.values()))[None] for name, own in hits.items()}
    for name, own in hits.items():
        base = None if name == ours else joined[ours]
        one = paired_bootstrap(joined[name], base, np.ones(joined[name].shape[1]), better="higher", resamples=RESAMPLES)
        values[name] = {task: round(float(found.mean()), 1) for task, found in own.items()}
        values[name] |= {"all": round(one.value, 1), f"all - {ours}": round(one.difference, 1)}
        if name != ours and one.difference_low is not None and one.difference_high is not None:
            ends = [round(one.difference_low, 1), round(one.difference_high, 1)]
            intervals[name] = {f"all - {ours}": ends}
    return values, intervals
