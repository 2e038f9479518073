"""Generate docs/results.md and its pictures from docs/results/*.json.

    python benchmarks/report/results_page.py [--check]

Any file that `_results.read_result` reads is shown; to publish another measurement, write its file and run this again.
``--check`` writes nothing and fails, naming what differs, where the page or a picture is not what the files say.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vqmem.benchmarks._results import RESULTS, ROOT, Result, read_result
from vqmem.benchmarks.report._chart import draw

PAGE = "results.md"
HEAD = """# Results

Every figure the project tells, with the command that made it. This page is generated from the files in
[`results/`](results) by `python benchmarks/report/results_page.py`; do not edit it.
"""


def generate(folder: Path) -> dict[Path, str]:
    """Every file of the page and what belongs in it: ``results.md`` beside ``folder`` and the pictures inside."""
    files: dict[Path, str] = {}
    contents, sections = [], []
    for path in sorted(folder.glob("*.json")):
        result = read_result(path)
        pictures = []
        for number, chart in enumerate(result.charts, 1):
            picture = folder / f"{path.stem}-{number}.svg"
            files[picture] = draw(chart)
            pictures.append(f"![{chart.title}]({folder.name}/{picture.name})")
        contents.append(f"- [{result.title}](#{path.stem.replace('_', '-')})")
        sections.append(_section(path, result, pictures))
    empty = [] if sections else ["No result has been saved yet."]
    files[folder.parent / PAGE] = (
        "\n\n".join([HEAD.strip(), *empty, *(["\n".join(contents)] if contents else []), *sections]) + "\n"
    )
    return files


def tables(values: dict[str, Any], intervals: dict[str, Any], heading: str = "") -> Iterator[tuple[str, str]]:
    """(heading, Markdown table) of nested values: the last two levels are rows and columns."""
    flat = {key: value for key, value in values.items() if not isinstance(value, dict)}
    rows = {key: value for key, value in values.items() if isinstance(value, dict) and _is_row(value)}
    if flat:
        yield heading, _table(["", "value"], [[key, _cell(value, intervals.get(key))] for key, value in flat.items()])
    if rows:
        columns = list(dict.fromkeys(column for row in rows.values() for column in row))
        body = [
            [key, *(_cell(row[c], intervals.get(key, {}).get(c)) if c in row else "" for c in columns)]
            for key, row in rows.items()
        ]
        yield heading, _table(["", *columns], body)
    for key, value in values.items():
        if isinstance(value, dict) and key not in rows:
            yield from tables(value, intervals.get(key, {}), f"{heading}, {key}" if heading else key)


def stale(files: dict[Path, str], folder: Path) -> list[str]:
    """Names of the generated files that are missing, differ or have no result any more."""
    wrong = [p.name for p, text in files.items() if not p.is_file() or p.read_text(encoding="utf-8") != text]
    return wrong + [path.name for path in sorted(folder.glob("*.svg")) if path not in files]


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
    for path in folder.glob("*.svg"):
        if path not in files:
            path.unlink()
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    print(f"wrote {len(files)} files to {folder.parent.relative_to(ROOT) if folder == RESULTS else folder.parent}")
    return 0


def _section(path: Path, result: Result, pictures: list[str]) -> str:
    parts = [f'<a id="{path.stem.replace("_", "-")}"></a>\n\n## {result.title}', f"To be shown: *{result.claim}*"]
    parts += [f"**Found:** {result.verdict}", result.measured]
    for heading, table in tables(result.values, result.intervals):
        parts += [f"### {heading}"] * bool(heading) + [table]
    if result.interval_kind:
        parts.append(f"In brackets: {result.interval_kind}.")
    parts += pictures
    if result.notes:
        parts.append("\n".join(f"- {note}" for note in result.notes))
    return "\n\n".join([*parts, _made(path, result)])


def _made(path: Path, result: Result) -> str:
    """The line that says how to make it again."""
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    machine = ", ".join(f"{key} {value}" for key, value in result.machine.items() if value is not None)
    seeds = f"seeds {', '.join(map(str, result.seeds))}" if result.seeds else "no seed"
    took = f"{result.seconds / 60:.0f} min" if result.seconds >= 120 else f"{result.seconds:.0f} s"
    about = f"{result.split}; {seeds}; {result.date}, {took}; {versions}; {machine}"
    return f"Made by `{result.command}` ([file](results/{path.name})): {about}."


def _is_row(value: dict[str, Any]) -> bool:
    return not any(isinstance(item, dict) for item in value.values())


def _cell(value: Any, interval: list[float] | None) -> str:
    """A value, with its interval to as many places as tell two digits of the interval's width."""
    if not interval:
        return _number(value).replace("|", "\\|")
    width = interval[1] - interval[0]
    places = min(6, max(0, 1 - math.floor(math.log10(width)))) if width > 0 else 3
    one, low, high = (f"{number:,.{places}f}" for number in (value, *interval))
    return f"{one} [{low}, {high}]"


def _number(value: Any) -> str:
    """Four significant digits, whole numbers whole; ``n/a`` for what is not defined."""
    if value is None:
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_number, value))
    if isinstance(value, int) or (isinstance(value, float) and value == int(value) and abs(value) < 1e15):
        return f"{int(value):,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}" if 0.001 <= abs(value) < 10 else f"{value:.4g}"
    return str(value)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
