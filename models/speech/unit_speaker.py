"""Text to speech units: a transformer predicts the units letter by letter, convolutions predict their durations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ...artifacts import rename_keys
from ...memory.slots import SlotBuffer, Slots
from ...schema import PositiveInt, ShareBelowOne, Validated, coerce
from ..host import choose, on_host, to_device
from ..loss import Loss
from ..memory_transformer import MemoryTransformer, TransformerConfig
from .residual import Residuals, random_projection


@dataclass(frozen=True)
class SpeakerConfig(Validated):
    """The shape of a `UnitSpeaker`."""

    dim: int = 192
    """Width of the model."""
    layers: int = 3
    """Layers of the transformer."""
    heads: int = 4
    """Heads of each layer."""
    reach: tuple[PositiveInt, ...] = (1, 2, 3)
    """Dilations of the convolutions over letters; their sum is the number of letters of context on either side."""
    dropout: float = 0.1
    """Dropout probability in training."""
    corrupt: ShareBelowOne = 0.15
    """Share of the previous units that training replaces by random ones, so that speech recovers from errors."""
    longest: PositiveInt = 50
    """Maximum duration of a unit, in frames of 20 ms."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.reach:
            raise ValueError("reach is empty; give at least one number")
        self.transformer(1)

    def transformer(self, units: int) -> TransformerConfig:
        """The shape of the transformer. Raises `ValueError` for an impossible one."""
        return TransformerConfig(
            units + 1,
            layers=self.layers,
            dim=self.dim,
            heads=self.heads,
            dropout=self.dropout,
            frame_dim=self.dim,
        )


class UnitRuns(NamedTuple):
    """Units without repeats, with their durations in frames and the index of the letter of each."""

    units: Int[Tensor, " runs"]
    frames: Int[Tensor, " runs"]
    owners: Int[Tensor, " runs"]


class SpokenSentence(NamedTuple):
    """A text as letters, and the units of its recording."""

    letters: Int[Tensor, " letters"]
    spoken: UnitRuns


class SentenceBatch(NamedTuple):
    """A batch of sentences, padded at their ends: letters with -1, everything else with zeros.

    Units of 0 frames and steps that are not ``real`` are padding.
    """

    letters: Int[Tensor, "batch letters"]
    steps: Int[Tensor, "batch steps"]
    place: Int[Tensor, "batch steps"]
    real: Bool[Tensor, "batch steps"]
    units: Int[Tensor, "batch runs"]
    frames: Int[Tensor, "batch runs"]
    owners: Int[Tensor, "batch runs"]


def to_steps(spoken: UnitRuns, letters: int, advance_id: int) -> tuple[Int[Tensor, " steps"], Int[Tensor, " steps"]]:
    """The output of each step and the index of its letter: the units of a letter, then ``advance_id``.

    There are as many steps as units and letters together. Owners must not decrease.
    """
    index = torch.arange(len(spoken.units)) + spoken.owners  # a unit follows the units and letters before it
    steps = torch.full((len(spoken.units) + letters,), advance_id)
    steps[index] = spoken.units
    place = (steps == advance_id).cumsum(0) - (steps == advance_id).long()
    return steps, place


def from_steps(steps: Int[Tensor, " steps"], advance_id: int) -> tuple[Int[Tensor, " runs"], Int[Tensor, " runs"]]:
    """The units and owners of the steps: the inverse of `to_steps`."""
    place = (steps == advance_id).cumsum(0)
    return steps[steps != advance_id], place[steps != advance_id]


class UnitSpeaker(nn.Module):
    """Predicts units from letters with the memory transformer, and the duration of each unit.

    The input of each step is the last output and the current letter with its context. The output is a unit of this
    letter, or `advance_id`, which moves on to the next letter, as in a transducer (Graves, 1211.3711). The current
    letter is always known, because training uses an alignment of letters and units (`recipes.tts.alignment`); learning
    it by attention takes far more speech. Convolutions over units and their letters predict the durations (2104.00355).

    Args:
        config: the shape.
        letters: the alphabet; its first letter is added at both ends of a text.
        units: number of units.
        max_train_letters: letters of the longest training text; 0 = unknown. Longer texts are spoken badly.
    """

    kind: ClassVar[str] = "unit_speaker"
    """The kind in the config of its model folders."""
    renamed_weights: ClassVar[dict[str, str]] = {
        "said": "unit_embed",
        "around": "context_encoder",
        "lasting": "duration_predictor",
    }
    """Names in model folders of version 0.1, and today's."""

    def __init__(self, config: SpeakerConfig, letters: str, units: int, max_train_letters: int = 0) -> None:
        super().__init__()
        self.config, self.alphabet, self.units = config, letters, units
        self.max_train_letters = max_train_letters
        self.advance_id = units
        self.start_id = units + 1
        width = config.dim
        self.letters = nn.Embedding(len(letters), width)
        self.context_encoder = Residuals(width, config.reach, config.dropout)
        self.unit_embed = nn.Embedding(units + 2, width)
        self.transformer = MemoryTransformer(config.transformer(units))
        self.duration_predictor = Residuals(width, (1, 2, 1), config.dropout)
        self.duration = nn.Linear(width, config.longest)

    def fields(self) -> dict[str, Any]:
        """JSON-able values from which `from_fields` rebuilds it, without the weights."""
        about = {"letters": self.alphabet, "units": self.units, "max_train_letters": self.max_train_letters}
        return {"shape": asdict(self.config), **about}

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> UnitSpeaker:
        """A new model of the shape in ``fields``. Raises `ValueError` for fields that are not a shape."""
        fields = rename_keys(fields, {"taught": "max_train_letters"})
        shape = coerce(SpeakerConfig, fields["shape"], "shape")
        return cls(shape, fields["letters"], fields["units"], fields.get("max_train_letters", 0))

    def batch(self, sentences: Sequence[SpokenSentence]) -> SentenceBatch:
        """Make a batch of sentences. Longer durations are cut to `SpeakerConfig.longest`."""
        spoken = [sentence.spoken for sentence in sentences]
        made = (to_steps(sentence.spoken, len(sentence.letters), self.advance_id) for sentence in sentences)
        steps, place = zip(*made, strict=True)
        return SentenceBatch(
            letters=_padded([sentence.letters for sentence in sentences], -1),
            steps=_padded(steps),
            place=_padded(place),
            real=_padded([torch.ones_like(row, dtype=torch.bool) for row in steps]),
            units=_padded([runs.units for runs in spoken]),
            frames=_padded([runs.frames.clamp(max=self.config.longest).long() for runs in spoken]),
            owners=_padded([runs.owners for runs in spoken]),
        )

    def training_step(self, batch: SentenceBatch) -> Loss:
        """The sum of the mean negative log-likelihoods of steps and of durations, in nats.

        Metrics: ``nll`` and ``accuracy`` of steps, ``duration_nll``, ``duration_error`` (frames).
        """
        context = self.context(batch.letters)
        before = torch.cat([torch.full_like(batch.steps[:, :1], self.start_id), batch.steps[:, :-1]], dim=1)
        if self.training and self.config.corrupt:
            slips = (torch.rand(before.shape, device=before.device) < self.config.corrupt) & (before < self.units)
            before = torch.where(slips, torch.randint_like(before, self.units), before)
        frames = self.unit_embed(before) + _at(context, batch.place)
        positions = torch.arange(before.shape[1], device=before.device).expand_as(before)
        logits = self.transformer(frames, positions).logits
        nll = F.cross_entropy(choose(logits, batch.real).float(), choose(batch.steps, batch.real))
        real = to_device(on_host(batch.frames) > 0, batch.frames.device)
        durations = choose(self.durations(context, batch.units, batch.owners, real), real)
        frames = choose(batch.frames, real)
        duration_nll = F.cross_entropy(durations.float(), frames - 1)
        with torch.no_grad():
            accuracy = choose(logits.argmax(-1) == batch.steps, batch.real).float().mean()
            error = (_median(durations) - frames).abs().float().mean()
        metrics = {"nll": nll, "accuracy": accuracy, "duration_nll": duration_nll, "duration_error": error}
        return Loss(nll + duration_nll, {**metrics, "tokens": batch.real.sum()})

    def context(self, letters: Int[Tensor, "batch letters"]) -> Float[Tensor, "batch letters dim"]:
        """Encode each letter with its context; -1 is padding."""
        return self.context_encoder(self.letters(letters.clamp(min=0)), letters >= 0)

    def durations(
        self,
        context: Float[Tensor, "batch letters dim"],
        units: Int[Tensor, "batch runs"],
        owners: Int[Tensor, "batch runs"],
        real: Bool[Tensor, "batch runs"] | None = None,
    ) -> Float[Tensor, "batch runs longest"]:
        """Logits of the durations of units.

        Args:
            context: the encoded letters (see `context`).
            units: the units of each row.
            owners: the index of the letter of each unit.
            real: false for padding; None = no padding.

        Returns:
            Logits of 1, 2, … frames of 20 ms.
        """
        return self.duration(self.duration_predictor(self.unit_embed(units) + _at(context, owners), real))

    @torch.no_grad()
    def init_embeddings(self, features: Float[Tensor, "units dim"]) -> None:
        """Initialise the embeddings of units by their ``features``, so that units that sound alike are near."""
        self.unit_embed.weight[: self.units] = random_projection(features, self.config.dim)

    @torch.inference_mode()
    def speak(
        self, texts: Sequence[Int[Tensor, " _"]], temperature: float, generator: torch.Generator
    ) -> list[UnitRuns]:
        """Predict the units of a batch of sentences; durations are medians.

        Units do not repeat, and a letter has at most `_MAX_UNITS` of them.

        Args:
            texts: the letters of each sentence.
            temperature: of the choice of units; 0 = the likeliest. It does not affect `advance_id` (see `_draw`).
            generator: draws the units; unused at temperature 0.

        Returns:
            The units of each sentence.
        """
        letters = _padded(texts, -1)
        context, lengths = self.context(letters), (letters >= 0).sum(1)
        place = unit_count = torch.zeros_like(lengths)
        last, unit = torch.full_like(lengths, self.start_id), torch.full_like(lengths, -1)
        symbols, none = torch.arange(self.units + 1, device=letters.device), letters[:, :0]
        payload = self.transformer.empty_payload(len(letters), "keys_values")
        before, steps = SlotBuffer.from_slots(Slots.without_scores(payload, none, none), letters.shape[1]), []
        while bool((place < lengths).any()):
            position = torch.full_like(lengths, len(steps))[:, None]
            frame = self.unit_embed(last[:, None]) + _at(context, place[:, None])
            output = self.transformer(frame, position, before.slots, remember="keys_values")
            before = before.append(output.payload, position, position)
            again = symbols == unit[:, None]
            last = _draw(output.logits[:, -1].float().masked_fill(again, -torch.inf), temperature, generator)
            last = torch.where(unit_count == _MAX_UNITS, self.advance_id, last)
            steps.append(last)
            done = last == self.advance_id
            unit = torch.where(done, unit, last)
            unit_count = torch.where(done, 0, unit_count + 1)
            place = place + done
        rows = zip(torch.stack(steps, dim=1), context, lengths.tolist(), strict=True)
        return [self._with_durations(row, letters[:count]) for row, letters, count in rows]

    def _with_durations(self, steps: Int[Tensor, " steps"], context: Float[Tensor, "letters dim"]) -> UnitRuns:
        """The units of a sentence with their durations, without the steps after its last letter."""
        units, owners = from_steps(steps, self.advance_id)
        real = owners < len(context)
        units, owners = units[real], owners[real]
        if not len(units):
            return UnitRuns(units, units, owners)
        return UnitRuns(units, _median(self.durations(context[None], units[None], owners[None])[0]), owners)


_MAX_UNITS = 16
"""Maximum number of units of a letter: twice as many as in speech, pauses included."""


def _padded(rows: Sequence[Tensor], value: int = 0) -> Tensor:
    return pad_sequence(list(rows), batch_first=True, padding_value=value)


def _at(context: Float[Tensor, "batch letters dim"], place: Int[Tensor, "batch steps"]) -> Tensor:
    """The encoded letter of each step."""
    place = place.clamp(max=context.shape[1] - 1)  # padding may continue beyond the text
    return context.gather(1, place[..., None].expand(-1, -1, context.shape[2]))


def _median(logits: Float[Tensor, "*runs longest"]) -> Int[Tensor, "*runs"]:
    """The median duration."""
    return (torch.softmax(logits.float(), -1).cumsum(-1) < 0.5).sum(-1) + 1


def _draw(
    logits: Float[Tensor, "rows symbols"], temperature: float, generator: torch.Generator
) -> Int[Tensor, " rows"]:
    """Draw a unit or the last symbol, `advance_id`. ``temperature`` 0 takes the likeliest symbol.

    The temperature changes the probabilities of units, not that of `advance_id`: this is often the likeliest symbol, so
    that a low temperature would draw it too early, and speech would become too fast.
    """
    if temperature == 0:
        return logits.argmax(1)
    device, logits = logits.device, logits.cpu().double()
    done = torch.softmax(logits, -1)[:, -1:]
    units = logits[:, :-1]
    # A single unit may not repeat, which leaves no unit to draw: the result is `advance_id`.
    units = torch.softmax((units - units.amax(1, keepdim=True)) / temperature, -1).nan_to_num(0)
    chances = torch.cat([(1 - done) * units, done], -1)
    return torch.multinomial(chances, 1, generator=generator)[:, 0].to(device)
