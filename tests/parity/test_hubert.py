"""Our HuBERT against torchaudio's: logits, loss, gradients and layers with the same weights and mask; and padding."""

import pytest
import torch
from torch.nn import functional as F
from torchaudio.models.wav2vec2 import components
from transformers import AutoFeatureExtractor, HubertModel
from vqmem.models.speech import hubert
from vqmem.models.speech.hubert import HubertConfig
from vqmem.recipes.speech_pretraining.export import export

CLASSES = 7
SAMPLES = 400 + 320 * 36
CONVOLUTIONS = ((12, 10, 5), (12, 3, 2), (12, 3, 2), (12, 3, 2), (12, 3, 2), (12, 2, 2), (16, 2, 2))


def tiny(mode="layer_norm", **settings):
    still = {f"encoder_{part}": 0.0 for part in ("projection_dropout", "attention_dropout", "dropout", "layer_drop")}
    return HubertConfig(
        extractor_mode=mode,
        extractor_conv_layer_config=CONVOLUTIONS,
        encoder_embed_dim=24,
        encoder_pos_conv_kernel=8,
        encoder_pos_conv_groups=4,
        encoder_num_layers=2,
        encoder_num_heads=4,
        encoder_ff_interm_features=32,
        final_dim=10,
        **{**still, **settings},
    )


def clips(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.nn.utils.rnn.pad_sequence([torch.randn(n, generator=generator)]) for n in lengths]
    return torch.nn.utils.rnn.pad_sequence([row[:, 0] for row in rows], batch_first=True), torch.tensor(lengths)


class Given(torch.nn.Module):
    """Stands in for torchaudio's mask generator: it draws its mask itself and takes none."""

    def __init__(self, generator, mask):
        super().__init__()
        self.mask_embedding, self.mask = generator.mask_embedding, mask

    def forward(self, x, padding_mask):
        x = x.clone()
        x[self.mask] = self.mask_embedding
        return x, self.mask


def reference_loss(logit_m, penalty, masked_weight=1.0, feature_weight=10.0):
    """torchaudio's examples/hubert/loss/hubert_loss.py with reduction "sum" and unmasked weight 0, a masked frame."""
    count = logit_m.shape[0]
    loss = penalty * feature_weight * count
    loss = loss + masked_weight * F.cross_entropy(logit_m, torch.zeros(count, dtype=torch.long), reduction="sum")
    return loss / count


def setting(mode, first, lengths, seed=0):
    config = tiny(mode, encoder_layer_norm_first=first)
    torch.manual_seed(seed)
    model = hubert.build(config, CLASSES)
    waveforms, lengths = clips(lengths)
    counts = [config.frames(int(n)) for n in lengths]
    generator = torch.Generator().manual_seed(seed)
    units = torch.randint(CLASSES, (len(counts), max(counts)), generator=generator)
    return config, model, waveforms, lengths, units, hubert.span_mask(counts, 0.8, 10, generator)


# torchaudio's group norm counts padding, so that mode is compared with it without padding.
@pytest.mark.parametrize(
    ("mode", "lengths"), [("layer_norm", [SAMPLES, SAMPLES - 3100, 6000]), ("group_norm", [SAMPLES, SAMPLES])]
)
@pytest.mark.parametrize("first", [False, True])
def test_logits_loss_and_gradients_are_torchaudios(mode, first, lengths):
    _, model, waveforms, lengths, units, mask = setting(mode, first, lengths)
    encoding = hubert.encode(model, waveforms, lengths, mask)
    ours = hubert.logits(model, encoding.layers[-1])
    hidden, shown = mask & encoding.valid, ~mask & encoding.valid
    # torchaudio's penalty counts padded frames; ours does not, so it is compared where there are none.
    penalty = encoding.penalty if mode == "group_norm" else torch.zeros(())
    loss = hubert.masked_loss(ours[hidden], units[hidden], penalty)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    generator, model.mask_generator = model.mask_generator, Given(model.mask_generator, mask)
    masked, unmasked, theirs = model(waveforms, units, lengths)
    model.mask_generator = generator
    for logits, frames in ((masked, hidden), (unmasked, shown)):
        torch.testing.assert_close(
            ours[frames].gather(1, units[frames][:, None])[:, 0], logits[:, 0], atol=1e-5, rtol=0
        )
        others = logits[:, 1:].isfinite()  # the right class stands there as -inf
        torch.testing.assert_close(ours[frames][others], logits[:, 1:][others], atol=1e-5, rtol=0)
    expected = reference_loss(masked, theirs if mode == "group_norm" else torch.zeros(()))
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)
    expected.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-5, rtol=1e-4, msg=name)


def test_the_feature_gradient_is_scaled():
    gradients = []
    for factor in (None, 0.1):
        torch.manual_seed(0)
        model = hubert.build(tiny(feature_grad_mult=factor), CLASSES)
        encoding = hubert.encode(model, clips([SAMPLES])[0])
        (encoding.layers[-1].sum() + encoding.penalty).backward()
        gradients.append(model.wav2vec2.feature_extractor.conv_layers[0].conv.weight.grad)
    torch.testing.assert_close(gradients[1], gradients[0] * 0.1)


@pytest.mark.parametrize("first", [False, True])
def test_layers_are_what_torchaudio_extracts(first):
    _, model, waveforms, lengths, *_ = setting("layer_norm", first, [SAMPLES, 6000])
    ours = hubert.encode(model.eval(), waveforms, lengths)
    theirs, counts = model.wav2vec2.extract_features(waveforms, lengths)
    assert torch.equal(ours.valid.sum(1), counts)
    for layer, (mine, other) in enumerate(zip(ours.layers, theirs, strict=True)):
        if not (first and layer == len(theirs) - 1):  # the last one gets its norm in torchaudio's forward
            torch.testing.assert_close(mine[ours.valid], other[ours.valid], atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.layers[-1][ours.valid], model.wav2vec2(waveforms, lengths)[0][ours.valid])


@pytest.mark.parametrize("mode", ["layer_norm", "group_norm"])
@pytest.mark.parametrize("first", [False, True])
def test_padding_changes_nothing_for_valid_frames(mode, first):
    config, model, waveforms, lengths, _, mask = setting(mode, first, [SAMPLES, 7001, 400 + 320 * 3])
    waveforms = waveforms.clone()
    for row, length in enumerate(lengths):
        waveforms[row, length:] = 1e3  # whatever stands there
    together = hubert.encode(model.eval(), waveforms, lengths, mask)
    penalties = []
    for row, length in enumerate(lengths.tolist()):
        count = config.frames(length)
        assert together.valid[row].sum() == count
        alone = hubert.encode(model, waveforms[row : row + 1, :length], None, mask[row : row + 1, :count])
        penalties.append(alone.penalty * count)
        for mine, other in zip(together.layers, alone.layers, strict=True):
            torch.testing.assert_close(mine[row, :count], other[0], atol=2e-5, rtol=0)
    torch.testing.assert_close(together.penalty, sum(penalties) / together.valid.sum(), atol=1e-5, rtol=1e-4)


def test_spans_hide_as_much_as_torchaudios():
    counts = [250] * 400
    mask = hubert.span_mask(counts, 0.8, 10, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    shares = [components._compute_mask_indices((1, 250), None, 0.8, 10, min_masks=2).float().mean() for _ in range(400)]
    # A share's standard deviation is about 0.035, so that of the mean of 400 is 0.002.
    assert float(mask.float().mean()) == pytest.approx(float(torch.stack(shares).mean()), abs=0.006)


@pytest.mark.parametrize("mode", ["layer_norm", "group_norm"])
@pytest.mark.parametrize("first", [False, True])
def test_transformers_loads_the_export_and_agrees(mode, first, tmp_path):
    config, model, waveforms, lengths, *_ = setting(mode, first, [SAMPLES, SAMPLES - 3100, 6000])
    export(model, config, tmp_path / "there")
    export(model, config, tmp_path / "there")  # again, over the old one
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    theirs = HubertModel.from_pretrained(tmp_path / "there").eval()
    ours = hubert.encode(model.eval(), waveforms, lengths)
    for row, length in enumerate(lengths.tolist()):
        count = config.frames(length)
        with torch.no_grad():
            found = theirs(waveforms[row : row + 1, :length], output_hidden_states=True)
        # Whether the last hidden state comes before or after the last norm depends on the release.
        for mine, other in zip(ours.layers[:-1], found.hidden_states[1:-1], strict=True):
            torch.testing.assert_close(mine[row, :count], other[0], atol=2e-5, rtol=0)
        torch.testing.assert_close(ours.layers[-1][row, :count], found.last_hidden_state[0], atol=2e-5, rtol=0)
    reader = AutoFeatureExtractor.from_pretrained(tmp_path / "there")
    assert torch.equal(
        reader(waveforms[0].numpy(), sampling_rate=16000, return_tensors="pt").input_values[0], waveforms[0]
    )
