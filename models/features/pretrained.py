"""A layer of a pretrained HuBERT, wav2vec 2.0 or WavLM: of `torchaudio.pipelines`, or as `transformers` saves them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from ...data.reading.files import local_path
from ...registry import UnknownNameError
from ...schema import PathText, PositiveInt, Validated
from ...tokenizers_._pinned import weights_sha256
from ...tokenizers_.speech.frames import HOP
from ..device import resolve_device
from ._layer import Encoder, Layer, ModelSource


@dataclass(frozen=True)
class Features(Validated):
    """Pretrained weights, unchanged.

    Args:
        path: a pipeline of torchaudio, such as HUBERT_BASE, or a folder or hub name, as for `AutoModel`.
        layer: layer whose output is used, counted from 1.
        device: auto, cpu, cuda, cuda:N or mps.
    """

    path: PathText = "HUBERT_BASE"
    layer: PositiveInt = 6
    device: str = "cpu"

    def build(self) -> Encoder:
        """Load the model. Raises `ValueError` if it is missing, of another kind, or has fewer layers."""
        device, place = resolve_device(self.device), ""
        if self.path.isupper() and self.path.isidentifier():
            path = self.path
            layer, dim, sha256 = _pipeline(path, self.layer, device)
        else:
            folder = local_path(self.path)
            path, place = (self.path, "") if folder is None else (str(folder), "path")
            layer, dim, sha256 = _transformers(path, self.layer, device)
        features = {"name": "pretrained", **asdict(self), "path": path}
        return Encoder(layer, dim, device, source=ModelSource(features, place, sha256))


def _pipeline(name: str, layer: int, device: torch.device) -> tuple[Layer, int, str]:
    """The layer, its width, and the SHA-256 of the weights."""
    import torchaudio

    bundles = [key for key in dir(torchaudio.pipelines) if hasattr(getattr(torchaudio.pipelines, key), "get_model")]
    if name not in bundles:
        raise UnknownNameError("pipeline of torchaudio", name, bundles)
    bundle = getattr(torchaudio.pipelines, name)
    try:
        # These files are pickles; `weights_only` reads only tensors.
        model = bundle.get_model(dl_kwargs={"weights_only": True, "map_location": "cpu"})
    except OSError as error:
        raise ValueError(f"cannot download the weights of {name} ({error}); give `path: FOLDER`") from error
    if not hasattr(model, "extract_features"):
        raise ValueError(f"torchaudio's {name} gives no layers; give a pipeline such as HUBERT_BASE")
    parameters = bundle._params
    _check(layer, parameters["encoder_num_layers"], name)
    sha256, model = weights_sha256(model), model.to(device).eval()
    dim = parameters["encoder_embed_dim"]
    return lambda wave: model.extract_features(wave, num_layers=layer)[0][-1], dim, sha256


def _transformers(path: str, layer: int, device: torch.device) -> tuple[Layer, int, str]:
    """As `_pipeline`."""
    try:
        from transformers import AutoFeatureExtractor, AutoModel
    except ImportError as error:
        raise ValueError("features pretrained need transformers; run `pip install 'vqmem[hf]'`") from error
    try:
        model: Any = AutoModel.from_pretrained(path, use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"no model at {path!r} ({reason}); give a folder with config.json and model.safetensors"
        ) from error
    strides = getattr(model.config, "conv_stride", ())
    if math.prod(strides) != HOP:
        raise ValueError(f"the model at {path!r} gives no frame every 20 ms; give a HuBERT, wav2vec 2.0 or WavLM")
    _check(layer, model.config.num_hidden_layers, path)
    try:
        normal = bool(AutoFeatureExtractor.from_pretrained(path).do_normalize)
    except (OSError, ValueError, AttributeError):  # without its file, the configuration of the model decides
        normal = model.config.feat_extract_norm == "layer"
    sha256, model = weights_sha256(model, normal), model.to(device).eval()

    def run(wave: Tensor) -> Tensor:
        wave = layer_norm(wave, wave.shape[-1:], eps=1e-7) if normal else wave
        return model(wave, output_hidden_states=True).hidden_states[layer]

    return run, model.config.hidden_size, sha256


def _check(layer: int, layers: int, name: str) -> None:
    if layer > layers:
        raise ValueError(f"{Path(name).name!r} has {layers} layers, not {layer}; give 1 to {layers}")
