"""Text to speech units: a transformer that speaks letter by letter, and convolutions that say how long units last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ...memory.slots import SlotBuffer, Slots
from ...schema import coerce
from ..loss import Loss
from ..memory_transformer import MemoryTransformer, TransformerConfig
from .residual import Residuals, spread


@dataclass(frozen=True)
class SpeakerConfig:
    """The shape of a `UnitSpeaker`."""

    dim: int = 192
    """Width of everything."""
    layers: int = 3
    """Of the transformer."""
    heads: int = 4
    """Of each of its layers."""
    reach: tuple[int, ...] = (1, 2, 3)
    """Dilations of the convolutions over letters: their sum is how many letters ahead, and back, are looked at."""
    dropout: float = 0.1
    """Share of what is dropped in training."""
    corrupt: float = 0.15
    """Share of the units before that another one takes the place of in training, so that speech recovers from slips."""
    longest: int = 50
    """Frames of 20 ms that a unit lasts at most."""

    def __post_init__(self) -> None:
        if self.longest < 1 or not self.reach or min(self.reach) < 1:
            raise ValueError(
                f"longest = {self.longest} and every number of reach = {list(self.reach)} must be 1 or more"
            )
        if not 0 <= self.corrupt < 1:
            raise ValueError(f"corrupt = {self.corrupt} must be from 0 to below 1")
        self.transformer(1)

    def transformer(self, units: int) -> TransformerConfig:
        """The shape of the transformer. Raises `ValueError` for one that cannot be."""
        shape = {"layers": self.layers, "dim": self.dim, "heads": self.heads, "dropout": self.dropout}
        return TransformerConfig(units + 1, frame_dim=self.dim, **shape)


class Spoken(NamedTuple):
    """Units without repeats, how long each lasts in frames, and which letter it belongs to."""

    units: Int[Tensor, " runs"]
    frames: Int[Tensor, " runs"]
    owners: Int[Tensor, " runs"]


class Sentence(NamedTuple):
    """A text as letters, and how it was spoken."""

    letters: Int[Tensor, " letters"]
    spoken: Spoken


class Sentences(NamedTuple):
    """Sentences side by side, padded at their ends: letters with -1, all else with zeros.

    What lasts 0 frames, or is not ``real``, is padding.
    """

    letters: Int[Tensor, "batch letters"]
    steps: Int[Tensor, "batch steps"]
    place: Int[Tensor, "batch steps"]
    real: Bool[Tensor, "batch steps"]
    units: Int[Tensor, "batch runs"]
    frames: Int[Tensor, "batch runs"]
    owners: Int[Tensor, "batch runs"]


def steps_of(spoken: Spoken, letters: int, on: int) -> tuple[Int[Tensor, " steps"], Int[Tensor, " steps"]]:
    """What is said step by step, and at which letter: the units of a letter, then ``on``, which goes on to the next.

    As many steps as units and letters. Owners must not fall.
    """
    after = torch.arange(len(spoken.units)) + spoken.owners  # a unit comes after those before it and their letters
    steps = torch.full((len(spoken.units) + letters,), on)
    steps[after] = spoken.units
    place = (steps == on).cumsum(0) - (steps == on).long()
    return steps, place


def units_of(steps: Int[Tensor, " steps"], on: int) -> tuple[Int[Tensor, " runs"], Int[Tensor, " runs"]]:
    """Units and owners that `steps_of` made steps of."""
    place = (steps == on).cumsum(0)
    return steps[steps != on], place[steps != on]


class UnitSpeaker(nn.Module):
    """Letters to units, in the order of text, by the memory transformer; and how long each unit lasts.

    At each step the transformer is given what was said last and the letter that is being spoken, with its neighbours as
    convolutions see them, and says a unit of it or that the letter is done, as a transducer does (Graves, 1211.3711).
    Which letter is being spoken is never in doubt: an alignment of letters and units (`recipes.tts.alignment`) is made
    beforehand; to learn it by attention takes far more speech. Durations come from convolutions over units and their
    letters (2104.00355).

    Args:
        config: the shape.
        letters: the alphabet; the first one stands at both ends of a text.
        units: how many there are.
        taught: letters of the longest text that it learns from, 0 where that is not known; it says longer ones badly.
    """

    kind: ClassVar[str] = "unit_speaker"
    """What its model folders say that they hold."""

    def __init__(self, config: SpeakerConfig, letters: str, units: int, taught: int = 0) -> None:
        super().__init__()
        self.config, self.alphabet, self.units, self.taught = config, letters, units, taught
        self.on, self.start = units, units + 1
        width = config.dim
        self.letters = nn.Embedding(len(letters), width)
        self.around = Residuals(width, config.reach, config.dropout)
        self.said = nn.Embedding(units + 2, width)
        self.transformer = MemoryTransformer(config.transformer(units))
        self.lasting = Residuals(width, (1, 2, 1), config.dropout)
        self.duration = nn.Linear(width, config.longest)

    def fields(self) -> dict[str, Any]:
        """What `from_fields` rebuilds it from, JSON-able; the weights are apart."""
        return {"shape": asdict(self.config), "letters": self.alphabet, "units": self.units, "taught": self.taught}

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> UnitSpeaker:
        """A fresh model of the shape that ``fields`` tell. Raises `ValueError` for fields that are not a shape."""
        shape = coerce(SpeakerConfig, fields["shape"], "shape")
        return cls(shape, fields["letters"], fields["units"], fields.get("taught", 0))

    def batch(self, sentences: Sequence[Sentence]) -> Sentences:
        """Sentences side by side. Units that last longer than the longest count as lasting that."""
        made = [steps_of(sentence.spoken, len(sentence.letters), self.on) for sentence in sentences]
        columns = [*zip(*made, strict=True), [torch.ones_like(steps, dtype=torch.bool) for steps, _ in made]]
        spoken = [sentence.spoken for sentence in sentences]
        durations = [one.frames.clamp(max=self.config.longest).long() for one in spoken]
        columns += [[one.units for one in spoken], durations, [one.owners for one in spoken]]
        letters = pad_sequence([sentence.letters for sentence in sentences], batch_first=True, padding_value=-1)
        return Sentences(letters, *(pad_sequence(list(column), batch_first=True) for column in columns))

    def training_step(self, batch: Sentences) -> Loss:
        """The mean negative log-likelihood of a step, and that of a duration, added.

        Metrics: ``nll`` and ``accuracy`` of steps, ``duration_nll``, ``duration_error`` (frames).
        """
        context = self.context(batch.letters)
        before = torch.cat([torch.full_like(batch.steps[:, :1], self.start), batch.steps[:, :-1]], dim=1)
        if self.training and self.config.corrupt:
            slips = (torch.rand(before.shape, device=before.device) < self.config.corrupt) & (before < self.units)
            before = torch.where(slips, torch.randint_like(before, self.units), before)
        frames = self.said(before) + _at(context, batch.place)
        positions = torch.arange(before.shape[1], device=before.device).expand_as(before)
        logits = self.transformer(frames, positions).logits
        nll = F.cross_entropy(logits[batch.real].float(), batch.steps[batch.real])
        real = batch.frames > 0
        durations = self.durations(context, batch.units, batch.owners, real)[real]
        duration_nll = F.cross_entropy(durations.float(), batch.frames[real] - 1)
        with torch.no_grad():
            right = (logits.argmax(-1) == batch.steps)[batch.real].float().mean()
            error = (_median(durations) - batch.frames[real]).abs().float().mean()
        figures = {"nll": nll, "accuracy": right, "duration_nll": duration_nll, "duration_error": error}
        told = {name: float(x.detach()) for name, x in figures.items()}
        return Loss(nll + duration_nll, told | {"tokens": float(batch.real.sum())})

    def context(self, letters: Int[Tensor, "batch letters"]) -> Float[Tensor, "batch letters dim"]:
        """Each letter with those around it; -1 is padding."""
        return self.around(self.letters(letters.clamp(min=0)), letters >= 0)

    def durations(
        self,
        context: Float[Tensor, "batch letters dim"],
        units: Int[Tensor, "batch runs"],
        owners: Int[Tensor, "batch runs"],
        real: Bool[Tensor, "batch runs"] | None = None,
    ) -> Float[Tensor, "batch runs longest"]:
        """Logits of how long units last: the first is of one frame."""
        return self.duration(self.lasting(self.said(units) + _at(context, owners), real))

    @torch.no_grad()
    def begin_with(self, features: Float[Tensor, "units dim"]) -> None:
        """Start from units that lie where their ``features`` do, so that it is known which ones sound alike."""
        self.said.weight[: self.units] = spread(features, self.config.dim)

    @torch.inference_mode()
    def speak(self, texts: Sequence[Int[Tensor, " _"]], temperature: float, generator: torch.Generator) -> list[Spoken]:
        """Say sentences side by side; ``temperature`` 0 takes the likeliest unit at each step.

        Whether a letter is done is drawn as the model says it, whatever the temperature above 0 (see `_draw`). Units do
        not repeat, and a letter has at most as many as `_MOST`. Durations are medians.
        """
        letters = pad_sequence(list(texts), batch_first=True, padding_value=-1)
        context, lengths = self.context(letters), (letters >= 0).sum(1)
        place = said = torch.zeros_like(lengths)
        last, unit = torch.full_like(lengths, self.start), torch.full_like(lengths, -1)
        symbols, none = torch.arange(self.units + 1, device=letters.device), letters[:, :0]
        payload = self.transformer.empty_payload(len(letters), "keys_values")
        before, steps = SlotBuffer.from_slots(Slots.without_scores(payload, none, none), letters.shape[1]), []
        while bool((place < lengths).any()):
            position = torch.full_like(lengths, len(steps))[:, None]
            frame = self.said(last[:, None]) + _at(context, place[:, None])
            output = self.transformer(frame, position, before.slots, remember="keys_values")
            before = before.append(output.payload, position, position)
            again = symbols == unit[:, None]
            last = _draw(output.logits[:, -1].float().masked_fill(again, -torch.inf), temperature, generator)
            last = torch.where(said == _MOST, self.on, last)
            steps.append(last)
            done = last == self.on
            unit, said, place = torch.where(done, unit, last), torch.where(done, 0, said + 1), place + done
        rows = zip(torch.stack(steps, dim=1), context, lengths.tolist(), strict=True)
        return [self._lasting(row, of[:count]) for row, of, count in rows]

    def _lasting(self, steps: Int[Tensor, " steps"], context: Float[Tensor, "letters dim"]) -> Spoken:
        """Units of a sentence with their durations; what was said after its last letter is none of it."""
        units, owners = units_of(steps, self.on)
        real = owners < len(context)
        units, owners = units[real], owners[real]
        if not len(units):
            return Spoken(units, units, owners)
        return Spoken(units, _median(self.durations(context[None], units[None], owners[None])[0]), owners)


_MOST = 16
"""Units of a letter at most: twice as many as there are in speech, pauses included."""


def _at(context: Float[Tensor, "batch letters dim"], place: Int[Tensor, "batch steps"]) -> Tensor:
    """The letter of each step."""
    place = place.clamp(max=context.shape[1] - 1)  # where padding has gone on beyond the text
    return context.gather(1, place[..., None].expand(-1, -1, context.shape[2]))


def _median(logits: Float[Tensor, "*runs longest"]) -> Int[Tensor, "*runs"]:
    """The duration that half of the probability lies below."""
    return (torch.softmax(logits.float(), -1).cumsum(-1) < 0.5).sum(-1) + 1


def _draw(
    logits: Float[Tensor, "rows symbols"], temperature: float, generator: torch.Generator
) -> Int[Tensor, " rows"]:
    """A unit, or the last symbol: that the letter is done. ``temperature`` 0 takes the likeliest of all.

    It tempers which unit is drawn and not whether the letter is done: that is often the likeliest single symbol, and
    tempered it would be drawn too early, so that speech becomes too fast.
    """
    if temperature == 0:
        return logits.argmax(1)
    device, logits = logits.device, logits.cpu().double()
    done = torch.softmax(logits, -1)[:, -1:]
    units = logits[:, :-1]
    # Of a single unit that may not repeat none is left, and the letter is done.
    units = torch.softmax((units - units.amax(1, keepdim=True)) / temperature, -1).nan_to_num(0)
    chances = torch.cat([(1 - done) * units, done], -1)
    return torch.multinomial(chances, 1, generator=generator)[:, 0].to(device)
