"""`vqmem fit_policy`: load the host and the text, fit, and write the folder of the policy with its report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ...memory.huggingface.learned import ABOUT, FittedPolicy
from ...registry import DataSpec, build
from ...schema import PathText, PositiveInt, Seed, TwoOrMore, Validated
from ..engine.config import DTYPES, resolve_device
from ..engine.lock import locked
from .attention import CHUNK, HORIZON
from .fit import Findings, fit_policy
from .host import load_host, sample_passages
from .report import write_report
from .streams import DEFAULT, SIGNALS

REPORT = "report.html"


@dataclass(frozen=True)
class Config(Validated):
    """What is read, and how much of it."""

    out: PathText = "runs/policy"
    """Folder of the policy, for `VQMemCache(model, tokenizer, 256, policy="runs/policy")`; there must be none yet."""
    data: DataSpec = "builtin_text"
    """Data source of texts like those that the model will read (`vqmem list data`); its train split is read."""
    passages: PositiveInt = 48
    """Passages from which the attention to come is predicted."""
    stream_passages: TwoOrMore = 12
    """Further passages, read through a bounded cache. Weights fitted on three quarters are checked on the rest."""
    length: PositiveInt = 2048
    """Tokens of a passage; those after a token are what its attention is learnt from."""
    capacity: PositiveInt = 128
    """Capacity of the bounded cache. A policy works at others too."""
    signals: list[str] = field(default_factory=lambda: list(DEFAULT))
    """Signals to weigh: predicted, expected, observed, keydiff, norm, value_norm, log_age."""
    seed: Seed = 0
    """Seed of the drawing of passages."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of the model's weights; the policy then serves the model in any type."""
    device: str = "auto"
    """Device of the model: auto, cpu, cuda, cuda:N or mps."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for values outside their range or that do not fit each other."""
        super().__post_init__()
        if unknown := [name for name in self.signals if name not in SIGNALS]:
            raise ValueError(f"signals={unknown[0]}; use some of {', '.join(SIGNALS)}")
        if not self.signals or len({*self.signals}) < len(self.signals):
            raise ValueError(f"signals={self.signals}; name one or more, each once")
        if self.length < self.capacity + 2 * CHUNK + HORIZON:
            raise ValueError(
                f"length={self.length} is too short for capacity={self.capacity}: nothing is evicted {HORIZON} tokens "
                f"before its end; give at least {self.capacity + 2 * CHUNK + HORIZON}"
            )


def run(model: str, config: Config) -> Findings:
    """Fit a policy for ``model`` and write it with its report.

    Raises `ValueError` where the folder has a policy already, and for a model or text that cannot be used.
    """
    out = Path(config.out)
    if (out / ABOUT).exists():
        raise ValueError(f"{out} has a policy already; give another folder, as in out=runs/policy2")
    device = resolve_device(config.device)
    host = load_host(model, DTYPES[config.dtype], device)
    count = config.passages + config.stream_passages
    documents = build("data", config.data).documents("train")
    drawn = sample_passages(documents, host.tokenizer, config.length, count, config.seed)
    passages, streams = drawn[: config.passages], drawn[config.passages :]
    with locked(out):
        policy, findings = fit_policy(host, passages, streams, config.signals, config.capacity)
        _save(out, model, config, policy, findings)
    return findings


def _save(out: Path, model: str, config: Config, policy: FittedPolicy, findings: Findings) -> None:
    """Write the policy, what was found and the report."""
    figures = {"r2": float(findings.r2.mean()), "recall": findings.shares, "single": findings.single}
    made = {"passages": config.passages, "stream_passages": config.stream_passages, "length": config.length}
    write_report(out / REPORT, model, policy, findings)
    policy.save(out, model=model, **made, capacity=config.capacity, seed=config.seed, found=figures)


def format_summary(config: Config, findings: Findings) -> str:
    """What the fit found, and how to use it."""
    singles = sorted(findings.single.items(), key=lambda item: -item[1])
    lines = [
        f"attention to come, predicted from keys: R² {findings.r2.mean():.2f} on passages of the check "
        f"({findings.r2.min():.2f} to {findings.r2.max():.2f} by head)",
        "of the slots that will get most attention, those that stay:",
        *(f"  {100 * x:5.1f} %  the policy, a set a {share}" for share, x in findings.shares.items()),
        *(f"  {100 * x:5.1f} %  {name} alone, a set a head" for name, x in singles),
        f"  {100 * findings.chance:5.1f} %  chance",
        f"saved in {config.out}/, with {REPORT}; now use\n"
        f'  VQMemCache(model, tokenizer, capacity=256, policy="{config.out}")',
    ]
    return "\n".join(lines)
