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
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers.cache_utils import Cache

from ..scorer import ScorerModel, replace_rows

_PREPARE = "prepare_inputs_for_generation"
_LOCK = threading.RLock()  # a cache may be collected and lose its hooks while another is being attached


class _Hook:
    """A hook that calls ``function`` with the cache and its arguments, and has a weak reference to the cache."""

    def __init__(self, cache: Any, function: Callable[..., Any]) -> None:
        self.cache = weakref.ref(cache)
        self.function = function

    def __call__(self, *args: Any) -> Any:
        cache = self.cache()
        return None if cache is None else self.function(cache, *args)

    __call__._torchdynamo_disable = True  # pyright: ignore[reportFunctionMemberAccess] - the compiler traces the model alone

    def __reduce__(self) -> tuple[Any, ...]:
        """Become a function that does nothing, from the standard library, in copies and pickles of the model."""
        return getattr, (contextlib.nullcontext(), "__exit__")


def attach(model: Any, cache: Any, layers: Sequence[nn.Module] = ()) -> Callable[[], Any]:
    """Connect ``cache`` to the forward passes of ``model``; returns a function that disconnects it.

    Before a pass ``cache.begin(arguments)`` returns the forward pass, a `Cache` that replaces ``cache`` in this call;
    its ``cache`` is ``cache``, and its ``module`` is set here. Hooks call its ``score_layer`` after each of ``layers``
    (attention modules) and its ``finish`` after the call, or ``fail`` where the call raised an error. The hooks have a
    weak reference to the cache and go with it; calls without the cache do not change.

    Wrappers, such as those of peft, call the ``forward`` of the model or of a module within. The outermost of these
    modules that is called begins the pass.
    """
    entries = {id(module): module for module in (model, model.base_model, model.get_decoder())}.values()
    with _LOCK:
        handles = [
            *(module.register_forward_pre_hook(_Hook(cache, _before), with_kwargs=True) for module in entries),
            *(
                module.register_forward_hook(_Hook(cache, _after), with_kwargs=True, always_call=True)
                for module in entries
            ),
            *(layer.register_forward_hook(_Hook(cache, _after_layer), with_kwargs=True) for layer in layers),
        ]
        if not isinstance(vars(model).get(_PREPARE), _GenerationCheck):
            setattr(model, _PREPARE, _GenerationCheck(getattr(model, _PREPARE)))
    return weakref.finalize(cache, _detach, weakref.ref(model), handles)


def _detach(model: Callable[[], Any], handles: Sequence[Any]) -> None:
    with _LOCK:
        for handle in handles:
            handle.remove()
        alive = model()
        if alive is None or any(isinstance(hook, _Hook) for hook in alive._forward_pre_hooks.values()):
            return
        if isinstance(vars(alive).get(_PREPARE), _GenerationCheck):
            delattr(alive, _PREPARE)


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


def _after_layer(cache: Any, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    forward = _forward_pass(cache, kwargs)
    if forward is not None:
        inputs = dict(zip(("hidden_states",), args, strict=False)) | kwargs  # GPT-2 gives them by position
        forward.score_layer(layer, inputs, output[1])


def _forward_pass(cache: Any, kwargs: dict[str, Any]) -> Any:
    """The forward pass through ``cache`` among the arguments of a call; None if there is none."""
    return next((x for x in kwargs.values() if isinstance(x, Cache) and getattr(x, "cache", None) is cache), None)


@functools.cache
def _parameters(kind: type[nn.Module]) -> list[str]:
    """The names of the parameters of ``forward``, in order."""
    return list(inspect.signature(kind.forward).parameters)[1:]


class _GenerationCheck:
    """The model's ``prepare_inputs_for_generation``, with checks of the cache before and after it."""

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
                f"generate leaves the cache out of a pass over {input_ids.shape[1]} tokens, which would then be "
                "unbounded (models with two sets of rotary factors do so where the text passes "
                "original_max_position_embeddings); keep prompt and answer below that, or call the model yourself"
            )
        return inputs

    def __reduce__(self) -> Any:
        """Become the plain method in copies and pickles of the model."""
        return self.prepare.__reduce__()


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


def score(
    scorer: ScorerModel | None, tokens: Int[Tensor, "batch new"], valid: Bool[Tensor, "batch new"], state: Any
) -> tuple[Float[Tensor, "batch new signal"], Any]:
    """Score new tokens. Padding gets zeros and does not change the scorer's state.

    Ids of the scorer's ``vocab_size`` and above count as padding: a model with a padded embedding may generate ids that
    the tokenizer, with which the scorer was trained, does not have.

    Args:
        scorer: The scorer; None gives no signals.
        tokens: Token ids, -1 where the pass has embeddings.
        valid: False for padding.
        state: The state of the scorer before these tokens.

    Returns:
        The scorer's signals in nats, and the scorer's state after the tokens.

    Raises:
        ValueError: There is a scorer, but there are no token ids.
    """
    if scorer is None:
        return torch.zeros(*tokens.shape, 0, device=tokens.device), None
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
        state = replace_rows(state, after, rows)
    return torch.cat(parts, dim=1), state
