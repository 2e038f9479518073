"""The cache against a dense pass: the same model over all tokens at once, with a mask of what each query saw."""

import contextlib
from dataclasses import replace

import pytest
import torch
import transformers
from vqmem import registry
from vqmem.memory import naive
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import CACHE
from vqmem.models.scorers.random import Noise

VOCAB, ROWS, LENGTH, PROMPT, CAPACITY = 50, 8, 40, 26, 12
SHAPE = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "pad_token_id": 0}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SHAPE, num_attention_heads=4),
    "qwen2": lambda: transformers.Qwen2Config(**SHAPE, num_attention_heads=4, num_key_value_heads=2),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SHAPE, num_attention_heads=4),
}
POLICIES = [name for name in registry.names("policies") if "decay" not in registry.build("policies", name).requires]
TEXT = [token % 7 + 1 for token in range(60)]
"""The text of the policy that looks ahead."""
CHUNKS = {
    "prefill": [PROMPT, 2] + [1] * (LENGTH - PROMPT - 2),
    "chunks": [7] * 5 + [5],
    "decode": [1] * LENGTH,
}


def make_model(name: str, seed: int = 0, attention: str = "sdpa"):
    """A tiny random model whose attention is sharp enough to distinguish tokens."""
    torch.manual_seed(seed)
    config = CONFIGS[name]()
    config._attn_implementation = attention
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(6)
    return model


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    return make_model(request.param)


def ragged(seed: int = 1, rows: int = ROWS, length: int = LENGTH) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and their mask; row i begins with 3 i columns of padding, the last row of 8 with 21."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCAB, (rows, length), generator=generator)
    mask = (torch.arange(length) >= 3 * torch.arange(rows)[:, None]).long()
    return ids * mask, mask


def make_cache(model, policy, **kwargs) -> VQMemCache:
    policy = {"name": "oracle", "text": TEXT} if policy == "oracle" else policy
    return VQMemCache(
        model, **{"capacity": CAPACITY, "policy": policy, "scorer": Noise(3), "sinks": 2, "recent": 3} | kwargs
    )


@torch.no_grad()
def read(model, cache, ids, mask, chunks):
    """Logits of reading piece by piece, and ``[row, query, key]``: which columns each query could see."""
    first = mask.long().argmax(1)
    logits, visible, start = [], torch.zeros(*ids.shape, ids.shape[1], dtype=torch.bool), 0
    for size in chunks:
        end = start + size
        for row, cached in enumerate(cache.positions):
            visible[row, start:end, torch.tensor(cached, dtype=torch.long) + first[row]] = True
        visible[:, start:end, start:end] |= (
            torch.ones(size, size, dtype=torch.bool).tril() & mask[:, None, start:end].bool()
        )
        logits.append(model(ids[:, start:end], attention_mask=mask[:, :end], **{CACHE: cache}).logits)
        start = end
    return torch.cat(logits, dim=1), visible


def dense(model, ids, mask, visible, **kwargs):
    """One pass over everything; padding sees itself, so that no softmax is empty."""
    allowed = visible | torch.eye(ids.shape[1], dtype=torch.bool)
    bias = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)[:, None]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        return model(ids, attention_mask=bias, position_ids=positions, use_cache=False, **kwargs)


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("policy", POLICIES)
def test_logits_equal_a_dense_pass_under_the_same_mask(model, policy, chunks):
    ids, mask = ragged()
    cache = make_cache(model, policy)
    logits, visible = read(model, cache, ids, mask, CHUNKS[chunks])
    real = mask.bool()
    assert max(map(len, cache.positions)) == CAPACITY
    assert not visible[:, -1].all()  # something was forgotten
    torch.testing.assert_close(logits[real], dense(model, ids, mask, visible).logits[real], atol=1e-5, rtol=0)


def lists(cache, ids, scores, weights, norms, mask, chunks) -> list[list[int]]:
    """The positions that are cached for one row after each chunk, by the oracle in lists and from a dense pass."""
    policy, guard = cache.memory.policy, cache.memory.guard
    name = type(policy).__module__.split(".")[-1]
    unobserved = naive.summed if "usage" in policy.requires else (lambda policy, usage, queries: usage)
    observe = naive.OBSERVATIONS.get(name, unobserved)
    slots, columns, history, seen, start = [], [], [], {name: [] for name in Noise.signals}, 0
    for size in chunks:
        for column in range(start, start + size):
            real, position = bool(mask[column]), int(mask[:column].sum())
            values = scores[position].tolist() if real else (0.0, 0.0, 0.0)
            signals = dict(zip(seen, values, strict=True))
            if real:
                for name_of_signal, signal in signals.items():
                    seen[name_of_signal].append(signal)
            standard = {key: standardised(seen[key], signal) for key, signal in signals.items()}
            slots.append(naive.Slot(int(ids[column]), position, signals, standard, valid=real))
            columns.append(column)
        queries = [
            naive.Query(int(mask[:q].sum()), weights[q, columns].tolist(), float(norms[q]), bool(mask[q]))
            for q in range(start, start + size)
        ]
        usage = observe(policy, [slot.usage for slot in slots], queries)
        slots = [replace(slot, usage=u) for slot, u in zip(slots, usage, strict=True)]
        now, start = int(mask[: start + size].sum()), start + size
        kept = naive.select(slots, policy, naive.PRIORITIES[name], CAPACITY, now, guard.sinks, guard.recent)
        slots, columns = [slots[i] for i in kept], [columns[i] for i in kept]
        history.append([slot.position for slot in slots if slot.valid])
    return history


def standardised(seen: list[float], score: float) -> float:
    """By the mean and the variance so far, the latter as if 16 tokens with variance 1 had come before."""
    average = sum(seen) / max(1, len(seen))
    spread = sum((x - average) ** 2 for x in seen)
    return (score - average) / ((spread + 16) / (len(seen) + 16)) ** 0.5


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("policy", [name for name in POLICIES if name in naive.PRIORITIES and name != "random"])
def test_kept_tokens_agree_with_lists_and_dense_attention(policy, chunks):
    """The attention and keys are those of a full pass in eager mode, without the cache."""
    fields = {"lru": {"top": 3}, "lfu": {"top": 3}, "snapkv": {"window": 5, "kernel": 3}, "oracle": {"text": TEXT}}
    fields["scored"] = {"usage": 0.5}
    model, eager = make_model("qwen2"), make_model("qwen2", attention="eager")
    ids, mask = ragged()
    kept, cache = [], make_cache(model, {"name": policy, **fields.get(policy, {})})
    with recorded(cache, kept):
        _, visible = read(model, cache, ids, mask, CHUNKS[chunks])
    full = dense(eager, ids, mask, visible, output_attentions=True)
    weights = torch.stack(full.attentions).mean((0, 2))
    norms = key_norms(eager, ids, mask, visible)
    for row in range(ROWS):
        scores = Noise(3).score(ids[row : row + 1, mask[row].bool()], torch.zeros(1, dtype=torch.long))[0][0]
        wanted = lists(cache, ids[row], scores, weights[row], norms[row], mask[row], CHUNKS[chunks])
        assert [positions[row] for positions in kept] == wanted


@contextlib.contextmanager
def recorded(cache, kept: list):
    """Append the cached positions to ``kept`` after each pass of the model."""
    handle = cache.model.register_forward_hook(lambda *_: kept.append(cache.positions))
    yield
    handle.remove()


def key_norms(model, ids, mask, visible) -> torch.Tensor:
    """The mean over layers and heads of the norms of the keys that a dense pass makes, ``[row, column]``."""
    cache = transformers.DynamicCache()
    with torch.no_grad():
        bias = torch.zeros(visible.shape).masked_fill(~(visible | torch.eye(LENGTH, dtype=torch.bool)), -1e30)[:, None]
        model(ids, attention_mask=bias, position_ids=(mask.cumsum(1) - 1).clamp(min=0), **{CACHE: cache})
    return torch.stack([layer.keys.norm(dim=-1).mean(1) for layer in cache.layers]).mean(0)
