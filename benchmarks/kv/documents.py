"""What is left of a document after one reading: RULER's tasks, the presets of the cache, and every press of kvpress.

    python benchmarks/kv/documents.py [--quick] [--json] [--save] [--split dev|test] [--data FOLDER] [--run FOLDER]
        [--tasks X ...] [--quizzes N] [--texts N ...] [--shares X ...] [--presses NAME ...] [--policy FOLDER]

SmolLM2-135M reads the text of a quiz in one pass; then a share of its tokens is kept; then the question comes. Answers
are kept in the run's folder, so that a stopped run goes on. The presses need kvpress, which needs `transformers` below
5.3; the model needs what `smollm2.py` names. ``--policy`` asks a policy that `vqmem fit_policy` fitted for this model
too.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from vqmem.benchmarks._results import figure, options, present
from vqmem.benchmarks.kv.smollm2 import load_smollm2, reading_options
from vqmem.default_scorer import load_default_scorer
from vqmem.memory.huggingface.presets import AUTO, DOCUMENT
from vqmem.recipes.compare.statistics import bootstrap_interval
from vqmem.recipes.engine.config import DTYPES
from vqmem.recipes.kv_cache.caches import Caches
from vqmem.recipes.kv_cache.needles import Asked, Quizzes, ask_all, hits_at, join_hits
from vqmem.recipes.kv_cache.presses import KVZIP, MADE, PREFIX, PRESSES, WRAPPERS, notes, prompt_settings
from vqmem.recipes.kv_cache.report import beside_presses
from vqmem.recipes.kv_cache.settings import FULL, PACKAGED, Setting
from vqmem.recipes.kv_cache.table import quiz_rows

TASKS = ("niah_single_1", "niah_single_2", "niah_single_3", "niah_multivalue")
"""The tasks of RULER that the full cache of this model passes; see ``LEFT_OUT``."""
LEFT_OUT = "niah_multikey_1 to 3, niah_multiquery, vt, cwe, fwe and qa, which the full cache fails"
DOMAINS = {
    "dev": {"novels": "dev", "general": "general/dev"},
    "test": {"novels": "fresh", "general": "general/test"},
}
"""The folders of the texts that haystacks are cut from, in the folder ``text`` of the data."""
NEWEST, DOCUMENT_ROW, COMPACTOR = "sink_recent", "document", "kvpress Compactor"
BY_HEAD = {"share": "head", "recent": DOCUMENT.recent}
BEFORE = "keydiff + 0.5 spans of the score, newest 32 guarded (the preset before)"
SHOWN = (DOCUMENT_ROW, AUTO)
"""The policies that are shown beside each press."""
SPANS = {"surprise": 0.0, "window": 25, "copies": 2.0}
"""The score part of the preset before: gain in reuse, less for older copies, averaged over neighbours."""
SETTINGS = [
    Setting(FULL),
    Setting(NEWEST, {"name": NEWEST}),
    Setting(DOCUMENT_ROW, DOCUMENT_ROW),
    Setting(AUTO, AUTO, PACKAGED),
    Setting("document without the window", {**DOCUMENT.policy, "leverage_window": 1}, options=BY_HEAD),
    Setting(
        "document + 0.25 spans of the score",
        {**DOCUMENT.policy, **SPANS, "score": 0.25, "reuse": 1.0},
        PACKAGED,
        options=BY_HEAD,
    ),
    Setting(
        BEFORE,
        {"name": "weighted", "keydiff": 1.0, "score": 0.5, "reuse": 1.0, **SPANS},
        PACKAGED,
        options={"share": "head", "recent": 32},
    ),
]


def main() -> None:
    """Measure, print, save."""
    parser = options(__doc__)
    reading_options(parser, "runs/documents", DOMAINS)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), help="of RULER (default: those that it passes)")
    parser.add_argument("--quizzes", type=int, default=6, help="of each task, length and domain (default 6)")
    parser.add_argument("--texts", type=int, nargs="+", default=[1024, 2048], help="tokens (default 1024 2048)")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.125], help="of a text, kept (default 0.125)")
    parser.add_argument("--presses", nargs="*", help="such as Compactor KVzip (default all that can run)")
    parser.add_argument("--policy", metavar="FOLDER", help="a policy of `vqmem fit_policy` for this model")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    settings = [*SETTINGS, *fitted(flags.policy), *presses(flags.presses)]
    asked = ask(settings, flags)
    rows = quiz_rows(asked, flags.shares, NEWEST, [setting.name for setting in settings if setting.press])
    present(
        "kv_documents",
        figures(asked, rows),
        flags,
        title="A document, after most of it is gone",
        question="Does the preset for documents answer what the full cache answers, and more than every press?",
        measured=(
            f"SmolLM2-135M-Instruct (4-bit weights, computed in {flags.dtype}) reads the texts of {len(asked)} quizzes "
            f"of RULER ({', '.join(flags.tasks)}; left out: {LEFT_OUT}), {' and '.join(map(str, flags.texts))} "
            "tokens, in one pass; then a share of the tokens is kept in each head of keys; then the question comes. "
            "Scores in %: the share of the expected strings in the greedy answer. Policies guard 4 sinks and the "
            f"newest {DOCUMENT.recent} tokens, unless said; presses have their own guards, or, where `our guards` is "
            f"said, these. Prose is that of {' and '.join(DOMAINS[flags.split])}, where RULER takes essays."
        ),
        notes=notes(),
        effect=[heading(flags.shares[0]), DOCUMENT_ROW, "all"],
        split=f"{flags.split}, {len(asked)} quizzes",
        seeds=[0],
        tables=scores_table(rows, "difference") | presses_table(rows, "difference"),
        intervals=scores_table(rows, "interval") | presses_table(rows, "interval"),
        interval_kind="95 %, paired bootstrap over quizzes",
    )


def fitted(policy: str | None) -> list[Setting]:
    """The settings of a fitted policy: alone, and with the leverage."""
    if policy is None:
        return []
    learned = {"name": "weighted", "learned": 1.0, "folder": policy, "score": 0.0}
    return [
        Setting("learned", learned, options=BY_HEAD),
        Setting("document + 0.5 learned", {**DOCUMENT.policy, **learned, "learned": 0.5}, options=BY_HEAD),
    ]


def presses(chosen: list[str] | None) -> list[Setting]:
    """The ``chosen`` presses, or every one that can run, where kvpress is installed."""
    return prompt_settings([*MADE, *WRAPPERS, "KVzip"] if chosen is None else chosen) if PRESSES else []


def ask(settings: Sequence[Setting], flags: Any) -> list[Asked]:
    """Ask every setting the quizzes of each domain."""
    lm = load_smollm2(DTYPES[flags.dtype])
    scorer = load_default_scorer(lm.tokenizer, vocab_size=lm.model.config.vocab_size)
    caches = Caches(lm.host, {PACKAGED: scorer})
    quick = (TASKS[1:2], flags.texts[:1], 1)
    tasks, texts, count = quick if flags.quick else (flags.tasks, flags.texts, flags.quizzes)
    asked = []
    for domain, folder in DOMAINS[flags.split].items():
        prose = " ".join(path.read_text(encoding="utf-8") for path in sorted((flags.data / "text" / folder).iterdir()))
        quizzes = Quizzes(tasks, texts, count, flags.shares, f"{flags.split} {domain}", batch_size=len(settings))
        asked += ask_all(caches, settings, quizzes, prose, flags.run / "needles")
    return asked


def figures(asked: Sequence[Asked], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of the first share with their goals: beside the full cache, also by length, and beside presses."""
    hits = hits_at(asked, 0)
    lengths = list(dict.fromkeys(length for _, length in hits))
    groups = {"": hits} | {
        f", {length} tokens": {key: found for key, found in hits.items() if key[1] == length}
        for length in (lengths if len(lengths) > 1 else [])
    }
    found = {}
    for name, (label, group) in itertools.product(SHOWN, groups.items()):
        scores = join_hits(group)
        share, low, high = (round(100 * x, 1) for x in of_full(scores[name], scores[FULL]))
        found[f"{name}: of the full cache's score{label}"] = figure(share, "%", 90.0, low=low, high=high)
    scores = join_hits(hits)
    for name in SHOWN:
        against = next(row["against"] for row in rows if row["strategy"] == name)
        rivals = [rival for rival in against if rival.startswith(PREFIX) and rival != KVZIP]
        best = max(rivals, key=lambda rival: scores[rival].mean(), default="")
        goals = {"Compactor": (COMPACTOR, 20.0), "KVzip": (KVZIP, -5.0), "the best press": (best, 0.0)}
        for label, (rival, goal) in goals.items():
            if rival in against:
                one = against[rival]
                more: dict[str, Any] = {"low": one["low"], "high": one["high"], "row": rival}
                found[f"{name} over {label}"] = figure(one["difference"], "points", goal, **more)
    return found


def of_full(ours: Float[np.ndarray, " quiz"], full: Float[np.ndarray, " quiz"]) -> tuple[float, float, float]:
    """The share of the full cache's score, and its interval over quizzes."""
    ends = bootstrap_interval(lambda drawn: ours[drawn].sum(-1) / full[drawn].sum(-1), len(ours))
    return float(ours.sum() / full.sum()), *ends.tolist()


def scores_table(rows: Sequence[dict[str, Any]], key: str) -> dict[str, dict[str, Any]]:
    """By share and setting the scores and the differences from the full cache and the newest tokens.

    Args:
        rows: what `quiz_rows` returned.
        key: ``difference``, or ``interval`` for the ends of the differences alone.

    Returns:
        Headings, rows and columns.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        cells = {} if key == "interval" else dict(row["values"])
        for name in (FULL, NEWEST):
            if name in row["against"]:
                cells[f"all - {name}"] = _cell(row["against"][name], key)
        found.setdefault(heading(row["share"]), {})[row["strategy"]] = cells
    return found


def presses_table(rows: Sequence[dict[str, Any]], key: str) -> dict[str, dict[str, Any]]:
    """By share and press how many points more the policies `SHOWN` score; see `scores_table`."""
    found: dict[str, dict[str, Any]] = {}
    for share in dict.fromkeys(row["share"] for row in rows):
        beside = beside_presses([row for row in rows if row["share"] == share], NEWEST)
        cells = {
            one["press"]: {name: _cell(entry, key) for name, entry in one["differences"].items() if name in SHOWN}
            for one in beside
        }
        if cells:
            found[f"Points more than each press, {share:.1%} kept"] = cells
    return found


def heading(share: float) -> str:
    """The heading of the scores at a share."""
    return f"Score in %, {share:.1%} kept"


def _cell(entry: dict[str, Any], key: str) -> Any:
    return [entry["low"], entry["high"]] if key == "interval" else entry["difference"]


if __name__ == "__main__":
    main()
