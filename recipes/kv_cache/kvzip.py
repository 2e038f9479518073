"""kvpress's KVzip as a ceiling: it reads a text twice, and shares slots out over all layers and heads."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from .presses import prepare
from .reading import TextReading

Hidden = list[tuple[Tensor, ...]]
"""For each layer the slots that attention must not see, in kvpress's form: rows, heads, slots."""


@torch.no_grad()
def zip_text(
    model: Any, tokenizer: Any, reading: TextReading, shares: Sequence[float]
) -> tuple[DynamicCache, list[Hidden]]:
    """Let KVzip read a text again and choose what it hides for each share kept.

    KVzip has no guards but its sinks.

    Args:
        model: the pretrained language model.
        tokenizer: its tokenizer.
        reading: the text, read once.
        shares: the shares of all slots of all layers and heads that stay visible.

    Returns:
        The full cache, and what is hidden for each share.
    """
    from kvpress import KVzipPress

    logging.getLogger("kvpress").setLevel(logging.ERROR)  # it warns of its cost every time
    hidden: list[Hidden] = []

    class Shared(KVzipPress):
        def compress_post(self, model: Any) -> None:
            for share in shares:
                self.compression_ratio = 1 - share
                super().compress_post(model)
                hidden.append([layer.self_attn.masked_key_indices for layer in model.model.layers])

    cache, press, before = copy.deepcopy(reading.full), Shared(0.5), model.config.name_or_path
    prepare(model, [press])
    try:
        with TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            model.config.name_or_path = folder  # where KVzip looks for the tokenizer
            with press(model):
                press._context_ids, press._cache = reading.ids, cache  # as if the text had been read here
    finally:
        model.config.name_or_path = before
        _hide(model, [None] * len(cache.layers))
    return cache, hidden


@contextmanager
def hiding(model: Any, hidden: Hidden | None) -> Iterator[None]:
    """A context in which attention does not see some slots; it sees all for None."""
    if hidden is None:
        yield
        return
    _hide(model, hidden)
    try:
        yield
    finally:
        _hide(model, [None] * len(hidden))


def take_hidden_slots(model: Any) -> Hidden | None:
    """What a press that hides slots in place of evicting them has just chosen, and see them again; None if nothing."""
    layers = [getattr(layer, "self_attn", None) for layer in model.get_decoder().layers]
    found = [getattr(layer, "masked_key_indices", None) for layer in layers]
    if any(one is None for one in found):
        return None
    _hide(model, [None] * len(found))
    return found


def _hide(model: Any, by_layer: Sequence[tuple[Tensor, ...] | None]) -> None:
    """Set which slots kvpress's attention does not see."""
    for layer, indices in zip(model.get_decoder().layers, by_layer, strict=True):
        layer.self_attn.masked_key_indices = indices
