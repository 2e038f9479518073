"""Make a result of a comparison.

    python benchmarks/text/memories.py runs/novels/summary.json [--name memories] [--note ...]

The comparison itself is ``vqmem compare``; this turns the summary it wrote into ``docs/results/NAME.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqmem.benchmarks._results import Chart, Result, Series, write_result


def result(
    summary: Mapping[str, Any], title: str, question: str, answer: str, effect: list[str], notes: list[str]
) -> Result:
    """Make the result of a comparison: a table per figure and training, with intervals, and a chart per figure.

    Args:
        summary: the ``summary.json`` of `vqmem compare`.
        title: the heading of the result.
        question: the question that it answers.
        answer: the answer; empty counts which strategies are better or worse than the baseline.
        effect: the place of the value that summarises the result: table, row, column.
        notes: remarks on the result.

    Returns:
        The result for the page.
    """
    values, intervals = tables(summary)
    return Result(
        title=title,
        question=question,
        answer=answer or counts(values),
        measured=_measured(summary),
        values=values,
        split="{split}: {documents} passages, {tokens} tokens, {bytes} bytes".format(**summary),
        seeds=summary["seeds"],
        intervals=intervals,
        interval_kind="95 %, paired bootstrap over passages, 10,000 times; figures are averaged over the seeds first",
        charts=[_chart(summary, metric, spec) for metric, spec in summary["metrics"].items()],
        effect=effect,
        notes=[counts(values), *notes] if answer else notes,
        command=summary["command"],
        seconds=round(summary["seconds"]),
    )


def tables(summary: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A table per figure and training, of a summary or of what `summarise` of its recipe returns; and the intervals."""
    values: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    for metric, spec in summary["metrics"].items():
        for how in _trainings(summary):
            table = f"{_label(spec)}, {how} training"
            for row in summary["rows"]:
                found = row["metrics"].get(metric)
                if row["train"] != how or found is None:
                    continue
                name = f"{row['strategy']} @ {row['capacity']}"
                values.setdefault(table, {})[name] = {
                    spec["label"]: found["value"],
                    f"against {summary['baseline']}": found["difference"],
                    "verdict": found["verdict"],
                    "by seed": ", ".join(f"{x:.4f}" for x in row["per_seed"][metric]),
                    "KiB a row": round(row["memory_bytes"] / 1024, 1),
                }
                if found["low"] is not None:
                    intervals.setdefault(table, {})[name] = {
                        spec["label"]: [found["low"], found["high"]],
                        f"against {summary['baseline']}": [found["difference_low"], found["difference_high"]],
                    }
    return values, intervals


def counts(values: Mapping[str, Mapping[str, Any]]) -> str:
    """At how many capacities each strategy is better or worse than the baseline, with an interval clear of 0."""
    said = []
    for table, rows in values.items():
        found: dict[str, list[str]] = {}
        for name, cells in rows.items():
            if cells["verdict"] != "baseline":
                found.setdefault(name.rsplit(" @ ", 1)[0], []).append(cells["verdict"])
        listed = []
        for name, verdicts in found.items():
            counts = [f"{word} at {verdicts.count(word)}" for word in ("better", "worse") if word in verdicts]
            listed.append(f"{name} {' and '.join(counts) or 'no different at any'} of {len(verdicts)}")
        if listed:
            said.append(f"{table}: {', '.join(listed)}")
    return f"Against the baseline, at so many capacities: {'; '.join(said)}."


def _trainings(summary: Mapping[str, Any]) -> list[str]:
    """How the models of a comparison were trained: mixed, and perhaps native."""
    return [*dict.fromkeys(row["train"] for row in summary["rows"])]


def _label(spec: Mapping[str, Any]) -> str:
    return f"{spec['label']} ({spec['better']} is better)"


def _measured(summary: Mapping[str, Any]) -> str:
    lm, about = summary["config"]["lm"], summary["scorer"]
    shape = ", ".join(f"{key} {value}" for key, value in lm["shape"].items())
    steps = summary["config"]["native"]["train"]["steps"]
    native = f"; `native`: a model for one memory, {steps} updates" if "native" in _trainings(summary) else ""
    gaps = (
        f"Long-gap tokens have a unigram surprisal of at least {summary['config']['rare']:g} nats and were last seen "
        "further back than capacity + segment. "
        if "long_gap_nll" in summary["metrics"]
        else ""
    )
    return (
        f"Transformers ({shape}) read passages of {lm['passage']} tokens in segments of {lm['segment']}; what lies "
        f"further back is seen through the memory alone. `mixed`: one model a seed, {lm['train']['steps']} updates "
        f"of {lm['batch_size'] * lm['segment']} tokens, strategy and capacity drawn anew every {lm['resample_every']} "
        f"updates{native}. {gaps}The scorer of the "
        f"first seed: rate {about['rate']:.2f} and residual {about['residual']:.2f} bits a token, "
        f"{about['codes_used']:.0f} codes used, {about['dead_codes']:.0f} dead."
    )


def _chart(summary: Mapping[str, Any], metric: str, spec: Mapping[str, Any]) -> Chart:
    """Difference from the baseline against slots, of the mixed models."""
    series: dict[str, list[list[float]]] = {}
    for row in summary["rows"]:
        found = row["metrics"].get(metric)
        if found and row["train"] == "mixed" and found["difference_low"] is not None:
            point = [row["capacity"], found["difference"], found["difference_low"], found["difference_high"]]
            series.setdefault(row["strategy"], []).append(point)
    return Chart(
        f"{spec['label']}: difference from {summary['baseline']}",
        "slots",
        f"difference ({spec['better']} is better)",
        [Series(name, points) for name, points in series.items()],
        log_x=True,
    )


def main() -> None:
    """Read the summary, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("summary", type=Path, help="summary.json of a comparison")
    parser.add_argument("--name", default="memories", help="of the file in docs/results/")
    parser.add_argument("--title", default="Which memory keeps what, and does it help?")
    parser.add_argument("--question", default="Does a memory kept by score beat one kept by age at the same capacity?")
    parser.add_argument("--answer", default="", help="a sentence; by default, counts of better and worse")
    parser.add_argument("--effect", nargs=3, default=[], help="table, row and column of the figure in the index")
    parser.add_argument("--note", action="append", default=[], help="a finding that the figures do not show")
    flags = parser.parse_args()
    summary = json.loads(flags.summary.read_text(encoding="utf-8"))
    found = result(summary, flags.title, flags.question, flags.answer, flags.effect, flags.note)
    print(write_result(flags.name, found))


if __name__ == "__main__":
    main()
