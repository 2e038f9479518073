"""The report of a fitted policy: what it finds by layer and head, and beside each signal alone, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt
import vl_convert
from jaxtyping import Float
from markupsafe import Markup
from torch import Tensor

from ...files import atomic_write
from ...memory.fitted import LOG_AGE, FittedPolicy
from ..reporting.page import render, to_bytes
from .fit import Findings

HERE = Path(__file__).parent
DESCRIPTIONS = {
    "newest": "the age alone, the newest first",
    "later": "the greatest attention of all that follows",
    "next": "the mean attention of the next segment",
}
"""What a policy may rank slots by, in words."""


def write_report(path: Path, model: str, policy: FittedPolicy, findings: Findings) -> None:
    """Write one self-contained HTML file.

    Args:
        path: The file.
        model: The name of the host.
        policy: The policy.
        findings: What the fit found.
    """
    finest = next(iter(findings.shares))
    weights = policy.weights[finest].mean(dim=(0, 1)).tolist()
    single = {single_name(name): x for name, x in findings.single.items()}
    kept = {"the policy": findings.shares[finest], **single, "chance": findings.chance}
    by_head = findings.r2.numel() > 1
    page = render(
        HERE / "report.html",
        title=f"What a memory of {model} keeps",
        data={},
        styles=[],
        scripts=[],
        kept=_svg(bars({name: 100 * x for name, x in kept.items()})),
        finest=finest,
        mean_r2=f"{findings.r2.mean():.2f}",
        recall=_svg(grid(100 * findings.recall, "kept, %")) if by_head else "",
        r2=_svg(grid(findings.r2, "R²")) if by_head else "",
        sets=[(", ".join(names), f"{100 * kept:.1f}") for names, kept in findings.sets],
        shares=[(share, f"{100 * x:.1f}") for share, x in findings.shares.items()],
        losses=[(DESCRIPTIONS[name], f"{x:.4f}") for name, x in sorted(findings.losses.items(), key=lambda y: y[1])],
        weights=[(name, f"{x:.2f}") for name, x in zip(policy.signals, weights, strict=True)],
    )
    atomic_write(path, to_bytes(page))


def single_name(signal: str) -> str:
    """What a signal keeps where it decides alone: of the age, the newest slots."""
    return "newest first" if signal == LOG_AGE else signal


def bars(values: dict[str, float]) -> dict[str, Any]:
    """A Vega-Lite chart of one bar for each name, the longest first."""
    data = alt.InlineData(values=[{"by": name, "kept": round(x, 2)} for name, x in values.items()])
    chart = alt.Chart(data, width=420).mark_bar()
    chart = chart.encode(
        x=alt.X("kept:Q", title="of the slots that get most attention, those kept, %"),
        y=alt.Y("by:N", sort="-x", title=None),
    )
    return chart.to_dict()


def grid(values: Float[Tensor, "layers heads"], title: str) -> dict[str, Any]:
    """A Vega-Lite chart of one square for each layer and head."""
    cells = [
        {"layer": layer, "head": head, "value": round(value, 3)}
        for layer, row in enumerate(values.tolist())
        for head, value in enumerate(row)
    ]
    chart = alt.Chart(alt.InlineData(values=cells), width=alt.Step(18), height=alt.Step(18)).mark_rect()
    chart = chart.encode(
        x=alt.X("layer:O", title="layer"),
        y=alt.Y("head:O", title="head of keys"),
        color=alt.Color("value:Q", title=title, scale=alt.Scale(scheme="viridis", zero=False)),
    )
    return chart.to_dict()


def _svg(chart: dict[str, Any]) -> Markup:
    return Markup(vl_convert.vegalite_to_svg(chart))
