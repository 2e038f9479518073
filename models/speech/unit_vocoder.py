"""A vocoder of speech units: convolutions make spectra and pitch of them, and filters or Griffin-Lim make sound."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...schema import coerce
from ..loss import Loss
from .pitch import pulses
from .residual import Residuals, spread
from .spectral import Bandwidth, distance, loss

RATE, FRAME, HOP = 16_000, 320, 160
"""Samples a second, samples of a unit's frame, and samples from a spectrum to the next."""
BANDS = 80
"""Mel bands (Slaney's)."""
WINDOW, FFT = 640, 1024
"""Samples of a spectrum's window, and of its transform."""
FILTER = 512
"""Samples of the windows in which excitation is filtered."""
UPDATES = 50
"""Of the magnitudes of a spectrum that are found for its mel bands."""
REACH = 3
"""Letters on either side of the one being spoken that are told."""
QUIETEST = 1e-3
"""Magnitudes below this are alike in logarithms."""

Wave = Literal["harmonic", "griffin_lim"]


@dataclass(frozen=True)
class VocoderConfig:
    """The shape of a `UnitVocoder`, and how it makes sound."""

    width: int = 256
    """Channels."""
    dilations: tuple[int, ...] = (1, 2, 4, 1, 2, 4)
    """Of each residual convolution over three frames of 20 ms: together, how far it looks around."""
    wave: Wave = "harmonic"
    """``harmonic``: pulses and noise through learnt filters; ``griffin_lim``: phases found for the mel spectrogram."""
    iterations: int = 32
    """Of Griffin-Lim."""
    untold: float = 0.5
    """Share of training crops that are learnt from units alone; the others from the letters that are spoken, too."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.iterations < 1:
            raise ValueError(f"width = {self.width} and iterations = {self.iterations} must be 1 or more")
        if not self.dilations or min(self.dilations) < 1:
            raise ValueError(f"dilations = {list(self.dilations)} must be at least one number, each 1 or more")
        if not 0 <= self.untold <= 1:
            raise ValueError(f"untold = {self.untold} must be from 0 to 1")


class Sound(NamedTuple):
    """What units sound like, a column every `HOP` samples, in units of the data's standard deviation."""

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


class Crop(NamedTuple):
    """What the vocoder learns from: stretches of recordings, their units, the letters spoken, and the pitch."""

    units: Int[Tensor, "batch units"]
    beside: Int[Tensor, "batch units window"]
    waveform: Float[Tensor, "batch samples"]
    hz: Float[Tensor, "batch frames"]
    voiced: Bool[Tensor, "batch frames"]


class UnitVocoder(nn.Module):
    """Units, one every 20 ms, to a waveform of 320 samples each.

    One network foretells the mel spectrogram, pitch and voicing, and the filters of a harmonic-plus-noise synthesiser
    (DDSP, 2001.04643; neural source-filter, 1904.12088): pulses of the pitch and white noise, each through a filter
    that changes every 10 ms. The filters are learnt by the multi-scale spectral loss on waveforms that have the
    recording's own pitch. Unlike GSLM's vocoders (2102.01192) it needs no adversary, and learns in minutes.

    Units lose much of what was said. Where the text is known, each unit comes with the letter it belongs to and those
    around it (`beside`), which tell what units do not; without them, it is a vocoder of units alone.

    Args:
        config: the shape.
        units: how many there are.
        letters: how many there are in the alphabet.
        size: the bandwidth of the data set, as `spectral.bandwidth` measures it.
        hz: the mean pitch of the data set.
    """

    kind: ClassVar[str] = "unit_vocoder"
    """What its model folders say that they hold."""
    bins: Tensor
    window: Tensor

    def __init__(self, config: VocoderConfig, units: int, letters: int, size: Bandwidth, hz: float) -> None:
        super().__init__()
        self.config, self.units, self.size, self.hz = config, units, size, hz
        self.embed = nn.Embedding(units, config.width)
        self.letters = nn.Embedding(1 + letters * (2 * REACH + 1), config.width, padding_idx=0)
        nn.init.zeros_(self.letters.weight)  # so that letters change nothing until what they tell is learnt
        self.around = Residuals(config.width, config.dilations)
        self.halve = nn.Linear(config.width, 2 * config.width)  # a frame is two columns
        self.columns = Residuals(config.width, (1, 2))
        self.heads = nn.Linear(config.width, 3 * BANDS + 2)
        centres, bins = _mel_centres(), torch.linspace(0, RATE / 2, FILTER // 2 + 1)
        self.register_buffer("bins", _interpolation(centres, bins), persistent=False)
        self.register_buffer("window", torch.hann_window(FILTER), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.embed.weight.device

    def fields(self) -> dict[str, Any]:
        """What `from_fields` rebuilds it from, JSON-able; the weights are apart."""
        about = {"units": self.units, "letters": (self.letters.num_embeddings - 1) // (2 * REACH + 1), "hz": self.hz}
        return {"shape": asdict(self.config), "bandwidth": asdict(self.size), **about}

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> UnitVocoder:
        """A fresh model of the shape that ``fields`` tell. Raises `ValueError` for fields that are not a shape."""
        shape, size = coerce(VocoderConfig, fields["shape"], "shape"), coerce(Bandwidth, fields["bandwidth"], "")
        return cls(shape, fields["units"], fields["letters"], size, fields["hz"])

    @torch.no_grad()
    def begin_with(self, features: Float[Tensor, "units dim"]) -> None:
        """Start from units that lie where their ``features`` do, so that it is known which ones sound alike."""
        self.embed.weight.copy_(spread(features, self.config.width))

    def forward(self, units: Int[Tensor, "batch units"], beside: Int[Tensor, "batch units window"] | None) -> Sound:
        """Two columns a unit."""
        x = self.embed(units)
        if beside is not None:
            x = x + self.letters(beside).sum(2)
        x = self.halve(self.around(x)).unflatten(-1, (2, -1)).flatten(1, 2)
        x = self.heads(self.columns(x))
        mel, harmonic, noise, pitch, voiced = x.split([BANDS, BANDS, BANDS, 1, 1], dim=-1)
        return Sound(mel, pitch[..., 0], voiced[..., 0], harmonic, noise)

    def training_step(self, crop: Crop) -> Loss:
        """The losses of filters, mel spectrogram, pitch and voicing, added up.

        Metrics: ``spectral``, ``mel`` (mean absolute difference, nats), ``octaves`` (of pitch, where voiced),
        ``voicing`` (share of columns that are told right).
        """
        told = torch.rand(len(crop.units), 1, 1, device=crop.units.device) >= self.config.untold if self.training else 1
        sound, target = self(crop.units, crop.beside * told), crop.waveform / self.size.scale
        real, octaves = crop.voiced.float(), (crop.hz.clamp(min=1.0) / self.hz).log2()
        made = self._harmonic(sound, crop.hz, real)
        spectral = loss(distance(target, made), self.size)
        mel = (sound.mel - log_mel(target)).abs().mean()
        pitch = ((sound.pitch - octaves).abs() * real).sum() / real.sum().clamp(min=1)
        voicing = F.binary_cross_entropy_with_logits(sound.voiced, real)
        right = ((sound.voiced > 0) == crop.voiced).float().mean()
        figures = {"spectral": spectral, "mel": mel, "octaves": pitch, "voicing": right}
        return Loss(spectral + mel + pitch + voicing, {name: float(x.detach()) for name, x in figures.items()})

    @torch.no_grad()
    def speak(
        self,
        units: Int[Tensor, "batch units"],
        beside: Int[Tensor, "batch units window"] | None = None,
        wave: Wave | None = None,
        details: Float[Tensor, "batch frames band"] | None = None,
    ) -> Float[Tensor, "batch samples"]:
        """The waveforms of units, `FRAME` samples each; ``wave`` instead of what the config says.

        ``details`` are what the mel spectrogram lacks (see `lacking`); sound is then made of it by Griffin-Lim.
        The same units give the same samples. Raises `ValueError` for units that are not there.
        """
        if units.numel() and not 0 <= int(units.min()) <= int(units.max()) < self.units:
            raise ValueError(f"units are from 0 to {self.units - 1}, got {int(units.min())} to {int(units.max())}")
        if not units.shape[1]:
            return self.window.new_zeros(units.shape)
        sound = self(units, beside)
        if details is not None or (wave or self.config.wave) == "griffin_lim":
            mel = sound.mel if details is None else sound.mel + details
            return griffin_lim(mel, self.config.iterations) * self.size.scale
        return self._harmonic(sound, self.hz * 2**sound.pitch, (sound.voiced > 0).float()) * self.size.scale

    @torch.no_grad()
    def lacking(
        self, units: Int[Tensor, "batch units"], waveform: Float[Tensor, "batch samples"]
    ) -> Float[Tensor, "batch frames band"]:
        """What the log mel spectrogram of a recording has beyond that of its units."""
        return log_mel(waveform / self.size.scale) - self(units, None).mel

    def _harmonic(self, sound: Sound, hz: Tensor, voiced: Tensor) -> Float[Tensor, "batch samples"]:
        """Pulses and noise, filtered and added."""
        source = pulses(hz, RATE, HOP)
        # The same for the same length, that of all crops of training, too: speech is to be reproducible.
        noise = torch.randn(source.shape, generator=torch.Generator().manual_seed(source.shape[1])).to(source)
        filters = [(x @ self.bins.T).exp().transpose(1, 2) for x in (sound.harmonic, sound.noise)]
        spectra = [self._spectrum(x)[..., : filters[0].shape[-1]] for x in (source, noise)]
        mixed = spectra[0] * filters[0] * voiced[:, None] + spectra[1] * filters[1]
        mixed = F.pad(torch.view_as_real(mixed), (0, 0, 0, 1))  # the last half window is centred on the end
        return torch.istft(torch.view_as_complex(mixed), FILTER, HOP, window=self.window, length=source.shape[1])

    def _spectrum(self, x: Tensor) -> Tensor:
        return torch.stft(x, FILTER, HOP, window=self.window, pad_mode="constant", return_complex=True)


def beside(letters: Int[Tensor, " letters"], owners: Int[Tensor, " units"], count: int) -> Int[Tensor, "units window"]:
    """For each unit the letter it belongs to and `REACH` on either side, numbered by place too; 0 beyond the text.

    ``count`` is the size of the alphabet.
    """
    around = F.pad(letters + 1, (REACH, REACH)).unfold(0, 2 * REACH + 1, 1)[owners]
    return torch.where(around > 0, around + count * torch.arange(2 * REACH + 1, device=letters.device), 0)


def log_mel(waveform: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch frames band"]:
    """Natural logarithms of the magnitudes of mel bands, a column for every whole `HOP`."""
    spectrum = torch.stft(
        waveform,
        FFT,
        HOP,
        WINDOW,
        torch.hann_window(WINDOW).to(waveform),
        pad_mode="constant",
        return_complex=True,
    )
    mel = _mel_basis().to(waveform).T @ spectrum.abs()[..., : waveform.shape[1] // HOP]
    return mel.clamp(min=QUIETEST).log().transpose(1, 2)


def griffin_lim(mel: Float[Tensor, "batch frames band"], iterations: int) -> Float[Tensor, "batch samples"]:
    """A waveform whose `log_mel` is nearly ``mel``: phases by torchaudio's Griffin-Lim (Perraudin et al., 2013)."""
    from torchaudio.functional import griffinlim

    magnitudes = _magnitudes(mel.exp().transpose(1, 2))
    # Columns are centred on samples, and torchaudio mirrors the ends: half a window more must be there.
    magnitudes = torch.cat([magnitudes, *[magnitudes[..., -1:]] * (FFT // HOP)], dim=-1)
    length, window = (magnitudes.shape[-1] - 1) * HOP, torch.hann_window(WINDOW).to(mel)
    made = griffinlim(magnitudes, window, FFT, HOP, WINDOW, 1.0, iterations, 0.99, length, rand_init=False)
    return made[:, : mel.shape[1] * HOP]


def _magnitudes(bands: Float[Tensor, "batch band frames"]) -> Float[Tensor, "batch bins frames"]:
    """Magnitudes, none negative, that have nearly these mel ``bands`` (Lee and Seung's updates, from a level start)."""
    basis = _mel_basis().to(bands)
    magnitudes, wanted = (basis / basis.sum(0)) @ bands, basis @ bands
    for _ in range(UPDATES):
        magnitudes = magnitudes * wanted / (basis @ (basis.T @ magnitudes)).clamp(min=1e-9)
    return magnitudes


def _mel_basis() -> Float[Tensor, "bins band"]:
    from torchaudio.functional import melscale_fbanks

    return melscale_fbanks(FFT // 2 + 1, 0.0, RATE / 2, BANDS, RATE, norm="slaney", mel_scale="slaney")


def _mel_centres() -> Float[Tensor, " band"]:
    """Hz of each band's middle."""
    basis = _mel_basis()
    return (basis.T @ torch.linspace(0, RATE / 2, FFT // 2 + 1)) / basis.sum(0)


def _interpolation(centres: Float[Tensor, " band"], bins: Float[Tensor, " bins"]) -> Float[Tensor, "bins band"]:
    """The matrix that takes values at ``centres`` to those at ``bins``, by straight lines; level at the ends."""
    right = torch.searchsorted(centres, bins).clamp(1, len(centres) - 1)
    share = ((bins - centres[right - 1]) / (centres[right] - centres[right - 1])).clamp(0, 1)
    matrix = torch.zeros(len(bins), len(centres))
    rows = torch.arange(len(bins))
    matrix[rows, right - 1], matrix[rows, right] = 1 - share, share
    return matrix
