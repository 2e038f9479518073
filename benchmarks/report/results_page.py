"""Generate docs/results.md, a page a topic and their pictures from docs/results/*.json.

    python benchmarks/report/results_page.py [--check]

Any file that `_results.read_result` reads is shown; to publish another measurement, write its file and run this again.
``--check`` writes nothing and fails, naming what differs, where a page or a picture is not what the files say.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vqmem.benchmarks._results import RESULTS, ROOT, Chart, Result, Series, read_result
from vqmem.benchmarks.report._chart import draw

PAGE = "results.md"
HEAD = """# Results

Every figure of the project, with the command that made it. Each question links to its tables and charts. This page and
those of its topics are generated from the JSON files in [`results/`](results) by
`python benchmarks/report/results_page.py`; do not edit them.
"""
TOPICS = {
    "kv": "The cache of a pretrained model",
    "text": "Memories and scores on text",
    "speech": "Speech",
    "speed": "Speed",
}
"""Titles of the pages; a topic that is not here keeps its name."""
MOST_COLUMNS = 9
"""A table of figures with more than that moves what is behind each figure to a separate table."""
FIGURE = ("value", "unit", "goal", "ok")
LONGEST_ANSWER = 200
"""Characters of an answer in the index; a longer one is shortened."""
README_CHART = "capacity.svg"
README_RESULT = "kv_stream_nll"
README_LINES = {
    "sink_recent": "newest",
    "kvpress ObservedAttention": "H2O-like (kvpress)",
    "kvpress TOVA": "TOVA (kvpress)",
    "kvpress ExpectedAttention": "ExpectedAttention",
    "surprise (the default)": "ours: surprise",
    "reuse": "ours: reuse",
    "everything": "everything kept",
}


def generate(folder: Path) -> dict[Path, str]:
    """Every generated file and its text: the index beside ``folder``, a page a topic and the pictures inside."""
    files: dict[Path, str] = {}
    topics: dict[str, dict[str, Result]] = {topic: {} for topic in TOPICS}
    for path in sorted(folder.glob("*.json")):
        result = read_result(path)
        topics.setdefault(result.topic, {})[path.stem] = result
        files |= {folder / _picture(path.stem, number): draw(chart) for number, chart in _numbered(result)}
        if path.stem == README_RESULT:
            files[folder / README_CHART] = draw(capacity_chart(result))
    parts = [HEAD.strip()]
    for topic, results in topics.items():
        if results:
            files[folder / f"{topic}.md"] = topic_page(topic, results)
            parts += [f"## {TOPICS.get(topic, topic)}", _index(results, f"{folder.name}/{topic}.md")]
    if len(parts) == 1:
        parts.append("No result has been saved yet.")
    files[folder.parent / PAGE] = "\n\n".join(parts) + "\n"
    return files


def topic_page(topic: str, results: dict[str, Result]) -> str:
    """The page of a topic: its first chart, the questions, a section a result."""
    lead = next((name for name, result in results.items() if result.charts), None)
    parts = [f"# {TOPICS.get(topic, topic)}"]
    if lead:
        parts.append(f"![{results[lead].charts[0].title}]({_picture(lead, 1)})")
    parts += [f"[All results](../{PAGE})", _index(results, "")]
    parts += [_section(name, result, skip=int(name == lead)) for name, result in results.items()]
    return "\n\n".join(parts) + "\n"


def capacity_chart(result: Result) -> Chart:
    """The chart of the README: what long-gap tokens lose less than with the newest tokens, by capacity.

    A policy has points at the capacities it was measured at. `sink_recent` is the reference, so its line is zero.
    """
    column, by_policy = "long-gap NLL - sink_recent", {label: [] for label in README_LINES.values()}
    for heading, rows in result.values.items():
        if not (found := re.fullmatch(r"Test, (\d+) slots", heading)):
            continue
        capacity = int(found[1])
        for name, label in README_LINES.items():
            if name == "sink_recent":
                by_policy[label].append([capacity, 0.0])
            elif name in rows:
                interval = result.intervals[heading][name][column]
                by_policy[label].append([capacity, rows[name][column], *interval])
    series = [Series(label, points) for label, points in by_policy.items() if points]
    title = "Loss on long-gap tokens against keeping the newest"
    return Chart(title, "capacity, slots", "nats a token (lower is better)", series, log_x=True)


def effect(result: Result) -> str:
    """The figure of the index: what it is of, value, unit, interval and goal."""
    keys = result.effect or _first_figure(result.values)
    if not keys:
        return ""
    value, interval = result.values, result.intervals
    for key in keys[:-1]:
        value, interval = value[key], interval.get(key, {})
    shown = _cell(value[keys[-1]], interval.get(keys[-1]))
    if keys[-1] != "value":
        return f"{', '.join(keys[-2:])}: {shown}"
    goal = f" (goal {_number(value['goal'])})" if "goal" in value else ""
    return f"{keys[-2]}: {' '.join([shown, value['unit']]).strip()}{goal}"


def tables(values: dict[str, Any], intervals: dict[str, Any], heading: str = "") -> Iterator[tuple[str, str]]:
    """(heading, Markdown table) of nested values: the last two levels are rows and columns."""
    flat = {key: value for key, value in values.items() if not isinstance(value, dict)}
    rows = {key: value for key, value in values.items() if isinstance(value, dict) and _is_row(value)}
    behind = {}
    if len({column for row in rows.values() for column in row}) > MOST_COLUMNS:
        behind = {key: _pivot({c: v for c, v in row.items() if c not in FIGURE}) for key, row in rows.items()}
        rows = {key: {c: v for c, v in row.items() if c in FIGURE} for key, row in rows.items()}
    if flat:
        yield heading, _table(["", "value"], [[key, _cell(value, intervals.get(key))] for key, value in flat.items()])
    if rows:
        columns = list(dict.fromkeys(column for row in rows.values() for column in row))
        body = [
            [key, *(_cell(row[c], intervals.get(key, {}).get(c)) if c in row else "" for c in columns)]
            for key, row in rows.items()
        ]
        yield heading, _table(["", *columns], body)
    for key, value in (values | behind).items():
        if isinstance(value, dict) and value and (key in behind or key not in rows):
            yield from tables(value, intervals.get(key, {}), f"{heading}, {key}" if heading else key)


def stale(files: dict[Path, str], folder: Path) -> list[str]:
    """Names of the generated files that are missing, differ or have no result any more."""
    wrong = [p.name for p, text in files.items() if not p.is_file() or p.read_text(encoding="utf-8") != text]
    return wrong + [path.name for path in _generated(folder) if path not in files]


def main(arguments: list[str] | None = None, folder: Path = RESULTS) -> int:
    """Write the page, or check it; 1 where the check fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page is not up to date")
    check = parser.parse_args(arguments).check
    files = generate(folder)
    wrong = stale(files, folder)
    if check:
        if wrong:
            print(
                f"not up to date: {', '.join(wrong)}; run `python benchmarks/report/results_page.py`", file=sys.stderr
            )
        return int(bool(wrong))
    for path in _generated(folder):
        if path not in files:
            path.unlink()
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    print(f"wrote {len(files)} files to {folder.parent.relative_to(ROOT) if folder == RESULTS else folder.parent}")
    return 0


def _first_figure(values: dict[str, Any]) -> list[str]:
    """The keys of the first figure that missed its goal, or else of the first figure."""
    figures = {key: one for key, one in values.items() if isinstance(one, dict) and "unit" in one}
    missed = [key for key, one in figures.items() if one.get("ok") is False]
    first = next(iter([*missed, *figures]), None)
    return [first, "value"] if first else []


def _generated(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.svg"), *folder.glob("*.md")])


def _picture(name: str, number: int) -> str:
    return f"{name}-{number}.svg"


def _numbered(result: Result) -> Iterator[tuple[int, Chart]]:
    return iter(enumerate(result.charts, 1))


def _anchor(name: str) -> str:
    return name.replace("_", "-")


def _index(results: dict[str, Result], page: str) -> str:
    """A row a question, with links into ``page``."""
    rows = []
    for name, result in results.items():
        link = f"[{result.question}]({page}#{_anchor(name)})"
        rows.append([link, _brief(result.answer), effect(result), f"`{result.command}`"])
    return _table(["question", "answer", "effect [interval]", "command"], rows)


def _brief(answer: str) -> str:
    """The answer, without its second sentence or the list of what was missed where it is long."""
    if len(answer) <= LONGEST_ANSWER:
        return answer
    return re.split(r"\. (?=[A-Z])|; missed: |\.$", answer)[0] + "."


def _section(name: str, result: Result, *, skip: int) -> str:
    """The section of a result, without its first ``skip`` charts, which are at the top of the page."""
    parts = [f'<a id="{_anchor(name)}"></a>\n\n## {result.title}']
    parts += [f"![{chart.title}]({_picture(name, number)})" for number, chart in _numbered(result) if number > skip]
    parts += [f"**Question:** {result.question}", f"**Answer:** {result.answer}", result.measured]
    for heading, table in tables(result.values, result.intervals):
        if heading.startswith("Dev"):
            parts.append(_folded(heading, table))
        else:
            parts += [f"### {heading}", table] if heading else [table]
    if result.interval_kind:
        parts.append(f"In brackets: {result.interval_kind}.")
    if result.notes:
        parts.append(_bullets(result.notes))
    if result.history:
        parts.append(_folded("How settings were chosen, and what was read before", _bullets(result.history)))
    return "\n\n".join([*parts, _made(name, result)])


def _folded(summary: str, body: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _made(name: str, result: Result) -> str:
    """The line that says how to make it again."""
    versions = ", ".join(f"{package} {version}" for package, version in result.versions.items())
    machine = ", ".join(f"{key} {value}" for key, value in result.machine.items() if value is not None)
    seeds = f"seeds {', '.join(map(str, result.seeds))}" if result.seeds else "no seed"
    took = f"{result.seconds / 60:.0f} min" if result.seconds >= 120 else f"{result.seconds:.0f} s"
    about = f"{result.split}; {seeds}; {result.date}, {took}; {versions}; {machine}"
    return f"Made by `{result.command}` ([file]({name}.json)): {about}."


def _pivot(values: dict[str, Any]) -> dict[str, Any]:
    """Rows of columns from keys "row, column" where all keys are such; else the values themselves."""
    if not all(", " in key for key in values):
        return values
    rows: dict[str, Any] = {}
    for key, value in values.items():
        row, _, column = key.rpartition(", ")
        rows.setdefault(row, {})[column] = value
    return rows


def _is_row(value: dict[str, Any]) -> bool:
    return not any(isinstance(item, dict) for item in value.values())


def _cell(value: Any, interval: list[float] | None) -> str:
    """A value, with its interval to as many places as show two digits of the interval's width."""
    if not interval:
        return _number(value).replace("|", "\\|")
    width = interval[1] - interval[0]
    places = min(6, max(0, 1 - math.floor(math.log10(width)))) if width > 0 else 3
    one, low, high = (f"{number:,.{places}f}" for number in (value, *interval))
    return f"{one} [{low}, {high}]"


def _number(value: Any) -> str:
    """Four significant digits, integers without a point; ``n/a`` for what is not defined."""
    if value is None:
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_number, value))
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 1e15:
            return f"{value:,.0f}"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}" if 0.001 <= abs(value) < 10 else f"{value:.4g}"
    return str(value)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
