"""The format of ``docs/results/NAME.json``, one file a measurement, and how a benchmark prints its figures.

`results_page.py` generates `docs/results.md` from these files.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import vqmem
from vqmem.files import atomic_write
from vqmem.schema import coerce

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
STARTED = time.perf_counter()
"""When this module was imported, which is when a script that saves its result began."""


@dataclass(frozen=True)
class Series:
    """A line of a chart: points of x, y and, where it has an interval, its low and high end."""

    name: str
    points: list[list[float]]

    def __post_init__(self) -> None:
        for point in self.points:
            if len(point) not in (2, 4) or not all(math.isfinite(number) for number in point):
                raise ValueError(f"point {point} is not [x, y] or [x, y, low, high] of finite numbers")


@dataclass(frozen=True)
class Chart:
    """A line chart: axes with their units, and series."""

    title: str
    x: str
    y: str
    series: list[Series]
    log_x: bool = False
    """Logarithmic x axis, ticked at the x of the points."""


@dataclass(frozen=True)
class Result:
    """One measurement. The fields are the keys of its file; those with a default say where and when it was made."""

    title: str
    question: str
    answer: str
    """A sentence that follows from the values."""
    measured: str
    """What was measured, on what, how; a paragraph."""
    values: dict[str, Any]
    """Numbers, texts and nulls (not defined), nested to any depth: the last two levels are rows and columns of a table,
    those above are the tables' headings. A heading that begins with "Dev" is folded: it was read to choose settings."""
    split: str
    """Of which data: split, documents, sizes."""
    seeds: list[int] = field(default_factory=list)
    intervals: dict[str, Any] = field(default_factory=dict)
    """``[low, high]`` at the same places as the values they belong to, where there are any."""
    interval_kind: str = ""
    """What the intervals are of: level, what was resampled, how often."""
    effect: list[str] = field(default_factory=list)
    """The keys that lead to the value which answers the question. Where it is empty, the page takes the
    first figure that missed its goal, or else the first."""
    charts: list[Chart] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What a reader has to know, a sentence or two each; the findings that speak against us first."""
    history: list[str] = field(default_factory=list)
    """How settings were chosen, and how often the data was read before; folded on the page."""
    topic: str = ""
    """The page that shows it: the folder of its script in ``benchmarks/``."""
    command: str = ""
    seconds: float = 0.0
    date: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)


def write_result(name: str, result: Result, folder: Path = RESULTS) -> Path:
    """Write ``folder/name.json``.

    Topic, command, time, versions and machine are filled in where ``result`` leaves them out.

    Raises `ValueError` for values that are not JSON: use None where a figure is not defined, never nan.
    """
    result = replace(
        result,
        topic=result.topic or Path(sys.argv[0]).resolve().parent.name,
        command=result.command or command(),
        seconds=result.seconds or round(time.perf_counter() - STARTED, 1),
        date=result.date or datetime.datetime.now(datetime.UTC).date().isoformat(),
        versions=result.versions or versions(),
        machine=result.machine or machine(),
    )
    try:
        text = json.dumps(asdict(result), indent=1, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"result {name!r} has values that JSON cannot represent ({error}); give numbers, texts or None"
        ) from None
    path = folder / f"{name}.json"
    # Innermost lists on a line each: intervals and points by the hundred.
    lists = re.compile(r"\[\n([^][{}\"]*)\n *\]")
    atomic_write(path, lists.sub(lambda match: f"[{' '.join(match[1].split())}]", text) + "\n")
    return path


def read_result(path: Path) -> Result:
    """The result in a file. Raises `ValueError` naming the file and the key where it is not one."""
    try:
        return coerce(Result, json.loads(path.read_text(encoding="utf-8")), "")
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def convert_summary(description: str | None, name: str, make: Callable[[Mapping[str, Any], list[str]], Result]) -> None:
    """Be the script that makes a result of the summary that a recipe wrote.

    Args:
        description: what ``--help`` says.
        name: the name of the result, unless another is given.
        make: makes the result of a summary and remarks.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("summary", type=Path, help="the summary.json of the recipe")
    parser.add_argument("--name", default=name, help=f"the file in docs/results (default {name})")
    parser.add_argument("--note", action="append", default=[], help="a remark on the result; may be repeated")
    flags = parser.parse_args()
    print(write_result(flags.name, make(json.loads(flags.summary.read_text(encoding="utf-8")), flags.note)))


def command() -> str:
    """The command line that runs now, as one would type it in the checkout."""
    script = Path(sys.argv[0]).resolve()
    inside = script.relative_to(ROOT).as_posix() if script.is_relative_to(ROOT) else script.name
    return " ".join(["python", inside, *sys.argv[1:]])


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    return {"vqmem": vqmem.__version__, "torch": torch.__version__, "python": platform.python_version()}


def machine() -> dict[str, Any]:
    """The processor, how many cores it has, and how many threads torch was using."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(models) or None
    return {"cpu": models[0] if models else platform.machine(), "cores": cores, "threads": torch.get_num_threads()}


# --- benchmarks ----------------------------------------------------------------------------------------------------


def figure(value: float, unit: str, goal: float | None, *, least: bool = True, **more: Any) -> dict[str, Any]:
    """Make a figure of a benchmark.

    Args:
        value: the measured value, in ``unit``.
        unit: what the value counts, such as ``"%"`` or ``"x real time"``.
        goal: the value to reach, in the same unit; None reports the value alone.
        least: whether the goal is a lower bound (the default) or an upper bound.
        **more: the values that the figure was computed from, by name.

    Returns:
        ``value``, ``unit`` and ``more``; with a goal also ``goal`` and whether the value is ``ok``.
    """
    with_goal = {} if goal is None else {"goal": goal, "ok": value >= goal if least else value <= goal}
    return {"value": value, "unit": unit, **with_goal, **more}


def options(description: str | None) -> argparse.ArgumentParser:
    """The flags every benchmark takes: ``--quick``, ``--json`` and ``--save``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--quick", action="store_true", help="a short run, to see that it works; no evidence")
    either.add_argument("--save", action="store_true", help="write the result to docs/results/")
    parser.add_argument("--json", action="store_true", help="print one JSON object: figure to value, unit, goal, ok")
    return parser


def data_option(parser: argparse.ArgumentParser) -> None:
    """Add the flag ``--data``, the folder that holds texts."""
    default = os.environ.get("VQMEM_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=default, help="folder that holds text/ (default $VQMEM_DATA)")


def show(figures: Mapping[str, Mapping[str, Any]], flags: argparse.Namespace) -> None:
    """Print a benchmark's figures, for people or as JSON."""
    if flags.json:
        print(json.dumps(figures, indent=2))
        return
    for key, one in figures.items():
        verdict = f"(goal {one['goal']:g}) {'ok' if one['ok'] else 'MISSED'}  " if "goal" in one else ""
        print(f"{key:32} {one['value']:8.2f} {one['unit']} {verdict}{dict(one)}")


def present(
    name: str,
    figures: Mapping[str, Mapping[str, Any]],
    flags: argparse.Namespace,
    *,
    title: str,
    question: str,
    measured: str,
    notes: Sequence[str] = (),
    history: Sequence[str] = (),
    charts: Sequence[Chart] = (),
    effect: Sequence[str] = (),
    split: str = "no data set",
    seeds: Sequence[int] = (),
    tables: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
    intervals: Mapping[str, Any] | None = None,
    interval_kind: str = "",
) -> None:
    """Print a benchmark's figures, and with ``--save`` write them to ``docs/results`` as a `Result`.

    Args:
        name: the name of the saved file, without ``.json``.
        figures: the figures by name, each made by `figure`.
        flags: the parsed flags of `options`; they choose between text and JSON, and whether to save.
        title: the heading of the result.
        question: the question that the goals of the figures answer.
        measured: what was measured, on which data and how; a paragraph.
        notes: remarks on the result, one sentence or more each.
        history: how settings and data were used before this measurement.
        charts: line charts of the result.
        effect: the place in the tables of the value that summarises the result: heading, row, column.
        split: the data that was measured: split, documents, sizes.
        seeds: the seeds of the trainings or samples; empty if nothing is random.
        tables: more detailed values, by heading, row and column; printed and saved below the figures.
        intervals: ``[low, high]`` at the same places as the figures and tables.
        interval_kind: level and method of the intervals, such as ``"95 %, paired bootstrap over passages"``.
    """
    tables = tables or {}
    show(figures, flags)
    for heading, rows in {} if flags.json else tables.items():
        print("\n".join([heading, *(f"  {row}: {dict(columns)}" for row, columns in rows.items())]))
    if flags.save:
        values = {key: dict(one) for key, one in figures.items()} | dict(tables)
        with_goal = {key: one for key, one in figures.items() if "goal" in one}
        missed = [
            f"{key} ({one['value']:g} {one['unit']}, goal {one['goal']:g})"
            for key, one in with_goal.items()
            if not one["ok"]
        ]
        answer = f"{len(with_goal) - len(missed)} of {len(with_goal)} goals reached"
        if missed:
            answer += f"; missed: {', '.join(missed)}"
        result = Result(
            title=title,
            question=question,
            answer=f"{answer}.",
            measured=measured,
            values=values,
            split=split,
            seeds=list(seeds),
            intervals=dict(intervals or {}),
            interval_kind=interval_kind,
            effect=list(effect),
            charts=list(charts),
            notes=list(notes),
            history=list(history),
        )
        write_result(name, result)
