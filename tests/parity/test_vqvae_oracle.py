"""The VQ-VAE's codebooks and spectral loss against loops that do what the papers say, one number at a time."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from torch import Tensor
from vqmem.models.speech import spectral
from vqmem.models.speech.spectral import Bandwidth
from vqmem.models.speech.vqvae import VQVAE, VQVAEConfig

DECAY, DEAD, SAMPLES, CODES = 0.9, 0.4, 96, 6


class SlowCodebook:
    """Moving averages of counts and sums (1711.00937, appendix A.1), Laplace smoothing, and restart of dead codes."""

    def __init__(self, vectors: list[list[float]], counts: list[float], dead_below: float) -> None:
        self.vectors, self.counts, self.dead_below = vectors, counts, dead_below
        self.sums = [[v * count for v in vector] for vector, count in zip(vectors, counts, strict=True)]

    def step(self, batch: list[list[float]], order: list[int]) -> list[int]:
        """One training step; ``order`` says which vectors of the batch dead codes are put on."""
        nearest = [min(range(CODES), key=lambda code: math.dist(row, self.vectors[code])) for row in batch]
        for code in range(CODES):
            mine = [row for row, chosen in zip(batch, nearest, strict=True) if chosen == code]
            self.counts[code] = DECAY * self.counts[code] + (1 - DECAY) * len(mine)
            for d in range(len(batch[0])):
                self.sums[code][d] = DECAY * self.sums[code][d] + (1 - DECAY) * sum(row[d] for row in mine)
        total = sum(self.counts)
        for code in range(CODES):
            smooth = (self.counts[code] + 1e-5) / (total + CODES * 1e-5) * total
            self.vectors[code] = [value / smooth for value in self.sums[code]]
        dead = [code for code in range(CODES) if self.counts[code] < self.dead_below]
        for code, row in zip(dead, order, strict=False):
            self.vectors[code], self.counts[code] = batch[row], self.dead_below
            self.sums[code] = [value * self.dead_below for value in batch[row]]
        return nearest


def tiny(**more) -> VQVAE:
    torch.manual_seed(3)
    shape = {"strides": ((2, 3),), "width": 4, "depth": 2, "dim": 3, "codes": CODES, "step_samples": SAMPLES}
    return VQVAE(VQVAEConfig(**(shape | {"decay": DECAY, "dead_below": DEAD} | more)), Bandwidth())


def test_codebooks_move_and_restart_as_a_slow_loop_does() -> None:
    model = tiny()
    level = model.levels[0]
    model.seed_codebooks(torch.randn(4, 300))
    inner = level.quantiser.inner._codebook
    # What k-means starts from counts, not averages a step: codes die after some steps, which is what is to be seen.
    slow = SlowCodebook(inner.embed[0].tolist(), inner.cluster_size[0].tolist(), DEAD * SAMPLES / 6 / CODES)
    restarted = 0
    for step in range(60):
        waveform = torch.randn(1, SAMPLES) * (0.2 if step > 10 else 1.0)
        rows = level.encoder(waveform[:, None])[0].t().tolist()
        torch.manual_seed(step)
        order = torch.randperm(len(rows)).tolist()
        before = list(slow.counts)
        codes = slow.step(rows, order)
        restarted += sum(
            count == slow.dead_below and old != count for old, count in zip(before, slow.counts, strict=True)
        )
        torch.manual_seed(step)
        made = level(waveform)
        assert made.codes[0].tolist() == codes
        assert torch.allclose(inner.embed[0], torch.tensor(slow.vectors), atol=1e-4)
        assert torch.allclose(inner.cluster_size[0], torch.tensor(slow.counts), atol=1e-4)
    assert restarted >= 3


def test_gradients_pass_straight_through_the_codes() -> None:
    level = tiny(commitment=0.5).levels[0]
    encoded = torch.randn(5, 3, requires_grad=True)
    quantised, codes, commitment = level.quantiser(encoded)
    weights = torch.randn(5, 3)
    ((quantised * weights).sum() + commitment).backward()
    assert encoded.grad is not None
    with torch.no_grad():
        wanted = weights + 0.5 * 2 * (encoded - quantised) / encoded.numel()
    assert torch.allclose(encoded.grad, wanted, atol=1e-6)
    assert codes.shape == (5, 1)


def slow_magnitudes(signal: list[float], fft: int) -> list[list[float]]:
    """By the definition of the Fourier transform; frames a quarter of a window apart, silence around the signal."""
    window = [0.5 - 0.5 * math.cos(2 * math.pi * n / fft) for n in range(fft)]
    norm = math.sqrt(sum(w * w for w in window))
    padded = [0.0] * (fft // 2) + signal + [0.0] * (fft // 2)
    frames = []
    for start in range(0, len(padded) - fft + 1, fft // 4):
        part = [w * x for w, x in zip(window, padded[start : start + fft], strict=True)]
        bins = [
            sum(x * cmath.exp(-2j * math.pi * k * n / fft) for n, x in enumerate(part)) for k in range(fft // 2 + 1)
        ]
        frames.append([abs(value) / norm for value in bins])
    return frames


@pytest.fixture
def short_windows(monkeypatch: pytest.MonkeyPatch) -> tuple[int, ...]:
    monkeypatch.setattr(spectral, "FFTS", (32, 16, 8))
    return spectral.FFTS


def flat(frames: list[list[float]]) -> list[float]:
    return [value for frame in frames for value in frame]


def test_spectral_loss_and_bandwidth_against_the_definition(short_windows: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    target = torch.randn(2, 70, dtype=torch.float64)
    made = target + 0.3 * torch.randn(2, 70, dtype=torch.float64)
    made[1, 20:] = 0  # below the floor of the logarithm
    size = spectral.bandwidth(list(target))
    assert size.variance == pytest.approx(float(target.square().mean()))
    terms = []
    for fft, wide in zip(short_windows, size.spectral, strict=True):
        wanted = [flat(slow_magnitudes(row.tolist(), fft)) for row in target]
        given = [flat(slow_magnitudes(row.tolist(), fft)) for row in made]
        squares = sum(v * v for row in wanted for v in row) / sum(map(len, wanted))
        assert wide == pytest.approx(math.sqrt(squares / size.variance))
        for a, b in zip(wanted, given, strict=True):
            norm = math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))
            logs = sum(
                abs(math.log(max(x, spectral.FLOOR)) - math.log(max(y, spectral.FLOOR)))
                for x, y in zip(a, b, strict=True)
            )
            terms.append(norm / (wide * math.sqrt(len(a))) + logs / len(a))
    found = spectral.distance(target, made)
    assert float(spectral.loss(found, size)) == pytest.approx(sum(terms) / len(terms))


def test_summary_takes_clips_as_one_recording(short_windows: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    clips = [(torch.randn(1, n), torch.randn(1, n)) for n in (40, 71)]
    figures = spectral.summary([spectral.distance(a, b) for a, b in clips])
    convergence, logs = [], []
    for fft in short_windows:
        wanted, given = ([flat(slow_magnitudes(x[0].tolist(), fft)) for x in side] for side in zip(*clips, strict=True))
        one, other = (Tensor([value for clip in side for value in clip]) for side in (wanted, given))
        convergence.append(float((one - other).norm() / one.norm()))
        logs.append(float((one.clamp(min=spectral.FLOOR).log() - other.clamp(min=spectral.FLOOR).log()).abs().mean()))
    assert figures["convergence"] == pytest.approx(sum(convergence) / 3, rel=1e-4)
    assert figures["log_magnitude"] == pytest.approx(sum(logs) / 3, rel=1e-4)
    assert figures["stft_error"] == pytest.approx(figures["convergence"] + figures["log_magnitude"])
