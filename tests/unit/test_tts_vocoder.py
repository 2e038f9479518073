"""Pitch and pulses, the vocoder, and RVQ codes of the residual."""

import json

import pytest
import torch
from vqmem.models.speech.mel_rvq import MelRVQ, MelRVQConfig, by_unit
from vqmem.models.speech.pitch import pulses, track
from vqmem.models.speech.residual import Residuals
from vqmem.models.speech.unit_vocoder import FRAME, HOP, RATE, REACH, VocoderBatch, griffin_lim, letter_windows, log_mel
from vqmem.tests.unit.tiny_voice import LETTERS, UNITS, vocoder


def tone(hz, seconds=0.5):
    """Pulses at 16 kHz."""
    return pulses(torch.full((1, round(seconds * RATE) // HOP), hz), RATE, HOP)[0]


# --- pitch ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hz", [80.0, 131.0, 220.0, 350.0])
def test_pulses_have_the_pitch_that_is_found_in_them(hz):
    waveform = tone(hz)
    assert waveform.square().mean() == pytest.approx(1.0, rel=0.05)
    found, voiced = track(waveform, RATE, HOP)
    assert len(found) == len(voiced) == len(waveform) // HOP
    inside = slice(4, -4)
    assert voiced[inside].all()
    assert found[inside].median() == pytest.approx(hz, rel=0.02)


def test_noise_and_silence_have_no_pitch_and_it_is_interpolated_where_there_is_none():
    noise = torch.randn(RATE // 2, generator=torch.Generator().manual_seed(0))
    assert track(noise, RATE, HOP)[1].float().mean() < 0.1
    hz, voiced = track(torch.zeros(1000), RATE, HOP)
    assert len(hz) == 7
    assert not voiced.any()
    assert not hz.any()
    assert not pulses(hz[None], RATE, HOP).any()
    hz, voiced = track(torch.cat([tone(100.0), torch.zeros(RATE // 4), tone(200.0)]), RATE, HOP)
    gap = ~voiced
    assert gap.any()
    assert ((hz[gap] >= 95) & (hz[gap] <= 210)).all()


# --- vocoder -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wave", ["harmonic", "griffin_lim"])
@pytest.mark.parametrize("count", [1, 2, 31])
def test_a_unit_is_a_frame_of_finite_sound_and_the_same_each_time(wave, count):
    model, units = vocoder(wave=wave), torch.arange(count)[None] % UNITS
    made = model.speak(units)
    assert made.shape == (1, count * FRAME)
    assert made.isfinite().all()
    assert made.any()
    assert torch.equal(made, model.speak(units))
    around = letter_windows(torch.tensor([1, 2]), torch.zeros(count, dtype=torch.long), len(LETTERS))[None]
    assert torch.equal(made, model.speak(units, around))  # nothing is known of letters yet
    torch.nn.init.normal_(model.letters.weight)
    assert not torch.equal(made, model.speak(units, around))


def test_the_vocoder_refuses_units_that_are_not_there_and_says_nothing_to_none():
    assert vocoder().speak(torch.zeros(1, 0, dtype=torch.long)).shape == (1, 0)
    with pytest.raises(ValueError, match="units are from 0 to 11, got 3 to 12"):
        vocoder().speak(torch.tensor([[3, 12]]))


def test_griffin_lim_gives_back_the_spectrogram():
    mel = log_mel(tone(150.0, 0.4)[None])
    assert (log_mel(griffin_lim(mel, 32)) - mel).abs().mean() < 0.2


@pytest.mark.parametrize("length", [1, 63, 64, 65])
def test_convolutions_of_rounded_lengths_see_zeros_beyond_the_end(length):
    torch.manual_seed(0)
    model, x = Residuals(8, (1, 2, 4)), torch.randn(2, length, 8)
    real = torch.arange(length) < torch.tensor([[length], [length // 2]])
    for mask in (None, real):
        exact, rounded = (model.train(training)(x, mask) for training in (True, False))
        torch.testing.assert_close(rounded, exact, atol=1e-6, rtol=1e-5)


def test_rvq_codes_encode_the_mel_residual_and_the_first_quantizers_matter_most():
    model, units = vocoder(), torch.arange(UNITS).repeat(1, 20)
    noise = torch.randn(1, 240, generator=torch.Generator().manual_seed(0))
    waveform = pulses(100 * 2 ** noise.repeat_interleave(FRAME // HOP, 1), RATE, HOP)
    residual = model.mel_residual(units, waveform)
    rvq = MelRVQ(MelRVQConfig(num_quantizers=4, codes=16), by_unit(residual[0])).eval()
    codes = rvq.encode(residual[0])
    assert codes.shape == (240, 4)
    assert rvq.rate(3) == pytest.approx(0.6)
    left = [(residual[0] - rvq.decode(codes[:, :count])).square().mean() for count in (1, 2, 4)]
    assert residual.square().mean() > left[0] > left[1] > left[2]
    again = MelRVQ.from_fields(json.loads(json.dumps(rvq.fields())))
    again.load_state_dict(rvq.state_dict())
    assert torch.equal(again.encode(residual[0]), codes)
    spectra = (rvq.decode(codes), torch.zeros_like(residual[0]))
    copies = [model.speak(units, mel_residual=spectrum[None]) for spectrum in spectra]
    wanted = log_mel(waveform)
    errors = [(log_mel(copy / model.size.scale) - wanted).abs().mean() for copy in copies]
    assert errors[0] < errors[1]


def test_an_rvq_of_impossible_size_is_refused():
    with pytest.raises(ValueError, match="codes = 1 must be at least 2"):
        MelRVQConfig(codes=1)


def test_the_vocoder_learns_and_its_loss_has_a_gradient_for_every_weight():
    model = vocoder().train()
    units = torch.arange(UNITS).repeat_interleave(2)[None]
    around = letter_windows(torch.tensor([1, 2, 3]), torch.arange(24) // 8, len(LETTERS))[None]
    hz = torch.full((1, 48), 140.0)
    crop = VocoderBatch(units, around, pulses(hz, RATE, HOP), hz, torch.ones(1, 48, dtype=torch.bool))
    optimizer, losses = torch.optim.Adam(model.parameters(), 0.02), []
    for _ in range(12):
        optimizer.zero_grad()
        loss = model.training_step(crop)
        loss.value.backward()
        optimizer.step()
        losses.append(float(loss.value.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_letters_beside_a_unit_are_numbered_by_their_place():
    around = letter_windows(torch.tensor([0, 2, 1]), torch.tensor([0, 1, 1, 2]), 3)
    assert around.shape == (4, 2 * REACH + 1)
    middle = [0, 0, 0, 1, 3, 2, 0, 0]  # a letter's number is one more than its id
    for row, owner in zip(around.tolist(), [0, 1, 1, 2], strict=True):
        window = [middle[3 + owner + by] if 0 <= owner + by < 3 else 0 for by in range(-REACH, REACH + 1)]
        assert row == [number and number + 3 * place for place, number in enumerate(window)]
