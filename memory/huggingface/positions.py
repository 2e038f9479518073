"""Rotate cached keys to other positions, so that a stream can continue past the length a model was trained for."""

from __future__ import annotations

import sys
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .supported_models import text_config


class Rotation:
    """Rotates the keys of ``model`` by a distance; ``limit`` is the number of positions it was trained for.

    It uses the rotary embedding and function of the model. Raises `ValueError` for a model whose keys cannot be rotated
    so: without rotary positions, with positions scaled by the length, or rotary in a part of the key alone.
    """

    def __init__(self, model: Any) -> None:
        config = text_config(model)
        self.limit = int(getattr(config, "max_position_embeddings", 0) or 0)
        self._angles = next((module for module in model.modules() if hasattr(module, "inv_freq")), None)
        self._apply = getattr(sys.modules[type(model).__module__], "apply_rotary_pos_emb", None)
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        if not self.limit or hasattr(config, "kv_lora_rank") or not self._is_additive(torch.randn(1, 1, 1, width)):
            raise ValueError(
                f'positions="compact" cannot rotate the keys of {type(model).__name__}, which needs plain rotary '
                'positions; use positions="kept"'
            )

    def _is_additive(self, key: Tensor) -> bool:
        """Whether rotations by 3 and by -3 give the key back, and rotations by 3 and by 4 equal one by 7."""
        kind = getattr(self._angles, "rope_type", "default")
        if self._angles is None or self._apply is None or kind not in ("default", "linear", "llama3"):
            return False
        key = key.to(self._angles.inv_freq.device)
        try:
            three, back, four, seven = (torch.full((1, 1), n, device=key.device) for n in (3, -3, 4, 7))
            rotated = self(key, three)
            same = self(rotated, back)
            further = self(rotated, four)
            return torch.allclose(same, key, atol=1e-4) and torch.allclose(further, self(key, seven), atol=1e-4)
        except (RuntimeError, TypeError, ValueError):  # a function of another form, or partly rotary keys
            return False

    @torch.no_grad()
    def __call__(
        self, keys: Float[Tensor, "batch heads slots width"], distance: Int[Tensor, "batch slots"]
    ) -> Float[Tensor, "batch heads slots width"]:
        """The keys as if each had a position ``distance`` later; computed in float32, returned in their type."""
        assert self._angles is not None
        assert self._apply is not None
        wide = keys.float()
        cos, sin = self._angles(wide, distance)
        return self._apply(wide, wide, cos, sin)[1].to(keys.dtype)
