"""The VQ-VAE: any length, receptive fields, streams that equal one pass, and refusals."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vqmem.models.speech.spectral import FFTS, Bandwidth, bandwidth
from vqmem.models.speech.vqvae import VQVAE, VQVAEConfig


def tiny(strides=((2,), (3, 2)), seed: int = 0, **more) -> VQVAE:
    """In double precision, so that a code never hangs on the order of a sum."""
    torch.manual_seed(seed)
    shape = {"width": 4, "depth": 2, "dim": 3, "codes": 9, "step_samples": 200} | more
    model = VQVAE(VQVAEConfig(strides=strides, **shape), Bandwidth(0.25))
    model.seed_codebooks(torch.randn(2, 200))
    return model.double().eval()


MODELS = [tiny(), tiny(((4,), (2, 5)), 1, depth=1), tiny(((2, 2, 2), (7,)), 2, depth=3, growth=2)]
models = st.sampled_from(MODELS)
levels = st.integers(0, 1)


@given(models, levels, st.integers(0, 70), st.integers(1, 3))
@settings(max_examples=40)
def test_what_is_decoded_has_the_length_of_what_was_encoded(model: VQVAE, level: int, length: int, rows: int) -> None:
    waveform = torch.randn(rows, length, dtype=torch.float64)
    codes = model.encode(waveform, level)
    hop = model.config.hops[level]
    assert codes.shape == (rows, -(-length // hop))
    assert model.decode(codes, level, length).shape == waveform.shape
    assert model.decode(codes, level).shape == (rows, codes.shape[1] * hop)


@given(models, levels, st.integers(0, 400), st.integers(1, 60), st.lists(st.integers(1, 400), max_size=8))
@settings(max_examples=40)
def test_streams_equal_the_result_at_once(model: VQVAE, level: int, length: int, chunk: int, cuts: list[int]) -> None:
    waveform = torch.randn(1, length, dtype=torch.float64)
    places = sorted({0, length, *(cut for cut in cuts if cut < length)})
    parts = [waveform[:, a:b] for a, b in pairwise(places)]
    full = model.encode(waveform, level)
    streamed = torch.cat([full[:, :0], *model.encode_stream(parts, level, chunk)], 1)
    assert streamed.tolist() == full.tolist()
    places = sorted({0, full.shape[1], *(cut for cut in cuts if cut < full.shape[1])})
    parts = [full[:, a:b] for a, b in pairwise(places)]
    heard = torch.cat([waveform[:, :0], *model.decode_stream(parts, level, chunk)], 1)
    assert torch.allclose(heard, model.decode(full, level), atol=1e-12)


@given(models, levels, st.integers(0, 60))
@settings(max_examples=40)
def test_a_code_sees_as_far_as_is_said_and_no_farther(model: VQVAE, level: int, code: int) -> None:
    part, hop = model.levels[level], model.config.hops[level]
    left, right = part.encoder_context
    waveform = torch.randn(1, 1, 61 * hop, dtype=torch.float64, requires_grad=True)
    part.encoder(waveform)[0, :, code].sum().backward()
    assert waveform.grad is not None
    seen = waveform.grad[0, 0].nonzero()[:, 0] // hop
    assert code - left <= int(seen.min()) <= int(seen.max()) <= code + right
    left, right = part.decoder_context
    vectors = torch.randn(1, 3, 61, dtype=torch.float64, requires_grad=True)
    part.decoder(vectors)[0, 0, code * hop : (code + 1) * hop].sum().backward()
    assert vectors.grad is not None
    heard = vectors.grad[0].abs().sum(0).nonzero()[:, 0]
    assert code - left <= int(heard.min()) <= int(heard.max()) <= code + right


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("level", [0, 1])
def test_what_is_said_to_be_seen_is_no_more_than_needed(model: VQVAE, level: int) -> None:
    """Not every path is alive behind a ReLU, so that all inputs are taken together."""
    part, hop = model.levels[level], model.config.hops[level]
    for module, context, unit, made in (
        (part.encoder, part.encoder_context, hop, 1),
        (part.decoder, part.decoder_context, 1, hop),
    ):
        width = 1 if unit == hop else 3
        x = torch.randn(40, width, 61 * unit, dtype=torch.float64, requires_grad=True)
        module(x)[:, :, 30 * made : 31 * made].square().sum().backward()
        assert x.grad is not None
        alive = x.grad.abs().sum((0, 1)).nonzero()[:, 0] // unit
        assert (30 - int(alive.min()), int(alive.max()) - 30) == context


def test_memory_of_a_stream_is_bounded() -> None:
    model, longest = tiny(), 0

    def watch(_, args) -> None:
        nonlocal longest
        longest = max(longest, args[0].shape[-1])

    handle = model.levels[1].encoder.register_forward_pre_hook(watch)
    codes = list(model.encode_stream((torch.randn(1, 500, dtype=torch.float64) for _ in range(40)), 1, chunk=300))
    handle.remove()
    assert sum(part.shape[1] for part in codes) == -(-20000 // 6)
    assert longest <= 300 + 6 * sum(model.levels[1].encoder_context)


def test_training_lowers_the_loss_and_reports_each_level() -> None:
    model = tiny(codes=16).float().train()
    time = torch.arange(400) / 16
    waveform = torch.stack([torch.sin(time * pitch) for pitch in (1.0, 1.7, 2.3, 4.0)]) * 0.5
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = model.training_step(waveform)
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
        losses.append(float(loss.value.detach()))
    assert losses[-1] < 0.6 * losses[0]
    names = {"mse", "spectral", "commitment", "perplexity", "codes_used"}
    assert loss.metrics.keys() == {f"hop{hop}/{name}" for hop in (2, 6) for name in names}


def test_trains_in_half_precision_with_spectra_in_full() -> None:
    model = tiny().float().train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.training_step(torch.randn(2, 300))
        figures = model.report([torch.randn(300)])
    assert loss.value.dtype == torch.float32
    loss.value.backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert figures["hop2/stft_error"] > 0


def test_report_moves_nothing_and_reads_any_length() -> None:
    model = tiny().float().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    figures = model.report([torch.randn(700), torch.randn(3), torch.zeros(0)])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert 1 <= figures["hop2/perplexity"] <= figures["hop2/codes_used"] <= 9
    assert figures["hop6/used"] == figures["hop6/codes_used"] / 9
    assert 0 < figures["hop2/stft_error"] == figures["hop2/convergence"] + figures["hop2/log_magnitude"]


def test_a_loud_recording_is_coded_as_a_faint_one_where_the_bandwidth_says_so() -> None:
    waveform = torch.randn(1, 300, dtype=torch.float64)
    faint, loud = tiny(), tiny()
    loud.size = Bandwidth(faint.size.variance * 100)
    codes = faint.encode(waveform, 0)
    assert loud.encode(10 * waveform, 0).tolist() == codes.tolist()
    assert torch.allclose(loud.decode(codes, 0), 10 * faint.decode(codes, 0))


def test_bandwidth_refuses_silence() -> None:
    with pytest.raises(ValueError, match="not silent"):
        bandwidth([torch.zeros(5000)])
    with pytest.raises(ValueError, match="not silent"):
        bandwidth([])
    assert len(bandwidth([torch.randn(50)]).spectral) == len(FFTS)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"strides": ()}, "strides"),
        ({"strides": ((),)}, "strides"),
        ({"strides": ((2, 1),)}, "strides"),
        ({"strides": ((2, 3), (6,))}, "let no two be alike"),
        ({"codes": 0}, "codes = 0"),
        ({"decay": 1.0}, "decay = 1.0"),
        ({"commitment": -1.0}, "commitment"),
    ],
)
def test_shapes_that_cannot_be_are_refused(wrong: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        VQVAEConfig(**wrong)


def test_levels_and_codes_that_are_not_there_are_refused() -> None:
    model = tiny()
    with pytest.raises(ValueError, match="level 2"):
        model.encode(torch.zeros(1, 8, dtype=torch.float64), 2)
    with pytest.raises(ValueError, match="from 0 to 8"):
        model.decode(torch.tensor([[9]]), 0)
