"""To and from kvpress: our priorities as one of its presses, and its presses as policies of our cache."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

try:
    from kvpress import ScorerPress
except ImportError as error:
    raise ImportError(
        "this module needs kvpress, which holds transformers below 5.3; run `pip install 'vqmem[kvpress]'`"
    ) from error

from ..bank import Memory
from ..policy import Guard, Policy
from ..scorer import ScorerModel
from ..slots import Slots
from .arguments import require_match, require_vocabulary, resolve, resolve_scorer
from .hooks import new_tokens, score


@dataclass(frozen=True)
class PressPolicy:
    """Any kvpress ``ScorerPress`` as a policy of `VQMemCache` (Devoto et al., arXiv:2510.00636).

    The press scores all slots anew after every pass that has to evict, from their keys and values and the hidden states
    of the tokens just read. Its scores are averaged over heads and layers, so that one set of tokens a row serves them
    all; kvpress lets every head keep its own. Its ``compression_ratio`` is not used (the capacity of the cache is), and
    it is not told of padding, which is evicted first.
    """

    press: ScorerPress
    requires: ClassVar[tuple[str, ...]] = ("layers",)

    def layers(self, model: Any) -> Sequence[nn.Module]:
        """The attention modules, made ready for the press as kvpress does. Raises `ValueError` where it could not."""
        decoder = model.get_decoder()
        layers: list[Any] = [getattr(layer, "self_attn", None) for layer in getattr(decoder, "layers", ())]
        if not layers or None in layers or not hasattr(decoder, "rotary_emb"):
            raise ValueError(f"kvpress has no way into the attention of {type(model).__name__}; use another policy")
        self.press.post_init_from_model(model)
        for layer in layers:
            layer.rotary_emb = decoder.rotary_emb
        return layers

    def judge(
        self,
        layer: nn.Module,
        inputs: dict[str, Any],
        keys: Float[Tensor, "batch heads slots width"],
        values: Float[Tensor, "batch heads slots width"],
        attention: Tensor | None,
    ) -> Float[Tensor, "batch slots"]:
        """The press's scores, averaged over heads. Raises `ValueError` where the press cannot score this pass."""
        try:
            scores = self.press.score(layer, inputs["hidden_states"], keys, values, attention, inputs)
        except AssertionError as error:
            new = inputs["hidden_states"].shape[1]
            raise ValueError(f"{type(self.press).__name__} cannot score a pass over {new} tokens: {error}") from error
        return scores.float().mean(dim=1)

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """The mean score over heads and layers."""
        return slots.usage


@dataclass(eq=False)
class VQMemPress(ScorerPress):
    """The priorities of a policy as a kvpress ``ScorerPress``, for its pipeline and its wrappers.

        press = VQMemPress(0.5, policy={"name": "scored", "rarity": 1.0}, scorer=scorer)
        with press(model):
            model(**inputs, past_key_values=cache)

    ``compression_ratio`` is the share of the prompt that goes; ``policy`` and ``scorer`` are as for
    `VQMemCache`. All layers and heads get the same scores. The first ``sinks`` and the newest
    ``recent`` tokens score above all others, padding below. Scores are not negative, so that wrappers can weigh them.

    It scores a prompt that is read whole, also in pieces (``ChunkPress``). What comes to it later or with tokens
    missing raises `ValueError`: ``DecodingPress``, ``BlockPress``, or another press before it in a ``ComposedPress``.
    ``PerLayerCompressionPress`` does not tell it of the model: call ``press.post_init_from_model(model)`` before.
    So do policies that look at attention, keys or layers, for which kvpress has presses of its own.
    """

    compression_ratio: float = 0.0
    policy: str | Mapping[str, Any] | Policy | None = None
    scorer: ScorerModel | str | PathLike[str] | None = None
    sinks: int = 4
    recent: int = 0

    def __post_init__(self) -> None:
        """Raise `ValueError` for a policy that cannot work here, a missing scorer, negative guards."""
        super().__post_init__()
        self._scorer = resolve_scorer(self.scorer)
        self._guard, self._memory = Guard(self.sinks, self.recent), Memory(1, resolve(self.policy, self._scorer))
        require_match(self._memory.policy, self._scorer)
        if self._memory.observes:
            raise ValueError(
                f"policy={self.policy!r} looks at attention, keys or layers; kvpress has presses of its own for that"
            )
        self._read: dict[str, Any] = {}
        self._worth: Tensor | None = None
        self._detach = None

    def post_init_from_model(self, model: Any) -> None:
        """Called by kvpress, wrappers included: take note of the tokens of each pass, until the press is gone."""
        require_vocabulary(self._scorer, model)
        if isinstance(self._scorer, nn.Module) and self._scorer is not self.scorer:  # loaded here, on the CPU
            self._scorer.to(model.device)
        if self._detach is not None:
            self._detach()
        held, decoder = weakref.ref(self), model.get_decoder()
        names = list(inspect.signature(decoder.forward).parameters)

        def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            press, named = held(), dict(zip(names, args, strict=False)) | kwargs
            if press is not None:
                press._read = {name: named.get(name) for name in ("input_ids", "attention_mask")}
                press._worth = None

        self._detach = weakref.finalize(self, decoder.register_forward_pre_hook(before, with_kwargs=True).remove)

    def score(
        self,
        module: nn.Module,
        hidden_states: Float[Tensor, "batch tokens hidden"],
        keys: Float[Tensor, "batch heads slots width"],
        values: Float[Tensor, "batch heads slots width"],
        attentions: Tensor | None,
        kwargs: dict[str, Any],
    ) -> Float[Tensor, "batch heads slots"]:
        """The priorities, the same for every head. Raises `ValueError` where the tokens of the keys are not known."""
        if self._detach is None:
            raise ValueError("VQMemPress was not told of the model; call its post_init_from_model(model) first")
        if self._worth is None:
            self._worth = self._judge(*new_tokens(self._read, 0))
        start = _offset(hidden_states, kwargs.get("hidden_states", hidden_states))
        worth = self._worth[:, start : start + keys.shape[2]].to(keys.device)
        if start < 0 or not worth.shape[1] == hidden_states.shape[1] == keys.shape[2]:
            raise ValueError(
                f"VQMemPress knows {self._worth.shape[1]} tokens of this pass, not which of them the {keys.shape[2]} "
                "keys are; use it on whole prompts and before other presses, not within DecodingPress or BlockPress"
            )
        return worth[:, None].repeat(1, keys.shape[1], 1)  # wrappers write into it

    def _judge(
        self, tokens: Int[Tensor, "batch tokens"], valid: Bool[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch tokens"]:
        """What the tokens are worth: priorities from 0 on, guarded ones above, -1 for padding."""
        state = None if self._scorer is None else self._scorer.initial_state(len(tokens))
        scores, _ = score(self._scorer, tokens, valid, state)
        positions = (valid.cumsum(1) - 1).clamp(min=0)
        memory, payload = self._memory, (tokens,)
        slots = memory.append(memory.empty(payload), payload, tokens, positions, scores, valid).slots
        now = valid.sum(1)
        worth = memory.policy.priority(slots, now)
        worth = worth - worth.masked_fill(~valid, torch.inf).amin(1, keepdim=True)
        worth = worth.masked_fill(~valid, -1)
        return worth + (self._guard.holds(slots, now) & valid) * (worth.amax(1, keepdim=True) + 1)


def _offset(part: Float[Tensor, "batch tokens hidden"], whole: Float[Tensor, "batch all hidden"]) -> int:
    """Where ``part`` begins among the tokens of ``whole``, which it is a view of; -1 if it is none."""
    if part.untyped_storage().data_ptr() != whole.untyped_storage().data_ptr():
        return -1
    return int(part.storage_offset() - whole.storage_offset()) // whole.stride(1)
