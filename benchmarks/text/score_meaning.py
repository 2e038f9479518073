"""What the VQ-LM's score means: its order against unigram rarity and against SmolLM2-135M's surprisal.

    python benchmarks/text/score_meaning.py [--data FOLDER] [--run FOLDER] [--steps N] [--quick] [--json] [--save]

Trains the scorers of `models/scorers`, and a VQ-LM for each codebook size, on the train books of ``FOLDER/text`` (kept
in the run folder; about 20 minutes on one core), reads passages of the dev books with each and with SmolLM2, and
correlates. Never opens the test books. Needs the packages that `smollm2.py` names.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor, nn
from vqmem.benchmarks._results import ROOT, Chart, Result, Series, options, write_result
from vqmem.benchmarks.kv.smollm2 import cached_surprisals
from vqmem.benchmarks.text._scorers import SIZES, Field, train_field, training_seconds
from vqmem.benchmarks.text._words import WordRarity, by_word, correlations, excerpts
from vqmem.memory.scorer import ScorerModel
from vqmem.models.device import resolve_device
from vqmem.models.vq_lm import SIGNALS
from vqmem.recipes.compare.statistics import bootstrap_interval, paired_bootstrap
from vqmem.recipes.engine.config import load
from vqmem.recipes.lm.corpus import Passage
from vqmem.recipes.lm.language_model import score_passages
from vqmem.recipes.text_lm.recipe import Config, read_split, scorer_report
from vqmem.registry import build

PASSAGES, WORDS, RESAMPLES = 24, 400, 1000
"""Passages of so many words, and bootstrap resamples."""
OURS = ("vq_lm", "surprise")
"""The scorer and the signal that the others are compared with."""
AGAINST = ("unigram rarity, tokens", "SmolLM2, words", "SmolLM2, words, partial")
BY_SIZE = "Codebook sizes: correlation with"
DIFFERENCES = "Difference from vq_lm surprise, paired"
CURVE = "Rate and residual on dev, bits a token"
BASELINES = ("length of the word", "rarity of the word")
"""What the partial correlation is given, in the order of `PassageReading.given`."""
MEASURED = f"""\
Spearman correlations on passages of {WORDS} words, from the middles of equal parts of the dev books; every model starts
each passage with an empty context. *Unigram rarity*: -log p(token) counted on all of train, over tokens. *SmolLM2*: the
surprisal of SmolLM2-135M-Instruct (4-bit weights, read to float32); the scores and surprisals of the tokens of each
white-space-delimited word are added up on both sides, and correlated over words. *Partial*: the same given the word's
length in characters and its rarity (-log p of its lower-case form in train). `surprise` is the residual given code and
state, `rarity` the residual given the code alone, `gain` their difference; for `lstm_lm` and `masked_lm`, `surprise` is
surprisal and `rarity` the unigram's. All scorers but `unigram` and `random` are trained on the same tokens with the
same steps and widths; `vq_lm` has 64 codes."""


class PassageReading(NamedTuple):
    """The signals of a passage, a row a token or a word, a column a signal; and what they are correlated with."""

    tokens: Float[np.ndarray, "token column"]
    rarity: Float[np.ndarray, " token"]
    words: Float[np.ndarray, "word column"]
    surprisal: Float[np.ndarray, " word"]
    given: Float[np.ndarray, "word 2"]


class Figures:
    """Values and their intervals, put at the same place in two trees."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.intervals: dict[str, Any] = {}

    def put(self, table: str, row: str, column: str, value: float, ends: Sequence[float | None] | None = None) -> None:
        """Add a cell to a table; a value that is not finite becomes None.

        Args:
            table: the heading of the table.
            row: the name of the row.
            column: the name of the column.
            value: the value of the cell.
            ends: lower and upper bound of its interval; None, also as a bound, adds no interval.
        """
        defined = value if math.isfinite(value) else None
        self.values.setdefault(table, {}).setdefault(row, {})[column] = _rounded(defined)
        if defined is not None and ends is not None and None not in ends:
            place = self.intervals.setdefault(table, {}).setdefault(row, {})
            place[column] = [_rounded(end) for end in ends]

    def points(self, table: str, column: str) -> list[list[float]]:
        """A column as points of a chart: rows named by numbers, their values, and intervals where there are any."""
        return [
            [float(row), cells[column], *self.intervals.get(table, {}).get(row, {}).get(column, [])]
            for row, cells in self.values[table].items()
        ]


def main() -> None:
    """Train, read, correlate; print, save."""
    parser = options(__doc__)
    data = os.environ.get("VQMEM_DATA", "../shared/data")
    parser.add_argument("--data", default=data, help="folder that holds text/ (default $VQMEM_DATA or ../shared/data)")
    parser.add_argument("--run", default="runs/score_meaning", help="folder that keeps what was trained")
    parser.add_argument("--steps", type=int, default=600, help="training steps of every scorer")
    flags = parser.parse_args()
    os.environ["VQMEM_DATA"] = flags.data
    passages, sizes, resamples, steps = (6, (1,), 50, 20) if flags.quick else (PASSAGES, SIZES, RESAMPLES, flags.steps)
    overrides = [f"out={flags.run}{'-quick' if flags.quick else ''}", f"scorer_train.steps={steps}"]
    config = load(Config, "novels", overrides, folder=ROOT / "recipes" / "text_lm" / "configs")
    result = measure(config, train_field(config, sizes), passages, resamples)
    if flags.save:
        write_result("score_meaning", result)
    print(json.dumps({"values": result.values, "intervals": result.intervals}, indent=None if flags.json else 1))


def measure(config: Config, field: Field, count: int, resamples: int) -> Result:
    """Correlate the signals of every scorer and codebook size, and measure rate and residual by codebook size.

    Args:
        config: the data and the training of the scorers.
        field: the trained scorers.
        count: passages of the dev books to correlate on.
        resamples: bootstrap resamples of the passages.

    Returns:
        The result for the page.
    """
    models = field.scorers | {str(codes): model for codes, model in field.curve.items()}
    readings = read_dev(config, field, list(models.values()), count)
    columns = [(name, signal) for name, model in models.items() for signal in model.signals]
    columns += [(name, "") for name in BASELINES]
    (found, apart), (ends, apart_ends) = correlate(readings, resamples, columns.index(OURS))
    figures = Figures()
    for column, (name, signal) in enumerate(columns):
        for row, against in enumerate(AGAINST):
            here = (found[row, column], ends[row, column].tolist())
            if name not in map(str, field.curve):
                figures.put("Scorers", f"{name} {signal}".strip(), against, *here)
            elif row:
                figures.put(f"{BY_SIZE} {against}", name, signal, *here)
    differences(figures, columns, apart, apart_ends)
    items = read_split(config, field.tokenizer, "dev", count=config.eval_passages)
    for codes, model in field.curve.items():
        rate_and_residual(figures, config, codes, model, items)
    return describe(config, figures, readings, resamples, items)


def read_dev(config: Config, field: Field, models: Sequence[ScorerModel], count: int) -> list[PassageReading]:
    """Read passages of the dev books with every model and with SmolLM2.

    Args:
        config: the data; surprisals of SmolLM2 are cached in its ``out``.
        field: the front-end and the unigram scorer.
        models: the scorers whose signals are the columns, in this order.
        count: passages to read, each of `WORDS` words.

    Returns:
        One reading per passage, with the signals of ``models`` in its columns.
    """
    source = build("data", config.data)
    rarity_of_words = WordRarity(document.text for document in source.documents("train"))
    texts = excerpts(list(source.documents("dev")), count, WORDS)
    peers = cached_surprisals(texts, Path(config.out) / "smollm2")
    readings = []
    for text, peer in zip(texts, peers, strict=True):
        stream = field.tokenizer.encode(text)
        tokens = np.concatenate([signals_of(model, stream.ids) for model in models], 1)
        rarity = signals_of(field.scorers["unigram"], stream.ids)[:, 0]
        places = zip(stream.starts.tolist(), stream.ends.tolist(), strict=True)
        nats = np.array([[nat] for _, _, nat in peer])
        surprisal = by_word(text, [(start, end) for start, end, _ in peer], nats)[:, 0]
        given = np.column_stack([[len(word) for word in text.split()], rarity_of_words(text)])
        readings.append(PassageReading(tokens, rarity, by_word(text, places, tokens), surprisal, given))
    return readings


def signals_of(model: ScorerModel, ids: Int[Tensor, " time"]) -> Float[np.ndarray, "time signal"]:
    """The signals of a passage read from the empty state."""
    assert isinstance(model, nn.Module)
    device = next(itertools.chain(model.parameters(), model.buffers())).device
    return model.score(ids[None].to(device), model.initial_state(1))[0][0].double().cpu().numpy()


def correlate(
    readings: Sequence[PassageReading], resamples: int, ours: int
) -> tuple[Float[np.ndarray, "2 against column"], Float[np.ndarray, "2 against column end"]]:
    """Correlations over all passages and their differences from those of column ``ours``; the intervals of both.

    The last columns are the `BASELINES`.
    """

    def once(picked: Sequence[int]) -> Float[np.ndarray, "2 against column"]:
        tokens, rarity, words, surprisal, given = (
            np.concatenate(parts) for parts in zip(*(readings[i] for i in picked), strict=True)
        )
        over_tokens, _ = correlations(tokens, rarity, rarity[:, None])
        plain, partial = correlations(np.column_stack([words, given]), surprisal, given)
        found = np.stack([np.append(over_tokens, [np.nan] * len(BASELINES)), plain, partial])
        return np.stack([found, found - found[:, ours, None]])

    def each(drawn: Int[np.ndarray, "resample passage"]) -> Float[np.ndarray, "2 against column resample"]:
        return np.stack([once(picked) for picked in drawn.tolist()], -1)

    ends = bootstrap_interval(each, len(readings), resamples=resamples)
    return once(range(len(readings))), np.moveaxis(ends, 0, -1)


def differences(
    figures: Figures,
    columns: Sequence[tuple[str, str]],
    apart: Float[np.ndarray, "against column"],
    ends: Float[np.ndarray, "against column end"],
) -> None:
    """Add the table of differences between correlations with SmolLM2's surprisal: other signals against `OURS`.

    Args:
        figures: where to add them.
        columns: scorer and signal of each column.
        apart: the differences.
        ends: their intervals, low and high.
    """
    others = [("vq_lm", "rarity"), ("vq_lm", "gain"), ("lstm_lm", "surprise"), ("masked_lm", "surprise")]
    for name in (*others, ("unigram", "rarity"), ("random", "surprise"), *((name, "") for name in BASELINES)):
        column = columns.index(name)
        for row, against in enumerate(AGAINST[1:], 1):
            figures.put(DIFFERENCES, " ".join(name).strip(), against, apart[row, column], ends[row, column].tolist())


def rate_and_residual(
    figures: Figures, config: Config, codes: int, model: ScorerModel, items: Sequence[Passage]
) -> None:
    """Add a row to the curve: the bottleneck's rate, the residual after it, and the use of its codes.

    Args:
        figures: where to add it.
        config: the data and the training of the scorers.
        codes: the codebook size.
        model: the VQ-LM with this codebook.
        items: passages of the dev books.
    """
    table, row = CURVE, str(codes)
    scores = score_passages(model, items, config.batch_size, config.segment, resolve_device(config.device))
    surprise = [score[:, scores.signals.index("surprise")].double() for score in scores.values]
    bits = np.array([[float(nats.sum()) / math.log(2) for nats in surprise]])
    residual = paired_bootstrap(bits, None, np.array([len(nats) for nats in surprise]))
    report = scorer_report(config, model, list(items))
    figures.put(table, row, "rate", report["rate"])
    figures.put(table, row, "residual", residual.value, [residual.low, residual.high])
    for key in ("codes_used", "dead_codes"):
        figures.put(table, row, key.replace("_", " "), report[key])
    figures.put(table, row, "training s", training_seconds(Path(config.out) / f"codes-{codes}"))


def describe(
    config: Config, figures: Figures, readings: Sequence[PassageReading], resamples: int, items: Sequence[Passage]
) -> Result:
    """Write the result with its charts and findings.

    Args:
        config: the data and the training of the scorers.
        figures: all tables.
        readings: the passages that were correlated.
        resamples: bootstrap resamples of the intervals.
        items: the passages of the curve.

    Returns:
        The result for the page.
    """
    words, tokens = (
        sum(len(part) for part in parts) for parts in zip(*((r.words, r.tokens) for r in readings), strict=True)
    )
    charts = [
        Chart(
            "Rate and residual by codebook size",
            "codes",
            "bits a token",
            [Series(name, figures.points(CURVE, name)) for name in ("rate", "residual")],
            log_x=True,
        ),
        Chart(
            "Correlation with SmolLM2's surprisal by codebook size",
            "codes",
            "Spearman, words",
            [Series(name, figures.points(f"{BY_SIZE} {AGAINST[1]}", name)) for name in SIGNALS],
            log_x=True,
        ),
    ]
    answer, *notes = findings(figures, config)
    return Result(
        title="What the score means",
        question=(
            "Does the VQ-LM's surprise agree with a far larger language model's surprisal, better than mere rarity "
            "does?"
        ),
        answer=answer,
        measured=MEASURED.replace("\n", " "),
        values=figures.values,
        intervals=figures.intervals,
        interval_kind=f"95 % by {resamples} bootstrap resamples of the passages (expanded percentile), one model a row",
        split=f"dev, {len(readings)} passages, {words} words, {tokens} tokens; curve {len(items)} passages",
        seeds=[config.seed],
        charts=charts,
        effect=[DIFFERENCES, "unigram surprise", AGAINST[1]],
        notes=notes,
        history=[
            "Passages began at the first word of each book in a first reading, and included a table of contents that "
            "the LSTMs read badly; they were then moved. It had vq_lm at 0.668, unigram at 0.670 and lstm_lm at 0.678.",
        ],
    )


def findings(figures: Figures, config: Config) -> list[str]:
    """What the figures say, in words that follow from them alone; the answer to the question first."""
    scorers, plain = figures.values["Scorers"], AGAINST[1]
    notes = [f"{row} {cells[plain]:.3f}" for row, cells in scorers.items() if cells[plain] is not None]
    order = "Spearman with SmolLM2 over words, in order: " + ", ".join(
        sorted(notes, key=lambda x: -float(x.split()[-1]))
    )
    notes = []
    for against in AGAINST[1:]:
        table, verdicts = figures.intervals[DIFFERENCES], {"better than": [], "worse than": [], "no different from": []}
        for row, ends in table.items():
            if against in ends:
                low, high = ends[against]
                verdict = "better than" if high < 0 else "worse than" if low > 0 else "no different from"
                verdicts[verdict].append(row)
        listed = "; ".join(f"{verdict} {', '.join(rows)}" for verdict, rows in verdicts.items() if rows)
        notes.append(f"{against}: the VQ-LM's surprise is {listed}.")
    surprise = {codes: cells["surprise"] for codes, cells in figures.values[f"{BY_SIZE} {plain}"].items()}
    best, worst = max(surprise, key=lambda codes: surprise[codes]), min(surprise, key=lambda codes: surprise[codes])
    last = list(figures.values[CURVE])[-1]
    curve = figures.values[CURVE][last]
    trained = sum(training_seconds(folder) for folder in sorted(Path(config.out).iterdir()))
    return [
        *notes,
        order,
        f"By codebook size, surprise goes best with SmolLM2's at size {best} ({surprise[best]:.3f}; size 1 is plain "
        f"surprisal) and worst at size {worst} ({surprise[worst]:.3f}): what a code says, the score no longer does.",
        f"A code for each token ({last}) leaves {curve['residual']:.2f} bits; {curve['codes used']:.0f} are used.",
        "Sums over a word grow with its number of tokens, so that noise correlates over words too.",
        f"{config.scorer_train.steps} steps of {config.batch_size} x {config.segment} tokens a scorer: few. "
        f"Training took {trained / 60:.0f} min by its logs, in the time below only where it was not done before.",
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


if __name__ == "__main__":
    main()
