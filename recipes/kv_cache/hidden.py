"""Slots that attention does not see: some presses of kvpress hide slots in place of evicting them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Hidden = list[tuple[Tensor, ...]]
"""For each layer the slots that attention must not see, in kvpress's form: rows, heads, slots."""


@contextmanager
def hiding(model: Any, hidden: Hidden | None) -> Generator[None]:
    """A context in which attention does not see some slots; it sees all for None."""
    if hidden is None:
        yield
        return
    hide(model, hidden)
    try:
        yield
    finally:
        hide(model, [None] * len(hidden))


def take_hidden_slots(model: Any) -> Hidden | None:
    """What a press that hides slots in place of evicting them has just chosen, and see them again; None if nothing."""
    layers = [getattr(layer, "self_attn", None) for layer in model.get_decoder().layers]
    found: Any = [getattr(layer, "masked_key_indices", None) for layer in layers]
    if any(one is None for one in found):
        return None
    hide(model, [None] * len(found))
    return found


def hide(model: Any, by_layer: Sequence[tuple[Tensor, ...] | None]) -> None:
    """Set which slots of each layer kvpress's attention does not see; all are seen where there are none."""
    for layer, indices in zip(model.get_decoder().layers, by_layer, strict=True):
        layer.self_attn.masked_key_indices = indices


def join_hidden(rows: Sequence[Hidden | None]) -> Hidden | None:
    """What is hidden in a batch of such rows; None where nothing is."""
    known = [(row, hidden) for row, hidden in enumerate(rows) if hidden is not None]
    if not known:
        return None
    layers = []
    for layer in range(len(known[0][1])):
        parts = [(torch.full_like(hidden[layer][0], row), *hidden[layer][1:]) for row, hidden in known]
        layers.append(tuple(torch.cat(indices) for indices in zip(*parts, strict=True)))
    return layers
