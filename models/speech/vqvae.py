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

from ...schema import NonNegativeFloat, NonNegativeInt, PositiveInt, ShareBelowOne, Validated, coerce
from ..loss import Loss
from ..quantiser import Quantiser, QuantiserConfig, usage
from .spectral import Bandwidth, Distance, distance, loss, summary

CHUNK = 1 << 18
"""Samples of a stream encoded or decoded at once, which bounds memory."""


@dataclass(frozen=True)
class VQVAEConfig(Validated):
    """The shape of a `VQVAE` and settings of its training."""

    strides: tuple[tuple[int, ...], ...] = ((2,) * 3, (2,) * 5, (2,) * 7)
    """The strides of the stages of each level's encoder; their product is the level's hop in samples."""
    width: PositiveInt = 32
    """Channels of every convolution."""
    depth: NonNegativeInt = 4
    """Residual blocks of each stage."""
    growth: PositiveInt = 3
    """Ratio of the dilation of a residual block to that of the block before it."""
    dim: PositiveInt = 64
    """Width of a code."""
    codes: PositiveInt = 512
    """Codes of a level."""
    decay: ShareBelowOne = 0.9
    """Decay per training step of the moving averages that codes follow."""
    dead_below: NonNegativeFloat = 0.1
    """A code with less than this share of the uniform usage in a training step is moved to a vector; 0 = never."""
    step_samples: PositiveInt = 65536
    """Samples of a training step (batch size times crop), which define the uniform usage."""
    commitment: NonNegativeFloat = 0.25
    """Weight of the commitment loss: the mean squared distance of an encoding to its code."""
    spectral: NonNegativeFloat = 1.0
    """Weight of the spectral loss; the squared error has weight 1."""
    rate: PositiveInt = 16000
    """Samples a second of the recordings."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.strides or not all(self.strides) or min(map(min, self.strides)) < 2:
            raise ValueError(f"strides are of 2 or more, at least one a level, such as [[2, 2, 2]]; got {self.strides}")
        if len(set(self.hops)) < len(self.hops):
            raise ValueError(f"the levels of strides {self.strides} have hops {self.hops}; let no two be alike")

    @property
    def hops(self) -> tuple[int, ...]:
        """Samples of a code at each level."""
        return tuple(math.prod(level) for level in self.strides)


class LevelOutput(NamedTuple):
    """The output of one level for a batch."""

    waveform: Float[Tensor, "batch time"]
    codes: Int[Tensor, "batch codes"]
    commitment: Float[Tensor, ""]


class VQVAE(nn.Module):
    """Encodes waveforms to codes and back, at several independent levels (2005.00341, section 3).

    Each level is a VQ-VAE (1711.00937) of one-dimensional convolutions. The loss is the squared error over the variance
    of the data set, the multi-scale spectral loss (`spectral.loss`) and the commitment loss. Codes are moving averages
    of their encodings; rarely used codes are moved to random encodings of the batch.

    Unlike Jukebox, waveforms are divided by the standard deviation of the data set at the input and multiplied at the
    output, the spectral loss includes logarithms of magnitudes, and windows are for 16 kHz.

    Args:
        config: the shape.
        size: the bandwidth of the data set (see `spectral.bandwidth`).
    """

    kind: ClassVar[str] = "vqvae"
    """The kind in the config of its model folders."""

    def __init__(self, config: VQVAEConfig, size: Bandwidth) -> None:
        super().__init__()
        self.config, self.size = config, size
        self.levels = nn.ModuleList(_Level(config, strides) for strides in config.strides)

    def fields(self) -> dict[str, Any]:
        """JSON-able values from which `from_fields` rebuilds it, without the weights."""
        return {"shape": asdict(self.config), "bandwidth": asdict(self.size)}

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> VQVAE:
        """A new model of the shape in ``fields``. Raises `ValueError` for fields that are not a shape."""
        return cls(coerce(VQVAEConfig, fields["shape"], "shape"), coerce(Bandwidth, fields["bandwidth"], "bandwidth"))

    @torch.no_grad()
    def seed_codebooks(self, waveform: Float[Tensor, "batch time"]) -> None:
        """Initialise every codebook by k-means of the encodings of these waveforms; call it before training."""
        for level in self._levels:
            level.seed(_padded(waveform, level.hop) / self.size.scale)

    def training_step(self, waveform: Float[Tensor, "batch time"]) -> Loss:
        """The sum of the levels' losses; in training mode the codebooks move.

        Metrics, each with the prefix ``hop{H}/``: ``mse`` (over the variance), ``spectral`` (the loss), ``commitment``
        (weighted), and ``perplexity`` and ``codes_used`` of this batch.
        """
        total, metrics = waveform.new_zeros(()), {}
        target = waveform / self.size.scale
        for level in self._levels:
            made = level(target)
            squares = (made.waveform - target).square().mean()
            spectral = loss(distance(target, made.waveform), self.size)
            total = total + squares + self.config.spectral * spectral + made.commitment
            figures = {"mse": squares, "spectral": spectral, "commitment": made.commitment}
            figures |= self._usage([made.codes])
            metrics |= {f"hop{level.hop}/{name}": value for name, value in figures.items()}
        return Loss(total, metrics)

    @torch.no_grad()
    def report(self, waveforms: Iterable[Float[Tensor, " _"]]) -> dict[str, float]:
        """Evaluate held-out recordings of any length; codebooks do not move.

        For each level, with the prefix ``hop{H}/``: ``mse`` (over the variance of the training data), the figures of
        `spectral.summary`, ``perplexity``, ``codes_used`` and ``used``, the share of used codes.
        """
        copies: list[list[_Copy]] = [[] for _ in self._levels]
        for clip in (waveform for waveform in waveforms if len(waveform)):
            target = clip[None] / self.size.scale
            for number, of_level in enumerate(copies):
                code = self.encode(clip[None], number)
                made = self.decode(code, number, len(clip)) / self.size.scale
                error = float((target - made).double().square().sum())
                of_level.append(_Copy(error, len(clip), distance(target, made).cpu(), code.cpu()))
        figures = {}
        for level, of_level in zip(self._levels, copies, strict=True):
            found = {"mse": sum(copy.error for copy in of_level) / max(1, sum(copy.samples for copy in of_level))}
            found |= summary(copy.distance for copy in of_level)
            found |= {name: float(value) for name, value in self._usage([copy.codes for copy in of_level]).items()}
            found["used"] = found["codes_used"] / self.config.codes
            figures |= {f"hop{level.hop}/{name}": value for name, value in found.items()}
        return figures

    @torch.no_grad()
    def encode(self, waveform: Float[Tensor, "batch time"], level: int) -> Int[Tensor, "batch codes"]:
        """Encode waveforms of any length at a level: a code for each hop that has begun."""
        chosen = self._level(level)
        return chosen.encode(_padded(waveform, chosen.hop) / self.size.scale)

    @torch.no_grad()
    def decode(
        self, codes: Int[Tensor, "batch codes"], level: int, length: int | None = None
    ) -> Float[Tensor, "batch time"]:
        """Decode codes of a level, a hop per code, and cut the waveforms to ``length`` samples.

        Raises `ValueError` for codes out of range.
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
        """As `encode`, for a waveform that comes in parts, in memory that depends only on ``chunk`` (samples).

        Adjacent chunks overlap by the receptive field of a code, so that the codes are the same as those of `encode`.
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
        """As `decode`, for codes that come in parts, a hop per code."""
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

    def _usage(self, codes: list[Int[Tensor, "batch _"]]) -> dict[str, Tensor]:
        found = usage(torch.cat([code.reshape(-1, 1) for code in codes]), (self.config.codes,))
        return {"perplexity": 2 ** found["rate"], "codes_used": found["codes_used"]}


class _Copy(NamedTuple):
    error: float
    samples: int
    distance: Distance
    codes: Tensor


class _Level(nn.Module):
    """Encoder, codebook and decoder of one level, for waveforms of variance 1."""

    def __init__(self, config: VQVAEConfig, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.hop = math.prod(strides)
        width, dilations = config.width, [config.growth**i for i in range(config.depth)]
        down: list[nn.Module] = []
        up: list[nn.Module] = [_Conv(config.dim, width)]
        for i, stride in enumerate(strides):
            down += [_Downsample(width if i else 1, width, stride), *(_Residual(width, d) for d in dilations)]
        for stride in reversed(strides):
            up += [*(_Residual(width, d) for d in reversed(dilations)), _Upsample(width, width, stride)]
        self.encoder = nn.Sequential(*down, _Conv(width, config.dim))
        self.decoder = nn.Sequential(*up, _Conv(width, 1))
        uniform = config.step_samples / self.hop / config.codes
        self._codebook = QuantiserConfig(
            "vq",
            config.codes,
            decay=config.decay,
            dead_below=config.dead_below * uniform,
            commitment=config.commitment,
        )
        self.quantiser = Quantiser(self._codebook, torch.randn(config.codes, config.dim))
        # Codes before and after: the receptive field of a code, and the context of a decoded hop.
        first, last = _reach(self.encoder, 0, 0)
        self.encoder_context = -(first // self.hop), last // self.hop
        first, last = _reach(self.decoder, 0, self.hop - 1)
        self.decoder_context = -first, last

    def seed(self, waveform: Float[Tensor, "batch time"]) -> None:
        """Initialise the codebook by k-means of the encodings of ``waveform``."""
        with torch.no_grad():
            rows = self.encoder(waveform[:, None]).transpose(1, 2).flatten(0, 1)
        self.quantiser = Quantiser(self._codebook, rows).to(rows.device)

    def forward(self, waveform: Float[Tensor, "batch time"]) -> LevelOutput:
        """Encode and decode; ``waveform`` is padded to complete hops, and the output is cut."""
        encoded = self.encoder(_padded(waveform, self.hop)[:, None]).transpose(1, 2)
        quantised, codes, commitment = self.quantiser(encoded.flatten(0, 1))
        made = self.decoder(quantised.unflatten(0, encoded.shape[:2]).transpose(1, 2))[:, 0]
        # Under autocast the output has half precision, for which there are no spectra.
        return LevelOutput(made[:, : waveform.shape[1]].to(waveform.dtype), codes.view(encoded.shape[:2]), commitment)

    def encode(self, waveform: Float[Tensor, "batch time"]) -> Int[Tensor, "batch codes"]:
        """Encode complete hops."""
        if not waveform.shape[1]:
            return torch.zeros(waveform.shape, dtype=torch.long, device=waveform.device)
        encoded = self.encoder(waveform[:, None]).transpose(1, 2)
        return self.quantiser.look(encoded.flatten(0, 1))[1].view(encoded.shape[:2])

    def decode(self, codes: Int[Tensor, "batch codes"]) -> Float[Tensor, "batch time"]:
        """Decode to a hop per code."""
        dtype = next(self.parameters()).dtype
        if not codes.shape[1]:
            return codes.new_zeros(codes.shape, dtype=dtype)
        return self.decoder(self.quantiser.vectors(codes).transpose(1, 2))[:, 0].to(dtype)


# --- convolutions --------------------------------------------------------------------------------------------------


class _Reaching(Protocol):
    def reach(self, first: int, last: int) -> tuple[int, int]:
        """The first and last input place on which the output places ``first`` to ``last`` depend."""
        ...


class _Conv(nn.Conv1d):
    """A convolution over three places that keeps the length."""

    def __init__(self, into: int, out: int, dilation: int = 1) -> None:
        super().__init__(into, out, 3, padding=dilation, dilation=dilation)

    def reach(self, first: int, last: int) -> tuple[int, int]:
        return first - self.dilation[0], last + self.dilation[0]


class _Residual(nn.Module):
    """A residual block with a dilated convolution."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.wide, self.mix = _Conv(width, width, dilation), nn.Conv1d(width, width, 1)

    def forward(self, x: Float[Tensor, "batch width time"]) -> Float[Tensor, "batch width time"]:
        return x + self.mix(F.relu(self.wide(F.relu(x))))

    def reach(self, first: int, last: int) -> tuple[int, int]:
        return self.wide.reach(first, last)


class _Downsample(nn.Conv1d):
    """A convolution with a stride, whose kernel is twice as long."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__(into, out, 2 * stride, stride)
        self.before = stride // 2

    def forward(self, x: Float[Tensor, "batch into time"]) -> Float[Tensor, "batch out shorter"]:  # pyright: ignore
        return super().forward(F.pad(x, (self.before, self.stride[0] - self.before)))

    def reach(self, first: int, last: int) -> tuple[int, int]:
        stride = self.stride[0]
        return first * stride - self.before, last * stride - self.before + 2 * stride - 1


class _Upsample(nn.ConvTranspose1d):
    """The transpose of `_Downsample`: ``stride`` places for each."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__(into, out, 2 * stride, stride)
        self.before = stride // 2

    def forward(self, x: Float[Tensor, "batch into time"]) -> Float[Tensor, "batch out longer"]:  # pyright: ignore
        return super().forward(x)[..., self.before : self.before + x.shape[-1] * self.stride[0]]

    def reach(self, first: int, last: int) -> tuple[int, int]:
        stride = self.stride[0]
        return (first + self.before) // stride - 1, (last + self.before) // stride


def _reach(layers: nn.Sequential, first: int, last: int) -> tuple[int, int]:
    """The first and last input place on which the output places ``first`` to ``last`` depend."""
    for layer in reversed(layers):
        first, last = cast("_Reaching", layer).reach(first, last)
    return first, last


# --- streams -------------------------------------------------------------------------------------------------------


def _overlapping(
    run: Callable[[Tensor], Tensor], parts: Iterable[Tensor], context: tuple[int, int], chunk: int, unit: int, made: int
) -> Iterator[Tensor]:
    """Apply ``run`` to a stream in overlapping windows. Windows at the ends have no context, but the usual padding.

    Args:
        run: the encoder or decoder.
        parts: the stream.
        context: units before and after each window, whose output is discarded.
        chunk: units of a window.
        unit: input places of a unit.
        made: output places of a unit.

    Yields:
        The output of each window.
    """
    left, right = context
    pending, before = None, 0
    for part in parts:
        pending = part if pending is None else torch.cat([pending, part], 1)
        while pending.shape[1] >= (before + chunk + right) * unit:
            out = run(pending[:, : (before + chunk + right) * unit])
            yield out[:, before * made : (before + chunk) * made]
            done = max(0, before + chunk - left)
            pending = pending[:, done * unit :].clone()
            before = before + chunk - done
    if pending is not None and pending.shape[1] > before * unit:
        yield run(pending)[:, before * made :]


def _padded(waveform: Float[Tensor, "batch time"], hop: int) -> Float[Tensor, "batch longer"]:
    """Pad with zeros to complete hops."""
    return F.pad(waveform, (0, -waveform.shape[1] % hop))
