"""The keys of the recipe `kv_cache`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Interval

from ...registry import DataSpec
from ...schema import (
    NonNegativeFloat,
    NonNegativeInt,
    PathText,
    PositiveInt,
    Seed,
    TwoOrMore,
    UnknownNameError,
    Validated,
)
from .settings import PACKAGED, Setting, read_policies

Percent = Annotated[float, Interval(ge=0, le=100)]
OpenShare = Annotated[float, Interval(gt=0, lt=1)]


@dataclass(frozen=True)
class StreamsConfig(Validated):
    """Long passages that are read through a cache, a chunk at a time."""

    passages: PositiveInt = 12
    """Passages to read; fewer than 6 give no intervals."""
    length: TwoOrMore = 2048
    """Tokens of a passage."""
    chunk: PositiveInt = 64
    """Tokens that are read at a time."""
    batch_size: PositiveInt = 4
    """Passages that are read in parallel. What a killed run loses is the batch that it was reading."""
    rare: NonNegativeFloat = 9.0
    """Lowest unigram surprisal, in nats, of tokens that count as rare in the long-gap figure."""


@dataclass(frozen=True)
class NeedlesConfig(Validated):
    """Quizzes about texts that are read in full before the question comes, most of which was evicted by then."""

    tasks: tuple[str, ...] = ("niah_single_1", "niah_single_2", "niah_single_3")
    """Tasks of RULER (`vqmem list tasks`)."""
    texts: tuple[PositiveInt, ...] = (1024, 2048)
    """About how many tokens a text has, within a tenth."""
    quizzes: NonNegativeInt = 2
    """Quizzes of each task and length; 0 leaves the needles out."""
    shares: tuple[OpenShare, ...] = (0.25,)
    """Shares of a text's tokens that are kept."""
    batch_size: PositiveInt = 8
    """Policies that answer a quiz in parallel."""
    threshold: Percent = 50.0
    """Lowest score of the full cache, in %, at which a task is compared; the report names the others."""


@dataclass(frozen=True)
class CostsConfig(Validated):
    """One request: a prompt that is read in chunks, and an answer."""

    prompt: NonNegativeInt = 4096
    """Tokens of the prompt; 0 leaves the costs out."""
    chunk: PositiveInt = 512
    """Tokens of the prompt that are read at a time."""
    answer: PositiveInt = 32
    """Tokens of the answer."""


@dataclass(frozen=True)
class Config(Validated):
    """A comparison of ways to fill the cache of one pretrained model. Nothing is trained."""

    out: PathText = "runs/kv_cache"
    """Folder of the comparison; with the same folder it continues where it stopped."""
    title: str = "What should the cache keep?"
    """Heading of the report."""
    model: PathText = ""
    """The pretrained model: a folder, a name on the Hugging Face Hub, or a GGUF file."""
    data: DataSpec = "builtin_text"
    """The text to measure on: a name, or ``name`` and its keys (`vqmem list data NAME`)."""
    split: Literal["all", "train", "dev", "test"] = "all"
    """The part of the text to read. Nothing is trained, so that all of it is the default."""
    characters: PositiveInt = 10_000_000
    """Read at most so many characters of text."""
    policies: dict[str, Any] = field(default_factory=lambda: {"auto": "auto", "document": "document", "fifo": "fifo"})
    """Name -> a preset of the cache, a policy, its mapping, or a mapping of ``policy`` and arguments of the cache."""
    baseline: str = "fifo"
    """The policy that all others are compared with."""
    presses: tuple[str, ...] = ("ExpectedAttention", "SnapKV", "KeyDiff")
    """Presses of kvpress to measure as well, where it is installed; KVzip, a ceiling, reads every quiz's text twice."""
    scorer: PathText | None = None
    """Folder of a run of `vqmem train-scorer` for this model; null is the packaged scorer, which serves any model."""
    capacities: tuple[PositiveInt, ...] = (128, 256, 512)
    """Capacities: tokens that the cache keeps."""
    sinks: NonNegativeInt = 4
    """A guard: number of first tokens that no policy evicts."""
    tolerance: NonNegativeFloat = 0.05
    """How much more than the full cache a capacity that the report recommends may lose, in nats a token."""
    seed: Seed = 0
    """Seed of the choice of passages, and of the quizzes."""
    streams: StreamsConfig = field(default_factory=StreamsConfig)
    needles: NeedlesConfig = field(default_factory=NeedlesConfig)
    costs: CostsConfig = field(default_factory=CostsConfig)
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: str = "auto"
    """auto, float32 or bfloat16: the type of the weights; auto is bfloat16 on a GPU that supports it, else float32."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for unknown policies, and for sizes that leave nothing to compare."""
        super().__post_init__()
        names = [setting.name for setting in self.settings()]
        if self.baseline not in names:
            raise UnknownNameError("baseline", self.baseline, names)
        for name, values in (("capacities", self.capacities), ("needles.shares", self.needles.shares)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name}={list(values)} must name at least one, and none twice")
        if max(self.capacities) >= self.streams.length:
            raise ValueError(
                f"capacities={list(self.capacities)} must be below streams.length={self.streams.length}, or nothing is "
                "evicted; give longer passages"
            )

    def settings(self) -> list[Setting]:
        """The policies to compare."""
        return read_policies(self.policies, self.scorer or PACKAGED)
