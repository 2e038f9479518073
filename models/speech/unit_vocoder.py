"""A vocoder of speech units: convolutions predict spectra and pitch, then filters or Griffin-Lim synthesise sound."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...artifacts import rename_keys
from ...schema import PositiveInt, Share, Validated, coerce
from ..host import to_device
from ..loss import Loss
from .pitch import pulses
from .residual import Residuals, random_projection
from .spectral import Bandwidth, distance, loss

RATE, FRAME, HOP = 16_000, 320, 160
"""Samples a second, samples of a unit, and samples from one spectrum to the next."""
BANDS = 80
"""Mel bands (Slaney's scale)."""
WINDOW, FFT = 640, 1024
"""Samples of the window and of the transform of a spectrum."""
FILTER = 512
"""Samples of the windows in which the excitation is filtered."""
UPDATES = 50
"""Iterations that find the magnitudes of a spectrum from its mel bands."""
REACH = 3
"""Letters of context on either side of the current one."""
QUIETEST = 1e-3
"""Floor of magnitudes before the logarithm."""

Wave = Literal["harmonic", "griffin_lim"]


@dataclass(frozen=True)
class VocoderConfig(Validated):
    """The shape of a `UnitVocoder`, and the kind of synthesis."""

    width: PositiveInt = 256
    """Channels."""
    dilations: tuple[PositiveInt, ...] = (1, 2, 4, 1, 2, 4)
    """Dilations of the residual convolutions over three frames of 20 ms; their sum is the context on either side."""
    wave: Wave = "harmonic"
    """``harmonic``: pulses and noise through learnt filters; ``griffin_lim``: Griffin-Lim on the mel spectrogram."""
    iterations: PositiveInt = 32
    """Iterations of Griffin-Lim."""
    unit_only_prob: Share = 0.5
    """Probability that a training crop has units only; the other crops have the spoken letters too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dilations:
            raise ValueError("dilations is empty; give at least one number")


class VocoderOutput(NamedTuple):
    """The output of the network, a column every `HOP` samples, in units of the data's standard deviation."""

    mel: Float[Tensor, "batch frames band"]
    """Natural logarithms of magnitudes."""
    pitch: Float[Tensor, "batch frames"]
    """Octaves above the training data's mean pitch."""
    voiced: Float[Tensor, "batch frames"]
    """Logits."""
    harmonic: Float[Tensor, "batch frames band"]
    """Log magnitudes of the filter for pulses."""
    noise: Float[Tensor, "batch frames band"]
    """Log magnitudes of the filter for noise."""


class VocoderBatch(NamedTuple):
    """A training batch: crops of recordings with their units, letters, and pitch in Hz."""

    units: Int[Tensor, "batch units"]
    letter_windows: Int[Tensor, "batch units window"]
    waveform: Float[Tensor, "batch samples"]
    hz: Float[Tensor, "batch frames"]
    voiced: Bool[Tensor, "batch frames"]


class UnitVocoder(nn.Module):
    """Units, one every 20 ms, to a waveform of 320 samples each.

    One network predicts the mel spectrogram, pitch and voicing, and the filters of a harmonic-plus-noise synthesiser
    (DDSP, 2001.04643; neural source-filter, 1904.12088): pulses of the pitch and white noise, each through a filter
    that changes every 10 ms. The multi-scale spectral loss trains the filters on waveforms with the pitch of the
    recording. Unlike GSLM's vocoders (2102.01192) it needs no adversary, and learns in minutes.

    Units lose much of the speech. If the text is known, each unit has a window of letters (`letter_windows`), which
    restore some of it; without letters, this is a vocoder of units alone.

    Args:
        config: the shape.
        units: number of units.
        letters: size of the alphabet.
        size: the bandwidth of the data set (see `spectral.bandwidth`).
        hz: the mean pitch of the data set, in Hz.
    """

    kind: ClassVar[str] = "unit_vocoder"
    """The kind in the config of its model folders."""
    renamed_weights: ClassVar[dict[str, str]] = {"around": "context_encoder"}
    """Names in model folders of version 0.1, and today's."""
    bins: Tensor
    window: Tensor

    def __init__(self, config: VocoderConfig, units: int, letters: int, size: Bandwidth, hz: float) -> None:
        super().__init__()
        self.config, self.units, self.size, self.hz = config, units, size, hz
        self.embed = nn.Embedding(units, config.width)
        self.letters = nn.Embedding(1 + letters * (2 * REACH + 1), config.width, padding_idx=0)
        nn.init.zeros_(self.letters.weight)  # letters have no effect before training
        self.context_encoder = Residuals(config.width, config.dilations)
        self.halve = nn.Linear(config.width, 2 * config.width)  # a frame is two columns
        self.columns = Residuals(config.width, (1, 2))
        self.heads = nn.Linear(config.width, 3 * BANDS + 2)
        centres, bins = _mel_centres(), torch.linspace(0, RATE / 2, FILTER // 2 + 1)
        self.register_buffer("bins", _interpolation(centres, bins), persistent=False)
        self.register_buffer("window", torch.hann_window(FILTER), persistent=False)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.embed.weight.device

    def fields(self) -> dict[str, Any]:
        """JSON-able values from which `from_fields` rebuilds it, without the weights."""
        about = {"units": self.units, "letters": (self.letters.num_embeddings - 1) // (2 * REACH + 1), "hz": self.hz}
        return {"shape": asdict(self.config), "bandwidth": asdict(self.size), **about}

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> UnitVocoder:
        """A new model of the shape in ``fields``. Raises `ValueError` for fields that are not a shape."""
        shape = coerce(VocoderConfig, rename_keys(fields["shape"], {"untold": "unit_only_prob"}), "shape")
        size = coerce(Bandwidth, fields["bandwidth"], "")
        return cls(shape, fields["units"], fields["letters"], size, fields["hz"])

    @torch.no_grad()
    def init_embeddings(self, features: Float[Tensor, "units dim"]) -> None:
        """Initialise the embeddings of units by their ``features``, so that units that sound alike are near."""
        self.embed.weight.copy_(random_projection(features, self.config.width))

    def forward(
        self, units: Int[Tensor, "batch units"], letters: Int[Tensor, "batch units window"] | None
    ) -> VocoderOutput:
        """Predict two columns a unit; ``letters`` are windows from `letter_windows`."""
        x = self.embed(units)
        if letters is not None:
            x = x + self.letters(letters).sum(2)
        x = self.halve(self.context_encoder(x)).unflatten(-1, (2, -1)).flatten(1, 2)
        x = self.heads(self.columns(x))
        mel, harmonic, noise, pitch, voiced = x.split([BANDS, BANDS, BANDS, 1, 1], dim=-1)
        return VocoderOutput(mel, pitch[..., 0], voiced[..., 0], harmonic, noise)

    def training_step(self, crop: VocoderBatch) -> Loss:
        """The sum of the losses of filters, mel spectrogram, pitch and voicing.

        Metrics: ``spectral``, ``mel`` (mean absolute difference, nats), ``octaves`` (error of the pitch, where voiced),
        ``voicing`` (share of columns with the right voicing).
        """
        letters = crop.letter_windows
        if self.training:
            letters = letters * (torch.rand(len(letters), 1, 1, device=letters.device) >= self.config.unit_only_prob)
        sound = self(crop.units, letters)
        target = crop.waveform / self.size.scale
        real = crop.voiced.float()
        octaves = (crop.hz.clamp(min=1.0) / self.hz).log2()
        made = self._harmonic(sound, crop.hz, real)
        spectral = loss(distance(target, made), self.size)
        mel = (sound.mel - log_mel(target)).abs().mean()
        pitch = ((sound.pitch - octaves).abs() * real).sum() / real.sum().clamp(min=1)
        voicing = F.binary_cross_entropy_with_logits(sound.voiced, real)
        accuracy = ((sound.voiced > 0) == crop.voiced).float().mean()
        metrics = {"spectral": spectral, "mel": mel, "octaves": pitch, "voicing": accuracy}
        return Loss(spectral + mel + pitch + voicing, metrics)

    @torch.no_grad()
    def speak(
        self,
        units: Int[Tensor, "batch units"],
        letters: Int[Tensor, "batch units window"] | None = None,
        wave: Wave | None = None,
        mel_residual: Float[Tensor, "batch frames band"] | None = None,
    ) -> Float[Tensor, "batch samples"]:
        """Synthesise units. The same units give the same samples.

        Args:
            units: the units, one every 20 ms.
            letters: their windows of letters (see `letter_windows`); None = units alone.
            wave: the kind of synthesis; None = that of the config.
            mel_residual: is added to the mel spectrogram (see the method `mel_residual`), which Griffin-Lim then
                synthesises whatever ``wave`` is.

        Returns:
            Waveforms at 16 kHz, `FRAME` samples per unit.

        Raises:
            ValueError: a unit is out of range.
        """
        if units.numel() and not 0 <= int(units.min()) <= int(units.max()) < self.units:
            raise ValueError(f"units are from 0 to {self.units - 1}, got {int(units.min())} to {int(units.max())}")
        if not units.shape[1]:
            return self.window.new_zeros(units.shape)
        sound = self(units, letters)
        if mel_residual is not None or (wave or self.config.wave) == "griffin_lim":
            mel = sound.mel if mel_residual is None else sound.mel + mel_residual
            return griffin_lim(mel, self.config.iterations) * self.size.scale
        return self._harmonic(sound, self.hz * 2**sound.pitch, (sound.voiced > 0).float()) * self.size.scale

    @torch.no_grad()
    def mel_residual(
        self, units: Int[Tensor, "batch units"], waveform: Float[Tensor, "batch samples"]
    ) -> Float[Tensor, "batch frames band"]:
        """The log mel spectrogram of a recording minus the one predicted from its units."""
        return log_mel(waveform / self.size.scale) - self(units, None).mel

    def _harmonic(self, sound: VocoderOutput, hz: Tensor, voiced: Tensor) -> Float[Tensor, "batch samples"]:
        """Filter pulses and noise, and add them."""
        source = pulses(hz, RATE, HOP)
        # The noise depends on the length only, so that speech is reproducible.
        noise = torch.randn(source.shape, generator=torch.Generator().manual_seed(source.shape[1]))
        noise = to_device(noise, source.device).to(source.dtype)
        filters = [(x @ self.bins.T).exp().transpose(1, 2) for x in (sound.harmonic, sound.noise)]
        spectra = [self._spectrum(x)[..., : filters[0].shape[-1]] for x in (source, noise)]
        mixed = spectra[0] * filters[0] * voiced[:, None] + spectra[1] * filters[1]
        mixed = F.pad(torch.view_as_real(mixed), (0, 0, 0, 1))  # the last half window is centred on the end
        # A wait for the device that stays: torch checks there that the windows cover every sample.
        return torch.istft(torch.view_as_complex(mixed), FILTER, HOP, window=self.window, length=source.shape[1])

    def _spectrum(self, x: Tensor) -> Tensor:
        return torch.stft(x, FILTER, HOP, window=self.window, pad_mode="constant", return_complex=True)


def letter_windows(
    letters: Int[Tensor, " letters"], owners: Int[Tensor, " units"], count: int
) -> Int[Tensor, "units window"]:
    """The letter of each unit and `REACH` letters on either side, with other ids at each place; 0 beyond the text.

    Args:
        letters: the text.
        owners: the index of the letter of each unit.
        count: the size of the alphabet.

    Returns:
        Ids for `UnitVocoder`.
    """
    windows = F.pad(letters + 1, (REACH, REACH)).unfold(0, 2 * REACH + 1, 1)[owners]
    return torch.where(windows > 0, windows + count * torch.arange(2 * REACH + 1, device=letters.device), 0)


def log_mel(waveform: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch frames band"]:
    """Natural logarithms of the magnitudes of mel bands, a column for every complete `HOP`."""
    spectrum = torch.stft(
        waveform,
        FFT,
        HOP,
        WINDOW,
        torch.hann_window(WINDOW, dtype=waveform.dtype, device=waveform.device),
        pad_mode="constant",
        return_complex=True,
    )
    mel = (
        to_device(_mel_basis(), waveform.device).to(waveform.dtype).T @ spectrum.abs()[..., : waveform.shape[1] // HOP]
    )
    return mel.clamp(min=QUIETEST).log().transpose(1, 2)


def griffin_lim(mel: Float[Tensor, "batch frames band"], iterations: int) -> Float[Tensor, "batch samples"]:
    """A waveform whose `log_mel` is close to ``mel``, by torchaudio's Griffin-Lim (Perraudin et al., 2013)."""
    from torchaudio.functional import griffinlim

    magnitudes = _magnitudes(mel.exp().transpose(1, 2))
    # Columns are centred on samples, and torchaudio mirrors the ends, which needs half a window more.
    magnitudes = torch.cat([magnitudes, *[magnitudes[..., -1:]] * (FFT // HOP)], dim=-1)
    length, window = (magnitudes.shape[-1] - 1) * HOP, torch.hann_window(WINDOW).to(mel)
    made = griffinlim(magnitudes, window, FFT, HOP, WINDOW, 1.0, iterations, 0.99, length, rand_init=False)
    return made[:, : mel.shape[1] * HOP]


def _magnitudes(bands: Float[Tensor, "batch band frames"]) -> Float[Tensor, "batch bins frames"]:
    """Non-negative magnitudes whose mel bands are close to ``bands`` (Lee and Seung's updates from a flat start)."""
    basis = _mel_basis().to(bands)
    magnitudes, wanted = (basis / basis.sum(0)) @ bands, basis @ bands
    for _ in range(UPDATES):
        magnitudes = magnitudes * wanted / (basis @ (basis.T @ magnitudes)).clamp(min=1e-9)
    return magnitudes


def _mel_basis() -> Float[Tensor, "bins band"]:
    from torchaudio.functional import melscale_fbanks

    return melscale_fbanks(FFT // 2 + 1, 0.0, RATE / 2, BANDS, RATE, norm="slaney", mel_scale="slaney")


def _mel_centres() -> Float[Tensor, " band"]:
    """Centre of each band in Hz."""
    basis = _mel_basis()
    return (basis.T @ torch.linspace(0, RATE / 2, FFT // 2 + 1)) / basis.sum(0)


def _interpolation(centres: Float[Tensor, " band"], bins: Float[Tensor, " bins"]) -> Float[Tensor, "bins band"]:
    """The matrix of linear interpolation from ``centres`` to ``bins``, constant beyond the ends."""
    right = torch.searchsorted(centres, bins).clamp(1, len(centres) - 1)
    share = ((bins - centres[right - 1]) / (centres[right] - centres[right - 1])).clamp(0, 1)
    matrix = torch.zeros(len(bins), len(centres))
    rows = torch.arange(len(bins))
    matrix[rows, right - 1] = 1 - share
    matrix[rows, right] = share
    return matrix
