"""The pretrained model whose cache is bounded, and its tokenizer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from ...data.reading.files import did_you_mean, local_path
from ...tokenizers_.pretrained import FrontEnd, PretrainedTokenizer

_SAMPLED = 64
"""Values of each weight that the fingerprint of a model reads."""


@dataclass(frozen=True)
class Host:
    """A decoder of `transformers` in evaluation mode, and its tokenizer."""

    model: Any
    tokenizer: PretrainedTokenizer
    name: str
    separator: int = 0
    """The token before a text."""

    @property
    def device(self) -> torch.device:
        """Where token ids have to be."""
        return self.model.device

    @property
    def vocab_size(self) -> int:
        """The number of ids of the model, which may be more than the tokenizer has."""
        return self.model.config.get_text_config(decoder=True).vocab_size

    @cached_property
    def fingerprint(self) -> list[str]:
        """What losses depend on besides the text and the cache: weights, their type, the release of `transformers`."""
        hashed = hashlib.sha256(self.model.config.to_json_string().encode())
        for name, weight in sorted(self.model.named_parameters()):
            values = weight.detach().flatten()
            values = values[:: max(1, len(values) // _SAMPLED)][:_SAMPLED]
            hashed.update(f"{name} {tuple(weight.shape)} {values.double().tolist()}".encode())
        return [hashed.hexdigest()[:12], str(self.model.dtype), f"transformers {transformers.__version__}"]


def load_host(path: str, device: torch.device, dtype: torch.dtype) -> Host:
    """Load a model and its tokenizer: a folder, a name on the Hub, or a GGUF file.

    Raises `ValueError` in one line where there is no such model.
    """
    found = local_path(path)
    where, more = str(found or path), {}
    if found is not None and found.suffix == ".gguf":
        where, more = str(found.parent), {"gguf_file": found.name}
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(where, dtype=dtype, **more)
        tokenizer = PretrainedTokenizer(AutoTokenizer.from_pretrained(where, **more)) if more else None
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        hint = "" if Path(where).exists() else did_you_mean(where)
        raise ValueError(
            f"model={path}: no pretrained language model there ({reason}); {hint or 'give a folder or a Hub name'}"
        ) from error
    tokenizer = tokenizer or FrontEnd(where).fit([])
    model = model.eval().requires_grad_(False).to(device)
    return Host(model, tokenizer, Path(path).name if found else path, _separator(tokenizer.wrapped))


def _separator(tokenizer: Any) -> int:
    """The token that texts begin with; for tokenizers without one, the token that ends texts."""
    found = (tokenizer.bos_token_id, tokenizer.eos_token_id, 0)
    return next(token for token in found if token is not None)
