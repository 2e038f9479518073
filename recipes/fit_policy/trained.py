"""A host of this package: the memory transformer of a run of `vqmem text_lm`, on text or on units of speech."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ...artifacts import CONFIG
from ...data.base import Document
from ...memory.bank import Memory
from ...memory.fitted import LOG_AGE, PREDICTED, FittedPolicy, host_fingerprint
from ...memory.scorer import signals_of
from ...memory.slots import Slots
from ...models.learned_policy import USAGE, WEIGHED, LearnedPolicy, weighed_signals
from ...models.memory_transformer import Output
from ...registry import build
from ..engine.progress import progress
from ..lm.corpus import Passage, encode_document, sweep
from ..lm.language_model import score_segment, write_segment
from ..text_lm.recipe import Config, Run, load_run
from .fit import Findings, fit_policy
from .full_pass import FullPass, of_later
from .host import Rows, Settings, Stream, standardised

Ahead = Literal["next", "later"]
NEWEST = "newest"
"""The policy that a fit falls back on: neither attention to come guides better than the age."""
HORIZON = 256
"""Tokens that must follow, or four segments where these are fewer. Segments longer than half are read in parts."""

_ONLY_LEARNED = partial(build, "policies", {"name": "weighted", "learned": 1.0, "folder": ".", "score": 0.0})


def settings_of(config: Config) -> Settings:
    """The settings for a run of this config."""
    chunk = min(config.segment, HORIZON // 2)
    capacity, guarded = min(config.capacities), config.sinks + config.recent
    return Settings(config.passage, capacity, chunk, min(HORIZON, 4 * chunk), guarded, (PREDICTED, LOG_AGE), WEIGHED)


class TrainedHost:
    """A finished run. All layers keep one set of slots, so that they count as one layer.

    The streams keep what the first stage predicts alone, within the guards of the run.

    Args:
        run: The run.
        ahead: The attention to come: ``next``, the mean weight that the queries of the next segment pay to a slot, or
            ``later``, the greatest weight of all queries that follow. Queries count as their targets do in the loss.
        off_target_weight: The weight of targets that are not marked; that of the run by default.
    """

    shares = ("model",)
    layers = heads = 1

    def __init__(self, run: Run, ahead: Ahead = "later", off_target_weight: float | None = None) -> None:
        self.run, self.transformer, self.ahead = run, run.model.transformer, ahead
        self.off_target_weight = run.config.off_target_weight if off_target_weight is None else off_target_weight
        self.signals = (*WEIGHED, *signals_of(run.scorer))
        self.settings = settings_of(run.config)

    def fingerprint(self) -> str:
        """That of the weights."""
        return host_fingerprint(self.transformer)

    def encode(self, document: Document) -> Passage:
        """The tokens of a text, or of a recording or its units."""
        return encode_document(document, self.run.tokenizer)

    @torch.no_grad()
    def read_full(self, passage: Passage) -> FullPass:
        """Read a passage with a memory that keeps all of it."""
        weights: list[Tensor] = []
        hooks = [block.attention.register_forward_hook(_recorder(weights)) for block in self.transformer.blocks]
        keys, time, counts = [], len(passage) - 1, self._target_weights(passage)[:, None]
        try:
            for output in self._read(passage, Memory(time)):
                keys.append(self.transformer.keys(output.payload).flatten(2))
        finally:
            for hook in hooks:
                hook.remove()
        layers, chunk = len(hooks), self.settings.chunk
        by_segment = []
        for start in range(0, time, chunk):
            first = start // chunk * layers
            paid = torch.cat(weights[first : first + layers])[:, : time - start, :time]  # the rest is padding
            paid = counts[start : start + chunk] * paid.float().cpu()
            paid = paid.mean(1) if self.ahead == "next" else paid.amax(1)
            by_segment.append(F.pad(paid, (0, time - paid.shape[1])))
        attention = torch.stack(by_segment)[None]
        attention = attention if self.ahead == "next" else of_later(attention)
        keys = [torch.cat(keys, dim=1)[:, :time].float().cpu()]
        return FullPass(keys, attention, self.settings.chunk, self.settings.horizon, self.run.config.sinks)

    def read_stream(self, stream: Stream, use: Rows) -> None:
        """Read a passage with a bounded memory, and pass on what competes at each eviction."""
        passage, full, prediction, share, capacity = stream
        time = len(passage) - 1
        every = torch.arange(time)

        def receive(slots: Slots, now: Int[Tensor, " batch"]) -> None:
            if int(now) > time - full.horizon:
                return
            assert slots.guarded is not None
            competing = slots.valid & ~slots.guarded
            found = weighed_signals(slots, now) | {name: slots.score(name) for name in slots.score_names}
            x = torch.stack([standardised(found[name][competing]) for name in self.signals], dim=-1)
            wanted = full.log_attention(share, torch.full_like(every, int(now) // full.chunk), every)[0, 0]
            y = standardised(wanted[slots.positions[competing].cpu()])
            use(x[None].cpu(), y[None], len(y) - (slots.count - capacity))

        policy = _Recorder.of(self, prediction, receive)
        for _ in self._read(passage, Memory(capacity, policy, guard=self.run.config.guard)):
            pass

    @torch.no_grad()
    def loss(self, policy: FittedPolicy, passages: Iterable[Passage], capacity: int) -> float:
        """The nats a token of passages that are read with a policy in a bounded memory, weighed as in training."""
        found = [self._loss(policy, passage, capacity) for passage in passages]
        nats, weights = (sum(part) for part in zip(*found, strict=True))
        return nats / weights

    def _loss(self, policy: FittedPolicy, passage: Passage, capacity: int) -> tuple[float, float]:
        """The weighted nats of a passage, and the sum of the weights."""
        learned = LearnedPolicy.from_fitted(_ONLY_LEARNED(), policy, self.transformer)
        memory = Memory(capacity, learned, guard=self.run.config.guard)
        logits = torch.cat([output.logits[0] for output in self._read(passage, memory)])[: len(passage) - 1]
        weights = self._target_weights(passage)
        nats = F.cross_entropy(logits.float().cpu(), passage.ids[1:], reduction="none")
        return float(weights @ nats), float(weights.sum())

    def _target_weights(self, passage: Passage) -> Float[Tensor, " time"]:
        """The weights of the targets in training."""
        return torch.where(passage.target_mask[1:], 1.0, self.off_target_weight)

    @torch.no_grad()
    def _read(self, passage: Passage, memory: Memory) -> Iterator[Output]:
        scorer, device = self.run.scorer, self.transformer.norm.weight.device
        state, scored = memory.empty(self.transformer.empty_payload(1), signals_of(scorer)), scorer.initial_state(1)
        for _, batch in sweep([passage], 1, self.settings.chunk):
            batch = batch.to(device)
            scores, scored = score_segment(scorer, batch, scored)
            output = self.transformer(
                batch.tokens, batch.positions, state.read(), previous=batch.previous, need=memory.requires
            )
            state = write_segment(memory, state, output, batch, scores, None).state
            yield output


@dataclass(frozen=True)
class _Recorder(LearnedPolicy):
    """Keeps what is predicted alone, and passes the slots on before it chooses."""

    receive: Callable[[Slots, Int[Tensor, " batch"]], None]

    @classmethod
    def of(cls, host: TrainedHost, prediction: Tensor, receive: Callable[[Slots, Tensor], None]) -> _Recorder:
        """That of a host, with what the first stage found."""
        device = host.transformer.norm.weight.device
        weights = torch.ones(1, device=device)
        return cls(_ONLY_LEARNED(), host.transformer, (PREDICTED,), prediction[0].to(device), weights, receive)

    @property
    def requires(self) -> tuple[str, ...]:
        """Also the usage, which is passed on."""
        return (*super().requires, USAGE)

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Tensor:
        """That of the prediction."""
        self.receive(slots, now)
        return super().priority(slots, now)


def _recorder(weights: list[Tensor]) -> Callable[[Any, Any, Any], None]:
    """A hook that adds the weights that the queries of a segment pay to the keys, for each head."""

    def after(attention: Any, args: tuple[Any, ...], output: Any) -> None:
        queries, keys, _, layout, _ = args
        weights.append(attention.weights(queries, keys, layout)[0])

    return after


def is_run(path: str) -> bool:
    """Whether there is a run of this package at ``path``, rather than a model of transformers."""
    return (Path(path) / "config.yaml").is_file() and not (Path(path) / CONFIG).is_file()


def fit_trained(
    host: TrainedHost,
    ahead: Literal["auto", "next", "later"],
    passages: Sequence[Passage],
    streams: Sequence[Passage],
    settings: Settings,
) -> tuple[FittedPolicy, Findings]:
    """Fit a policy to a run.

    Args:
        host: The run.
        ahead: The attention to come, as `TrainedHost` takes it. ``auto`` fits both and takes the policy with which the
            streams have less loss, or one that keeps the newest where that has least, on average over the capacities
            of the settings and the run.
        passages: As in `fit_policy`. Where these or the streams mark no answers, all tokens weigh alike, and standard
            error says so.
        streams: As in `fit_policy`.
        settings: As `Settings` of the run or the user.

    Returns:
        The policy, and how good it is.
    """
    weight = host.run.config.off_target_weight
    if weight != 1 and not all(any(passage.target_mask.any() for passage in some) for some in (passages, streams)):
        print("the passages mark no answers: all tokens weigh alike", file=sys.stderr)
        weight = 1.0
    host = TrainedHost(host.run, off_target_weight=weight)
    tried: tuple[Ahead, ...] = ("later", "next") if ahead == "auto" else (ahead,)
    fits = {
        name: fit_policy(TrainedHost(host.run, name, weight), passages, streams, settings.signals, settings.capacity)
        for name in tried
    }
    if len(fits) == 1:
        return next(iter(fits.values()))
    if LOG_AGE in settings.signals:
        fits = {NEWEST: _newest_first(*fits["next"]), **fits}
    read = max(map(len, streams)) - 1
    capacities = {settings.capacity, *(x for x in host.run.config.capacities if x < read)}
    cells = [(name, capacity) for name in fits for capacity in sorted(capacities)]
    losses = dict.fromkeys(fits, 0.0)
    for name, capacity in progress(cells, len(cells), "comparing policies", transient=True):
        losses[name] += host.loss(fits[name][0], streams, capacity) / len(capacities)
    policy, findings = fits[min(losses, key=lambda name: losses[name])]
    return policy, replace(findings, losses=losses)


def _newest_first(policy: FittedPolicy, findings: Findings) -> tuple[FittedPolicy, Findings]:
    """A policy for the same host that weighs its age alone, and what it keeps."""
    weights = torch.tensor([-1.0 if name == LOG_AGE else 0.0 for name in policy.signals])
    policy = replace(policy, weights={share: weights.expand_as(x).clone() for share, x in policy.weights.items()})
    kept = findings.single[LOG_AGE]
    shares, recall = dict.fromkeys(findings.shares, kept), torch.full_like(findings.recall, kept)
    return policy, replace(findings, recall=recall, shares=shares, sets=[])


def load_host(path: str, device: torch.device) -> TrainedHost:
    """The host that a finished run is. Raises `ValueError` where it is not finished, damaged or of another kind."""
    return TrainedHost(load_run(Path(path), device))
