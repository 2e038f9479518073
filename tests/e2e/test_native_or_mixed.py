"""The benchmark of native and mixed training in miniature: all rows are there, and a second run trains nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "text" / "native_or_mixed.py"


def run(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--run", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(600)
def test_every_size_is_read_by_both_trainings_and_nothing_is_trained_twice(tmp_path):
    first = run(tmp_path)
    tables = {line for line in first.splitlines() if not line.startswith(" ")}
    sizes = [f"{size}, {how}" for size in ("1 x 16", "2 x 16") for how in ("mixed", "native")]
    assert {*sizes, *(f"2 x 16, {how}, other steps" for how in ("mixed", "native"))} <= tables
    for size in ("1 x 16", "2 x 16"):
        assert {f"{size}, {how}, beside transformer_xl at twice the slots" for how in ("mixed", "native")} <= tables
    models = sorted(path.parent for path in tmp_path.glob("*/*/transformer"))
    assert len(models) == 2 * (1 + 2 * 2) + 2 * (1 + 2)  # sizes, then steps: mixed, two strategies x capacities
    for results in tmp_path.glob("*/results.jsonl"):
        rows = [json.loads(line) for line in results.read_text().splitlines()]
        cells = {(row["train"], row["strategy"], row["capacity"]) for row in rows}
        names, capacities = ("transformer_xl", "surprise", "learned"), (16, 32)
        native = capacities if results.parent.name.endswith("-4") else capacities[:1]  # other steps at one capacity
        expected = {("mixed", name, size) for name in names for size in capacities}
        expected |= {("native", name, size) for name in names for size in native}
        assert cells == expected
        assert len(rows) == len(expected)
    for results in tmp_path.glob("*/results.jsonl"):  # cells of other settings and a line cut short change nothing
        lines = [json.loads(line) for line in results.read_text().splitlines()]
        others = [json.dumps(line | {"key": "another", "figures": {}}) for line in lines]
        results.write_text("\n".join([*map(json.dumps, lines), *others, '{"key"']))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/transformer/*")}
    assert run(tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/transformer/*")} == before
