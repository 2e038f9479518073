"""Caches in which layers or heads keep different tokens, against dense passes with a mask for each layer and head."""

import pytest
import torch
import transformers
from vqmem.memory import naive
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import CACHE
from vqmem.memory.huggingface.supported_models import attention_layers, bounded, layers_of
from vqmem.models.scorers.random import Noise

VOCAB, ROWS, LENGTH, CAPACITY, SINKS, RECENT = 50, 3, 36, 10, 2, 3
HEADS, KEY_HEADS, LAYERS = 4, 2, 2
SHAPE = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": HEADS}
SHAPE |= {"pad_token_id": 0}
HYBRID = {"num_hidden_layers": 4, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"] * 2}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SHAPE, num_hidden_layers=LAYERS, num_key_value_heads=KEY_HEADS),
    "qwen3": lambda: transformers.Qwen3Config(
        **SHAPE, num_hidden_layers=LAYERS, num_key_value_heads=KEY_HEADS, head_dim=8
    ),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SHAPE, num_hidden_layers=LAYERS),
    "qwen2": lambda: transformers.Qwen2Config(
        **SHAPE, **HYBRID, num_key_value_heads=KEY_HEADS, use_sliding_window=True
    ),
    "gemma3": lambda: transformers.Gemma3TextConfig(**SHAPE, **HYBRID, num_key_value_heads=KEY_HEADS, head_dim=8),
    "cohere2": lambda: transformers.Cohere2Config(**SHAPE, **HYBRID, num_key_value_heads=KEY_HEADS),
    "olmo3": lambda: transformers.Olmo3Config(**SHAPE, **HYBRID, num_key_value_heads=KEY_HEADS),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=LAYERS, n_head=HEADS, n_positions=64),
}
ATTENTION = {"name": "weighted", "expected": 0.75, "observed": 0.28, "keydiff": 0.23, "norm": 0.25, "log_age": 0.2}
POLICIES = {name: name for name in ("fifo", "scored", "h2o", "tova", "lru", "snapkv", "knorm")}
POLICIES |= {"weighted": ATTENTION | {"score": 0.2}, "attention": ATTENTION | {"score": 0.0}}
CHUNKS = {"prefill": [20, *[1] * 16], "chunks": [9] * 4, "decode": [1] * LENGTH}


def make_model(name: str, attention: str = "sdpa"):
    """A tiny random model whose attention is sharp enough to distinguish tokens."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name](), attn_implementation=attention).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(6)
    return model


def ragged() -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and their mask; row i begins with 4 i columns of padding."""
    ids = torch.randint(1, VOCAB, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(LENGTH) >= 4 * torch.arange(ROWS)[:, None]).long()
    return ids * mask, mask


def by_head(cache: VQMemCache) -> list[list[list[int]]]:
    """The kept positions of each row for each layer and head of keys, layer after layer."""
    heads, groups = cache.groups.heads, cache.groups
    if groups.share == "model":
        return [[row] * (groups.layers * heads) for row in cache.positions]
    repeats = heads if groups.share == "layer" else 1
    return [[group for group in row for _ in range(repeats)] for row in cache.positions]


@torch.no_grad()
def read(model, cache, ids, mask, chunks):
    """Logits of reading in pieces; ``[row, layer and head, query, key]`` that was visible; kept sets after each."""
    first = mask.argmax(1)
    groups = cache.groups.layers * cache.groups.heads
    visible = torch.zeros(ROWS, groups, LENGTH, LENGTH, dtype=torch.bool)
    logits, kept, start = [], [], 0
    for size in chunks:
        end, before = start + size, by_head(cache)
        logits.append(model(ids[:, start:end], attention_mask=mask[:, :end], **{CACHE: cache}).logits)
        kept.append(by_head(cache))
        # A pass that is shorter than the block evicts before it reads, a longer one afterwards.
        seen = kept[-1] if size < cache.block else before
        for row, sets in enumerate(seen):
            for group, positions in enumerate(sets):
                columns = torch.tensor(positions, dtype=torch.long) + first[row]
                visible[row, group, start:end, columns[columns < start]] = True
        visible[:, :, start:end, start:end] |= (
            torch.ones(size, size, dtype=torch.bool).tril() & mask[:, None, None, start:end].bool()
        )
        start = end
    return torch.cat(logits, dim=1), visible, kept


@torch.no_grad()
def dense(model, ids, mask, visible):
    """Logits, and each layer's attention weights and keys, of one pass in which heads see what was ``visible``."""
    modules = [module for module in attention_layers(model) if module.layer_idx in bounded(layers_of(model))]
    heads = visible.shape[1] // len(modules)
    visible = visible | torch.eye(LENGTH, dtype=torch.bool)
    bias = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)
    weights = {}

    def before(module, args, kwargs):
        of_layer = bias[:, modules.index(module) * heads :][:, :heads]
        kwargs["attention_mask"] = of_layer.repeat_interleave(HEADS // heads, dim=1)
        return args, kwargs

    def after(module, args, kwargs, output):
        weights[module.layer_idx] = output[1]

    hooks = [module.register_forward_pre_hook(before, with_kwargs=True) for module in modules]
    hooks += [module.register_forward_hook(after, with_kwargs=True) for module in modules]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cached = transformers.DynamicCache()
    logits = model(ids, attention_mask=mask, position_ids=positions, **{CACHE: cached}).logits
    for hook in hooks:
        hook.remove()
    return logits, weights, [layer.keys for layer in cached.layers]


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("block", [1, 4])
@pytest.mark.parametrize("share", ["model", "layer", "head"])
@pytest.mark.parametrize("policy", POLICIES)
def test_logits_are_those_of_a_dense_pass(policy, share, block, chunks):
    model, (ids, mask) = make_model("llama", "eager"), ragged()
    guards = {"sinks": SINKS, "recent": RECENT}
    cache = VQMemCache(model, CAPACITY, policy=POLICIES[policy], scorer=Noise(3), **guards, share=share, block=block)
    logits, visible, kept = read(model, cache, ids, mask, CHUNKS[chunks])
    wanted, _, _ = dense(model, ids, mask, visible)
    real = mask.bool()
    torch.testing.assert_close(logits[real], wanted[real], rtol=1e-5, atol=1e-5)
    sizes = {len(group) for row in kept for groups in row for group in groups}
    assert max(sizes) == CAPACITY + block - 1 if chunks == "decode" else max(sizes) <= CAPACITY + block - 1
    assert max(sizes) >= CAPACITY
    distinct = {tuple(group) for group in kept[-1][0]}
    if share == "model" or policy in ("fifo", "scored"):
        assert len(distinct) == 1
    if share != "model" and policy in ("knorm", "weighted", "attention"):
        assert len(distinct) > 1, "layers keep different tokens"


@pytest.mark.parametrize("share", ["layer", "head"])
@pytest.mark.parametrize("name", list(CONFIGS))
def test_every_kind_of_model(name, share):
    model, (ids, mask) = make_model(name, "eager"), ragged()
    cache = VQMemCache(
        model, CAPACITY, policy=POLICIES["weighted"], scorer=Noise(3), sinks=SINKS, recent=RECENT, share=share
    )
    logits, visible, _ = read(model, cache, ids, mask, CHUNKS["chunks"])
    wanted, _, _ = dense(model, ids, mask, visible)
    torch.testing.assert_close(logits[mask.bool()], wanted[mask.bool()], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("share", ["layer", "head"])
@pytest.mark.parametrize("policy", ["h2o", "knorm"])
def test_each_group_keeps_what_the_oracle_keeps(policy, share):
    model, (ids, mask) = make_model("llama", "eager"), ragged()
    chunks = CHUNKS["chunks"]
    cache = VQMemCache(model, CAPACITY, policy=policy, sinks=SINKS, recent=RECENT, share=share)
    _, visible, kept = read(model, cache, ids, mask, chunks)
    _, weights, keys = dense(model, ids, mask, visible)
    first, policy_object = mask.argmax(1).tolist(), cache.memory.policy
    for row in range(ROWS):
        for group in range(LAYERS * KEY_HEADS):
            layer, head = divmod(group, KEY_HEADS)
            heads = slice(None) if share == "layer" else slice(head, head + 1)
            seen = weights[layer][row].unflatten(0, (KEY_HEADS, -1)).mean(1)[heads].mean(0)
            norms = keys[layer][row].norm(dim=-1)[heads].mean(0)
            columns: list[int] = []
            for turn, size in enumerate(chunks):
                end = sum(chunks[: turn + 1])
                columns += range(max(first[row], end - size), end)
                usage = [seen[first[row] : end, c] @ visible[row, group, first[row] : end, c].float() for c in columns]
                slots = [
                    naive.Slot(int(ids[row, c]), c - first[row], usage=float(norms[c] if policy == "knorm" else used))
                    for c, used in zip(columns, usage, strict=True)
                ]
                priority = naive.PRIORITIES[policy]
                chosen = naive.select(slots, policy_object, priority, CAPACITY, end - first[row], SINKS, RECENT)
                columns = [columns[i] for i in chosen]
                assert [c - first[row] for c in columns] == kept[turn][row][group]


@pytest.mark.parametrize("share", ["layer", "head"])
def test_rows_do_not_depend_on_the_batch_and_can_be_reordered(share):
    model, (ids, _) = make_model("llama"), ragged()
    ids = ids.clamp(min=1)
    options = {"policy": POLICIES["weighted"], "scorer": Noise(3), "sinks": SINKS, "recent": RECENT, "share": share}

    def make():
        return VQMemCache(model, CAPACITY, **options)

    together, alone = make(), make()
    with torch.no_grad():
        model(ids[:, :20], **{CACHE: together})
        model(ids[1:2, :20], **{CACHE: alone})
        assert together.positions[1] == alone.positions[0]
        together.reorder_cache(torch.tensor([1, 1, 0]))
        assert together.positions[0] == together.positions[1] == alone.positions[0]
        after = model(ids[[1, 1, 0], 20:], **{CACHE: together}).logits
        expected = model(ids[1:2, 20:], **{CACHE: alone}).logits
    torch.testing.assert_close(after[:1], expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("policy", ["fifo", "scored", "weighted"])
@pytest.mark.parametrize("block", [1, 4])
def test_equal_prefixes_keep_equal_sets_whatever_is_beside_or_after_them(policy, block):
    """With one set for the model and a policy that looks at ids alone: also in another model."""
    ids, _ = ragged()
    ids = ids.clamp(min=1)
    kept = []
    for name, beside, after in (("llama", ids[1], ids[2]), ("gpt_neox", ids[2], ids[1])):
        model = make_model(name)
        cache = VQMemCache(model, CAPACITY, policy=policy, scorer=Noise(3), sinks=SINKS, recent=RECENT, block=block)
        model(torch.stack([ids[0], beside])[:, :20], **{CACHE: cache})
        kept.append([cache.positions[0]])
        follows = torch.cat([ids[0, 20:24], after[24:]]).expand(2, -1)
        for token in follows.split(1, dim=1):
            model(token, **{CACHE: cache})
            kept[-1].append(cache.positions[0])
    assert kept[0][:5] == kept[1][:5]
    assert kept[0][0] != list(range(20))
