"""Hooks that connect a cache for `transformers` to the forward passes of a model, and the tokens of such a pass.

`transformers` does not give a cache the token ids and the padding of a pass. Therefore a hook replaces the cache by a
`ForwardPass` among the arguments of the call. The state of a pass belongs to that call alone, in any thread and within
any other pass. Hooks pass calls on and change no setting of the model.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from transformers.cache_utils import Cache

from .generation import WRAPPERS

_LOCK = threading.RLock()  # a cache may be collected and lose its hooks while another is being attached


class _CacheHook:
    """A hook that has a weak reference to its cache."""

    def __init__(self, cache: Any) -> None:
        self.cache = weakref.ref(cache)

    def __reduce__(self) -> tuple[Any, ...]:
        """Become a function that does nothing, from the standard library, in copies and pickles of the model."""
        return getattr, (contextlib.nullcontext(), "__exit__")


class _PassHook(_CacheHook):
    """A hook before or after a pass, which calls ``function`` with the cache and its arguments."""

    def __init__(self, cache: Any, function: Callable[..., Any]) -> None:
        super().__init__(cache)
        self.function = function

    @torch.compiler.disable  # it traces the model alone
    def __call__(self, *args: Any) -> Any:
        cache = self.cache()
        return None if cache is None else self.function(cache, *args)


class _LayerHook(_CacheHook):
    """A hook after a layer's attention. The compiler traces it, so that the layers stay in one graph.

    Compiled code outlives the cache that it was traced with, and does not notice new hooks. Therefore this hook serves
    any pass that watches layers, and such passes have a type of their own, for which the compiler traces again.
    """

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        forward = next((x for x in kwargs.values() if getattr(x, "watches_layers", False)), None)
        if forward is not None:
            # GPT-2 gives the hidden states by position.
            inputs = kwargs if "hidden_states" in kwargs else kwargs | {"hidden_states": args[0]}
            forward.after_layer(layer, inputs, output[1])


def attach(model: Any, cache: Any, layers: Sequence[nn.Module] = ()) -> Callable[[], Any]:
    """Connect ``cache`` to the forward passes of ``model``; returns a function that disconnects it.

    Before a pass ``cache.begin(arguments)`` returns the forward pass, a `Cache` that replaces ``cache`` in this call;
    its ``cache`` is ``cache``, and its ``module`` is set here. If it ``watches_layers``, hooks call its ``after_layer``
    after each of ``layers`` (attention modules), once or more. They call its ``finish`` after the call, or ``fail``
    where the call raised an error. The hooks have a weak reference to the cache and go with it; calls without the cache
    do not change.

    Wrappers, such as those of peft, call the ``forward`` of the model or of a module within. The outermost of these
    modules that is called begins the pass.
    """
    entries = {id(module): module for module in (model, model.base_model, model.get_decoder())}.values()
    with _LOCK:
        handles = [
            *(module.register_forward_pre_hook(_PassHook(cache, _before), with_kwargs=True) for module in entries),
            *(
                module.register_forward_hook(_PassHook(cache, _after), with_kwargs=True, always_call=True)
                for module in entries
            ),
            *(layer.register_forward_hook(_LayerHook(cache), with_kwargs=True) for layer in layers),
        ]
        for name, kind in WRAPPERS.items():
            if hasattr(model, name) and not isinstance(vars(model).get(name), kind):
                setattr(model, name, kind(getattr(model, name)))
    return weakref.finalize(cache, _detach, weakref.ref(model), handles)


def _detach(model: Callable[[], Any], handles: Sequence[Any]) -> None:
    with _LOCK:
        for handle in handles:
            handle.remove()
        alive = model()
        if alive is None or any(isinstance(hook, _CacheHook) for hook in alive._forward_pre_hooks.values()):
            return
        for name, kind in WRAPPERS.items():
            if isinstance(vars(alive).get(name), kind):
                delattr(alive, name)


def _before(cache: Any, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not any(value is cache for value in (*args, *kwargs.values())):
        return None
    arguments = dict(zip(_parameters(type(module)), args, strict=False)) | kwargs
    name = next(name for name, value in arguments.items() if value is cache)
    arguments[name] = cache.begin(arguments)
    arguments[name].module = module
    return (), arguments


def _after(cache: Any, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    forward = _forward_pass(cache, kwargs)
    if forward is None or forward.module is not module:
        return None
    if output is None:
        return forward.fail()
    forward.finish()
    if isinstance(output, tuple):
        return tuple(cache if value is forward else value for value in output)
    for name in [name for name, value in output.items() if value is forward]:
        output[name] = cache
    return output


def _forward_pass(cache: Any, kwargs: dict[str, Any]) -> Any:
    """The forward pass through ``cache`` among the arguments of a call; None if there is none."""
    return next((x for x in kwargs.values() if isinstance(x, Cache) and getattr(x, "cache", None) is cache), None)


@functools.cache
def _parameters(kind: type[nn.Module]) -> list[str]:
    """The names of the parameters of ``forward``, in order."""
    return list(inspect.signature(kind.forward).parameters)[1:]


def new_tokens(arguments: dict[str, Any], seen: int) -> tuple[Tensor, Bool[Tensor, "batch new"]]:
    """The new tokens of a forward pass, ``seen`` tokens after the start: their ids, and False where they are padding.

    Ids are -1 where the pass has embeddings instead. Raises `ValueError` where there are no tokens, and for a mask that
    is not 2-D or has a wrong shape.
    """
    ids, embeds, mask = (arguments.get(name) for name in ("input_ids", "inputs_embeds", "attention_mask"))
    if ids is None:
        if embeds is None:
            raise ValueError(
                "the model was called without input_ids; the cache needs them, by name or as the first argument"
            )
        ids = torch.full(embeds.shape[:2], -1, device=embeds.device)
    batch, time = ids.shape
    if not time:
        raise ValueError(f"the model was given no tokens beyond the {seen} that the cache has read")
    if mask is None:
        return ids, torch.ones_like(ids, dtype=torch.bool)
    if mask.ndim != 2 or mask.shape[0] != batch or mask.shape[1] not in (time, seen + time):
        raise ValueError(
            f"attention_mask has the shape {list(mask.shape)}; give the cache a 2-D one of batch size {batch} over all "
            f"{seen + time} tokens so far, or none where nothing is padding"
        )
    return ids, mask[:, -time:].to(ids.device).bool()
