"""HuBERT: a transformer over convolutional features learns to predict the k-means units of masked speech.

Hsu et al., "HuBERT: Self-Supervised Speech Representation Learning by Masked Prediction of Hidden Units" (2106.07447).
The network and the names of its settings are torchaudio's (`torchaudio.models.hubert_pretrain_model`), whose weights
can be loaded unchanged. The differences:

- the mask is an argument, so that a step depends only on its batch, and evaluations share one mask;
- there are K logits for each frame, one per class; torchaudio repeats the right class in front of the others and masks
  its second place, which gives the same softmax;
- padding never affects a valid frame: with ``extractor_mode`` ``group_norm``, statistics are of valid samples only, and
  so is the feature penalty.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import reduce
from typing import Annotated, Any, Literal, NamedTuple

import torch
from annotated_types import Interval
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...schema import PositiveInt, Validated
from ..host import on_host, to_device

BASE_CONVOLUTIONS = ((512, 10, 5), *[(512, 3, 2)] * 4, *[(512, 2, 2)] * 2)
KIND = "hubert"
"""The kind in the config of its model folders."""
TEMPERATURE = 0.1
"""Divides the cosine between frame and class (equation 3)."""


@dataclass(frozen=True)
class HubertConfig(Validated):
    """Settings with torchaudio's names; the defaults are `torchaudio.models.hubert_pretrain_base`."""

    extractor_mode: Literal["group_norm", "layer_norm"] = "group_norm"
    """``group_norm`` normalises each channel over time, in the first layer only; ``layer_norm`` each step, in all."""
    extractor_conv_layer_config: tuple[tuple[PositiveInt, PositiveInt, PositiveInt], ...] = BASE_CONVOLUTIONS
    """Channels, kernel and stride of each convolution; the product of the strides is the hop in samples."""
    extractor_conv_bias: bool = False
    """Whether convolutions have a bias."""
    encoder_embed_dim: PositiveInt = 768
    """Width of the transformer; a multiple of its heads and of ``encoder_pos_conv_groups``."""
    encoder_projection_dropout: float = 0.1
    """Dropout between features and transformer."""
    encoder_pos_conv_kernel: int = 128
    """Kernel, in frames, of the convolution that encodes positions."""
    encoder_pos_conv_groups: PositiveInt = 16
    """Groups of that convolution."""
    encoder_num_layers: PositiveInt = 12
    """Transformer layers."""
    encoder_num_heads: PositiveInt = 12
    """Attention heads a layer."""
    encoder_attention_dropout: float = 0.1
    """Dropout of attention weights."""
    encoder_ff_interm_features: int = 3072
    """Width of the feed-forward part."""
    encoder_ff_interm_dropout: float = 0.0
    """Dropout inside the feed-forward part."""
    encoder_dropout: float = 0.1
    """Dropout after attention and feed-forward part."""
    encoder_layer_norm_first: bool = False
    """Whether a layer normalises its input rather than its output."""
    encoder_layer_drop: float = 0.05
    """Probability that training skips a layer."""
    mask_prob: Annotated[float, Interval(gt=0, le=1)] = 0.8
    """Total length of the masked spans of a clip, as a share of its frames; spans overlap, so that fewer are masked."""
    mask_length: PositiveInt = 10
    """Frames a span."""
    final_dim: PositiveInt = 256
    """Width of the space in which frames are compared with classes."""
    feature_grad_mult: Annotated[float, Interval(gt=0, lt=1)] | None = 0.1
    """Factor of the gradient of the convolutions; null = 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.extractor_conv_layer_config:
            raise ValueError("extractor_conv_layer_config is empty; give at least one convolution")
        for name in ("encoder_num_heads", "encoder_pos_conv_groups"):
            if self.encoder_embed_dim % getattr(self, name):
                raise ValueError(
                    f"encoder_embed_dim = {self.encoder_embed_dim} is not a multiple of {name} = {getattr(self, name)}"
                )

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return int(torch.tensor([stride for _, _, stride in self.extractor_conv_layer_config]).prod())

    @property
    def field(self) -> int:
        """Receptive field of a frame in samples, which is the minimum length of a clip."""
        field = 1
        for _, kernel, stride in reversed(self.extractor_conv_layer_config):
            field = (field - 1) * stride + kernel
        return field

    def frames(self, samples: int) -> int:
        """Number of frames of ``samples`` samples; 0 below `field`."""
        return max(0, (samples - self.field) // self.hop + 1)

    def samples(self, frames: int) -> int:
        """Number of samples of ``frames`` frames, at least one frame."""
        return self.field + (frames - 1) * self.hop


def build(config: HubertConfig, num_classes: int) -> nn.Module:
    """A new `torchaudio.models.HuBERTPretrainModel`; its weights depend only on torch's global seed."""
    from torchaudio.models import hubert_pretrain_model

    settings: dict[str, Any] = asdict(config)
    settings["extractor_conv_layer_config"] = list(config.extractor_conv_layer_config)
    return hubert_pretrain_model(
        **settings,
        mask_selection="static",
        mask_other=0.0,
        no_mask_overlap=False,
        mask_min_space=1,
        mask_channel_prob=0.0,
        mask_channel_selection="static",
        mask_channel_other=0.0,
        mask_channel_length=10,
        no_mask_channel_overlap=False,
        mask_channel_min_space=1,
        skip_masked=False,
        skip_nomask=False,
        num_classes=num_classes,
    )


class Encoding(NamedTuple):
    """The output for a batch of waveforms. ``valid`` marks the frames that are not padding."""

    layers: list[Float[Tensor, "batch frames dim"]]
    """The output of each transformer layer, from the lowest to the last, which predicts the units."""
    valid: Bool[Tensor, "batch frames"]
    penalty: Float[Tensor, ""]
    """Mean square of the convolutional features."""


def encode(
    model: Any,
    waveforms: Float[Tensor, "batch samples"],
    lengths: Int[Tensor, " batch"] | None = None,
    mask: Bool[Tensor, "batch frames"] | None = None,
) -> Encoding:
    """Run the network over a batch of waveforms.

    Args:
        model: as `build` makes it.
        waveforms: padded waveforms at 16 kHz.
        lengths: samples of each waveform; None = no padding.
        mask: frames that the mask embedding replaces before the transformer; None = no mask.

    Returns:
        The output of all layers.

    Raises:
        ValueError: a waveform is too short for a single frame.
    """
    x = _features(model, waveforms, lengths)
    counts = torch.full((len(x),), x.shape[1])
    if lengths is not None:
        counts = reduce(_convolved, model.wav2vec2.feature_extractor.conv_layers, on_host(lengths))
    if int(counts.min()) < 1:
        raise ValueError("a waveform is too short for a single frame; leave it out")
    valid = torch.arange(x.shape[1]) < counts[:, None]
    padded = lengths is not None and not bool(valid.all())
    valid = to_device(valid, x.device)
    squares = x.float().pow(2).mean(-1)
    penalty = (squares * valid).sum() / valid.sum()
    encoder = model.wav2vec2.encoder
    x = encoder.feature_projection(x)
    if padded:
        x = x * valid[..., None]
    if mask is not None:
        x = torch.where(mask[..., None], model.mask_generator.mask_embedding.to(x.dtype), x)
    attention_mask = valid[:, None, None, :].expand(-1, 1, x.shape[1], -1) if padded else None
    return Encoding(_layers(encoder.transformer, x, attention_mask), valid, penalty)


def logits(model: Any, hidden: Float[Tensor, "*frames dim"]) -> Float[Tensor, "*frames classes"]:
    """The cosine of the last layer's output with each class, divided by `TEMPERATURE` (equation 3)."""
    head = model.logit_generator
    frames = F.normalize(head.final_proj(hidden).float(), dim=-1)
    return frames @ F.normalize(head.label_embeddings.float(), dim=-1).T / TEMPERATURE


def masked_loss(
    scores: Float[Tensor, "frames classes"],
    units: Int[Tensor, " frames"],
    penalty: Float[Tensor, ""],
    feature_weight: float = 10.0,
) -> Float[Tensor, ""]:
    """Mean negative log-likelihood in nats of the units of masked frames, plus the weighted feature penalty.

    This is torchaudio's recipe (``examples/hubert/loss/hubert_loss.py``, unmasked weight 0) divided by the masked
    frames.

    Args:
        scores: logits of the masked frames.
        units: their units.
        penalty: mean square of the convolutional features.
        feature_weight: weight of the penalty; the default is that of torchaudio and fairseq.

    Returns:
        The loss.
    """
    return F.cross_entropy(scores, units) + feature_weight * penalty


def span_mask(
    counts: list[int], prob: float, length: int, generator: torch.Generator | None = None
) -> Bool[Tensor, "batch frames"]:
    """Draw the frames to mask: ``prob * count / length`` spans in each clip, at least 2, at random places.

    The number of spans is rounded up or down at random. Spans overlap, so that about ``1 - exp(-prob)`` of all frames
    are masked. Clips shorter than two spans have shorter spans, so that some frames stay unmasked (except in clips of
    one frame). fairseq and torchaudio also unmask frames until all clips of a batch have the same number.

    Args:
        counts: frames of each clip.
        prob: total length of the spans, as a share of the frames.
        length: frames of a span.
        generator: draws the spans; None = torch's global one.

    Returns:
        True for masked frames.
    """
    mask = torch.zeros(len(counts), max(counts), dtype=torch.bool)
    for row, count in enumerate(counts):
        span = min(length, max(1, count // 2))
        wanted = max(2, int(prob * count / span + torch.rand((), generator=generator).item()))
        starts = torch.randperm(max(1, count - span), generator=generator)[:wanted]
        mask[row, (starts[:, None] + torch.arange(span)).flatten()] = True
    return mask


# --- inside --------------------------------------------------------------------------------------------------------


def _features(model: Any, waveforms: Tensor, lengths: Tensor | None) -> Float[Tensor, "batch frames channels"]:
    """The output of the convolutions."""
    x = waveforms[:, None]
    for layer in model.wav2vec2.feature_extractor.conv_layers:
        if lengths is not None and isinstance(layer.layer_norm, nn.GroupNorm):
            x = layer.conv(x)
            lengths = _convolved(lengths, layer)
            x = F.gelu(_group_norm(x, lengths, layer.layer_norm))
        else:
            x, lengths = layer(x, lengths)
    x = x.transpose(1, 2)
    if model.feature_grad_mult is not None and x.requires_grad:
        x.register_hook(lambda gradient: gradient * model.feature_grad_mult)
    return x


def _convolved(lengths: Tensor, layer: Any) -> Tensor:
    return ((lengths - layer.kernel_size) // layer.stride + 1).clamp(min=0)


def _group_norm(x: Float[Tensor, "batch channels time"], lengths: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Apply ``norm``, which has one channel a group, with the statistics of the first ``lengths`` steps of each row."""
    valid = (torch.arange(x.shape[-1], device=x.device) < lengths[:, None])[:, None]
    count = lengths.clamp(min=1)[:, None, None]
    centred = x - (x * valid).sum(-1, keepdim=True) / count
    variance = (centred.pow(2) * valid).sum(-1, keepdim=True) / count
    return centred * (variance + norm.eps).rsqrt() * norm.weight[:, None] + norm.bias[:, None]


def _layers(transformer: Any, x: Tensor, attention_mask: Tensor | None) -> list[Tensor]:
    """The output of every layer. Training skips layers at random; the output is then the input."""
    x = x + transformer.pos_conv_embed(x)
    if transformer.layer_norm_first:
        x = transformer.layer_norm(x)
    x = transformer.dropout(x)
    outputs = []
    for layer in transformer.layers:
        if not (transformer.training and torch.rand(()).item() < transformer.layer_drop):
            x, _ = layer(x, attention_mask)
        outputs.append(x)
    if not transformer.layer_norm_first:
        outputs[-1] = transformer.layer_norm(outputs[-1])
    return outputs
