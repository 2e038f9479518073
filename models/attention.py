"""A block of the memory transformer: attention to the slots of a memory and a segment, and a feed-forward network."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .norm import RMSNorm, normalise
from .transformer_config import TransformerConfig

DECAY_TIMES = 256.0, 16384.0
"""The tokens after which the gates of a head, as they start, leave 1/e of a weight: of the first and the last head."""


class Layout(NamedTuple):
    """Rotations of the keys (cosine and sine, ``[batch, keys, 1, width / 2, 2]``), and the additive attention mask."""

    turns: Tensor
    bias: Tensor


class AttentionStats(NamedTuple):
    """Attention weights and norms of the segment's keys, averaged over heads; None if not requested.

    ``log_gates`` are the logarithms of the forget gates of each head ``[batch, time, heads]``; None without gates.
    """

    weights: Tensor | None
    norms: Tensor | None
    log_gates: Tensor | None


class Block(nn.Module):
    """Pre-norm attention and a feed-forward network with GELU."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.dim)
        self.attention = Attention(config)
        self.feed_forward_norm = RMSNorm(config.dim)
        self.feed_forward: Any = nn.Sequential(
            nn.Linear(config.dim, config.expansion * config.dim, bias=False),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.expansion * config.dim, config.dim, bias=False),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        slots: tuple[Tensor, ...],
        layout: Layout,
        remember: str,
        need: Collection[str],
        decay: Float[Tensor, "batch slots heads"] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, ...], AttentionStats]:
        """Apply the block to a segment.

        Args:
            x: hidden states ``[batch, time, dim]``.
            slots: the payload of this layer from memory; empty without memory.
            layout: rotations and mask.
            remember: the kind of payload, ``hidden`` or ``keys_values``.
            need: ``"usage"`` and ``"norms"`` request statistics of attention.
            decay: the decay of the slots from memory; None without gates or memory.

        Returns:
            The new hidden states, the payload of this layer, and the statistics of its attention.
        """
        if remember == "hidden":
            weight = self.attention.weight(self.attention_norm.weight)
            queries, keys, values = F.linear(normalise(x), weight).chunk(3, dim=-1)
            written = (x,)
            slots = F.linear(normalise(slots[0]), weight[x.shape[-1] :]).chunk(2, dim=-1) if slots else ()
        else:
            queries, keys, values = self.attention.project(self.attention_norm(x))
            written = (keys, values)
        norms = self.attention.split(keys).detach().float().norm(dim=-1).mean(2) if "norms" in need else None
        if slots:
            keys, values = (torch.cat([old, new], dim=1) for old, new in zip(slots, (keys, values), strict=True))
        log_gates = None
        if self.attention.forget_gate is not None:
            log_gates = F.logsigmoid(self.attention.forget_gate(self.attention_norm(x)).float())
            layout = layout._replace(bias=layout.bias + decay_bias(log_gates, decay).to(layout.bias.dtype))
        mixed, weights = self.attention(queries, keys, values, layout, "usage" in need)
        x = x + self.dropout(mixed)
        x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return x, written, AttentionStats(weights, norms, log_gates)


class Attention(nn.Module):
    """Multi-head attention whose queries are at the last positions of the keys."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.dim, config.dim, bias=False)
        self.key_value = nn.Linear(config.dim, 2 * config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim, bias=False)
        self.forget_gate = nn.Linear(config.dim, config.heads) if config.forget_gate else None

    def initialise_gate(self) -> None:
        """Let the gates start near 1: with no input, a head forgets by a factor e in its time of `DECAY_TIMES`.

        The times of the heads are evenly spaced on a logarithmic scale, an option of the authors' code
        (``fgate_bias_init``); a bias of 0 would halve all weights with each token, before they reach a memory.
        """
        if self.forget_gate is not None:
            first, last = (math.log(time) for time in DECAY_TIMES)
            times = torch.logspace(first, last, self.heads, base=math.e)
            with torch.no_grad():
                self.forget_gate.bias.copy_(-torch.expm1(1 / times).log())

    def weight(self, gain: Float[Tensor, " dim"]) -> Float[Tensor, "3*dim dim"]:
        """The projection of normalised hidden states to queries, keys (neither rotated yet) and values.

        The norm's ``gain`` is multiplied into the weights, not into the states: the remembered states, which take no
        gradient, then need no backward matmul. `_rotate` needs the two halves of queries and keys as pairs of
        neighbours; attention, a dot product, is the same in any order.
        """
        key, value = self.key_value.weight.chunk(2)
        return torch.cat([self._paired(self.query.weight.mT).mT, self._paired(key.mT).mT, value]) * gain

    def project(self, x: Float[Tensor, "batch time dim"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values as by `weight`, from states with the gain: less work for few tokens."""
        key, value = self.key_value(x).chunk(2, dim=-1)
        return self._paired(self.query(x)), self._paired(key), value

    def _paired(self, x: Float[Tensor, "... dim"]) -> Float[Tensor, "... dim"]:
        """Reorder the halves of each head to pairs of neighbours."""
        return x.unflatten(-1, (self.heads, 2, -1)).mT.flatten(-3)

    def split(self, x: Float[Tensor, "batch keys dim"]) -> Float[Tensor, "batch keys heads width"]:
        """Split the last axis into heads."""
        return x.unflatten(-1, (self.heads, -1))

    def forward(
        self, queries: Tensor, keys: Tensor, values: Tensor, layout: Layout, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Attend to the keys.

        Args:
            queries: ``[batch, time, dim]``, at the last positions of the keys.
            keys: ``[batch, keys, dim]``, not rotated yet.
            values: ``[batch, keys, dim]``.
            layout: rotations and mask.
            need_weights: whether to return the weights, which is slower.

        Returns:
            Attended values ``[batch, time, dim]``, and weights ``[batch, time, keys]`` averaged over heads, or None.
        """
        v = self.split(values).transpose(1, 2)
        shown = None
        if need_weights:
            weights = self.weights(queries, keys, layout)
            mixed = weights @ v
            shown = weights.detach().mean(1)
        else:
            q, k = self._rotated(queries, keys, layout)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=layout.bias)
        return self.out(mixed.transpose(1, 2).flatten(2)), shown

    def weights(self, queries: Tensor, keys: Tensor, layout: Layout) -> Float[Tensor, "batch heads time keys"]:
        """The attention weights of each head; the arguments are those of `forward`."""
        q, k = self._rotated(queries, keys, layout)
        return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + layout.bias, dim=-1)

    def _rotated(self, queries: Tensor, keys: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Queries and keys by head, rotated to their positions."""
        q = _rotate(self.split(queries), layout.turns[:, -queries.shape[1] :])
        return q.transpose(1, 2), _rotate(self.split(keys), layout.turns).transpose(1, 2)


def decay_bias(
    log_gates: Float[Tensor, "batch time heads"], decay: Float[Tensor, "batch slots heads"] | None
) -> Float[Tensor, "batch heads time keys"]:
    """The sum of the logarithms of the gates of all tokens after a key, up to the query, which is added to the logits.

    ``decay`` is that sum for the slots of a memory, up to the segment's start. Entries of keys that come after the
    query are not 0; the mask hides them.
    """
    elapsed = log_gates.cumsum(1).mT
    ahead = -elapsed if decay is None else torch.cat([decay.mT, -elapsed], dim=2)
    return elapsed[..., None] + ahead[:, :, None]


def _rotate(x: Float[Tensor, "batch keys heads width"], turns: Float[Tensor, "batch keys 1 width/2 2"]) -> Tensor:
    """Rotary positions (RoFormer, arXiv:2104.09864): pairs of neighbours as complex numbers, one pass over memory."""
    pairs = x.to(turns.dtype).unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():  # the compiler fuses real arithmetic, but has no complex numbers
        (real, imaginary), (cos, sin) = pairs.unbind(-1), turns.unbind(-1)
        turned = torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)
    else:
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(turns))
    return turned.flatten(-2).to(x.dtype)
