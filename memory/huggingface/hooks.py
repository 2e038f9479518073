"""Hooks by which a cache for `transformers` takes part in the calls of a model, and what a call tells of its tokens.

`transformers` does not tell a cache the token ids and the padding of a pass. So hooks put a pass in the cache's place
among the arguments of the call: what is being read belongs to that call alone, in any thread and within any other pass.
Hooks only forward, and nothing of the model is switched.
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
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers.cache_utils import Cache

from ..scorer import SIGNALS, ScorerModel, reset_rows

_PREPARE = "prepare_inputs_for_generation"
_LOCK = threading.RLock()  # a cache may be collected, and its hooks go, while another is being attached


class _Hook:
    """A function of a cache and of what torch gives a hook; knows the cache weakly."""

    def __init__(self, cache: Any, function: Callable[..., Any]) -> None:
        self.cache, self.function = weakref.ref(cache), function

    def __call__(self, *args: Any) -> Any:
        cache = self.cache()
        return None if cache is None else self.function(cache, *args)

    __call__._torchdynamo_disable = True  # pyright: ignore[reportFunctionMemberAccess] - a compiled model is traced alone

    def __reduce__(self) -> tuple[Any, ...]:
        """In copies of the model, pickled ones too, a function that does nothing and needs nothing of ours."""
        return getattr, (contextlib.nullcontext(), "__exit__")


def attach(model: Any, cache: Any, layers: Sequence[nn.Module] = ()) -> Callable[[], Any]:
    """Let ``cache`` take part in the calls of ``model`` that it is passed to; returns what ends that.

    Before a call ``cache.begin(arguments)`` gives the pass, a `Cache` that stands in the place of ``cache`` in this
    call; its ``cache`` is ``cache``, and its ``module`` is set here. After each of ``layers`` (attention modules) comes
    its ``judge`` and after the call its ``finish``, or ``fail`` where the call did not reach its end. The hooks know
    the cache weakly and go when it does; calls without it are left alone.

    Wrappers, such as those of peft, call the ``forward`` of the model, or a module within: of those the outermost that
    is called begins the pass.
    """
    entries = {id(module): module for module in (model, model.base_model, model.get_decoder())}.values()
    with _LOCK:
        handles = [
            *(module.register_forward_pre_hook(_Hook(cache, _before), with_kwargs=True) for module in entries),
            *(
                module.register_forward_hook(_Hook(cache, _after), with_kwargs=True, always_call=True)
                for module in entries
            ),
            *(layer.register_forward_hook(_Hook(cache, _beside), with_kwargs=True) for layer in layers),
        ]
        if not isinstance(vars(model).get(_PREPARE), _GenerationCheck):
            setattr(model, _PREPARE, _GenerationCheck(getattr(model, _PREPARE)))
    return weakref.finalize(cache, _detach, weakref.ref(model), handles)


def _detach(model: Callable[[], Any], handles: Sequence[Any]) -> None:
    with _LOCK:
        for handle in handles:
            handle.remove()
        kept = model()
        if kept is None or any(isinstance(hook, _Hook) for hook in kept._forward_pre_hooks.values()):
            return
        if isinstance(vars(kept).get(_PREPARE), _GenerationCheck):
            delattr(kept, _PREPARE)


def _before(cache: Any, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not any(value is cache for value in (*args, *kwargs.values())):
        return None
    named = dict(zip(_names(type(module)), args, strict=False)) | kwargs
    place = next(name for name, value in named.items() if value is cache)
    named[place] = cache.begin(named)
    named[place].module = module
    return (), named


def _after(cache: Any, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    run = _pass(cache, kwargs)
    if run is None or run.module is not module:
        return None
    if output is None:
        return run.fail()
    run.finish()
    if isinstance(output, tuple):
        return tuple(cache if value is run else value for value in output)
    for name in [name for name, value in output.items() if value is run]:
        output[name] = cache
    return output


def _beside(cache: Any, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    run = _pass(cache, kwargs)
    if run is not None:
        run.judge(layer, kwargs, output[1])


def _pass(cache: Any, kwargs: dict[str, Any]) -> Any:
    """The pass through ``cache`` among the arguments of a call."""
    return next((x for x in kwargs.values() if isinstance(x, Cache) and getattr(x, "cache", None) is cache), None)


@functools.cache
def _names(kind: type[nn.Module]) -> list[str]:
    """The names of the arguments by place."""
    return list(inspect.signature(kind.forward).parameters)[1:]


class _GenerationCheck:
    """What ``generate`` asks of a model before every pass, with a look at what becomes of a cache there."""

    def __init__(self, prepare: Callable[..., dict[str, Any]]) -> None:
        functools.update_wrapper(self, prepare)  # `generate` reads the signature
        self.prepare = prepare

    def __call__(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> dict[str, Any]:
        cache = next((x for x in (*args, *kwargs.values()) if hasattr(type(x), "check_generation")), None)
        if cache is not None:
            cache.check_generation(input_ids, kwargs)
        inputs = self.prepare(input_ids, *args, **kwargs)
        if cache is not None and not any(value is cache for value in inputs.values()):
            raise ValueError(
                f"generate leaves the cache out of a pass over {input_ids.shape[1]} tokens, so that nothing would be "
                "bounded (models with two sets of rotary factors do so where the text passes "
                "original_max_position_embeddings); keep prompt and answer below that, or call the model yourself"
            )
        return inputs

    def __reduce__(self) -> Any:
        """In copies of the model, pickled ones too, its method."""
        return self.prepare.__reduce__()


def new_tokens(named: dict[str, Any], seen: int) -> tuple[Tensor, Bool[Tensor, "batch new"]]:
    """Token ids of a pass (-1 where it was given embeddings) and which of them are no padding.

    Raises `ValueError` where there are none, and for a mask that does not say which: not 2-D, or of a wrong length.
    """
    ids, embeds, mask = (named.get(name) for name in ("input_ids", "inputs_embeds", "attention_mask"))
    if ids is None:
        if embeds is None:
            raise ValueError("the model was called without input_ids; the cache needs them, by name or first in place")
        ids = torch.full(embeds.shape[:2], -1, device=embeds.device)
    batch, time = ids.shape
    if not time:
        raise ValueError(f"the model was given no tokens beyond the {seen} that the cache has read")
    if mask is None:
        return ids, torch.ones_like(ids, dtype=torch.bool)
    if mask.ndim != 2 or mask.shape[0] != batch or mask.shape[1] not in (time, seen + time):
        raise ValueError(
            f"attention_mask has the shape {list(mask.shape)}; give the cache a 2-D one of {batch} rows over all "
            f"{seen + time} tokens so far, or none where nothing is padding"
        )
    return ids, mask[:, -time:].to(ids.device).bool()


def score(
    scorer: ScorerModel | None, tokens: Int[Tensor, "batch new"], valid: Bool[Tensor, "batch new"], state: Any
) -> tuple[Float[Tensor, "batch new signal"], Any]:
    """Scores of new tokens, zeros without a scorer. Padding gets zeros, and a row's scorer does not read it.

    So do ids past the scorer's ``vocab_size``: a model whose embedding is padded may generate what its tokenizer, by
    which the scorer was trained, does not have.

    Raises `ValueError` where a scorer has no token ids to read.
    """
    if scorer is None:
        return torch.zeros(*tokens.shape, len(SIGNALS), device=tokens.device), None
    if bool((tokens[valid] < 0).any()):
        raise ValueError("scores need token ids, but the model was given inputs_embeds; give input_ids")
    vocabulary = getattr(scorer, "vocab_size", None)
    if vocabulary is not None:
        valid = valid & (tokens < vocabulary)
    changes = (valid[:, 1:] != valid[:, :-1]).any(0).nonzero()[:, 0] + 1
    parts = []
    tokens = tokens.where(valid, 0)
    for ids, real in zip(*(x.tensor_split(changes.cpu(), dim=1) for x in (tokens, valid)), strict=True):
        rows = real[:, 0]
        scores, after = scorer.score(ids, state)
        parts.append(scores * rows[:, None, None])
        state = reset_rows(state, after, rows)
    return torch.cat(parts, dim=1), state
