"""The signals of slots against their formulas, computed one head, query and slot at a time."""

from dataclasses import replace

import pytest
import torch
import transformers
from vqmem.memory.huggingface import signals as module
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import CACHE
from vqmem.memory.huggingface.groups import Groups
from vqmem.memory.huggingface.signals import AttentionSignals, QueryState
from vqmem.memory.policy import ATTENTION_SIGNALS, standardise_among
from vqmem.memory.slots import Slots
from vqmem.registry import build

VOCAB, LENGTH, HEADS, LAYERS = 50, 12, 4, 2
SHAPE = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS}
SHAPE |= {"num_attention_heads": HEADS, "pad_token_id": 0}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SHAPE, num_key_value_heads=2),
    "qwen3": lambda: transformers.Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=8),
    "phi3": lambda: transformers.Phi3Config(**SHAPE, num_key_value_heads=2),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SHAPE),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=LAYERS, n_head=HEADS, n_positions=64),
}
IDS = torch.randint(1, VOCAB, (1, LENGTH), generator=torch.Generator().manual_seed(1))


def make_model(name: str):
    torch.manual_seed(0)
    config = CONFIGS[name]()
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(4)
    return model


@pytest.fixture(params=CONFIGS)
def read(request):
    """A model, what its attention modules were given and returned, and its keys and values for `IDS`."""
    model = make_model(request.param)
    hidden, weights = {}, {}

    def after(layer, args, kwargs, output):
        hidden[layer.layer_idx], weights[layer.layer_idx] = (kwargs.get("hidden_states", args and args[0])), output[1]

    hooks = [
        layer.register_forward_hook(after, with_kwargs=True) for layer in model.modules() if hasattr(layer, "layer_idx")
    ]
    cache = transformers.DynamicCache()
    with torch.no_grad():
        model(IDS, **{CACHE: cache})
    for hook in hooks:
        hook.remove()
    return model, hidden, weights, cache


def compute(model, names, state, layer, cache, now=LENGTH, competing=None, valid=None):
    signals = AttentionSignals(model, names, Groups("head", tuple(range(LAYERS)), cache.layers[0].keys.shape[1]))
    kept = cache.layers[layer]
    valid = torch.ones(1, LENGTH, dtype=torch.bool) if valid is None else valid
    competing = torch.ones(1, kept.keys.shape[1], LENGTH, dtype=torch.bool) if competing is None else competing
    rotated = torch.arange(LENGTH).expand_as(competing)
    found, state = signals.compute(
        signals.modules[layer], state, kept.keys, kept.values, valid, competing, torch.tensor([now]), rotated
    )
    return found, state, signals


def test_observed_is_the_attention_that_the_model_paid(read):
    model, hidden, weights, cache = read
    for layer in range(LAYERS):
        state = QueryState().append(hidden[layer], torch.ones(1, LENGTH, dtype=torch.bool), 1)
        found, _, _ = compute(model, ("observed",), state, layer, cache)
        heads = cache.layers[layer].keys.shape[1]
        mean = weights[layer][0].unflatten(0, (heads, -1)).mean(dim=(1, 2)).clamp(min=module.FLOOR).log()
        torch.testing.assert_close(found["observed"][0], standardised(mean), rtol=1e-3, atol=1e-3)


def test_expected_is_that_of_normally_distributed_queries(read):
    model, hidden, _, cache = read
    layer = 1
    found, _, signals = compute(
        model,
        ("expected",),
        QueryState().append(hidden[layer], torch.ones(1, LENGTH, dtype=torch.bool), 1),
        layer,
        cache,
    )
    queries = signals.queries(signals.modules[layer], hidden[layer])[0]
    kept = cache.layers[layer]
    heads, width = kept.keys.shape[1], kept.keys.shape[3]
    wanted = torch.zeros(heads, LENGTH)
    for head in range(HEADS):
        mean = queries[head].mean(0)
        spread = (queries[head] - mean).T @ (queries[head] - mean) / LENGTH
        turned = torch.zeros(width, width)
        for position in range(LENGTH, LENGTH + module.FUTURE):
            basis = torch.eye(width)[None, None].expand(1, HEADS, -1, -1)
            angles = signals.angles(signals.modules[layer], basis, torch.full((1, width), position))
            turned += signals.rotate(basis, *angles)[0, head].T / module.FUTURE
        key_head = head // (HEADS // heads)
        keys = kept.keys[0, key_head]
        logits = keys @ (turned @ mean) * width**-0.5
        logits += torch.stack([k @ turned @ spread @ turned.T @ k for k in keys]) / width / 2
        wanted[key_head] += logits.softmax(0) / (HEADS // heads)
    wanted = (wanted * kept.values[0].norm(dim=-1)).clamp(min=module.FLOOR).log()
    torch.testing.assert_close(found["expected"][0], standardised(wanted), rtol=1e-3, atol=1e-3)


def test_keys_are_compared_with_their_mean_and_measured(read):
    model, _, _, cache = read
    keys = cache.layers[0].keys[0]
    found, _, _ = compute(model, ("keydiff", "norm"), QueryState(), 0, cache)
    for head in range(len(keys)):
        mean = sum(k / k.norm() for k in keys[head]) / LENGTH
        cosine = torch.stack([k @ mean / k.norm() / mean.norm() for k in keys[head]])
        torch.testing.assert_close(found["keydiff"][0, head], standardised(-cosine), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found["norm"][0, head], standardised(-keys[head].norm(dim=-1)), rtol=1e-4, atol=1e-4)


def test_leverage_is_that_of_keys_before_rotation(read):
    model, _, _, cache = read
    valid = torch.ones(1, LENGTH, dtype=torch.bool)
    valid[0, 3] = False
    competing = valid[:, None].expand(-1, cache.layers[0].keys.shape[1], -1)
    found, _, signals = compute(model, ("leverage",), QueryState(), 0, cache, competing=competing, valid=valid)
    places = torch.arange(LENGTH).expand(cache.layers[0].keys.shape[:3])
    plain = signals.unrotate(signals.modules[0], cache.layers[0].keys, places)
    for head in range(plain.shape[1]):
        keys = plain[0, head, valid[0]].double()
        keys = keys - keys.mean(0)
        ridge = module.RIDGE * (keys.T @ keys).diagonal().mean()
        left, values, _ = torch.linalg.svd(keys, full_matrices=False)
        wanted = (left.square() * values.square() / (values.square() + ridge)).sum(1)
        torch.testing.assert_close(
            found["leverage"][0, head, valid[0]], standardised(wanted).float(), rtol=1e-2, atol=1e-2
        )


def test_a_window_averages_the_leverage_alone():
    raw = torch.tensor([[3.0, 0, 0, 0, 0, 6]])
    signals = {"leverage": raw, "keydiff": raw}
    slots = Slots.without_scores((), torch.zeros(1, 6, dtype=torch.long), torch.arange(6)[None])
    slots = replace(slots, signals=signals)
    spans = standardised(torch.tensor([[1.5, 1, 0, 0, 2, 3]]))
    both = standardised(spans + 0.5 * standardised(raw))
    for more, wanted in (({}, spans), ({"keydiff": 0.5}, both), ({"own_leverage": 0.5}, both)):
        fields = {"leverage": 1.0, "leverage_window": 3, "score": 0.0} | more
        policy = build("policies", {"name": "weighted", **fields})
        torch.testing.assert_close(policy.priority(slots, torch.tensor([6])), wanted)


def standardised(x):
    return (x - x.mean(-1, keepdim=True)) / x.std(-1, unbiased=False, keepdim=True)


def test_only_the_slots_that_compete_set_the_scale():
    x, among = torch.tensor([[1.0, 100.0, 3.0]]), torch.tensor([[True, False, True]])
    assert standardise_among(x, among)[0, [0, 2]].tolist() == [-1.0, 1.0]
    assert standardise_among(x, torch.zeros_like(among)).isfinite().all()


def test_counting_in_pieces_and_with_padding_is_counting_once():
    torch.manual_seed(0)
    queries, real = torch.randn(1, 2, 6, 4), torch.tensor([[True, True, False, True, True, True]])
    once = module._count(QueryState(), queries, real)
    torch.testing.assert_close(once.mean[0], queries[0][:, real[0]].mean(1))
    first = module._count(QueryState(), queries[:, :, :3], real[:, :3])
    twice = module._count(first, queries[:, :, 3:], real[:, 3:])
    fade = 0.5 ** (3 / module.HALF_LIFE)
    weight = torch.tensor([fade, fade, 1, 1, 1])
    wanted = torch.einsum("t,htd->hd", weight, queries[0][:, real[0]]) / weight.sum()
    torch.testing.assert_close(twice.mean[0], wanted)


def test_only_the_newest_queries_wait():
    state, block = QueryState(), 5
    for token in range(200):
        state = state.append(torch.full((1, 1, 4), float(token)), torch.ones(1, 1, dtype=torch.bool), block)
        assert sum(x.shape[1] for x in state.hidden) < module.PENDING + block + 32
    assert state.newest()[0][0, :, 0].tolist() == list(range(200 - module.PENDING, 200))
    shorter = state.truncate(block)
    assert shorter.newest()[0][0, :, 0].tolist() == list(range(195 - module.PENDING, 195))
    longer = state.append(torch.zeros(1, 500, 4), torch.ones(1, 500, dtype=torch.bool), block)
    assert [x.shape[1] for x in longer.hidden] == [module.PENDING + block]


def test_a_model_whose_queries_are_not_found_is_refused():
    model = make_model("gpt2")
    for layer in model.transformer.h:
        layer.attn.qkv = layer.attn.c_attn
        del layer.attn.c_attn
    with pytest.raises(ValueError, match=r"the queries of GPT2LMHeadModel are not found .*expected and observed"):
        VQMemCache(model, 8, policy={"name": "weighted", "score": 0.0, "expected": 1.0})
    VQMemCache(model, 8, policy={"name": "weighted", "score": 0.0, "norm": 1.0})


def test_the_policy_names_what_is_wrong():
    model = make_model("llama")
    for fields, message in [
        ({"score": 2.0}, "score=2.0; the share"),
        ({"score": 0.5}, "leaves a share to learned, expected, observed"),
        ({"surprise": 0.0}, "gives a share to surprise"),
        ({"leverage_window": 4}, "leverage_window=4; use an odd number"),
        ({"own_leverage": 0.5}, "own_leverage=0.5 comes beside leverage"),
    ]:
        with pytest.raises(ValueError, match=message):
            VQMemCache(model, 8, policy={"name": "weighted"} | fields)
    assert ATTENTION_SIGNALS == ("learned", "expected", "observed", "keydiff", "norm", "leverage")
