"""A HuBERT-style encoder that predicts letters: fine-tuned from a pretrained one, or trained from scratch."""

from __future__ import annotations

from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..host import on_host, to_device
from . import hubert
from .hubert import HubertConfig


class HubertCTC(nn.Module):
    """A linear layer on the normalised last layer of the encoder (fine-tuning of 2106.07447, § III-C)."""

    def __init__(self, config: HubertConfig, letters: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.encoder: Any = hubert.build(config, 1)
        self.encoder.logit_generator = None  # only pretraining predicts units
        width = config.encoder_embed_dim
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, letters + 1))

    def forward(
        self,
        waveforms: Float[Tensor, "batch samples"],
        lengths: Int[Tensor, " batch"] | None = None,
        mask: Bool[Tensor, "batch frames"] | None = None,
    ) -> tuple[Float[Tensor, "batch frames classes"], Int[Tensor, " batch"]]:
        """Log-probabilities of the classes by frame, and the number of valid frames; see `hubert.encode`."""
        encoding = hubert.encode(self.encoder, waveforms, lengths, mask)
        counts = to_device(on_host(encoding.valid).sum(1), waveforms.device)
        return self.head(encoding.layers[-1]).float().log_softmax(-1), counts

    def start_from(self, pretrained: nn.Module) -> None:
        """Copy the weights of a model that `vqmem speech_pretraining` has trained with the same settings."""
        weights = pretrained.state_dict()
        self.encoder.load_state_dict({k: x for k, x in weights.items() if not k.startswith("logit_generator.")})
