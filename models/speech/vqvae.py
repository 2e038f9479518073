"""The VQ-VAE for waveforms, as in Jukebox: levels of different hop, each with encoder, codebook and decoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...schema import coerce
from ..loss import Loss
from ..quantiser import Quantiser, QuantiserConfig, usage
from .spectral import Bandwidth, Distance, distance, loss, summary

CHUNK = 1 << 18
"""Samples coded or decoded at once when a stream is: bounds memory, whatever its length."""


@dataclass(frozen=True)
class VQVAEConfig:
    """The shape of a `VQVAE` and how its codebooks are trained."""

    strides: tuple[tuple[int, ...], ...] = ((2,) * 3, (2,) * 5, (2,) * 7)
    """For each level, by how much each stage of its encoder shortens; their product is the level's hop in samples."""
    width: int = 32
    """Channels of every convolution."""
    depth: int = 4
    """Residual blocks of a stage."""
    growth: int = 3
    """Each residual block of a stage is dilated so many times as much as the one before."""
    dim: int = 64
    """Width of a code."""
    codes: int = 512
    """Codes of a level."""
    decay: float = 0.9
    """Of the moving averages that codes follow, a training step."""
    dead_below: float = 0.1
    """A code that a training step gives fewer vectors than this share of an even use is put on one of them; 0 never."""
    step_samples: int = 65536
    """Samples of a training step (rows times crop), which say what an even use is."""
    commitment: float = 0.25
    """Weight of the commitment loss: the mean squared distance of an encoding to its code."""
    spectral: float = 1.0
    """Weight of the spectral loss; that of the squared error is 1."""
    rate: int = 16000
    """Samples a second of the recordings."""

    def __post_init__(self) -> None:
        if not self.strides or not all(self.strides) or min(map(min, self.strides)) < 2:
            raise ValueError(f"strides are of 2 or more, at least one a level, such as [[2, 2, 2]]; got {self.strides}")
        if len(set(self.hops)) < len(self.hops):
            raise ValueError(f"the levels of strides {self.strides} have hops {self.hops}; let no two be alike")
        for name in ("width", "dim", "codes", "growth", "step_samples", "rate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be 1 or more")
        for name in ("depth", "dead_below", "commitment", "spectral"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be 0 or more")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay = {self.decay} must be from 0 to below 1")

    @property
    def hops(self) -> tuple[int, ...]:
        """Samples a code of each level stands for."""
        return tuple(math.prod(level) for level in self.strides)


class LevelOutput(NamedTuple):
    """What one level makes of a batch."""

    waveform: Float[Tensor, "batch time"]
    codes: Int[Tensor, "batch codes"]
    commitment: Float[Tensor, ""]


class VQVAE(nn.Module):
    """Waveforms to codes and back, at several levels that know nothing of each other (2005.00341, section 3).

    Each level is a VQ-VAE (1711.00937) of one-dimensional convolutions. The loss is the squared error over the variance
    of the data set, the multi-scale spectral loss (`spectral.loss`) and the commitment loss. Codebooks are moving
    averages of what is encoded to them; codes that are hardly used are put on encodings of the batch at random.

    Unlike Jukebox: waveforms are divided by the standard deviation of the data set on their way in and multiplied on
    their way out; the spectral loss has logarithms of magnitudes too; windows are for 16 kHz.

    Args:
        config: the shape.
        size: the bandwidth of the data set, as `spectral.bandwidth` measures it.
    """

    kind: ClassVar[str] = "vqvae"
    """What its model folders say that they hold."""

    def __init__(self, config: VQVAEConfig, size: Bandwidth) -> None:
        super().__init__()
        self.config, self.size = config, size
        self.levels = nn.ModuleList(_Level(config, strides) for strides in config.strides)

    def fields(self) -> dict[str, Any]:
        """What `from_fields` rebuilds it from, JSON-able; the weights are apart."""
        return {"shape": asdict(self.config), "bandwidth": asdict(self.size)}

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> VQVAE:
        """A fresh model of the shape that ``fields`` tell. Raises `ValueError` for fields that are not a shape."""
        return cls(coerce(VQVAEConfig, fields["shape"], "shape"), coerce(Bandwidth, fields["bandwidth"], "bandwidth"))

    @torch.no_grad()
    def seed_codebooks(self, waveform: Float[Tensor, "batch time"]) -> None:
        """Start every codebook as k-means of how these waveforms are encoded now; to be done before training."""
        for level in self._levels:
            level.seed(_padded(waveform, level.hop) / self.size.scale)

    def training_step(self, waveform: Float[Tensor, "batch time"]) -> Loss:
        """The sum of the levels' losses; codebooks move if the module is in training mode.

        Metrics, each with ``hop{H}/`` before it: ``mse`` (over the variance), ``spectral`` (the loss), ``commitment``
        (weighted) and ``perplexity``, ``codes_used`` of this batch.
        """
        total, metrics = waveform.new_zeros(()), {}
        target = waveform / self.size.scale
        for level in self._levels:
            made = level(target)
            squares = (made.waveform - target).square().mean()
            spectral = loss(distance(target, made.waveform), self.size)
            total = total + squares + self.config.spectral * spectral + made.commitment
            figures = {"mse": squares, "spectral": spectral, "commitment": made.commitment}
            told = {name: float(value.detach()) for name, value in figures.items()} | self._usage([made.codes])
            metrics |= {f"hop{level.hop}/{name}": value for name, value in told.items()}
        return Loss(total, metrics)

    @torch.no_grad()
    def report(self, waveforms: Iterable[Float[Tensor, " _"]]) -> dict[str, float]:
        """Figures of recordings of any length that were not trained on; codebooks do not move.

        For each level, with ``hop{H}/`` before: ``mse`` (over the variance of the training data), those of
        `spectral.summary`, ``perplexity``, ``codes_used`` and ``used``, the share of codes that are.
        """
        clips = [waveform for waveform in waveforms if waveform.shape[0]]
        figures = {}
        for number, level in enumerate(self._levels):
            codes, distances, error = [], [], 0.0
            for clip in clips:
                code = self.encode(clip[None], number)
                made = self.decode(code, number, clip.shape[0])
                target, made = clip[None] / self.size.scale, made / self.size.scale
                error += float((target - made).double().square().sum())
                distances.append(_on_cpu(distance(target, made)))
                codes.append(code.cpu())
            told = {"mse": error / max(1, sum(map(len, clips)))} | summary(distances) | self._usage(codes)
            told["used"] = told["codes_used"] / self.config.codes
            figures |= {f"hop{level.hop}/{name}": value for name, value in told.items()}
        return figures

    @torch.no_grad()
    def encode(self, waveform: Float[Tensor, "batch time"], level: int) -> Int[Tensor, "batch codes"]:
        """The codes of waveforms of any length at a level: one for each hop that has begun."""
        chosen = self._level(level)
        return chosen.encode(_padded(waveform, chosen.hop) / self.size.scale)

    @torch.no_grad()
    def decode(
        self, codes: Int[Tensor, "batch codes"], level: int, length: int | None = None
    ) -> Float[Tensor, "batch time"]:
        """The waveforms that codes of a level stand for, cut to ``length`` samples; a hop a code without it.

        Raises `ValueError` for codes that the codebook has not.
        """
        chosen = self._level(level)
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.config.codes:
            raise ValueError(
                f"codes are from 0 to {self.config.codes - 1}, got {int(codes.min())} to {int(codes.max())}"
            )
        return chosen.decode(codes)[:, :length] * self.size.scale

    def encode_stream(
        self, parts: Iterable[Float[Tensor, "batch _"]], level: int, chunk: int = CHUNK
    ) -> Iterator[Int[Tensor, "batch _"]]:
        """As `encode`, of a waveform that comes in parts, in memory that depends on ``chunk`` (samples) alone.

        Neighbouring chunks overlap by what a code sees, so that the codes are those of the whole.
        """
        chosen = self._level(level)
        return _overlapping(
            lambda part: self.encode(part, level),
            parts,
            chosen.encoder_context,
            max(1, chunk // chosen.hop),
            chosen.hop,
            1,
        )

    def decode_stream(
        self, parts: Iterable[Int[Tensor, "batch _"]], level: int, chunk: int = CHUNK
    ) -> Iterator[Float[Tensor, "batch _"]]:
        """As `decode`, of codes that come in parts; whole hops."""
        chosen = self._level(level)
        return _overlapping(
            lambda part: self.decode(part, level),
            parts,
            chosen.decoder_context,
            max(1, chunk // chosen.hop),
            1,
            chosen.hop,
        )

    @property
    def _levels(self) -> list[_Level]:
        return cast("list[_Level]", list(self.levels))

    def _level(self, number: int) -> _Level:
        if not 0 <= number < len(self.levels):
            raise ValueError(f"level {number} is not there; choose from 0 to {len(self.levels) - 1}")
        return self._levels[number]

    def _usage(self, codes: list[Int[Tensor, "batch _"]]) -> dict[str, float]:
        found = usage(torch.cat([code.reshape(-1, 1) for code in codes]), (self.config.codes,))
        return {"perplexity": 2 ** found["rate"], "codes_used": found["codes_used"]}


class _Level(nn.Module):
    """Encoder, codebook and decoder of one hop, for waveforms of variance 1."""

    def __init__(self, config: VQVAEConfig, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.hop = math.prod(strides)
        width, dilations = config.width, [config.growth**i for i in range(config.depth)]
        down: list[nn.Module] = []
        up: list[nn.Module] = [_Conv(config.dim, width)]
        for i, stride in enumerate(strides):
            down += [_Shorten(width if i else 1, width, stride), *(_Residual(width, d) for d in dilations)]
        for stride in reversed(strides):
            up += [*(_Residual(width, d) for d in reversed(dilations)), _Lengthen(width, width, stride)]
        self.encoder = nn.Sequential(*down, _Conv(width, config.dim))
        self.decoder = nn.Sequential(*up, _Conv(width, 1))
        even = config.step_samples / self.hop / config.codes
        self._codebook = QuantiserConfig(
            "vq",
            config.codes,
            decay=config.decay,
            dead_below=config.dead_below * even,
            commitment=config.commitment,
        )
        self.quantiser = Quantiser(self._codebook, torch.randn(config.codes, config.dim))
        # How many codes' time before and behind its own a code sees, and a hop of sound hears.
        first, last = _reach(self.encoder, 0, 0)
        self.encoder_context = -(first // self.hop), last // self.hop
        first, last = _reach(self.decoder, 0, self.hop - 1)
        self.decoder_context = -first, last

    def seed(self, waveform: Float[Tensor, "batch time"]) -> None:
        """Start the codebook anew as k-means of how ``waveform`` is encoded."""
        with torch.no_grad():
            rows = self.encoder(waveform[:, None]).transpose(1, 2).flatten(0, 1)
        self.quantiser = Quantiser(self._codebook, rows).to(rows.device)

    def forward(self, waveform: Float[Tensor, "batch time"]) -> LevelOutput:
        """Through the codes and back; ``waveform`` is padded to whole hops and what is made cut again."""
        encoded = self.encoder(_padded(waveform, self.hop)[:, None]).transpose(1, 2)
        quantised, codes, commitment = self.quantiser(encoded.flatten(0, 1))
        made = self.decoder(quantised.unflatten(0, encoded.shape[:2]).transpose(1, 2))[:, 0]
        # Under autocast convolutions answer in half precision, of which there are no spectra.
        return LevelOutput(made[:, : waveform.shape[1]].to(waveform.dtype), codes.view(encoded.shape[:2]), commitment)

    def encode(self, waveform: Float[Tensor, "batch time"]) -> Int[Tensor, "batch codes"]:
        """Codes of whole hops."""
        if not waveform.shape[1]:
            return torch.zeros(waveform.shape, dtype=torch.long, device=waveform.device)
        encoded = self.encoder(waveform[:, None]).transpose(1, 2)
        return self.quantiser.look(encoded.flatten(0, 1))[1].view(encoded.shape[:2])

    def decode(self, codes: Int[Tensor, "batch codes"]) -> Float[Tensor, "batch time"]:
        """A hop a code."""
        dtype = next(self.parameters()).dtype
        if not codes.shape[1]:
            return codes.new_zeros(codes.shape, dtype=dtype)
        return self.decoder(self.quantiser.vectors(codes).transpose(1, 2))[:, 0].to(dtype)


# --- convolutions --------------------------------------------------------------------------------------------------


class _Reaching(Protocol):
    def reach(self, first: int, last: int) -> tuple[int, int]:
        """The first and last place of the input that places ``first`` to ``last`` of the output depend on."""
        ...


class _Conv(nn.Conv1d):
    """A convolution over three places that keeps the length."""

    def __init__(self, into: int, out: int, dilation: int = 1) -> None:
        super().__init__(into, out, 3, padding=dilation, dilation=dilation)

    def reach(self, first: int, last: int) -> tuple[int, int]:
        return first - self.dilation[0], last + self.dilation[0]


class _Residual(nn.Module):
    """Adds to its input what a dilated convolution makes of it."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.wide, self.mix = _Conv(width, width, dilation), nn.Conv1d(width, width, 1)

    def forward(self, x: Float[Tensor, "batch width time"]) -> Float[Tensor, "batch width time"]:
        return x + self.mix(F.relu(self.wide(F.relu(x))))

    def reach(self, first: int, last: int) -> tuple[int, int]:
        return self.wide.reach(first, last)


class _Shorten(nn.Conv1d):
    """One place for every ``stride``, which sees twice as many."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__(into, out, 2 * stride, stride)
        self.before = stride // 2

    def forward(self, x: Float[Tensor, "batch into time"]) -> Float[Tensor, "batch out shorter"]:  # pyright: ignore
        return super().forward(F.pad(x, (self.before, self.stride[0] - self.before)))

    def reach(self, first: int, last: int) -> tuple[int, int]:
        stride = self.stride[0]
        return first * stride - self.before, last * stride - self.before + 2 * stride - 1


class _Lengthen(nn.ConvTranspose1d):
    """``stride`` places for every one: the transpose of `_Shorten`."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__(into, out, 2 * stride, stride)
        self.before = stride // 2

    def forward(self, x: Float[Tensor, "batch into time"]) -> Float[Tensor, "batch out longer"]:  # pyright: ignore
        return super().forward(x)[..., self.before : self.before + x.shape[-1] * self.stride[0]]

    def reach(self, first: int, last: int) -> tuple[int, int]:
        stride = self.stride[0]
        return (first + self.before) // stride - 1, (last + self.before) // stride


def _reach(layers: nn.Sequential, first: int, last: int) -> tuple[int, int]:
    """The first and last place of the input that places ``first`` to ``last`` of the output depend on."""
    for layer in reversed(layers):
        first, last = cast("_Reaching", layer).reach(first, last)
    return first, last


# --- streams -------------------------------------------------------------------------------------------------------


def _overlapping(
    run: Callable[[Tensor], Tensor], parts: Iterable[Tensor], context: tuple[int, int], chunk: int, unit: int, made: int
) -> Iterator[Tensor]:
    """``run`` on a stream in windows of ``chunk`` units with ``context`` units before and behind, which are cut off.

    A unit is ``unit`` places of the input and ``made`` of the output. At the ends of the stream windows have no
    context, so that padding is where it is when the whole is run.
    """
    left, right = context
    held, before = None, 0
    for part in parts:
        held = part if held is None else torch.cat([held, part], 1)
        while held.shape[1] >= (before + chunk + right) * unit:
            out = run(held[:, : (before + chunk + right) * unit])
            yield out[:, before * made : (before + chunk) * made]
            done = max(0, before + chunk - left)
            held, before = held[:, done * unit :].clone(), before + chunk - done
    if held is not None and held.shape[1] > before * unit:
        yield run(held)[:, before * made :]


def _padded(waveform: Float[Tensor, "batch time"], hop: int) -> Float[Tensor, "batch longer"]:
    """Followed by silence up to whole hops."""
    return F.pad(waveform, (0, -waveform.shape[1] % hop))


def _on_cpu(found: Distance) -> Distance:
    return Distance(*(part.cpu() for part in (found.residual, found.energy, found.log, found.bins)))
