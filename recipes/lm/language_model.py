"""The language model with a bounded memory: its training task and its evaluation."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...artifacts import load_model
from ...memory.bank import Memory, WriteResult
from ...memory.bank import State as MemoryState
from ...memory.policy import ForwardStats, Guard
from ...memory.scorer import ScorerModel, replace_rows, signals_of
from ...models.host import on_host, to_device
from ...models.learned_policy import bind
from ...models.loss import Loss
from ...models.memory_transformer import MemoryTransformer, Output, TransformerConfig, reconstruction_loss
from ...models.transformer_config import Shift
from ...schema import PositiveInt, ShareBelowOne, Validated, coerce
from .corpus import Passage, SegmentBatch, sweep_with_bar
from .strategies import Strategy, strategies


@dataclass(frozen=True)
class Schedule:
    """The memory of each training step: a random strategy and capacity, drawn again every ``resample_every`` steps.

    With one strategy and one capacity this is ordinary training; with several the model learns to use all of them.
    """

    strategies: Sequence[Strategy]
    capacities: Sequence[int]
    guard: Guard = field(default_factory=Guard)
    resample_every: int = 4
    seed: int = 0

    def at(self, step: int) -> tuple[Strategy, Memory]:
        """The strategy and its memory at ``step``; depends only on the seed and the step."""
        draw = random.Random(f"{self.seed}:{step // self.resample_every}")
        strategy = draw.choice(self.strategies)
        return strategy, strategy.memory(draw.choice(self.capacities), self.guard)


class LanguageModel(nn.Module):
    """The transformer and the learned parts of its compressions."""

    renamed_weights: ClassVar[dict[str, str]] = {"squeezers": "compressors"}

    def __init__(self, config: TransformerConfig, choices: Sequence[Strategy]) -> None:
        super().__init__()
        self.transformer = MemoryTransformer(config)
        learned = [s.compression.build(config.layers, config.dim) for s in choices]
        self.places = {s.name: i for i, s in enumerate(choices) if list(learned[i].parameters())}
        # By number: the name of a module must not contain a dot, that of a strategy may.
        self.compressors = nn.ModuleDict({str(i): learned[i] for i in self.places.values()})

    def compressor(self, strategy: Strategy) -> nn.Module | None:
        """The learned part of the compression of ``strategy``, if it has one."""
        place = self.places.get(strategy.name)
        return None if place is None else self.compressors[str(place)]


@dataclass(frozen=True)
class TaskState:
    """The state that training passes from segment to segment."""

    step: int
    scorer: Any
    memory: MemoryState


class LanguageModelTask:
    """Next-token prediction with the memory of the `Schedule`, for the training loop.

    Gradients stop at the content of the memory, as in Transformer-XL; compressions with learned parts add the
    attention-reconstruction loss.

    Args:
        module: the model to train.
        scorer: scores the tokens for the policies; it is not trained.
        schedule: the memory of each step.
        batch_size: rows of a batch.
        off_target_weight: weight of the loss on targets outside of ``target_mask``.
        alter: changes the input tokens, in main memory, but not the targets.
    """

    def __init__(
        self,
        module: LanguageModel,
        scorer: ScorerModel,
        schedule: Schedule,
        batch_size: int,
        *,
        off_target_weight: float = 1.0,
        alter: Callable[[Int[Tensor, "batch time"]], Int[Tensor, "batch time"]] | None = None,
    ) -> None:
        self.module: Any = module
        self.scorer, self.schedule, self.batch_size = scorer, schedule, batch_size
        self.off_target_weight, self.alter = off_target_weight, alter
        # Under a mixed schedule every slot is scored, and its attention counted: a later memory may need those of an
        # earlier one.
        self.attended = any("usage" in strategy.policy.requires for strategy in schedule.strategies)
        self.scored = module.transformer.config.score_bias or any(
            "scores" in strategy.policy.requires for strategy in schedule.strategies
        )

    def initial_state(self) -> TaskState:
        """Empty memories and the initial state of the scorer."""
        _, memory = self.schedule.at(0)
        payload = self.module.transformer.empty_payload(self.batch_size)
        empty = memory.empty(payload, signals_of(self.scorer))
        return TaskState(0, self.scorer.initial_state(self.batch_size), empty)

    def step(self, batch: SegmentBatch, state: TaskState) -> tuple[Loss, TaskState]:
        """The loss on one segment, in nats per token."""
        strategy, memory = self.schedule.at(int(state.step))  # a tensor in checkpoints of version 0.1
        if self.alter is not None:
            altered = self.alter(on_host(batch.tokens))
            batch = batch._replace(tokens=to_device(altered, batch.tokens.device))
        learned = self.module.compressor(strategy)
        scores, scorer = score_segment(self.scorer, batch, state.scorer, self.scored)
        before = state.memory.forget(batch.is_start)
        before = _detach(memory.evict_to_capacity(before, batch.positions[:, 0], learned).state)
        output = self.module.transformer(
            batch.tokens,
            batch.positions,
            before.read(),
            previous=batch.previous,
            need=(*memory.requires, "usage") if self.attended else memory.requires,
        )
        losses = F.cross_entropy(output.logits.flatten(0, 1).float(), batch.targets.flatten(), reduction="none")
        weights = batch.valid
        if self.off_target_weight != 1:
            weights = weights * torch.where(batch.target_mask, 1.0, self.off_target_weight)
        loss = (losses * weights.flatten()).sum() / weights.sum().clamp(min=1e-8)
        metrics = {"nll": loss, "tokens": batch.valid.sum()}
        written = write_segment(memory, before, output, batch, scores, learned, self.attended)
        if learned is not None and written.compressed.count:
            hidden = output.payload[0].detach()
            reconstruction = reconstruction_loss(self.module.transformer, hidden, written.evicted, written.compressed)
            loss, metrics["reconstruction"] = loss + reconstruction, reconstruction
        return Loss(loss, metrics), TaskState(state.step + 1, scorer, _detach(written.state))


def write_segment(
    memory: Memory,
    state: MemoryState,
    output: Output,
    batch: SegmentBatch,
    scores: Tensor,
    learned: nn.Module | None,
    observe: bool = False,
) -> WriteResult:
    """Write a segment to the memory; gradients do not pass into it.

    A policy that observes gets the attention of the segment; for other policies it is added to the usage of the slots.

    Args:
        memory: its capacity, policy and compression.
        state: its state before the segment.
        output: what the transformer returned for the segment.
        batch: the segment.
        scores: the scorer's signals, in nats, ``[batch, time, signal]``.
        learned: the module of a learned compression; None where nothing is learned.
        observe: whether attention is counted as for a policy that observes, because another one will take over.

    Returns:
        The new state, the evicted slots and their compressed form.
    """
    payload, stats = tuple(x.detach() for x in output.payload), None
    log_gates = None if output.log_gates is None else output.log_gates.detach()
    if memory.observes or observe:
        stats = ForwardStats(batch.positions, batch.valid, output.weights, output.norms)
    elif output.usage is not None:
        state = state.add_attention(output.usage)
    return memory.write(
        state,
        payload,
        batch.tokens,
        batch.positions,
        scores,
        batch.valid,
        learned,
        stats,
        log_gates=log_gates,
    )


def score_segment(
    scorer: ScorerModel, batch: SegmentBatch, state: Any, wanted: bool = True
) -> tuple[Float[Tensor, "batch time signal"], Any]:
    """Score the tokens of a segment.

    Args:
        scorer: the scorer.
        batch: the segment; rows that start a passage start from the initial state.
        state: the scorer's state after the segment before; None at the first.
        wanted: whether scores are needed; otherwise they are zeros, and the state does not change.

    Returns:
        The signals, in nats, and the new state.
    """
    if not wanted:
        return torch.zeros(*batch.tokens.shape, len(signals_of(scorer)), device=batch.tokens.device), state
    return scorer.score(batch.tokens, replace_rows(state, scorer.initial_state(len(batch.is_start)), batch.is_start))


def _detach(state: MemoryState) -> MemoryState:
    return replace(state, slots=state.slots.detach(), pooled=state.pooled.detach())


class PassageScores(NamedTuple):
    """The scores of passages: the names of the scorer's signals, and their values in nats for each passage."""

    signals: tuple[str, ...]
    values: Sequence[Float[Tensor, "_ signal"]]


@torch.no_grad()
def score_passages(
    scorer: ScorerModel, items: Sequence[Passage], batch_size: int, length: int, device: torch.device
) -> PassageScores:
    """Score the tokens of every passage, once for all strategies.

    Args:
        scorer: the scorer.
        items: the passages.
        batch_size: passages that are read in parallel.
        length: tokens of a segment.
        device: of the scorer.

    Returns:
        The signals of the input tokens of each passage.
    """
    scores: list[list[Tensor]] = [[] for _ in items]
    state = None
    for group, batch in sweep_with_bar("scoring passages", items, batch_size, length):
        batch = batch.to(device)
        is_start = state is None or bool(batch.is_start.all())
        signals, state = scorer.score(batch.tokens, scorer.initial_state(len(group)) if is_start else state)
        for row, passage in enumerate(group):
            scores[passage].append(signals[row, batch.valid[row]])
    return PassageScores(signals_of(scorer), [torch.cat(parts) for parts in scores])


class PassageReading(NamedTuple):
    """Loss and correctness of each predicted token of a passage; ``kept`` lists the positions in memory per segment."""

    nll: Float[Tensor, " time"]
    correct: Bool[Tensor, " time"]
    kept: list[list[int]]


@torch.no_grad()
def read_passages(
    model: LanguageModel,
    strategy: Strategy,
    memory: Memory,
    items: Sequence[Passage],
    scores: PassageScores | None,
    batch_size: int,
    length: int,
    description: str = "reading passages",
) -> tuple[list[PassageReading], int]:
    """Read every passage with ``memory``.

    Args:
        model: the language model; set to eval mode.
        strategy: the strategy of ``memory``.
        memory: what is kept.
        items: the passages.
        scores: the result of `score_passages`; None if the policy needs no scores.
        batch_size: passages that are read in parallel.
        length: tokens of a segment.
        description: the name of the bar.

    Returns:
        A reading for each passage, and the peak bytes of memory per row.
    """
    scores = scores or PassageScores((), [torch.zeros(len(item.ids), 0) for item in items])
    scores = scores._replace(values=strategy.controlled(scores.values))
    memory = bind(memory, model.transformer)
    model.eval()
    device = model.transformer.norm.weight.device
    readings = [PassageReading(torch.zeros(0), torch.zeros(0, dtype=torch.bool), []) for _ in items]
    state, most = None, 0
    for group, batch in sweep_with_bar(description, items, batch_size, length):
        segment = _scores_of(scores.values, group, batch, length)
        batch, segment = batch.to(device), segment.to(device)
        if state is None or bool(batch.is_start.all()):
            state = memory.empty(model.transformer.empty_payload(len(group)), scores.signals)
        state, nll, correct = _read_segment(model, strategy, memory, batch, segment, state)
        most = max(most, state.nbytes // len(group))
        for row, passage in enumerate(group):
            real, slots, old = batch.valid[row].cpu(), state.slots, readings[passage]
            readings[passage] = PassageReading(
                torch.cat([old.nll, nll[row][real]]),
                torch.cat([old.correct, correct[row][real]]),
                [*old.kept, slots.positions[row][slots.valid[row]].tolist()] if real.any() else old.kept,
            )
    return readings, most


def _read_segment(
    model: LanguageModel, strategy: Strategy, memory: Memory, batch: SegmentBatch, scores: Tensor, state: MemoryState
) -> tuple[MemoryState, Tensor, Tensor]:
    output = model.transformer(
        batch.tokens, batch.positions, state.read(), previous=batch.previous, need=memory.requires
    )
    written = write_segment(memory, state, output, batch, scores, model.compressor(strategy))
    nll = F.cross_entropy(output.logits.transpose(1, 2).float(), batch.targets, reduction="none")
    return written.state, nll.cpu(), (output.logits.argmax(-1) == batch.targets).cpu()


def _scores_of(scores: Sequence[Tensor], group: list[int], batch: SegmentBatch, length: int) -> Tensor:
    start = int(batch.positions[0, 0])
    parts = [scores[i][start : start + length].cpu() for i in group]
    return torch.stack([F.pad(part, (0, 0, 0, length - len(part))) for part in parts])


def long_gap(ids: Int[Tensor, " time"], rare: Bool[Tensor, " vocab"], reach: int) -> Bool[Tensor, " predicted"]:
    """Which targets ``ids[1:]`` are rare tokens whose last occurrence in the passage is over ``reach`` tokens back.

    Predicting these needs memory: one that keeps the newest ``reach`` slots has evicted their last occurrence.
    """
    last: dict[int, int] = {}
    found = torch.zeros(len(ids) - 1, dtype=torch.bool)
    for position, token in enumerate(ids.tolist()):
        if position and rare[token] and token in last:
            found[position - 1] = position - last[token] > reach
        last[token] = position
    return found


@dataclass(frozen=True)
class Shape(Validated):
    """The size of the transformer; see `TransformerConfig`."""

    layers: PositiveInt = 3
    """Transformer blocks."""
    dim: PositiveInt = 192
    """Width; a multiple of twice the number of heads."""
    heads: PositiveInt = 4
    """Attention heads per layer."""
    expansion: PositiveInt = 4
    """Width of the feed-forward part, as a multiple of ``dim``."""
    dropout: ShareBelowOne = 0.0
    """Dropout probability in training."""
    score_bias: bool = False
    """Whether each head learns a bias on the standardised score of a slot."""
    shift: Shift = True
    """Previous tokens that each embedding includes as well, up to 8; true is one, false none. Small models need them to
    use their memory: as many as a word is away from the one that it belongs to."""
    forget_gate: bool = False
    """Whether each head learns how much every token lets it forget of all earlier ones."""


def load_language_model(folder: Path, scorer: Any, device: torch.device | str = "cpu") -> LanguageModel:
    """Load the language model in ``folder``, which was trained with the signals of ``scorer``.

    Raises `ValueError` if it is missing, damaged, of another kind or of other signals.
    """

    def make(fields: dict[str, Any]) -> LanguageModel:
        shape = coerce(TransformerConfig, fields["shape"], "")
        return LanguageModel(shape, strategies(fields["strategies"]))

    model = load_model(folder, make, kind="language_model", device=device)
    model.transformer.rename_signals(signals_of(scorer))
    return model
