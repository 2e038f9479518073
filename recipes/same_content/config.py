"""The keys of the recipe `same_content`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Interval

from ...data.base import Split
from ...registry import DataSpec
from ...schema import PathText, PositiveFloat, PositiveInt, Seed, TwoOrMore, Validated
from .strategies import read_strategies

_SURPRISE = {"name": "scored", "age_weight": 0.0}
_RARITY = {"name": "scored", "surprise": 0.0, "rarity": 1.0, "age_weight": 0.0}
_GAIN = {"name": "scored", "surprise": 0.0, "gain": 1.0, "age_weight": 0.0}
STRATEGIES: dict[str, Any] = {
    "fifo": {"policy": "fifo"},
    "random": {"policy": "random"},
    "surprise": {"policy": _SURPRISE},
    "rarity": {"policy": _RARITY},
    "gain": {"policy": _GAIN},
    "surprise with log age": {"policy": "scored"},
    "surprise of half seconds": {"policy": _SURPRISE, "window": 0.5},
    "inverted surprise": {"policy": {"name": "scored", "surprise": -1.0, "age_weight": 0.0}},
    "shuffled surprise": {"policy": _SURPRISE, "shuffle": True},
    "shuffled rarity": {"policy": _RARITY, "shuffle": True},
    "shuffled gain": {"policy": _GAIN, "shuffle": True},
    "shuffled surprise with log age": {"policy": "scored", "shuffle": True},
    "shuffled surprise of half seconds": {"policy": _SURPRISE, "window": 0.5, "shuffle": True},
}
"""The default strategies: the newest tokens, random ones, those of the highest signals, and controls."""


@dataclass(frozen=True)
class Config(Validated):
    """A comparison of a text and the same text spoken. Nothing is trained."""

    out: PathText = "runs/same_content"
    """Folder of the result."""
    title: str = "The same content as text and as speech"
    """Heading of the report."""
    data: DataSpec = "builtin_text"
    """Text source: a name, or ``name`` and its keys (`vqmem list data NAME`)."""
    split: Split = "dev"
    """The part of the text to read."""
    plain: bool = False
    """Whether to remove everything but letters, digits and punctuation from the text: the engine reads a * aloud."""
    chars: PositiveInt = 3000
    """Maximum characters of a passage; at 160 words a minute, 3,000 characters are spoken in some three minutes."""
    passages: TwoOrMore = 24
    """Passages to read, evenly spaced over all documents; fewer than 6 give no intervals."""
    voice: str = "en-us"
    """Voice of eSpeak NG: a language, and after + a variant, as in en-us+f3."""
    second_voice: str = "en-us+f3"
    """Voice that speaks the text again; the agreement of scores in both voices is a ceiling. Empty = none."""
    speed: Annotated[int, Interval(ge=80, le=450)] = 160
    """Words a minute."""
    cache: PathText = ""
    """Folder for the recordings; empty = ``vqmem/spoken`` in the user's cache."""
    text_scorer: PathText = ""
    """Folder of a run of `vqmem text_lm` on text, whose scorer is used; empty = the packaged one."""
    speech_scorer: PathText = ""
    """Folder of a run of `vqmem text_lm` on speech or of `vqmem frame_scorer`; empty = the packaged one."""
    strategies: dict[str, Any] = field(default_factory=lambda: dict(STRATEGIES))
    """Name -> ``policy``, which needs no attention. Optionally ``window``, seconds over which scores are averaged, and
    ``shuffle: true``, which gives each token the scores of another one: a control of the strategy without it."""
    capacities: tuple[PositiveFloat, ...] = (5.0, 15.0, 60.0)
    """Capacities of both memories, in seconds of content: the slots for the tokens of so many seconds on average."""
    segment: PositiveFloat = 2.0
    """Seconds of content that a memory appends before it evicts."""
    moments: PositiveInt = 8
    """Moments at which the memories are compared, evenly spaced over the second half of a passage, up to its end."""
    seed: Seed = 0
    """Seed of the shuffled scores."""
    device: str = "auto"
    """Where the scorers run: auto, cpu, cuda, cuda:N or mps."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for strategies that need attention, and for capacities that are missing or double."""
        super().__post_init__()
        read_strategies(self.strategies)
        if not self.capacities or len(set(self.capacities)) < len(self.capacities):
            raise ValueError(f"capacities={list(self.capacities)} must name at least one, and none twice")
