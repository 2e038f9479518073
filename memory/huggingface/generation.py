"""What ``generate`` of a model does for a bounded cache besides calling the model: checks, and limits for drafts."""

from __future__ import annotations

import functools
import itertools
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, cast

from torch import Tensor

from .arguments import describe
from .eviction import observes_pass


class _Wrapper:
    """A method of the model that does more where it is called for a bounded cache."""

    def __init__(self, method: Callable[..., Any]) -> None:
        functools.update_wrapper(cast(Any, self), method)  # `generate` reads the signature
        self.method = method

    def __reduce__(self) -> Any:
        """Become the plain method in copies and pickles of the model."""
        return self.method.__reduce__()


def _bounded_cache(values: Iterable[Any]) -> Any:
    return next((x for x in values if hasattr(type(x), "slot_count")), None)


class _DraftLimit(_Wrapper):
    """Makes what drafts tokens for ``generate``: drafts end where the cache has to evict.

    Eviction looks at the tokens so far; those of a draft may be rejected.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        generator = self.method(*args, **kwargs)
        given = (x.values() if isinstance(x, dict) else [x] for x in (*args, *kwargs.values()))
        cache = _bounded_cache(itertools.chain.from_iterable(given))
        if cache is not None:
            check_drafts(cache)
            cache.drafting = False
            # Method and generator refer to each other; a weak reference lets the cache be freed at once.
            generator.get_candidates = _ShortDrafts(weakref.ref(cache), generator.get_candidates)
        return generator


class _ShortDrafts:
    """Drafts that are cut where the cache has to evict. The first pass, over the prompt, has none."""

    def __init__(self, cache: Callable[[], Any], draft: Callable[..., Any]) -> None:
        self.cache, self.draft, self.is_first = cache, draft, True

    def __call__(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The ids of the text and of a draft, and the logits of the draft."""
        ids, logits = self.draft(input_ids, *args, **kwargs)
        cache, length = self.cache(), input_ids.shape[1]
        cache.drafting = not self.is_first
        most = 0 if self.is_first else draft_limit(cache, length)
        self.is_first = False
        # Without a draft there are no logits either: transformers would slice all of them.
        return ids[:, : length + most], None if logits is None or not most else logits[:, :most]


class _GenerationCheck(_Wrapper):
    """The model's ``prepare_inputs_for_generation``, with checks of the cache before and after it."""

    def __call__(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> dict[str, Any]:
        cache = _bounded_cache((*args, *kwargs.values()))
        if cache is not None:
            check_generation(cache, input_ids, kwargs)
            seen = cache.get_seq_length()
            if seen and kwargs.get("inputs_embeds") is None and kwargs.get("next_sequence_length", 0) is None:
                # The first pass with drafts would read again what the cache has read.
                kwargs["next_sequence_length"] = input_ids.shape[1] - seen
        inputs = self.method(input_ids, *args, **kwargs)
        if cache is not None and not any(value is cache for value in inputs.values()):
            raise ValueError(
                f"generate leaves the cache out of a pass over {input_ids.shape[1]} tokens, which would then be "
                "unbounded (models with two sets of rotary factors do so where the text passes "
                "original_max_position_embeddings); keep prompt and answer below that, or call the model yourself"
            )
        return inputs


WRAPPERS = {"prepare_inputs_for_generation": _GenerationCheck, "_get_candidate_generator": _DraftLimit}
"""The methods of a model that are wrapped while it has a bounded cache."""


def check_drafts(cache: Any) -> None:
    """Raise `ValueError` if the cache cannot forget the rejected tokens of drafts (prompt lookup, an assistant)."""
    if observes_pass(cache):
        raise ValueError(
            f"policy {describe(cache.memory.policy)} looks at each pass and cannot take back rejected drafts; use "
            "auto, scored or fifo, or generate without drafts"
        )
    if cache.block == 1:
        raise ValueError("block=1 leaves no room for drafts once the cache is full; give block=32")


def draft_limit(cache: Any, length: int) -> int:
    """How many tokens may be drafted behind a text of ``length`` tokens: as many as fit without an eviction."""
    count, new = cache.slot_count, length - cache.get_seq_length()
    if count > cache.memory.capacity and count + new >= cache.room:
        count = cache.memory.capacity
    return max(0, cache.room - 1 - count - new)


def check_generation(cache: Any, input_ids: Tensor, arguments: dict[str, Any]) -> None:
    """Check a pass that ``generate`` prepares. Raises `ValueError` unless the text continues what was read."""
    cache.check_batch_size(input_ids)
    mask, embeds, new = (arguments.get(x) for x in ("attention_mask", "inputs_embeds", "next_sequence_length"))
    length = (input_ids if embeds is None else embeds).shape[1]
    seen = cache.get_seq_length()
    if arguments.get("is_first_iteration") or not seen:
        cache.thread, cache.drafting = threading.get_ident(), False
    elif cache.thread != threading.get_ident():
        cache.failed = True  # the tokens of two texts are mixed
        raise ValueError("two threads generate with one cache at once; give each another cache")
    full = new == length - seen or (mask is not None and mask.shape[1] == length)
    if full and length <= seen:
        raise ValueError(
            f"generate has {length} tokens in all, but the cache has read {seen} already: it was used for another "
            "text; call reset() or make a new one"
        )
    if arguments.get("use_cache") is False:
        raise ValueError("use_cache=False reads all tokens again in every pass; leave out use_cache or the cache")
