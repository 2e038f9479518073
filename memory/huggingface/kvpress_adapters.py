"""Adapters for kvpress: a policy of ours as one of its presses, and its presses as policies of our cache."""

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
        "this module needs kvpress, which requires transformers below 5.3; run `pip install 'vqmem[kvpress]'`"
    ) from error

from ..bank import Memory
from ..policy import Guard, Policy
from ..scorer import ScorerModel, signals_of
from ..slots import Slots
from .arguments import require_match, require_vocabulary, resolve, resolve_scorer
from .hooks import new_tokens
from .scoring import score


@dataclass(frozen=True)
class PressPolicy:
    """Any kvpress ``ScorerPress`` as a policy of `VQMemCache` (Devoto et al., arXiv:2510.00636).

    The press scores all slots again after every pass that has to evict, from their keys and values and the hidden
    states of the tokens just read. The scores are averaged over heads and layers, so that each row keeps one set of
    tokens; in kvpress every head keeps a different set. The capacity of the cache replaces the press's
    ``compression_ratio``. The press does not know of padding, which is evicted first.
    """

    press: ScorerPress
    requires: ClassVar[tuple[str, ...]] = ("layers",)

    def layers(self, model: Any) -> Sequence[nn.Module]:
        """The attention modules, prepared as kvpress does. Raises `ValueError` where kvpress could not."""
        decoder = model.get_decoder()
        layers: list[Any] = [getattr(layer, "self_attn", None) for layer in getattr(decoder, "layers", ())]
        if not layers or None in layers or not hasattr(decoder, "rotary_emb"):
            raise ValueError(f"kvpress has no way into the attention of {type(model).__name__}; use another policy")
        self.press.post_init_from_model(model)
        for layer in layers:
            layer.rotary_emb = decoder.rotary_emb
        return layers

    def score_layer(
        self,
        layer: nn.Module,
        inputs: dict[str, Any],
        keys: Float[Tensor, "batch heads slots width"],
        values: Float[Tensor, "batch heads slots width"],
        attention: Tensor | None,
    ) -> Float[Tensor, "batch heads slots"]:
        """Score the slots of a layer with the press, as a `vqmem.memory.policy.LayerScorer` does.

        Args:
            layer: The attention module.
            inputs: The keyword arguments of its call, with ``hidden_states``.
            keys: The keys of all slots, those of new tokens last.
            values: The values of all slots.
            attention: The attention weights that the layer returned; None if it returned none.

        Returns:
            The press's scores.

        Raises:
            ValueError: The press cannot score this pass.
        """
        try:
            scores = self.press.score(layer, inputs["hidden_states"], keys, values, attention, inputs)
        except AssertionError as error:
            new = inputs["hidden_states"].shape[1]
            raise ValueError(f"{type(self.press).__name__} cannot score a pass over {new} tokens: {error}") from error
        return scores.float()

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """The mean score over heads and layers."""
        return slots.usage


@dataclass(eq=False)
class VQMemPress(ScorerPress):
    """The priorities of a policy as a kvpress ``ScorerPress``, for its pipeline and its wrappers.

        press = VQMemPress(0.5, policy={"name": "scored", "rarity": 1.0}, scorer=scorer)
        with press(model):
            model(**inputs, past_key_values=cache)

    All layers and heads get the same scores. The first ``sinks`` and the newest ``recent`` tokens score above all
    others, padding below. Scores of tokens are not negative, so that wrappers can weigh them.

    It scores full prompts, also in pieces (``ChunkPress``). It raises `ValueError` for passes after the prompt or with
    missing tokens: in ``DecodingPress``, ``BlockPress``, or after another press in a ``ComposedPress``.
    ``PerLayerCompressionPress`` does not pass the model on: call ``press.post_init_from_model(model)`` before. Policies
    that need attention, keys or layers raise `ValueError` too, since kvpress has presses for them.

    Args:
        compression_ratio: Share of the prompt that is evicted.
        policy: The name of a policy, its YAML mapping or the object; the default policy of the scorer if None.
        scorer: A trained scorer of the model's token ids, or the folder of its run.
        sinks: How many of the first tokens always stay.
        recent: How many of the newest tokens always stay.
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
        self._guard = Guard(self.sinks, self.recent)
        self._memory = Memory(1, resolve(self.policy, self._scorer))
        require_match(self._memory.policy, self._scorer)
        if self._memory.observes:
            raise ValueError(
                f"policy={self.policy!r} needs attention, keys or layers; use one of kvpress's presses for that"
            )
        self._arguments: dict[str, Any] = {}
        self._importance: Tensor | None = None
        self._detach = None

    def post_init_from_model(self, model: Any) -> None:
        """Called by kvpress and its wrappers: record the tokens of each pass of ``model``."""
        require_vocabulary(self._scorer, model)
        if isinstance(self._scorer, nn.Module) and self._scorer is not self.scorer:  # loaded here, on the CPU
            self._scorer.to(model.device)
        if self._detach is not None:
            self._detach()
        reference = weakref.ref(self)
        decoder = model.get_decoder()
        names = list(inspect.signature(decoder.forward).parameters)

        def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            press = reference()
            arguments = dict(zip(names, args, strict=False)) | kwargs
            if press is not None:
                press._arguments = {name: arguments.get(name) for name in ("input_ids", "attention_mask")}
                press._importance = None

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
        """The priorities as kvpress's scores, the same for every head.

        Args:
            module: The attention module.
            hidden_states: Hidden states of the tokens to score.
            keys: Their keys.
            values: Their values; not used.
            attentions: Attention weights; not used.
            kwargs: The arguments of the attention module, with the ``hidden_states`` of the full pass.

        Returns:
            The scores.

        Raises:
            ValueError: It is not known which tokens the keys are of.
        """
        if self._detach is None:
            raise ValueError("VQMemPress does not know the model; call its post_init_from_model(model) first")
        if self._importance is None:
            self._importance = self._score_tokens(*new_tokens(self._arguments, 0))
        start = _offset(hidden_states, kwargs.get("hidden_states", hidden_states))
        importance = self._importance[:, start : start + keys.shape[2]].to(keys.device)
        if start < 0 or not importance.shape[1] == hidden_states.shape[1] == keys.shape[2]:
            raise ValueError(
                f"VQMemPress knows the {self._importance.shape[1]} tokens of this pass, not which of them the "
                f"{keys.shape[2]} keys are; use it on full prompts and before other presses, not within DecodingPress "
                "or BlockPress"
            )
        return importance[:, None].repeat(1, keys.shape[1], 1)  # wrappers write into it

    def _score_tokens(
        self, tokens: Int[Tensor, "batch tokens"], valid: Bool[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch tokens"]:
        """The importance of tokens: priorities from 0 on, guarded tokens above all others, -1 for padding."""
        state = None if self._scorer is None else self._scorer.initial_state(len(tokens))
        scores, _ = score(self._scorer, tokens, valid, state)
        positions = (valid.cumsum(1) - 1).clamp(min=0)
        memory = self._memory
        payload = (tokens,)
        slots = memory.append(
            memory.empty(payload, signals_of(self._scorer)), payload, tokens, positions, scores, valid
        ).slots
        now = valid.sum(1)
        importance = memory.policy.priority(slots, now)
        importance = importance - importance.masked_fill(~valid, torch.inf).amin(1, keepdim=True)
        importance = importance.masked_fill(~valid, -1)
        return importance + (self._guard.protects(slots, now) & valid) * (importance.amax(1, keepdim=True) + 1)


def _offset(part: Float[Tensor, "batch tokens hidden"], full: Float[Tensor, "batch all hidden"]) -> int:
    """The token of ``full`` at which its view ``part`` begins; -1 if it is no view of it."""
    if part.untyped_storage().data_ptr() != full.untyped_storage().data_ptr():
        return -1
    return int(part.storage_offset() - full.storage_offset()) // full.stride(1)
