"""The memory transformer: a decoder that reads a segment at a time and attends to a bounded memory of earlier ones."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..memory.slots import Slots
from .attention import Attention, Block, Layout
from .norm import RMSNorm, normalise
from .transformer_config import TransformerConfig

_RENAMED_SIGNALS: dict[tuple[str, ...], dict[str, str]] = {
    ("reuse",): {"gain": "reuse"},
    ("rarity",): {"surprise": "rarity"},
}
"""For a scorer's signals of today, the names that their columns had when all scorers gave surprise, rarity and gain."""


class Output(NamedTuple):
    """The output for one segment. Fields that were not requested are None.

    ``payload`` is the payload of this segment for the memory; ``usage`` is the attention that each slot received.
    ``weights`` is the attention of each token to the slots and the segment, averaged over heads and layers; ``norms``
    are the norms of the segment's keys, with the same average. ``log_gates`` are the logarithms of the forget gates,
    which the memory needs; None in a model without them.
    """

    logits: Float[Tensor, "batch time vocab"]
    payload: tuple[Tensor, ...]
    usage: Float[Tensor, "batch slots"] | None
    weights: Float[Tensor, "batch time slots+time"] | None
    norms: Float[Tensor, "batch time"] | None
    log_gates: Float[Tensor, "batch time layers heads"] | None = None


class MemoryTransformer(nn.Module):
    """Decoder-only, pre-norm, rotary positions, recurrent over segments like Transformer-XL (arXiv:1901.02860).

    It differs in the positions (rotary and true: a kept token keeps its distance) and in the memory, which may have any
    slots, not only the newest. All layers share the same slots. The memory's payload is either ``hidden`` states, from
    which keys and values are computed with gradients into the projections (training), or ``keys_values`` (decoding);
    both give the same logits.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        if config.frame_dim is None:
            self.embed = nn.Embedding(config.vocab_size, config.dim)
        else:
            self.embed = nn.Linear(config.frame_dim, config.dim)
        self.shift = nn.Linear(config.shift * config.dim, config.dim, bias=False) if config.shift else None
        self.blocks: Any = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.dim)
        self.head = nn.Linear(config.dim, config.vocab_size, bias=False)
        self.score_weight = None
        if config.score_bias:
            self.score_weight = nn.Parameter(torch.zeros(config.heads, len(config.signals)))
        self.apply(_initialise)
        for block in self.blocks:
            block.attention.initialise_gate()
            for last in (block.attention.out, block.feed_forward[-1]):
                nn.init.normal_(last.weight, std=(2 * config.layers * last.in_features) ** -0.5)
        if config.frame_dim is None:
            self.head.weight = self.embed.weight

    def forward(
        self,
        inputs: Int[Tensor, "batch time"] | Float[Tensor, "batch time frame"],
        positions: Int[Tensor, "batch time"],
        memory: Slots | None = None,
        *,
        previous: Int[Tensor, "batch before"] | None = None,
        remember: Literal["hidden", "keys_values"] = "hidden",
        need: Collection[str] = (),
    ) -> Output:
        """Predict the token after each input.

        Args:
            inputs: token ids, or frames.
            positions: positions from the start of each row's document.
            memory: slots with payloads of the kind ``remember`` from earlier calls; None = no memory.
            previous: the tokens before the segment, the oldest first, for models with ``shift``, which read as many
                of them as they need; -1 or None = none.
            remember: the kind of payload to return.
            need: what the memory requires: ``"usage"`` and ``"norms"`` request these outputs, ``"decay"`` needs a model
                with forget gates.

        Returns:
            Logits, payload and the requested statistics of attention.

        Raises:
            ValueError: ``need`` has ``"layers"``, which only the cache of a pretrained model provides, or ``"decay"``,
                which a model without forget gates does not; or a model with them gets slots without decay.
        """
        kept = memory if memory is not None and memory.count else None
        self._check(need, kept)
        decay = None if kept is None else kept.decay
        layout = self._layout(positions, memory)
        x = self._embed(inputs, previous)
        written, shown = [], []
        for i, block in enumerate(self.blocks):
            slots = () if kept is None else tuple(p[:, :, i] for p in kept.payload)
            x, payload, stats = block(x, slots, layout, remember, need, None if decay is None else decay[:, :, i])
            written.append(payload)
            shown.append(stats)
        payload = tuple(torch.stack(parts, dim=2) for parts in zip(*written, strict=True))
        usage = weights = norms = None
        if "usage" in need:
            layers = torch.stack([layer.weights for layer in shown])
            usage = layers[..., : layers.shape[3] - layers.shape[2]].sum(2).mean(0)
            weights = layers.mean(0)
        if "norms" in need:
            norms = torch.stack([layer.norms for layer in shown]).mean(0)
        log_gates = None
        if self.config.forget_gate:
            log_gates = torch.stack([layer.log_gates for layer in shown], dim=2)
        return Output(self.head(self.norm(x)), payload, usage, weights, norms, log_gates)

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Run the blocks through ``torch.compile``; they share what is compiled, which keeps the names of the weights.

        What is small or changes its shape from step to step (positions, mask, the memory itself) stays as it is.
        """
        for block in self.blocks:
            block.compile(backend=backend)

    def empty_payload(self, batch: int, remember: Literal["hidden", "keys_values"] = "hidden") -> tuple[Tensor, ...]:
        """Payload tensors without slots, for an empty memory."""
        parts = 1 if remember == "hidden" else 2
        like = self.norm.weight  # not `new_zeros`: the weight may be sharded over processes, the payload is not
        x = torch.zeros(batch, 0, self.config.layers, self.config.dim, dtype=like.dtype, device=like.device)
        return (x,) * parts

    def keys(self, payload: tuple[Tensor, ...]) -> Float[Tensor, "batch slots layers dim"]:
        """The keys of each layer before rotation, the same for both kinds of payload."""
        if len(payload) == 2:
            return payload[0]
        weights = torch.stack([block.attention.weight(block.attention_norm.weight) for block in self.blocks])
        return torch.einsum("bsld,lkd->bslk", normalise(payload[0]), weights.chunk(3, dim=1)[1])

    def rename_signals(self, signals: tuple[str, ...]) -> None:
        """Give the columns of ``score_weight`` to the ``signals`` of today's scorer, for models of earlier versions.

        Then every scorer had the columns surprise, rarity and gain; for some they had another meaning. Raises
        `ValueError` where a column with a weight has no signal now.
        """
        if self.score_weight is None or signals == self.config.signals:
            return
        renamed = _RENAMED_SIGNALS.get(signals, {})
        weight = self.score_weight.data.new_zeros(self.config.heads, len(signals))
        for name, column in zip(self.config.signals, self.score_weight.data.unbind(1), strict=True):
            name = renamed.get(name, name)
            if name in signals:
                weight[:, signals.index(name)] += column
            elif column.any():
                raise ValueError(
                    f"this model has a learnt bias (score_bias) on {name}, which its scorer does not give "
                    f"({', '.join(signals)}); train it again"
                )
        self.score_weight, self.config = nn.Parameter(weight), replace(self.config, signals=signals)

    def _check(self, need: Collection[str], kept: Slots | None) -> None:
        """Raise `ValueError` as `forward` does."""
        if "layers" in need:
            raise ValueError(
                "the policy wants to look into the layers of a pretrained model (requires 'layers'), which the trained "
                "memory does not show; use it in vqmem.VQMemCache, or another policy here"
            )
        if "decay" in need and not self.config.forget_gate:
            raise ValueError(
                "the policy reads the decay of forget gates (requires 'decay'), which this model does not have; train "
                "one with shape.forget_gate=true, or use another policy"
            )
        if self.config.forget_gate and kept is not None and kept.decay is None:
            raise ValueError(
                "the slots have no decay, which this model's forget gates need; pass Output.log_gates to Memory.write"
            )

    def _embed(self, inputs: Tensor, previous: Tensor | None) -> Float[Tensor, "batch time dim"]:
        x, time, back = self.embed(inputs), inputs.shape[1], int(self.config.shift)
        if self.shift is None:
            return x
        if previous is None:
            before = x[:, :0]
        else:
            previous = previous[:, -back:]
            before = self.embed(previous.clamp(min=0)) * (previous >= 0)[..., None]
        both = torch.cat([F.pad(before, (0, 0, back - before.shape[1], 0)), x], dim=1)
        return x + self.shift(torch.cat([both[:, back - k : back - k + time] for k in range(1, back + 1)], dim=-1))

    def _layout(self, positions: Tensor, memory: Slots | None) -> Layout:
        """Angles and mask. Positions are relative to the segment's end, so that streams of any length stay exact."""
        end, time = positions[:, -1:] + 1, positions.shape[1]
        slots = 0 if memory is None else memory.count
        if memory is not None:
            positions = torch.cat([memory.positions, positions], dim=1)
        places = positions - end
        width = self.config.dim // self.config.heads
        rates = self.config.rope_base ** (-torch.arange(0, width, 2, device=places.device) / width)
        angles = (places[..., None] * rates)[:, :, None]
        dtype = torch.get_autocast_dtype(places.device.type) if torch.is_autocast_enabled(places.device.type) else None
        dtype = dtype or self.norm.weight.dtype
        least = torch.finfo(dtype).min
        bias = torch.full((time, slots + time), least, device=places.device, dtype=dtype).triu(slots + 1)
        if memory is not None:
            bias = bias.masked_fill(~F.pad(memory.valid, (0, time), value=True)[:, None, None], least)
        if self.score_weight is not None and memory is not None and memory.count:
            standard = torch.stack([memory.standard_score(name) for name in self.config.signals], dim=-1)
            learnt = torch.einsum("bsk,hk->bhs", standard.to(dtype), self.score_weight.to(dtype))
            bias = bias + F.pad(learnt, (0, time))[:, :, None]
        return Layout(torch.view_as_real(torch.polar(torch.ones_like(angles), angles)), bias)


def reconstruction_loss(
    model: MemoryTransformer, hidden: Float[Tensor, "batch time layers dim"], evicted: Slots, compressed: Slots
) -> Float[Tensor, ""]:
    """Compute the attention-reconstruction loss, which trains a compression.

    It is the mean squared difference between what a segment reads from evicted slots and from their compressed form, by
    content-based attention without positions (Compressive Transformer, arXiv:1911.05507, algorithm 2). Gradients only
    reach the compressed payload.

    Args:
        model: the transformer whose projections and norms attend.
        hidden: the segment's hidden states at the input of each layer.
        evicted: the slots before compression; the payload is hidden states.
        compressed: the slots after compression, with the same kind of payload.

    Returns:
        The mean over rows and layers; rows that evicted nothing count as zero.
    """
    total = hidden.new_zeros(())
    some = (evicted.valid.any(1) & compressed.valid.any(1))[:, None, None]
    for i, block in enumerate(model.blocks):
        query, key_value = block.attention.weight(block.attention_norm.weight).detach().tensor_split([hidden.shape[-1]])
        queries = F.linear(normalise(hidden[:, :, i].detach()), query)
        target, attempt = (
            _read(block.attention, queries, F.linear(normalise(x.payload[0][:, :, i]), key_value), x.valid)
            for x in (evicted, compressed)
        )
        total = total + ((attempt - target.detach()) * some).square().mean()
    return total / len(model.blocks)


def _read(attention: Attention, queries: Tensor, keys_values: Tensor, valid: Tensor) -> Float[Tensor, "batch time dim"]:
    """Attention over valid slots, without positions."""
    q, k, v = (attention.split(x).transpose(1, 2) for x in (queries, *keys_values.chunk(2, dim=-1)))
    mask = (valid | ~valid.any(1, keepdim=True))[:, None, None]  # avoids NaN in a row without slots
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def _initialise(module: nn.Module) -> None:
    """Keep unit variance: at small widths, a fixed 0.02 would leave attention flat for long."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features**-0.5)
        for name, parameter in module.named_parameters(recurse=False):
            if name == "bias":
                nn.init.zeros_(parameter)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
