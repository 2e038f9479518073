"""Recordings on pages and in pictures: spectrograms as PNG, sound as WAV, pitch and pauses."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

BANDS, RANGE = 80, 80.0
"""Mel bands of a spectrogram, and its dynamic range in dB."""
PITCH, PITCHES = (60.0, 500.0), 50
"""The range of pitch in Hz, and pitch estimates per second."""
QUIET, SHORTEST = 30.0, 0.1
"""A pause is this many dB below the maximum, and lasts at least this many seconds."""

_STOPS = np.array([[8, 8, 40], [82, 18, 110], [183, 55, 90], [249, 142, 30], [252, 253, 191]])
_WINDOW = 1024  # samples of the window for spectrum, pitch and level


def mel(waveform: Float[Tensor, " _"], rate: int) -> Float[np.ndarray, "bands frames"]:
    """Power of Slaney's mel bands in frames of 10 ms, low bands first."""
    import librosa

    return librosa.feature.melspectrogram(
        y=_padded(waveform),
        sr=rate,
        n_fft=_WINDOW,
        hop_length=rate // 100,
        n_mels=BANDS,
        pad_mode="constant",
    )


def picture(power: Float[np.ndarray, "bands frames"], loudest: float) -> str:
    """A ``data:`` URL of an image: levels in dB relative to ``loudest``, the brightest; high bands at the top."""
    level = 10 * np.log10(np.maximum(power, 1e-12) / max(loudest, 1e-12))
    shades = np.clip(255 * (1 + level / RANGE), 0, 255).astype(np.uint8)[::-1]
    return f"data:image/png;base64,{base64.b64encode(_png(shades)).decode()}"


def sound(waveform: Float[Tensor, " _"], rate: int) -> str:
    """A ``data:`` URL of the sound in 16 bits; samples beyond full scale are clipped."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, waveform.clamp(-1, 1).numpy(), rate, format="WAV", subtype="PCM_16")
    return f"data:audio/wav;base64,{base64.b64encode(file.getvalue()).decode()}"


def players(versions: Mapping[str, Float[Tensor, " _"]], rate: int) -> list[dict[str, str]]:
    """Label, sound and picture of each version of a recording; the loudest of the first one is the brightest."""
    powers = [mel(version, rate) for version in versions.values()]
    return [
        {"label": label, "sound": sound(version, rate), "picture": picture(power, float(powers[0].max()))}
        for (label, version), power in zip(versions.items(), powers, strict=True)
    ]


def pauses(waveform: Float[Tensor, " _"], rate: int) -> list[tuple[float, float]]:
    """The pauses in seconds: the gaps between the loud stretches.

    Pre-emphasis boosts high frequencies, so that a hum counts as silence.
    """
    import librosa

    emphasised = librosa.effects.preemphasis(_padded(waveform))
    loud = librosa.effects.split(emphasised, top_db=QUIET, frame_length=_WINDOW, hop_length=rate // 100) / rate
    end = len(waveform) / rate
    borders = [0.0, *(min(float(second), end) for stretch in loud for second in stretch), end]
    return [(start, end) for start, end in zip(borders[::2], borders[1::2], strict=True) if end - start >= SHORTEST]


def pitch(waveform: Float[Tensor, " _"], rate: int) -> Float[np.ndarray, " frames"]:
    """Pitch in Hz every 20 ms (probabilistic YIN, Mauch and Dixon 2014); NaN in unvoiced frames and in `pauses`."""
    import librosa

    low, high = PITCH
    hz, _, _ = librosa.pyin(
        _padded(waveform), fmin=low, fmax=high, sr=rate, frame_length=_WINDOW, hop_length=rate // PITCHES
    )
    hz[(hz < 1.02 * low) | (hz > high / 1.02)] = np.nan  # a pitch at the limit of the range is unreliable
    for start, end in pauses(waveform, rate):
        hz[round(start * PITCHES) : round(end * PITCHES)] = np.nan
    return hz


def mel_place(hz: float, rate: int) -> float:
    """The position of a frequency on the axis of a spectrogram: 0 at the bottom, 1 at the top."""
    import librosa

    return float(librosa.hz_to_mel(hz) / librosa.hz_to_mel(rate / 2))


def _padded(waveform: Float[Tensor, " _"]) -> Float[np.ndarray, " _"]:
    """Pad with zeros to at least one window."""
    return np.pad(waveform.numpy(), (0, max(0, _WINDOW - len(waveform))))


def _png(shades: UInt8[np.ndarray, "height width"]) -> bytes:
    """An image with a palette, dark blue over red to pale yellow, evenly lighter."""
    height, width = shades.shape
    palette = np.stack([np.interp(np.arange(256), np.linspace(0, 255, len(_STOPS)), stop) for stop in _STOPS.T], 1)
    rows = np.pad(shades, ((0, 0), (1, 0)))  # the byte before each row means: no filter
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0),  # 8 bits a pixel: an index into the palette
        b"PLTE": palette.astype(np.uint8).tobytes(),
        b"IDAT": zlib.compress(rows.tobytes(), 9),
        b"IEND": b"",
    }
    chunks = (
        struct.pack(">I", len(x)) + kind + x + struct.pack(">I", zlib.crc32(kind + x)) for kind, x in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
