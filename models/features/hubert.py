"""A layer of a HuBERT that `vqmem speech_pretraining` has trained."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...artifacts import load_model, read_config
from ...files import missing_file
from ...schema import PathText, PositiveInt, Validated, coerce
from ...tokenizers_.speech.frames import HOP, SPAN
from ..device import resolve_device
from ..speech import hubert
from ..speech.hubert import KIND, HubertConfig
from ._layer import Encoder, ModelSource


@dataclass(frozen=True)
class Features(Validated):
    """Weights of a finished run.

    Args:
        folder: folder of the run.
        layer: layer whose output is used, counted from 1.
        device: auto, cpu, cuda, cuda:N or mps.
    """

    folder: PathText = "runs/speech_pretraining"
    layer: PositiveInt = 2
    device: str = "cpu"

    def build(self) -> Encoder:
        """Load the model. Raises `ValueError` if it is missing, damaged, or has fewer layers or other frames."""
        folder = Path(self.folder).expanduser()
        if not folder.is_dir():
            raise missing_file("folder (that of a finished `vqmem speech_pretraining`)", folder)
        device = resolve_device(self.device)
        model, config = load(folder / "model", device)
        if self.layer > config.encoder_num_layers:
            layers = config.encoder_num_layers
            raise ValueError(f"the model of {self.folder!r} has {layers} layers, not {self.layer}; give 1 to {layers}")
        check_frames(config, f"the model of {self.folder!r}")
        index, more = self.layer - 1, config.field - SPAN

        def run(wave: Tensor) -> Tensor:
            # Pad or cut the end, so that there are as many frames as with frames of `SPAN` samples.
            return hubert.encode(model, F.pad(wave, (0, more))).layers[index]

        about = read_config(folder / "model")
        sha256 = hashlib.sha256(json.dumps([about["fields"], about["sha256"]], sort_keys=True).encode()).hexdigest()
        features = {"name": "hubert", **asdict(self), "folder": str(folder.resolve())}
        source = ModelSource(features, "folder", sha256)
        return Encoder(run, config.encoder_embed_dim, device, source=source)


def check_frames(config: HubertConfig, name: str) -> None:
    """Raise `ValueError` if the frames of a model are not those of units, every 20 ms; messages call it ``name``."""
    if config.hop != HOP or abs(config.field - SPAN) >= HOP:
        frame = f"{config.field} samples every {config.hop}, not about {SPAN} every {HOP}"
        raise ValueError(f"a frame of {name} is {frame}; give other convolutions")


def settings(folder: Path) -> HubertConfig:
    """The settings of the model in ``folder``. Raises `ValueError` if it is missing or damaged."""
    return coerce(HubertConfig, read_config(folder, KIND)["fields"].get("config"), "config")


def load(folder: Path, device: torch.device | str = "cpu") -> tuple[Any, HubertConfig]:
    """The model in ``folder``, in eval mode, and its settings. Raises `ValueError` if it is missing or damaged."""
    config = settings(folder)

    def make(fields: dict[str, Any]) -> Any:
        return hubert.build(config, fields["num_classes"])

    return load_model(folder, make, kind=KIND, device=device), config
