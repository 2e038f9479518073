"""A host of transformers: a pretrained model with its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...data.base import Document
from ...data.reading.files import did_you_mean, local_path
from ...memory.fitted import host_fingerprint
from ...memory.huggingface.groups import SHARES, Groups
from ...memory.huggingface.signals import AttentionSignals
from ...memory.huggingface.supported_models import bounded, key_shape, layers_of
from ..lm.corpus import Passage
from .attention import CHUNK, HORIZON, SINKS, read_full
from .full_pass import FullPass
from .host import Rows, Settings, Stream
from .streams import DEFAULT, SIGNALS, read_stream

SETTINGS = Settings(2048, 128, CHUNK, HORIZON, SINKS, DEFAULT, SIGNALS)


class PretrainedHost(NamedTuple):
    """A model in evaluation mode, its tokenizer, and the groups in which each head of keys keeps its slots."""

    model: Any
    tokenizer: Any
    groups: Groups
    shares: tuple[str, ...] = SHARES[::-1]
    signals: tuple[str, ...] = SIGNALS

    @property
    def layers(self) -> int:
        """The layers with slots that compete."""
        return len(self.groups.bounded)

    @property
    def heads(self) -> int:
        """The heads of keys of a layer."""
        return self.groups.heads

    def fingerprint(self) -> str:
        """That of the weights."""
        return host_fingerprint(self.model)

    def encode(self, document: Document) -> Passage:
        """The tokens of a text."""
        ids = self.tokenizer(document.text, add_special_tokens=False)["input_ids"]
        return Passage.from_ids(torch.tensor(ids), document.name)

    def read_full(self, passage: Passage) -> FullPass:
        """Read a passage with the full cache. Raises `ValueError` for a model whose queries are not found."""
        return read_full(self.model, AttentionSignals(self.model, ("expected",), self.groups), passage.ids)

    def read_stream(self, stream: Stream, use: Rows) -> None:
        """Read a passage in chunks through a bounded cache, and pass on what competes at each eviction."""
        read_stream(self.model, stream, use)


def load_host(path: str, dtype: torch.dtype, device: torch.device) -> PretrainedHost:
    """Load a model and its tokenizer.

    Args:
        path: A folder or a hub name, as `AutoModelForCausalLM` takes it, or a GGUF file.
        dtype: The type of the weights.
        device: Where they are put.

    Returns:
        The host.

    Raises:
        ValueError: There is no such model, or a cache with evicted slots does not support it.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    local = local_path(path)
    place, options = str(local or path), {}
    if local is not None and Path(local).suffix == ".gguf":
        place, options = str(Path(local).parent), {"gguf_file": Path(local).name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
        model: Any = AutoModelForCausalLM.from_pretrained(place, dtype=dtype, **options)
    except (OSError, ValueError, KeyError) as error:
        hint = ("" if Path(place).exists() else did_you_mean(place)) or "give a folder or a hub name that has one"
        raise ValueError(f"no model at {path!r} ({str(error).strip().splitlines()[0]}); {hint}") from error
    return as_host(model.to(device).eval(), tokenizer)


def as_host(model: Any, tokenizer: Any) -> PretrainedHost:
    """The host that a loaded model is. Raises `ValueError` where its layers have different heads of keys."""
    layers, shape = layers_of(model), key_shape(model)
    if shape is None:
        raise ValueError(
            f"layers of {type(model).__name__} have different or latent heads of keys, for which no policy is fitted; "
            "the preset `stream` needs none"
        )
    return PretrainedHost(model, tokenizer, Groups("head", bounded(layers), shape[0]))
