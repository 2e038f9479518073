"""`vqmem fit_policy`: load the host and the text, fit, and write the folder of the policy with its report."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ...artifacts import read_config, read_sealed
from ...files import missing_file
from ...memory.fitted import ABOUT, FittedPolicy
from ...memory.scorer import SIGNALS
from ...models.device import resolve_device
from ...registry import DataSpec, build
from ...schema import PathText, PositiveInt, Seed, TwoOrMore, Validated
from ...tokenizers_.base import input_kind
from ..engine.config import DTYPES
from ..engine.lock import locked
from ..lm.corpus import Passage
from ..text_lm.config import Config as RunConfig
from .fit import Findings, fit_policy
from .host import Host, Settings
from .passages import sample_passages
from .report import DESCRIPTIONS, single_name, write_report
from .trained import TrainedHost, fit_trained, is_run, settings_of
from .trained import load_host as load_trained

REPORT = "report.html"
ASKED, WEIGHTS = "asked", "weights"
"""Keys of ``policy.json``: what `fit_missing` was asked for, which policies made by hand lack; and the SHA-256 of the
weights of the run."""


@dataclass(frozen=True)
class Config(Validated):
    """What is read, and how much of it. What is null depends on the kind of model."""

    out: PathText = "runs/policy"
    """Folder of the policy; there must be none yet."""
    data: DataSpec | None = None
    """Data source of texts or speech like what the model will read (`vqmem list data`); its train split is read. Null
    is ``builtin_text`` for a model of transformers, and the data of a run."""
    passages: PositiveInt = 48
    """Passages from which the attention to come is predicted."""
    stream_passages: TwoOrMore = 12
    """Further passages, read with bounded slots. Weights fitted on three quarters are checked on the rest,
    of which passages that were fitted on are left out; where texts are few, others may still overlap these."""
    length: PositiveInt | None = None
    """Tokens of a passage; those after a token are what its attention is learnt from. Null is 2048, or the ``passage``
    of a run, of which documents may be shorter."""
    capacity: PositiveInt | None = None
    """Capacity of the bounded slots; a policy works at others too. Null is 128, or the least capacity of a run. What
    ``ahead`` compares is read with all capacities of the run too."""
    signals: list[str] | None = None
    """Signals to weigh: predicted, log_age, for a model of transformers expected, observed, keydiff, norm, value_norm,
    and for a run usage. Null is predicted and log_age, for a model of transformers keydiff too."""
    ahead: Literal["auto", "next", "later"] = "auto"
    """The attention to come that decides. ``later`` is the greatest weight of all later queries, and what a model of
    transformers takes. For a run, ``next`` is the mean weight of the queries of the next segment, and auto is what
    loses less on the stream passages, or the age alone where that does and ``log_age`` is weighed. Attention and losses
    weigh tokens as the run's training does."""
    seed: Seed = 0
    """Seed of the drawing of passages."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of the weights of a model of transformers; the policy then serves the model in any type."""
    device: str = "auto"
    """Device of the model: auto, cpu, cuda, cuda:N or mps."""

    def settled(self, settings: Settings) -> Settings:
        """The settings of a kind of model, with what was given in their place.

        Raises `ValueError` for values outside their range or that do not fit each other.
        """
        given = {"length": self.length, "capacity": self.capacity, "signals": self.signals}
        settings = settings._replace(**{name: value for name, value in given.items() if value is not None})
        if unknown := [name for name in settings.signals if name not in settings.weighable]:
            raise ValueError(f"signals={unknown[0]}; use some of {', '.join(settings.weighable)}")
        if not settings.signals or len({*settings.signals}) < len(settings.signals):
            raise ValueError(f"signals={settings.signals}; name one or more, each once")
        if settings.capacity <= settings.guarded:
            raise ValueError(
                f"capacity={settings.capacity} leaves nothing to choose: the guards keep {settings.guarded} slots; "
                f"give capacity={settings.guarded + 1} or more"
            )
        if settings.length < settings.shortest:
            raise ValueError(
                f"length={settings.length} is too short for capacity={settings.capacity}: nothing is evicted "
                f"{settings.horizon} tokens before its end; give at least {settings.shortest}"
            )
        return settings


def run(model: str, config: Config, asked: dict[str, Any] | None = None) -> Findings:
    """Fit a policy for ``model`` and write it with its report.

    Args:
        model: A folder of transformers or a run.
        config: What is read.
        asked: What `fit_missing` was asked for; then a policy that the folder has is replaced, once there is another.

    Returns:
        What the fit found.

    Raises:
        ValueError: Where the folder has a policy already, and for a model or data that cannot be used.
    """
    out = Path(config.out)
    made: dict[str, Any] = {} if asked is None else {ASKED: asked}
    if asked is None:
        _refuse_existing(out)
    if is_run(model):
        made[WEIGHTS] = _weights_of(model)  # before they are loaded: a run may train on meanwhile
    prepare = _trained if is_run(model) else _pretrained
    host, settings, drawn = prepare(model, config, resolve_device(config.device))
    passages, streams = drawn[: config.passages], drawn[config.passages :]
    with locked(out):
        if asked is None:
            _refuse_existing(out)  # another process may have written one since
        if isinstance(host, TrainedHost):
            policy, findings = fit_trained(host, config.ahead, passages, streams, settings)
        else:
            policy, findings = fit_policy(host, passages, streams, settings.signals, settings.capacity)
        _save(out, model, config, policy, findings, made | {"length": settings.length, "capacity": settings.capacity})
    return findings


def require_policy(folder: Path, config: RunConfig) -> None:
    """Raise `ValueError` if ``folder`` has no policy and `fit_missing` cannot make it, before the run is trained."""
    if (folder / ABOUT).is_file():
        return
    if not folder.is_relative_to(config.out):
        raise missing_file("policy", folder, otherwise="'{run}/policy' is one that the comparison fits by itself")
    try:
        Config().settled(settings_of(config))
    except ValueError as error:
        raise ValueError(f"no policy can be fitted with passages of {config.passage} tokens: {error}") from None


def is_fitted(folder: Path, config: RunConfig, **settings: Any) -> bool:
    """Whether a policy is there that `fit_missing` would keep, as far as files show without the model.

    Args:
        folder: That of the policy.
        config: The run.
        settings: Keys of `Config`, as ``passages``.
    """
    if not folder.is_relative_to(config.out):
        return True
    try:
        made, weights = read_sealed(folder / ABOUT), _weights_of(config.out)
    except (OSError, ValueError):  # missing or damaged, which fitting finds too, and says
        return False
    return made.get(WEIGHTS) == weights and made.get(ASKED, settings) == settings


def _weights_of(run_folder: str) -> str:
    """The SHA-256 of the weights of a run."""
    return read_config(Path(run_folder) / "transformer")["sha256"]


def fit_missing(folder: Path, config: RunConfig, **settings: Any) -> None:
    """Fit a policy to a finished run, unless that is done.

    A policy that was fitted to other weights, as after more steps of training, is replaced, and so is one that was made
    here with other settings. One that was made by hand is kept, whatever its settings.

    Args:
        folder: That of the policy. Outside the folder of the run nothing is fitted.
        config: The run.
        settings: Keys of `Config`, as ``passages``.
    """
    if not folder.is_relative_to(config.out):
        return
    if (about := folder / ABOUT).is_file():
        host, made = load_trained(config.out, resolve_device(config.device)), read_sealed(about)
        if made.get("host") == host.fingerprint() and made.get(ASKED, settings) == settings:
            return
    run(config.out, Config(str(folder), device=config.device, **settings), settings)


def _refuse_existing(out: Path) -> None:
    if (out / ABOUT).exists():
        raise ValueError(f"{out} has a policy already; give another folder, as in out=runs/policy2")


Prepared = tuple[Host, Settings, list[Passage]]
"""A host, its settings and the passages to read."""


def _pretrained(model: str, config: Config, device: torch.device) -> Prepared:
    from .pretrained import SETTINGS, load_host

    if config.ahead == "next":
        raise ValueError("ahead=next is for the runs of `vqmem text_lm`; leave it out for a model of transformers")
    settings = config.settled(SETTINGS)
    host = load_host(model, DTYPES[config.dtype], device)
    documents = build("data", config.data or "builtin_text").documents("train")
    texts = (document for document in documents if len(document.content("text")) >= 2 * settings.length)
    lengths = (settings.length, settings.length)
    count = config.passages + config.stream_passages
    return host, settings, sample_passages(texts, "text", host.encode, lengths, count, config.seed)


def _trained(model: str, config: Config, device: torch.device) -> Prepared:
    host = load_trained(model, device)
    settings, kind = config.settled(host.settings), input_kind(host.run.tokenizer)
    documents = build("data", config.data or host.run.config.data).documents("train")
    lengths = (settings.shortest + 1, settings.length + 1)
    long = (document for document in documents if kind != "text" or len(document.content(kind)) >= lengths[0])
    count = config.passages + config.stream_passages
    return host, settings, sample_passages(long, kind, host.encode, lengths, count, config.seed)


def _save(
    out: Path, model: str, config: Config, policy: FittedPolicy, findings: Findings, about: dict[str, Any]
) -> None:
    """Write the policy, what was found and the report; ``about`` is more that ``policy.json`` says."""
    figures = {"r2": float(findings.r2.mean()), "recall": findings.shares, "single": findings.single}
    figures |= {"losses": dict(findings.losses)} if findings.losses else {}
    figures["sets"] = {" ".join(names): kept for names, kept in findings.sets}
    made = {"passages": config.passages, "stream_passages": config.stream_passages, "ahead": config.ahead}
    write_report(out / REPORT, model, policy, findings)
    policy.save(out, model=model, **made, **about, seed=config.seed, found=figures)


def format_summary(model: str, config: Config, findings: Findings) -> str:
    """What the fit found, and how to use it."""
    singles = sorted(findings.single.items(), key=lambda item: -item[1])
    finest, spread = next(iter(findings.shares)), ""
    if findings.r2.numel() > 1:
        spread = f" ({findings.r2.min():.2f} to {findings.r2.max():.2f} by head)"
    losses = sorted(findings.losses.items(), key=lambda item: item[1])
    lines = [
        *(f"{x:.4f} nats a token of the streams, kept by {DESCRIPTIONS[name]}" for name, x in losses),
        *(f"chosen: {DESCRIPTIONS[name]}" for name, _ in losses[:1]),
        f"attention to come, predicted from keys: R² {findings.r2.mean():.2f} on passages of the check{spread}",
        "of the slots that will get most attention, those that stay:",
        *(f"  {100 * x:5.1f} %  the policy, a set a {share}" for share, x in findings.shares.items()),
        *(f"  {100 * x:5.1f} %  {single_name(name)} alone, a set a {finest}" for name, x in singles),
        f"  {100 * findings.chance:5.1f} %  chance",
        *([f"with weights for fewer signals, a set a {finest}:"] if findings.sets else []),
        *(f"  {100 * kept:5.1f} %  {', '.join(names)}" for names, kept in findings.sets),
        f"saved in {config.out}/, with {REPORT}; now use",
        _use(model, config.out, findings.single),
    ]
    return "\n".join(lines)


def _use(model: str, out: str, signals: Iterable[str]) -> str:
    """How to use the policy in ``out``; of ``signals``, those of the run's scorer are weighed beside it."""
    if not is_run(model):
        return f"  VQMemCache(model, tokenizer, capacity=256, policy={json.dumps(out, ensure_ascii=False)})"
    given = [name for name in signals if name in SIGNALS]
    score = "score: 0.0"
    if given:
        score = "score: 0.2" if "surprise" in given else f"surprise: 0.0, {given[0]}: 1.0, score: 0.2"
    folder, run_folder = (json.dumps(path, ensure_ascii=False) for path in (out, model))  # as YAML reads it
    if shlex.quote(model) == model:
        run_folder = model
    strategy = f"{{policy: {{name: weighted, learned: 1.0, folder: {folder}, {score}}}}}"
    run = shlex.join([f"{model}/config.yaml", f"out={run_folder}"])
    return f"  vqmem text_lm {run} eval_strategies.learned={shlex.quote(strategy)}"
