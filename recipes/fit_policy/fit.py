"""Fit a policy in two stages: predict attention to come from keys, then weigh that beside other signals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from ...memory.fitted import LOG_AGE, FittedPolicy
from ..engine.progress import Bar
from ..lm.corpus import Passage
from .full_pass import FullPass, key_features, later_attention
from .host import Host, Stream
from .passages import new_passages
from .regression import Sums, nested_sets

RIDGE = 1e-4
"""The penalty of both regressions, relative to the mean square of each feature."""


@dataclass(frozen=True)
class Findings:
    """What the fit found on other passages than those fitted on, which may overlap where texts are few.

    Args:
        r2: The share of the variance of the logarithm of attention to come that keys predict.
        recall: Of the slots of most attention to come, the share that the policy keeps in each set of slots.
        single: The same of each signal alone, averaged over sets; of the age, that of the newest slots.
        sets: The same of weights fitted for sets of signals: all, then each without the signal that adds least.
        shares: The same of the policy where heads, layers or the model keep one set of slots.
        chance: The same of slots drawn at random.
        losses: The nats a token of streams that are read with each policy that was tried, where these are several. The
            least is that of the policy; tokens weigh as in training.
    """

    r2: Float[Tensor, "layers heads"]
    recall: Float[Tensor, "layers heads"]
    single: dict[str, float]
    sets: list[tuple[tuple[str, ...], float]]
    shares: dict[str, float]
    chance: float
    losses: Mapping[str, float] = field(default_factory=dict)


def fit_policy(
    host: Host,
    passages: Sequence[Passage],
    streams: Sequence[Passage],
    signals: Sequence[str],
    capacity: int,
) -> tuple[FittedPolicy, Findings]:
    """Fit a policy. Sums are kept alone, so that memory does not grow with the text.

    Args:
        host: The model.
        passages: The passages from which attention to come is predicted.
        streams: Those that are read in bounded streams. The findings are of the last quarter, before it is fitted on;
            of it, passages that were fitted on already are left out.
        signals: The signals that the policy weighs, some of the host's.
        capacity: Slots of the streams.

    Returns:
        The policy, and how good it is.
    """
    fitted = max(1, len(streams) * 3 // 4)
    checked = new_passages(streams[fitted:], [*passages, *streams[:fitted]])
    chosen = [host.signals.index(name) for name in signals]
    with Bar("fitting the policy", len(passages) + len(host.shares) * (fitted + len(checked))) as bar:
        prediction = _fit_prediction(host, passages, bar)
        second = {share: Sums() for share in host.shares}
        for passage in streams[:fitted]:
            full = host.read_full(passage)
            for share, sums in second.items():
                stream = Stream(passage, full, prediction[share], share, capacity)
                host.read_stream(stream, partial(_add_slots, sums))
                bar.advance(1)
        solved = {share: sums.solve(RIDGE, chosen)[..., 0] for share, sums in second.items()}
        check = _Check(host.signals, host.shares[0], solved, chosen, second[host.shares[0]])
        for passage in checked:
            full = host.read_full(passage)
            check.add_predictions(full, prediction[host.shares[0]])
            for share, sums in second.items():
                add = partial(check.add_slots, share, sums)
                host.read_stream(Stream(passage, full, prediction[share], share, capacity), add)
                bar.advance(1)
    solved = {share: sums.solve(RIDGE, chosen)[..., 0] for share, sums in second.items()}
    heads = host.heads
    weights = {share: x.unflatten(0, (-1, heads if share == "head" else 1)) for share, x in solved.items()}
    weights = {share: x.expand(host.layers, -1, -1) for share, x in weights.items()}
    return FittedPolicy(host.fingerprint(), tuple(signals), prediction, weights), check.findings(heads)


def _add_slots(sums: Sums, x: Float[Tensor, "groups slots signals"], y: Float[Tensor, "groups slots"], _: int) -> None:
    sums.add(x, y[..., None])


def _fit_prediction(
    host: Host, passages: Sequence[Passage], bar: Bar
) -> dict[str, Float[Tensor, "layers _groups _features"]]:
    """Regress the logarithm of attention to come on keys, in each layer and for each of what shares a set."""
    sums = {share: Sums() for share in host.shares}
    for passage in passages:
        full = host.read_full(passage)
        for share, total in sums.items():
            keys, wanted = later_attention(full, share)
            total.add(key_features(full, share)[:, :, keys], wanted[..., None])
        bar.advance(1)
    return {share: total.solve(RIDGE)[..., 0] for share, total in sums.items()}


class _Check:
    """Adds up how good the predictions and the policy are, on passages that were not fitted on."""

    def __init__(
        self, signals: Sequence[str], finest: str, solved: dict[str, Tensor], chosen: Sequence[int], sums: Sums
    ) -> None:
        self.signals, self.finest, self.solved, self.chosen = signals, finest, solved, chosen
        nested = nested_sets(sums, RIDGE, len(signals))
        self.sets = {tuple(among): sums.solve(RIDGE, among)[..., 0] for among in nested}
        self.set_hits: list[list[float]] = []
        self.hits: dict[str, list[Tensor]] = {share: [] for share in solved}
        self.single: list[Tensor] = []
        self.chance: list[float] = []
        self.moments: Tensor | float = 0.0

    def add_predictions(self, full: FullPass, prediction: Float[Tensor, "layers heads features"]) -> None:
        """Compare predictions with the attention to come."""
        keys, wanted = later_attention(full, self.finest)
        found = (key_features(full, self.finest)[:, :, keys] @ prediction[..., None])[..., 0]
        sums = [torch.ones_like(wanted), wanted, wanted.square(), (wanted - found).square()]
        self.moments = self.moments + torch.stack([x.double().sum(-1) for x in sums])

    def add_slots(
        self,
        share: str,
        sums: Sums,
        x: Float[Tensor, "groups slots signals"],
        y: Float[Tensor, "groups slots"],
        keep: int,
    ) -> None:
        """Compare what the policy keeps with what gets most attention, and then add the slots to the sums.

        Args:
            share: What keeps one set of slots.
            sums: The sums from which the weights of this share are fitted in the end.
            x: The signals of the slots that compete.
            y: The logarithm of their attention to come, standardised.
            keep: How many of them stay.
        """
        _add_slots(sums, x, y, keep)
        if keep < 1:
            return
        priority = (x[..., self.chosen] * self.solved[share][:, None]).sum(-1)
        self.hits[share].append(recall(priority, y, keep))
        if share == self.finest:
            signs = torch.tensor([-1.0 if name == LOG_AGE else 1.0 for name in self.signals])
            alone = (x * signs).movedim(-1, 0)
            self.single.append(recall(alone, y.expand(x.shape[-1], -1, -1), keep).mean(1))
            self.chance.append(keep / y.shape[1])
            by_set = ((x[..., among] * weights[:, None]).sum(-1) for among, weights in self.sets.items())
            self.set_hits.append([float(recall(one, y, keep).mean()) for one in by_set])

    def findings(self, heads: int) -> Findings:
        """The means."""
        assert isinstance(self.moments, Tensor)
        count, total, squares, errors = self.moments
        means = {share: torch.stack(hits).mean(0) for share, hits in self.hits.items()}
        single = torch.stack(self.single).mean(0).tolist()
        names = [tuple(self.signals[index] for index in among) for among in self.sets]
        return Findings(
            r2=(1 - errors / (squares - total.square() / count)).float(),
            recall=means[self.finest].view(-1, heads),
            single=dict(zip(self.signals, single, strict=True)),
            sets=[*zip(names, torch.tensor(self.set_hits).mean(0).tolist(), strict=True)],
            shares={share: float(mean.mean()) for share, mean in means.items()},
            chance=sum(self.chance) / len(self.chance),
        )


def recall(
    priority: Float[Tensor, "*groups slots"], wanted: Float[Tensor, "*groups slots"], keep: int
) -> Float[Tensor, "*groups"]:
    """The share of the ``keep`` slots of most attention to come that are among the ``keep`` of highest priority."""
    chosen, best = (
        torch.zeros_like(x, dtype=torch.bool).scatter(-1, x.topk(keep, dim=-1).indices, True)
        for x in (priority, wanted)
    )
    return (chosen & best).sum(-1) / keep
