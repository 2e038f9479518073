"""kvpress's presses on the same streams and texts: each layer and head keeps different slots.

The guards are those of the other policies, and a press decides when there are more slots than fit. `PRESSES` is empty
where kvpress, which needs `transformers` below 5.3, is not installed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import Cache, DynamicCache

from ...memory.huggingface.hooks import attach
from ...memory.huggingface.presets import DOCUMENT
from .settings import Setting

PREFIX = "kvpress "
"""Names of presses in tables begin with it."""
KVZIP = f"{PREFIX}KVzip"
"""A ceiling: it reads the text twice."""
GUARDED = ", our guards"
"""Names of presses end with it where they have the guards of the presets in place of their own."""
EAGER = "ObservedAttention"
"""The press that needs attention weights, which `sdpa` does not return."""
WINDOW = 32
"""Newest queries that some presses look at; a pass must be longer."""
MADE: Mapping[str, Mapping[str, Any]] = {
    "StreamingLLM": {},
    "Random": {},
    "Knorm": {},
    "TOVA": {},
    "SnapKV": {"window_size": WINDOW},
    "ExpectedAttention": {},
    "KeyDiff": {},
    "LagKV": {"lag_size": WINDOW},
    EAGER: {},
    "CUR": {},
    "Cap": {},
    "LeverageScore": {},
    "NonCausalAttn": {},
    "Compactor": {},
}
"""Arguments of each press in a stream. These are kvpress's defaults, except for a window shorter than a chunk, and a
lag that fits several times into the slots and a chunk: with its default, the first press refuses and the second keeps
the newest slots."""
WRAPPERS: Mapping[str, str] = {
    "ChunkKV": "SnapKV",
    "CriticalKV": "ExpectedAttention",
    "AdaKV": "ExpectedAttention",
    "CriticalAdaKV": "ExpectedAttention",
}
"""Presses that decide by the scores of another one, and that one: as in their papers or in kvpress's leaderboard."""
WITHOUT_SCORES = ("ChunkKV", "AdaKV", "CriticalAdaKV")
"""Those that give no scores of slots: they only run with their own guards."""
ONE_PASS = ("LeverageScore", "NonCausalAttn", "Compactor", *WRAPPERS)
"""Those that are only given a prompt in one pass."""
REFUSED = {
    "QFilter": "wants filters trained for this model",
    "KVzap": "wants a network trained for this model",
    "ExpectedAttentionStats": "wants statistics gathered for this model",
    "PyramidKV": "gives layers different numbers of slots",
}
"""The scorer presses that are not measured, and why."""
OTHERS = (
    "Of its other presses, KVgrad and KVCompose read the text again as KVzip does; DuoAttention, FastKVzip, LUKV and "
    "RestoreKV want weights trained for this model; Finch needs the question; DMS and SimLayerKV take no share to "
    "keep; ThinK removes channels; the rest change how another press is called."
)
"""Why the presses that are no scorers are not measured."""
PRESSES = tuple(f"{PREFIX}{name}" for name in (*MADE, *WRAPPERS)) if importlib.util.find_spec("kvpress") else ()
"""The presses that are installed here."""
STREAMING = tuple(name for name in PRESSES if name.removeprefix(PREFIX) not in ONE_PASS)
"""The presses that work when slots are missing."""


def arguments_of(name: str) -> Mapping[str, Any]:
    """The arguments of a press in a stream."""
    return MADE.get(name.removeprefix(PREFIX), {})


def make(name: str, streaming: bool = True) -> Any:
    """A press of `PRESSES`, with its defaults unless it is for a stream."""
    import kvpress

    name = name.removeprefix(PREFIX)
    kind = getattr(kvpress, f"{name}Press")
    if name in WRAPPERS:
        return kind(make(WRAPPERS[name], streaming))
    return kind(**(arguments_of(name) if streaming else {}))


def default_recent(capacity: int, sinks: int) -> int:
    """How many of the newest tokens are guarded by default, as in `vqmem.VQMemCache`."""
    return max(0, capacity - sinks) // 2


def best(
    scores: Float[Tensor, "batch heads slots"], capacity: int, sinks: int, recent: int
) -> Int[Tensor, "batch heads capacity"]:
    """Choose the slots that stay.

    Args:
        scores: the scores of the slots.
        capacity: slots that stay.
        sinks: the first ones, which always stay.
        recent: the newest ones, which always stay.

    Returns:
        The indices of the first slots, the newest, and those of the highest scores, in order.
    """
    scores = scores.clone()
    scores[..., :sinks] = torch.inf
    scores[..., scores.shape[-1] - recent :] = torch.inf
    return scores.topk(capacity, dim=-1).indices.sort(dim=-1).values


def take(x: Float[Tensor, "batch heads slots width"], kept: Int[Tensor, "batch heads kept"]) -> Tensor:
    """The slots that each head keeps."""
    return x.take_along_dim(kept[..., None], dim=2)


class Ahead(nn.Module):
    """A rotary embedding for presses that rotate queries to later positions.

    Presses assume that the pass began with the first token; ``offset`` tokens came before.
    """

    def __init__(self, rotary: nn.Module) -> None:
        super().__init__()
        self.rotary, self.offset = rotary, 0

    def forward(self, x: Tensor, position_ids: Tensor) -> Any:
        """Cosines and sines."""
        return self.rotary(x, position_ids + self.offset)


class CallThrough(Cache):
    """One call of a model through ``cache``, which takes part in it itself."""

    watches_layers = True

    def __init__(self, cache: Any) -> None:
        super().__init__(layers=cache.layers)
        self.cache = cache
        self.update, self.after_layer, self.finish, self.fail = (
            cache.update,
            cache.after_layer,
            cache.finish,
            cache.fail,
        )


class PressCache(DynamicCache):
    """A cache that keeps at most ``capacity`` slots per layer and head, by the scores of a press.

    The cache belongs to one model and puts hooks on it, which only act in passes that use this cache and disappear with
    it. A new token is positioned after all tokens read, evicted ones included. Inputs must not be padded.

    Args:
        model: the pretrained language model.
        press: a press of kvpress that has the method ``score``, or any where it has its own guards.
        capacity: slots per layer and head.
        sinks: the number of first tokens that are always kept.
        block: tokens are evicted once there are so many more than ``capacity``.
        recent: the number of newest tokens that are always kept; half of what the sinks leave by default.
        guards: ``ours`` are these sinks and newest tokens, ``own`` are those of the press.
        scores: the scores of the slots of each layer, which are added to where they are not known yet; for caches that
            read the same text with the same press and capacity.
    """

    def __init__(
        self,
        model: Any,
        press: Any,
        capacity: int,
        sinks: int,
        block: int = 1,
        recent: int | None = None,
        guards: Literal["ours", "own"] = "ours",
        scores: dict[int, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.press, self.capacity, self.sinks, self.block, self.read = press, capacity, sinks, block, 0
        self.recent = default_recent(capacity, sinks) if recent is None else recent
        self.guards, self.scores = guards, scores
        if guards == "own":
            self.sinks = self.recent = 0  # the press gives its guards the highest scores
        self.config = model.config if type(press).__name__.startswith(EAGER) else None
        self.before = model.config._attn_implementation
        self._detach = attach(model, self, prepare(model, [press]))

    def begin(self, named: dict[str, Any]) -> CallThrough:
        """Called before a pass of the model."""
        ids = named["input_ids"]
        self.start, self.read = self.read, self.read + ids.shape[1]
        if named.get("position_ids") is None:
            named["position_ids"] = torch.arange(self.start, self.read, device=ids.device).expand_as(ids)
        if self.config is not None:
            self.config._attn_implementation = "eager"
        return CallThrough(self)

    def after_layer(self, layer: Any, inputs: dict[str, Any], attention: Tensor | None) -> None:
        """Called after each attention module: evict there."""
        cached: Any = self.layers[layer.layer_idx]
        if cached.keys.shape[2] < self.capacity + self.block:
            return
        if self.guards == "own" and not evicts_by_scores(self.press):
            direct(self.press, layer, cached, self.capacity, self.start)
            arguments = layer, inputs["hidden_states"], cached.keys, cached.values, attention, inputs
            cached.keys, cached.values = self.press.compress(*arguments)
            return
        scores = None if self.scores is None else self.scores.get(layer.layer_idx)
        if scores is None:
            scores = score(self.press, layer, inputs, cached, attention, self.capacity, self.start)
            if self.scores is not None:
                self.scores[layer.layer_idx] = scores
        kept = best(scores, self.capacity, self.sinks, self.recent)
        cached.keys, cached.values = take(cached.keys, kept), take(cached.values, kept)

    def finish(self) -> None:
        """Called after a pass."""
        if self.config is not None:
            self.config._attn_implementation = self.before

    def fail(self) -> None:
        """Called where a pass did not end."""
        self.finish()


def prepare(model: Any, presses: Iterable[Any]) -> list[Any]:
    """Prepare the attention modules for presses as kvpress does, but with the true positions; return them."""
    for press in presses:
        press.post_init_from_model(model)
    decoder = model.get_decoder()
    for layer in decoder.layers:
        layer.self_attn.rotary_emb = Ahead(decoder.rotary_emb)
    return [layer.self_attn for layer in decoder.layers]


def evicts_by_scores(press: Any) -> bool:
    """Whether a press keeps the slots of the highest scores, and does nothing else."""
    from kvpress import ScorerPress

    return type(press).compress is ScorerPress.compress


def direct(press: Any, layer: Any, cached: Any, capacity: int, start: int) -> None:
    """Tell a press how many slots of a layer stay, and where the pass began.

    Args:
        press: the press; its ``compression_ratio`` is set.
        layer: the attention module, prepared by `prepare`.
        cached: the layer's keys and values, ``[batch, heads, slots, width]`` each.
        capacity: slots that will be kept.
        start: tokens that were read before this pass.
    """
    layer.rotary_emb.offset = start
    # The half is against rounding: kvpress rounds down what it keeps.
    press.compression_ratio = 1 - (capacity + 0.5) / cached.keys.shape[2]


def score(
    press: Any, layer: Any, inputs: dict[str, Any], cached: Any, attention: Tensor | None, capacity: int, start: int
) -> Float[Tensor, "batch heads slots"]:
    """Score the slots of a layer with a press.

    Args:
        press: the press; its ``compression_ratio`` is set to what ``capacity`` asks for.
        layer: the attention module, prepared by `prepare`.
        inputs: the arguments of the attention module in this pass.
        cached: the layer's keys and values, ``[batch, heads, slots, width]`` each.
        attention: the attention weights of this pass; None if the model did not return them.
        capacity: slots that will be kept.
        start: tokens that were read before this pass.

    Returns:
        The press's score of each slot for each head of keys, in float32; the slots of the highest stay.
    """
    direct(press, layer, cached, capacity, start)
    return press.score(layer, inputs["hidden_states"], cached.keys, cached.values, attention, inputs).float()


def seeded(call: Callable[[], Any], seed: int = 0) -> Any:
    """Call with a fixed seed of torch's generator, for presses that draw, and restore its state."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return call()


def prompt_settings(names: Iterable[str]) -> list[Setting]:
    """Presses as they answer quizzes: with their own guards, and those that score slots also with the presets'."""
    found = []
    for name in names:
        row = f"{PREFIX}{name}"
        found.append(Setting(row, press=row, options={} if row == KVZIP else {"guards": "own"}))
        if name in MADE or (name in WRAPPERS and name not in WITHOUT_SCORES):
            found.append(Setting(f"{row}{GUARDED}", press=row, options={"recent": DOCUMENT.recent}))
    return found


def notes() -> list[str]:
    """What readers of these rows have to know."""
    if not PRESSES:
        return ["kvpress, which needs transformers below 5.3, is not installed: its presses are left out."]
    missing = "; ".join(f"{name} {why}" for name, why in REFUSED.items())
    return [
        "Rows of kvpress let every layer and head keep its slots; policies here do so where `share` is `head`. In "
        f"needles presses have their own guards, and in rows with `{GUARDED[2:]}` the sinks and the newest "
        f"{DOCUMENT.recent} tokens that presets guard; in streams they have the sinks and the newest half. "
        "Presses have their defaults, but SnapKV's window of 32 (longer ones than a chunk are refused) and LagKV's lag "
        "of 32 (with 128 it keeps the newest where slots are few). Those that look ahead (ExpectedAttention, Cap) are "
        f"given the true positions. {EAGER} reads with eager attention, and divides it by how many tokens of a full "
        f"prompt would have paid it. Its other scorer presses: {missing}. {OTHERS}"
    ]
