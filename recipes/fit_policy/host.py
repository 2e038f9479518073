"""The host: the pretrained model that a policy is fitted for, and passages of text in its tokens."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from ...data.base import Document
from ...data.reading.files import did_you_mean, local_path
from ...memory.huggingface.groups import Groups
from ...memory.huggingface.signals import AttentionSignals
from ...memory.huggingface.supported_models import bounded, key_shape, layers_of

_CHARACTERS = 8
"""Characters of text that are tokenised for each token of a passage; more than texts have on average."""


class Host(NamedTuple):
    """A model in evaluation mode, its tokenizer, and the groups in which each head of keys keeps its slots."""

    model: Any
    tokenizer: Any
    groups: Groups

    def signals(self) -> AttentionSignals:
        """What finds the queries of each layer. Raises `ValueError` for a model whose queries are not found."""
        return AttentionSignals(self.model, ("expected",), self.groups)


def load_host(path: str, dtype: torch.dtype, device: torch.device) -> Host:
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


def as_host(model: Any, tokenizer: Any) -> Host:
    """The host that a loaded model is. Raises `ValueError` where its layers have different heads of keys."""
    layers, shape = layers_of(model), key_shape(model)
    if shape is None:
        raise ValueError(
            f"layers of {type(model).__name__} have different or latent heads of keys, for which no policy is fitted; "
            "the preset `stream` needs none"
        )
    return Host(model, tokenizer, Groups("head", bounded(layers), shape[0]))


def sample_passages(
    documents: Iterable[Document], tokenizer: Any, length: int, count: int, seed: int
) -> list[Int[Tensor, " time"]]:
    """Draw passages: at a random place of one document after the other, again and again until there are enough.

    Args:
        documents: Texts; those that are too short are left out. At most ``count`` of them are in memory at a time.
        tokenizer: The tokenizer of the host.
        length: Tokens of a passage.
        count: The number of passages.
        seed: The seed of the drawing.

    Returns:
        The token ids of ``count`` passages, in random order.

    Raises:
        ValueError: No document is long enough.
    """
    drawing = random.Random(seed)
    texts: list[str] = []
    seen = 0
    for document in documents:
        text = document.content("text")
        if len(text) < 2 * length:
            continue
        seen += 1
        if len(texts) < count:
            texts.append(text)
        elif (place := drawing.randrange(seen)) < count:  # each document is as likely to stay
            texts[place] = text
    passages: list[Tensor] = []
    while len(passages) < count:
        before = len(passages)
        for text in texts[: count - len(passages)]:
            start = drawing.randrange(max(1, len(text) - _CHARACTERS * length))
            ids = tokenizer(text[start : start + _CHARACTERS * length], add_special_tokens=False)["input_ids"]
            passages += [torch.tensor(ids[:length])] if len(ids) >= length else []
        if len(passages) == before:
            raise ValueError(f"no document has {length} tokens; give longer texts, or lower length={length}")
    drawing.shuffle(passages)
    return passages
