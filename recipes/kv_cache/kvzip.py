"""kvpress's KVzip as a ceiling: it reads a text twice, and shares slots out over all layers and heads."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

import torch

from .hidden import Hidden, hide
from .presses import prepare
from .reading import TextReading


@torch.no_grad()
def zip_text(model: Any, tokenizer: Any, reading: TextReading, shares: Sequence[float]) -> list[Hidden]:
    """Let KVzip read a text again and choose what it hides for each share kept.

    KVzip has no guards but its sinks.

    Args:
        model: the pretrained language model.
        tokenizer: its tokenizer.
        reading: the text, read once.
        shares: the shares of all slots of all layers and heads that stay visible.

    Returns:
        What is hidden for each share.
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
        hide(model, [None] * len(cache.layers))
    return hidden
