"""Signals of cached slots that show how a pretrained model attends: what the presses of kvpress score by."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..policy import standardise_among
from .groups import Groups
from .supported_models import attention_layers, key_shape, text_config

FUTURE = 512
"""The coming positions over which the expected attention is averaged, as in kvpress."""
HALF_LIFE = 256
"""Tokens after which a query counts half in the statistics of the queries."""
PENDING = 64
"""The newest queries that are counted at each eviction, and whose attention is observed."""
WITHOUT_ROTATION = ("cohere2", "exaone4")
"""Models whose layers with full attention have no rotary positions while those with windows have."""
_JOINED = 32
"""Single tokens whose hidden states are joined at once, so that no token waits for it."""
FLOOR = 1e-6
"""The least attention weight whose logarithm is taken."""
RIDGE = 1e-2
"""What is added to the second moments of the keys before they are inverted, as a share of their mean."""


class QueryState(NamedTuple):
    """The queries of a layer: hidden states of tokens not yet counted, and statistics of the counted ones.

    ``mean`` and ``second`` (the mean of outer products) are of queries before rotation; None before the first eviction.
    """

    hidden: tuple[Float[Tensor, "batch new hidden"], ...] = ()
    valid: tuple[Bool[Tensor, "batch new"], ...] = ()
    total: Float[Tensor, " batch"] | None = None
    mean: Float[Tensor, "batch heads width"] | None = None
    second: Float[Tensor, "batch heads width width"] | None = None

    def append(
        self, hidden: Float[Tensor, "batch new hidden"], valid: Bool[Tensor, "batch new"], block: int
    ) -> QueryState:
        """Append new tokens; the newest `PENDING` stay, and so many more that a ``block`` can be forgotten."""
        hiddens, valids = (*self.hidden, hidden.detach()), (*self.valid, valid.to(hidden.device))
        if hidden.shape[1] > 1 or len(hiddens) >= _JOINED:
            hiddens, valids = ((torch.cat(x, dim=1)[:, -PENDING - block :],) for x in (hiddens, valids))
        return self._replace(hidden=hiddens, valid=valids)

    def truncate(self, remove: int) -> QueryState:
        """Forget the last ``remove`` tokens."""
        if not self.hidden:
            return self
        hidden, valid = torch.cat(self.hidden, dim=1), torch.cat(self.valid, dim=1)
        rest = max(0, hidden.shape[1] - remove)
        return self._replace(hidden=(hidden[:, :rest],), valid=(valid[:, :rest],))

    def newest(self) -> tuple[Float[Tensor, "batch new hidden"], Bool[Tensor, "batch new"]]:
        """The newest `PENDING` of the tokens not yet counted."""
        return torch.cat(self.hidden, dim=1)[:, -PENDING:], torch.cat(self.valid, dim=1)[:, -PENDING:]


class AttentionSignals:
    """Computes the signals ``names`` of `vqmem.memory.policy.ATTENTION_SIGNALS` for the slots of each layer.

    ``expected``: the logarithm of the attention that coming queries pay to the slot if they are normally distributed
    like those so far, times the norm of its value (Devoto et al., Expected Attention, arXiv:2510.00636). ``observed``:
    the logarithm of the mean attention of the newest queries (SnapKV, arXiv:2404.14469). ``keydiff``: minus the cosine
    of the key and the mean key (KeyDiff, arXiv:2504.15364). ``norm``: minus the norm of the key (arXiv:2406.11430).
    ``leverage``: the statistical leverage of the key before rotation, which is large where the other keys do not span
    it (Compactor, arXiv:2507.08143; here exact, with a ridge of `RIDGE`, where Compactor sketches it). It is of the
    rotated key where a model rotates a part of its keys in a way of its own.

    Raises `ValueError` for a model whose queries it does not find.
    """

    def __init__(self, model: Any, names: Sequence[str], groups: Groups) -> None:
        self.names, self.groups = tuple(names), groups
        self.needs_queries = not {"expected", "observed"}.isdisjoint(names)
        self.modules = [module for module in attention_layers(model) if module.layer_idx in groups.bounded]
        config = text_config(model)
        shape = key_shape(model)
        self.heads, self.width = (config.num_attention_heads, shape[1]) if shape else (0, 0)
        self._unrotated = config.model_type in WITHOUT_ROTATION
        self._angles: Any = next((x for x in model.modules() if "RotaryEmbedding" in type(x).__name__), None)
        parameters = () if self._angles is None else inspect.signature(self._angles.forward).parameters
        self._kind = ("full_attention",) if "layer_type" in parameters else ()
        self._apply: Any = getattr(sys.modules[type(model).__module__], "apply_rotary_pos_emb", None)
        self._future: tuple[Tensor, tuple[Tensor, ...]] | None = None
        self._shared: tuple[Tensor, tuple[Tensor, ...]] | None = None
        self._unrotates = "leverage" in names and shape is not None and self._can_unrotate(*shape)
        if self.needs_queries:
            self._check(model, config)

    def _can_unrotate(self, heads: int, width: int) -> bool:
        """Whether the rotation of keys is the model's function of whole keys; some models rotate a part of them."""
        try:
            for module in self.modules:
                keys = torch.zeros(1, heads, 2, width, device=_device(module, torch.device("cpu")))
                self.unrotate(module, keys, torch.zeros(1, heads, 2, dtype=torch.long, device=keys.device))
        except (RuntimeError, TypeError):
            return False
        return True

    def _check(self, model: Any, config: Any) -> None:
        """Raise `ValueError` unless queries are found and rotated by the model's function."""
        weight = next(model.parameters())
        try:
            for module in self.modules:
                hidden = weight.new_zeros(1, 2, config.hidden_size, dtype=_dtype(module, weight.dtype))
                queries = self.queries(module, hidden.to(_device(module, weight.device)))
                self.rotate(queries, *self.angles(module, queries, torch.arange(2, device=queries.device)[None]))
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"the queries of {type(model).__name__} are not found ({' '.join(str(error).split())}); use a policy "
                "without the signals expected and observed, such as scored"
            ) from error

    def queries(self, module: Any, hidden: Float[Tensor, "batch new hidden"]) -> Float[Tensor, "batch heads new width"]:
        """The queries of a layer before rotation, in float32."""
        size = self.heads * self.width
        if hasattr(module, "q_proj"):
            flat = module.q_proj(hidden)
        elif hasattr(module, "query_key_value"):  # GPT-NeoX: query, key and value of each head side by side
            flat = module.query_key_value(hidden).unflatten(-1, (self.heads, 3, self.width))[..., 0, :].flatten(-2)
        else:
            flat = (module.qkv_proj if hasattr(module, "qkv_proj") else module.c_attn)(hidden)[..., :size]
        if flat.shape[-1] != size:
            raise ValueError(f"{flat.shape[-1]} numbers for {self.heads} heads of {self.width}")
        norm = next((getattr(module, name) for name in ("q_norm", "q_layernorm") if hasattr(module, name)), None)
        if norm is not None and norm.weight.numel() == size:
            flat = norm(flat)
        queries = flat.unflatten(-1, (self.heads, self.width))
        if norm is not None and norm.weight.numel() != size:
            queries = norm(queries)
        return queries.transpose(1, 2).float()

    def _is_rotated(self, module: Any) -> bool:
        return self._angles is not None and not self._unrotated and getattr(module, "use_rope", True)

    def angles(self, module: Any, x: Tensor, positions: Int[Tensor, "batch new"]) -> tuple[Tensor, Tensor] | tuple[()]:
        """Cosines and sines of the rotation to ``positions``; none for a layer without rotary positions."""
        if not self._is_rotated(module):
            return ()
        return self._angles(x, positions, *self._kind)

    def rotate(self, x: Float[Tensor, "batch heads new width"], *angles: Tensor) -> Tensor:
        """Rotate ``x`` with the model's function, which is linear in ``x`` and in the angles."""
        if not angles:
            return x
        return self._apply(x, x, *(angle.to(x) for angle in angles))[0]

    def unrotate(self, module: Any, keys: Tensor, positions: Int[Tensor, "batch _heads slots"]) -> Tensor:
        """The keys ``[batch, heads, slots, width]`` before their rotation to ``positions``, in float32.

        Where all heads have the same positions, these may have one head. Angles are then computed once for all layers
        that are given the same tensor.
        """
        if positions.shape[1] > 1:
            flat = keys.float().flatten(0, 1)[:, None]
            return _turn_back(self, flat, self.angles(module, flat, positions.flatten(0, 1))).view_as(keys)
        shared = self._shared  # copies of a cache share it, in any thread
        if shared is None or shared[0] is not positions or len(shared[1]) != 2 * self._is_rotated(module):
            self._shared = shared = positions, self.angles(module, keys.float(), positions[:, 0])
        return _turn_back(self, keys.float(), shared[1])

    @torch.no_grad()
    def compute(
        self,
        module: Any,
        state: QueryState,
        keys: Float[Tensor, "batch key_heads slots width"],
        values: Float[Tensor, "batch key_heads slots width"],
        valid: Bool[Tensor, "batch slots"],
        competing: Bool[Tensor, "batch groups slots"],
        now: Int[Tensor, " batch"],
        rotated: Int[Tensor, "batch groups slots"],
        plain: Float[Tensor, "batch key_heads slots width"] | None = None,
    ) -> tuple[dict[str, Float[Tensor, "batch groups slots"]], QueryState]:
        """The signals of the slots of a layer, standardised over the slots that compete, and its queries counted.

        Args:
            module: The attention module of the layer.
            state: Its queries so far.
            keys: The keys of all slots, rotated.
            values: The values of all slots.
            valid: The slots that have content.
            competing: The slots that no guard protects, for each group in the layer.
            now: The position, as the keys are rotated, of each row's next token.
            rotated: The positions that the keys are rotated to.
            plain: The keys before rotation, where they are known already.

        Returns:
            Each signal by name, averaged over the heads of a group, and the queries after this eviction.
        """
        keys, competing = keys.float(), competing.to(keys.device)
        valid, now = valid.to(keys.device), now.to(keys.device)
        found = {}
        if self.needs_queries:
            hidden, real = state.newest()
            queries = self.queries(module, hidden)
            state = _count(state, queries, real)
            scale = getattr(module, "scaling", None) or self.width**-0.5
            if "expected" in self.names:
                found["expected"] = self._expected(module, state, keys, values, valid, now, scale)
            if "observed" in self.names:
                found["observed"] = self._observed(module, queries, real, keys, valid, now, scale)
        if "keydiff" in self.names:
            unit = F.normalize(keys, dim=-1) * valid[:, None, :, None]
            found["keydiff"] = -F.cosine_similarity(keys, unit.sum(dim=2, keepdim=True), dim=-1)
        if "leverage" in self.names:
            if plain is None:
                places = rotated.to(keys.device).expand(-1, keys.shape[1], -1)
                plain = self.unrotate(module, keys, places) if self._unrotates else keys
            found["leverage"] = leverage(plain, valid)
        if "norm" in self.names:
            found["norm"] = -keys.norm(dim=-1)
        if "value_norm" in self.names:
            found["value_norm"] = values.float().norm(dim=-1)
        return {name: self.groups.reduce(standardise_among(x, competing)) for name, x in found.items()}, state

    def _expected(
        self,
        module: Any,
        state: QueryState,
        keys: Float[Tensor, "batch key_heads slots width"],
        values: Float[Tensor, "batch key_heads slots width"],
        valid: Bool[Tensor, "batch slots"],
        now: Int[Tensor, " batch"],
        scale: float,
    ) -> Float[Tensor, "batch key_heads slots"]:
        assert state.mean is not None
        assert state.second is not None
        angles = self._future_angles(module, state.mean, now)
        mean = self.rotate(state.mean[:, :, None], *angles)
        spread = state.second - state.mean[..., None] * state.mean[:, :, None]
        spread = self.rotate(self.rotate(spread, *angles).transpose(2, 3), *angles)
        grouped = keys[:, :, None]  # [batch, key heads, 1, slots, width]
        mean, spread = (x.unflatten(1, (keys.shape[1], -1)) for x in (mean, spread))
        logits = scale * (grouped * mean).sum(-1) + scale**2 / 2 * ((grouped @ spread) * grouped).sum(-1)
        weights = logits.masked_fill(~valid[:, None, None], -torch.inf).softmax(dim=-1).mean(dim=2)
        return (weights * values.float().norm(dim=-1)).clamp(min=FLOOR).log()

    def _future_angles(self, module: Any, x: Tensor, now: Int[Tensor, " batch"]) -> tuple[Tensor, ...]:
        """The mean angles of the coming positions, which are the same for all layers of an eviction."""
        if not self._is_rotated(module):
            return ()
        future = self._future  # copies of a cache share it, in any thread
        if future is None or future[0] is not now:
            positions = now[:, None] + torch.arange(FUTURE, device=now.device)
            angles = self.angles(module, x, positions)
            self._future = future = now, tuple(angle.mean(dim=1, keepdim=True) for angle in angles)
        return future[1]

    def _observed(
        self,
        module: Any,
        queries: Float[Tensor, "batch heads new width"],
        real: Bool[Tensor, "batch new"],
        keys: Float[Tensor, "batch key_heads slots width"],
        valid: Bool[Tensor, "batch slots"],
        now: Int[Tensor, " batch"],
        scale: float,
    ) -> Float[Tensor, "batch key_heads slots"]:
        new = queries.shape[2]
        after = real.flip(1).cumsum(1).flip(1)  # the newest real token is at position now - 1
        rotated = self.rotate(queries, *self.angles(module, queries, (now[:, None] - after).clamp(min=0)))
        grouped = rotated.unflatten(1, (keys.shape[1], -1))
        logits = scale * grouped @ keys[:, :, None].transpose(-1, -2)
        # The newest slots are the new tokens, which later ones see alone.
        slots = torch.arange(keys.shape[2], device=keys.device)
        seen = slots <= keys.shape[2] - new + torch.arange(new, device=keys.device)[:, None]
        visible = (seen & valid[:, None])[:, None, None]
        weights = logits.masked_fill(~visible, -torch.inf).softmax(dim=-1).nan_to_num()
        weights = weights * real[:, None, None, :, None]
        mean = weights.sum(dim=3) / real.sum(dim=1).clamp(min=1)[:, None, None, None]
        return mean.mean(dim=2).clamp(min=FLOOR).log()


def _turn_back(signals: AttentionSignals, x: Tensor, angles: tuple[Tensor, ...]) -> Tensor:
    """``x`` rotated by the opposite of ``angles``, cosines and sines."""
    return signals.rotate(x, *(sign * angle for sign, angle in zip((1, -1), angles, strict=False)))


def leverage(
    keys: Float[Tensor, "batch heads slots width"], valid: Bool[Tensor, "batch slots"]
) -> Float[Tensor, "batch heads slots"]:
    """The diagonal of X (XᵀX + ridge)⁻¹ Xᵀ, where X are the valid keys of a head less their mean."""
    real = valid[:, None, :, None].to(keys)
    mean = (keys * real).sum(2, keepdim=True) / real.sum(2, keepdim=True).clamp(min=1)
    centred = (keys - mean) * real
    moments = centred.transpose(2, 3) @ centred
    diagonal = moments.diagonal(dim1=2, dim2=3)
    diagonal += RIDGE * diagonal.mean(-1, keepdim=True) + torch.finfo(keys.dtype).tiny
    # The squared norm of L⁻¹ x, where L Lᵀ are the moments: a quarter of the time of solving for every slot.
    root = torch.linalg.cholesky_ex(moments).L
    identity = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device).expand_as(root)
    whitening = torch.linalg.solve_triangular(root, identity, upper=False)
    return (centred @ whitening.transpose(2, 3)).square().sum(-1)


def _count(
    state: QueryState, queries: Float[Tensor, "batch heads new width"], real: Bool[Tensor, "batch new"]
) -> QueryState:
    """Add the pending queries to the statistics, in which older ones fade with `HALF_LIFE`."""
    weight = real.to(queries)
    new = weight.sum(dim=1)
    mean = torch.einsum("bt,bhtd->bhd", weight, queries)
    second = torch.einsum("bt,bhtd,bhte->bhde", weight, queries, queries)
    count = new
    if state.total is not None and state.mean is not None and state.second is not None:
        faded = state.total * 0.5 ** (new / HALF_LIFE)
        count = new + faded
        mean = mean + faded[:, None, None] * state.mean
        second = second + faded[:, None, None, None] * state.second
    least = count.clamp(min=1)
    return QueryState((), (), count, mean / least[:, None, None], second / least[:, None, None, None])


def _dtype(module: nn.Module, default: torch.dtype) -> torch.dtype:
    return next((x.dtype for x in module.parameters() if x.is_floating_point()), default)


def _device(module: nn.Module, default: torch.device) -> torch.device:
    return next((x.device for x in module.parameters()), default)
