"""Masks, sizes and bad settings of the HuBERT model."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchaudio.models import hubert_pretrain_base
from vqmem.models.speech import hubert
from vqmem.models.speech.hubert import HubertConfig


@settings(max_examples=40)
@given(st.lists(st.integers(1, 80), min_size=1, max_size=6), st.floats(0.05, 1.0), st.integers(1, 12), st.integers(0))
def test_spans_stay_in_their_clip_and_leave_something_to_see(counts, prob, length, seed):
    mask = hubert.span_mask(counts, prob, length, torch.Generator().manual_seed(seed % 2**31))
    assert mask.shape == (len(counts), max(counts))
    for row, count in zip(mask, counts, strict=True):
        assert not row[count:].any()
        assert row.any()
        assert count == 1 or not row[:count].all()
        edges = torch.cat([torch.zeros(1, dtype=torch.bool), row, torch.zeros(1, dtype=torch.bool)]).int().diff()
        runs = (edges == -1).nonzero() - (edges == 1).nonzero()
        assert runs.min() >= min(length, max(1, count // 2))  # spans are complete; they may overlap or touch


def test_a_mask_depends_on_its_generator_alone():
    first, second = (hubert.span_mask([99], 0.8, 10, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


def test_frames_are_those_of_the_base_model():
    config = HubertConfig()
    assert (config.hop, config.field) == (320, 400)
    assert [config.frames(n) for n in (0, 399, 400, 719, 720, 16000)] == [0, 0, 1, 1, 2, 49]


def test_the_defaults_are_torchaudios_base():
    ours, theirs = hubert.build(HubertConfig(), 100), hubert_pretrain_base()
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in (ours, theirs)]
    assert shapes[0] == shapes[1]
    layers = [model.wav2vec2.encoder.transformer for model in (ours, theirs)]
    assert [(t.layer_drop, t.dropout.p, t.layers[0].feed_forward.intermediate_dropout.p) for t in layers] == [
        (0.05, 0.1, 0.0)
    ] * 2


def test_a_clip_too_short_is_refused():
    config = HubertConfig(
        extractor_conv_layer_config=((4, 10, 5),), encoder_embed_dim=16, encoder_num_layers=1, encoder_num_heads=2
    )
    model = hubert.build(config, 3)
    with pytest.raises(ValueError, match="too short for a single frame"):
        hubert.encode(model, torch.zeros(2, 60), torch.tensor([60, 9]))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"encoder_num_heads": 7}, "encoder_embed_dim = 768 is not a multiple of encoder_num_heads = 7"),
        ({"mask_prob": 0.0}, "mask_prob = 0.0 must be above 0"),
        ({"feature_grad_mult": 1.0}, "feature_grad_mult = 1.0 must be above 0 and below 1, or null"),
        ({"extractor_conv_layer_config": ()}, "is empty"),
        ({"mask_length": 0}, "at least 1"),
    ],
)
def test_bad_settings_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        HubertConfig(**settings)
