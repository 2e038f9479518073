"""The needle part of `kv_cache`: every setting answers the same quizzes; how many it gets right, with intervals."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from vqmem.benchmarks._results import Chart, Result, Series, figure
from vqmem.benchmarks.kv._bench import BASELINES, CANDIDATES, SURPRISE, Bench, Size
from vqmem.benchmarks.kv._full_text import FullTextCache, answer, answer_hidden, hopeless, zipped
from vqmem.benchmarks.kv._needle import TASKS, prompt, quiz, words_of
from vqmem.benchmarks.kv._presses import PRESSES, seeded
from vqmem.benchmarks.kv._streams import SINKS, Setting
from vqmem.benchmarks.kv._tables import EVERYTHING, NEWEST, RESAMPLES
from vqmem.files import atomic_write
from vqmem.recipes.compare.statistics import paired_bootstrap
from vqmem.recipes.engine.config import digest
from vqmem.registry import build

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
CEILING = "kvpress KVzip"
STREAMED = "reuse"
"""What `stream` chose on the dev books; it is shown too."""

HISTORY = (
    "Window and weights of `reuse, spans` were picked by which tokens of the value are kept in dev quizzes. Quizzes of "
    "dev and test differ in text, key and value, not in how the needle is worded. It was added after two thirds of the "
    "test quizzes had been answered by the others, `reuse` among them, which had failed."
)
"""How dev and test were used over time."""

Found = Bool[np.ndarray, "quiz share"]


def needles(bench: Bench, size: Size) -> tuple[dict[str, Any], Result]:
    """Choose on quizzes of the dev books, report those of the test books; figures and what they say."""
    bench.model.config.name_or_path = str(bench.folder / "tokenizer")  # where KVzip looks for it
    candidates = {setting.name: setting for setting in CANDIDATES}
    dev, _ = quiz_all(bench, [*BASELINES[:2], *candidates.values()], "dev", size.texts[:2], size.dev_quizzes)
    found = {
        name: np.concatenate([row[name] for row in dev.values()])[:, SHARES.index(GOAL_SHARE)] for name in candidates
    }
    ours = max(found, key=lambda name: float(found[name].mean()))
    scored = [setting for name, setting in candidates.items() if name in (ours, SURPRISE.name, STREAMED)]
    presses = [name for name in PRESSES if name.removeprefix("kvpress ") in QUIZZED]
    if PRESSES:
        presses.append(CEILING)
    peers = [Setting(name, press=name) for name in presses]
    settings = [setting for setting in (*BASELINES, *scored, *peers) if setting.name not in LEFT_OUT]
    given, lengths = quiz_all(bench, settings, "test", size.texts, size.quizzes)
    return summarise(dev, given, lengths, ours)


def quiz_all(
    bench: Bench, settings: Sequence[Setting], split: Any, texts: Sequence[int], count: int
) -> tuple[dict[tuple[str, int], dict[str, Found]], list[int]]:
    """Ask every setting the quizzes of a split.

    Args:
        bench: the model, the scorers and the folder of cached answers.
        settings: the settings to compare.
        split: the split of the books that haystacks are cut from.
        texts: the approximate lengths of the haystacks, in tokens.
        count: quizzes for each task and length; their seeds are 0, 1, …

    Returns:
        Whether each setting found the value, by task and length, then by name; and the tokens of every quiz's text.
    """
    prose = " ".join(document.text for document in build("data", bench.scorers.config.data).documents(split))
    lengths: list[int] = []
    given: dict[tuple[str, int], dict[str, Found]] = {}
    # Lengths and tasks in turns, so that what was done when it was stopped is of all kinds.
    for seed in range(count):
        for length in texts:
            for task in TASKS:
                tokens, found = answered(bench, settings, task, length, prose, seed, split)
                lengths.append(tokens)
                before = given.setdefault((task, length), {})
                for name, row in found.items():
                    before[name] = np.concatenate([before[name], row[None]]) if name in before else row[None]
    return given, lengths


def answered(
    bench: Bench, settings: Sequence[Setting], task: str, length: int, prose: str, seed: int, split: str
) -> tuple[int, dict[str, Bool[np.ndarray, " share"]]]:
    """Ask settings one quiz, or load the answers that an earlier run saved.

    Args:
        bench: the model, the scorers and the folder of cached answers.
        settings: the settings to compare.
        task: one of `TASKS`.
        length: the approximate length of the haystack, in tokens.
        prose: the text from which the haystack is cut.
        seed: the seed of the quiz.
        split: the split that ``prose`` comes from; saved answers are found by it.

    Returns:
        The tokens of the quiz's text, and by setting whether it found the value at each of `SHARES`.
    """
    keys = {setting.name: digest(bench.streams.key(setting, 0)) for setting in settings}
    which = {"task": task, "length": length, "seed": seed, "split": split, "shares": SHARES}
    path: Path = bench.folder / "needles" / f"{digest(which | bench.streams.key(Setting(EVERYTHING), 0))}.json"
    known = json.loads(path.read_text()) if path.is_file() else {"tokens": 0, "found": {}}
    todo = [setting for setting in settings if keys[setting.name] not in known["found"]]
    if todo:
        began = time.perf_counter()
        words = words_of(task, prose, bench.peer.tokenizer, length)
        tokens, found = seeded(lambda: ask(bench, todo, task, words, prose, seed))
        known["tokens"], known["found"] = tokens, known["found"] | {keys[name]: row for name, row in found.items()}
        atomic_write(path, json.dumps(known))
        took = time.perf_counter() - began
        print(f"{task}, {tokens} tokens, quiz {seed}: {len(todo)} settings, {took:.0f} s", file=sys.stderr)
    return known["tokens"], {name: np.array(known["found"][key]) for name, key in keys.items()}


def ask(
    bench: Bench, settings: Sequence[Setting], task: str, words: int, prose: str, seed: int
) -> tuple[int, dict[str, list[bool]]]:
    """Read the text of a quiz once and ask all settings.

    The settings answer in a batch per share kept, and in one for those that keep the full text.

    Args:
        bench: the model and the scorers.
        settings: the settings to compare.
        task: one of `TASKS`.
        words: the approximate length of the haystack.
        prose: the text from which the haystack is cut.
        seed: the seed of the quiz.

    Returns:
        The tokens of the quiz's text, and by setting whether it found the value at each of `SHARES`.
    """
    one = quiz(task, prose, words, random.Random(f"{task} {words} {seed}"))
    tokenizer, model = bench.peer.tokenizer, bench.model
    text, question = prompt(tokenizer, one)
    counts = [round(share * text.shape[1]) for share in SHARES]
    presses = [setting.press for setting in settings if setting.press and setting.press != CEILING]
    reading = FullTextCache(model, text, presses, counts, SINKS)
    how: dict[str, Any] = {"most": one.tokens, "over": hopeless(tokenizer, one.value, one.tokens)}
    full = [setting.name for setting in settings if setting.name in (EVERYTHING, CEILING)]
    found: dict[str, list[bool]] = {setting.name: [] for setting in settings}

    def right(answers: Sequence[list[int]]) -> list[bool]:
        return [one.value in tokenizer.decode(ids) for ids in answers]

    if full:
        hidden = zipped(model, reading, SHARES) if CEILING in full else []
        first, *others = right(answer_hidden(model, reading, hidden, question, **how))
        both = {EVERYTHING: [first] * len(SHARES), CEILING: others}
        found |= {name: both[name] for name in full}
    cut = [setting for setting in settings if setting.name not in full]
    for count in counts if cut else ():
        rows = []
        for setting in cut:
            if setting.press:
                rows.append(reading.kept[setting.press, count])
            else:
                scorer = bench.named[setting.scorer] if setting.scorer else None
                rows.append(reading.by_policy(setting.policy, scorer, count))
        answers = answer(model, reading.cut(rows), question, text.shape[1], len(rows), **how)
        for setting, hit in zip(cut, right(answers), strict=True):
            found[setting.name].append(hit)
    return text.shape[1], found


def summarise(
    dev: Mapping[tuple[str, int], Mapping[str, Found]],
    given: Mapping[tuple[str, int], Mapping[str, Found]],
    lengths: Sequence[int],
    ours: str,
) -> tuple[dict[str, Any], Result]:
    """Compute the figures and write the result.

    Args:
        dev: which quizzes of the dev books each setting answered, by task and length, then by name.
        given: the same of the test books.
        lengths: the tokens of every test quiz's text.
        ours: the setting of ``scored`` that was chosen on dev.

    Returns:
        The figures with their goals, by name, and the result for the page.
    """
    with_goal, chosen = (f"{part}% found, {GOAL_SHARE:.1%} kept" for part in ("", "Dev, to choose by: "))
    values, intervals = {}, {}
    for name, share, quizzes in [(chosen, GOAL_SHARE, dev), *((f"% found, {s:.1%} kept", s, given) for s in SHARES)]:
        place = SHARES.index(share)
        hits = {key: {name: 100.0 * row[:, place] for name, row in found.items()} for key, found in quizzes.items()}
        values[name], intervals[name] = table(hits, ours)
    more = f"all - {ours}"
    figures = {}
    for name in (name for name in PLAIN if name in values[with_goal]):
        ends = intervals[with_goal].get(name, {}).get(more)
        between = {"low": -ends[1], "high": -ends[0]} if ends else {}
        figures[f"against {name}"] = figure(-values[with_goal][name][more], "points more found", 5.0, **between)
    missed = [f"{key} ({one['value']:g}, goal {one['goal']:g})" for key, one in figures.items() if not one["ok"]]
    each = len(lengths) // len(TASKS)
    notes = [
        f"{', '.join(LEFT_OUT)} are left out: they would need the attention of every token of the text.",
    ]
    if CEILING in values[with_goal]:
        notes.append(
            "Rows of kvpress let every layer and head keep its slots, with its defaults. "
            f"{CEILING} is shown as a ceiling: it reads the text twice, shares the slots out over layers and heads, "
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
            f"the one with a goal was chosen on {sum(len(found[ours]) for found in dev.values())} quizzes of dev."
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


def table(
    hits: Mapping[tuple[str, int], Mapping[str, Any]], ours: str
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, list[float]]]]:
    """% found by task, by length and of all, and the difference from ours with its interval, by setting.

    ``hits`` are 100 or 0 a quiz, by task and length.
    """
    values, intervals = {}, {}
    columns = list(dict.fromkeys([key[0] for key in hits] + [key[1] for key in hits]))
    names = list(next(iter(hits.values())))
    joined = {name: np.concatenate([found[name] for found in hits.values()])[None] for name in names}
    for name in names:
        base = None if name == ours else joined[ours]
        one = paired_bootstrap(joined[name], base, np.ones(joined[name].shape[1]), better="higher", resamples=RESAMPLES)
        values[name] = {
            column if isinstance(column, str) else f"{column} tokens": round(
                float(np.concatenate([found[name] for key, found in hits.items() if column in key]).mean()), 1
            )
            for column in columns
        }
        values[name] |= {"all": round(one.value, 1), f"all - {ours}": round(one.difference, 1)}
        if name != ours and one.difference_low is not None and one.difference_high is not None:
            ends = [round(one.difference_low, 1), round(one.difference_high, 1)]
            intervals[name] = {f"all - {ours}": ends}
    return values, intervals


def chart(values: Mapping[str, Any], ours: str) -> Chart:
    """% found by the share kept, for the settings that the goals compare."""
    every = next(iter(values.values()))
    names = [name for name in (EVERYTHING, CEILING, ours, NEWEST, "kvpress Knorm", "kvpress TOVA") if name in every]
    lines = [
        Series(name, [[100 * share, rows[name]["all"]] for share, rows in zip(SHARES, values.values(), strict=True)])
        for name in names
    ]
    return Chart("Needles found", "% of the text's tokens kept", "% found", lines)
