"""Export a model to a folder that `transformers.HubertModel.from_pretrained` loads (needs ``vqmem[hf]``)."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from ...models.speech.hubert import HubertConfig

PARTS = {
    "feature_extractor": "feature_extractor",
    "encoder.feature_projection": "feature_projection",
    "encoder.transformer": "encoder",
}
"""Parts of torchaudio's network -> their names in transformers; the names inside the parts are the same."""


def export(model: Any, config: HubertConfig, folder: Path) -> None:
    """Write ``folder`` completely or not at all; an existing folder is replaced.

    The parts for pretraining only (classes, final projection) are left out. Raises `ValueError` without transformers.
    """
    try:
        from transformers import HubertModel, Wav2Vec2FeatureExtractor
    except ImportError as error:
        raise ValueError("to export a model, install transformers: pip install 'vqmem[hf]'") from error
    exported = HubertModel(_settings(config)).eval()
    weights = {
        new + name.removeprefix(old): tensor
        for name, tensor in model.wav2vec2.state_dict().items()
        for old, new in PARTS.items()
        if name.startswith(f"{old}.")
    }
    weights["masked_spec_embed"] = model.mask_generator.mask_embedding
    exported.load_state_dict({name: tensor.detach().cpu() for name, tensor in weights.items()})
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        exported.save_pretrained(partial)
        # The convolutions get samples without normalisation. What they normalise over time must not include padding.
        reader = Wav2Vec2FeatureExtractor(
            do_normalize=False, return_attention_mask=config.extractor_mode == "layer_norm"
        )
        reader.save_pretrained(partial)
        partial.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _settings(config: HubertConfig) -> Any:
    """The same settings as a `transformers.HubertConfig`."""
    from transformers import HubertConfig as Settings

    channels, kernels, strides = zip(*config.extractor_conv_layer_config, strict=True)
    return Settings(
        hidden_size=config.encoder_embed_dim,
        num_hidden_layers=config.encoder_num_layers,
        num_attention_heads=config.encoder_num_heads,
        intermediate_size=config.encoder_ff_interm_features,
        hidden_dropout=config.encoder_dropout,
        activation_dropout=config.encoder_ff_interm_dropout,
        attention_dropout=config.encoder_attention_dropout,
        feat_proj_dropout=config.encoder_projection_dropout,
        layerdrop=config.encoder_layer_drop,
        feat_extract_norm=config.extractor_mode.removesuffix("_norm"),
        conv_dim=channels,
        conv_kernel=kernels,
        conv_stride=strides,
        conv_bias=config.extractor_conv_bias,
        num_conv_pos_embeddings=config.encoder_pos_conv_kernel,
        num_conv_pos_embedding_groups=config.encoder_pos_conv_groups,
        do_stable_layer_norm=config.encoder_layer_norm_first,
        mask_time_prob=config.mask_prob,
        mask_time_length=config.mask_length,
        vocab_size=32,
    )
