"""What reads a passage with a memory: a scorer alone, or a language model, which also shows what evictions cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...memory.bank import Memory
from ...memory.fitted import ABOUT
from ...memory.policy import Guard, Policy, signal_weights
from ...memory.scorer import SIGNALS, signals_of
from ...memory.slots import Slots
from ...models.speech.frame_scorer import is_frame_scorer
from ...registry import build, names
from ..lm.corpus import Passage as ReadPassage
from ..lm.language_model import PassageScores, read_passages
from ..lm.strategies import Strategy
from ..lm.text_scorer import Scoring, load_scoring
from ..scoring.audio import AudioScorer, load_audio_scorer
from ..text_lm.recipe import Run
from .passage import Passage, hear_passage, read_passage

SEGMENT = 32
"""Tokens that are written at once where no model says how many; the memory then evicts."""
CHARACTERS, CHARACTERS_TO_READ = 50_000, 15_000
"""The longest text: what a browser draws at an acceptable speed, and what a language model reads again and again."""


class Reading(NamedTuple):
    """What came of reading a passage with a memory.

    Args:
        kept: the positions that the memory keeps after each segment, in the first row.
        losses: the loss in nats of every token but the first; None without a language model.
        following: the ids with which the model went on after the passage, where that was asked for.
    """

    kept: list[list[int]]
    losses: Float[Tensor, "rows predicted"] | None = None
    following: tuple[int, ...] = ()


class Reader(ABC):
    """Scores passages, and reads them with memories."""

    characters: ClassVar[int]
    """The longest text that can be shown."""
    is_model: ClassVar[bool]
    """Whether readings have losses."""
    capacities: ClassVar[tuple[int, ...]]
    """Slots for which the loss of a model is shown."""
    tried: ClassVar[int]
    """How many evicted tokens are kept in turn."""
    new: ClassVar[int]
    """With how many tokens the model can go on after a passage."""
    hears: ClassVar[bool]
    """Whether it can score recordings, given a scorer of them."""

    @property
    @abstractmethod
    def signals(self) -> tuple[str, ...]:
        """The names of the scores."""

    @property
    @abstractmethod
    def usual(self) -> tuple[str, ...]:
        """The strategies that are shown unless others are asked for."""

    @property
    @abstractmethod
    def segment(self) -> int:
        """The tokens that are read at once."""

    @abstractmethod
    def text(self, text: str, name: str) -> Passage:
        """Score a text. Raises `ValueError` in one line if it cannot be shown."""

    @abstractmethod
    def clip(self, file: Path, name: str) -> Passage:
        """Score a recording. Raises `ValueError` in one line if it cannot be shown."""

    @abstractmethod
    def policies(self, signals: Collection[str]) -> dict[str, Policy]:
        """The policies that it can follow, by name, where a passage has these ``signals``."""

    @abstractmethod
    def read(self, passage: Passage, memory: Memory, new: int = 0) -> Reading:
        """Read a passage, with `Pins` in a row for each, and go on for at most ``new`` tokens."""

    def follow(self, passage: Passage, memory: Memory) -> Reading:
        """What a memory keeps of a passage: a reading, or less, where that is found sooner."""
        return self.read(passage, memory, self.new)

    @abstractmethod
    def decode(self, ids: list[int]) -> str:
        """The text of tokens."""


@dataclass(frozen=True)
class Pins(Guard):
    """A guard that also protects the slot at one more position of each row."""

    positions: tuple[int, ...] = ()

    def protects(self, slots: Slots, now: Int[Tensor, " batch"]) -> Bool[Tensor, "batch slots"]:
        """Which slots it protects from eviction."""
        pinned = slots.positions == torch.tensor(self.positions, device=now.device)[:, None]
        return super().protects(slots, now) | pinned


def rows_of(memory: Memory) -> int:
    """The rows in which a passage is read: one for each position that is pinned."""
    return len(memory.guard.positions) if isinstance(memory.guard, Pins) else 1


@dataclass(frozen=True)
class ScoreReader(Reader):
    """Scores alone: memories are followed whose policies need no more.

    Args:
        model: run of a scorer; None takes the packaged ones.
    """

    model: Path | None = None

    characters: ClassVar[int] = CHARACTERS
    is_model: ClassVar[bool] = False
    capacities: ClassVar[tuple[int, ...]] = ()
    tried: ClassVar[int] = 0
    new: ClassVar[int] = 0
    hears: ClassVar[bool] = True

    @property
    def signals(self) -> tuple[str, ...]:
        """Those of its scorer, of recordings if it reads nothing else."""
        if self.model is not None and is_frame_scorer(self.model):
            return self._audio.signals
        return signals_of(self._scoring.scorer)

    @property
    def usual(self) -> tuple[str, ...]:
        """The newest tokens as the baseline, and two scores."""
        return ("fifo", *(name for name in ("surprise", "gain", "reuse") if name in self.signals))

    @property
    def segment(self) -> int:
        """Tokens that are written at once."""
        return SEGMENT

    def text(self, text: str, name: str) -> Passage:
        """Score a text."""
        return read_passage(text, name, self._scoring, self.characters)

    def clip(self, file: Path, name: str) -> Passage:
        """Score a recording."""
        return hear_passage(file, name, self._audio)

    def policies(self, signals: Collection[str]) -> dict[str, Policy]:
        """Those that need scores at most."""
        return policies(signals, {"scores"})

    def read(self, passage: Passage, memory: Memory, new: int = 0) -> Reading:
        """Follow the memory; nothing else is known."""
        return _followed(passage, memory, len(passage.ids), self.segment)

    def decode(self, ids: list[int]) -> str:
        """The text of tokens."""
        return self._scoring.tokenizer.decode(ids)

    @cached_property
    def _scoring(self) -> Scoring:
        return load_scoring(self.model)

    @cached_property
    def _audio(self) -> AudioScorer:
        return load_audio_scorer(self.model)


@dataclass(frozen=True)
class RunReader(ScoreReader):
    """The language model of a run of `vqmem text_lm`, and its scorer.

    Args:
        model: the run.
        run: the same, loaded.
    """

    run: Run = field(kw_only=True)

    characters: ClassVar[int] = CHARACTERS_TO_READ
    is_model: ClassVar[bool] = True
    capacities: ClassVar[tuple[int, ...]] = (16, 32, 64, 128, 256, 512)
    tried: ClassVar[int] = 32

    @property
    def segment(self) -> int:
        """Tokens that the model was trained to read at once."""
        return self.run.config.segment

    def policies(self, signals: Collection[str]) -> dict[str, Policy]:
        """Those that need scores, attention, norms or the forget gates of this model, and what was fitted to it."""
        gates = {"decay"} if self.run.model.transformer.config.forget_gate else set[str]()
        found = policies(signals, {"scores", "usage", "norms"} | gates)
        if self.model is not None and (self.model / "policy" / ABOUT).is_file():
            weights = {"name": "weighted", "learned": 1.0, "score": 0.0, "folder": str(self.model / "policy")}
            found["learned"] = build("policies", weights)
        return found

    def follow(self, passage: Passage, memory: Memory) -> Reading:
        """Without the model, where the policy needs scores at most."""
        if set(memory.requires) <= {"scores"}:
            return _followed(passage, memory, len(passage.ids) - 1, self.segment)
        return super().follow(passage, memory)

    @torch.no_grad()
    def read(self, passage: Passage, memory: Memory, new: int = 0) -> Reading:
        """Read it. The last token is only predicted."""
        rows = rows_of(memory)
        scores = PassageScores(passage.names, [passage.scores] * rows)
        strategy = Strategy("read", memory.policy, memory.compression)
        items = [ReadPassage.from_ids(passage.ids)] * rows
        readings, _ = read_passages(self.run.model, strategy, memory, items, scores, rows, self.segment)
        kept = [sorted(positions) for positions in readings[0].kept]
        return Reading(kept, torch.stack([reading.nll for reading in readings]))

    @cached_property
    def _scoring(self) -> Scoring:
        return Scoring(self.run.tokenizer, self.run.scorer, "cpu")


@torch.no_grad()
def _followed(passage: Passage, memory: Memory, length: int, segment: int) -> Reading:
    """What a memory keeps of the first ``length`` tokens, ``segment`` of which are written at once."""
    nothing = torch.zeros(1, length, 0)
    state, found = memory.empty((nothing,), passage.names), []
    for part in torch.arange(length).split(segment):
        row = part[None]
        written = (passage.ids[row], row, passage.scores[row], torch.ones_like(row, dtype=torch.bool))
        state = memory.write(state, (nothing[:, part],), *written).state
        found.append(sorted(state.slots.positions[0][state.slots.valid[0]].tolist()))
    return Reading(found)


def policies(signals: Collection[str], given: Collection[str]) -> dict[str, Policy]:
    """The policies that need no more than is ``given``; `scored` has one for each of the ``signals`` in its place."""
    found: dict[str, Policy] = {}
    for name in names("policies"):
        if name == "scored":
            none = dict.fromkeys(SIGNALS, 0.0)
            weighable = [signal for signal in signals if signal in SIGNALS]
            found |= {signal: build("policies", {"name": name, **none, signal: 1.0}) for signal in weighable}
        else:
            policy = build("policies", name)
            needed = getattr(policy, "signals", signal_weights(policy))
            is_given = set(policy.requires) <= set(given) and set(needed) <= set(signals)
            if is_given and not hasattr(policy, "attention_signals"):
                found[name] = policy
    return found
