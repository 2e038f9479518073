"""Families of models, tiny and random: each is bounded, or refused in one line; none grows without a word."""

import pytest
import torch
import transformers as hf
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import CACHE

VOCAB, CAPACITY = 50, 12
SHAPE = {"vocab_size": VOCAB, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
SHAPE |= {"num_hidden_layers": 4, "intermediate_size": 48}
KINDS = ["sliding_attention", "full_attention"] * 2
EXPERTS = {"num_experts_per_tok": 2}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
FAMILIES = {
    "Llama": {},
    "Mistral": {"sliding_window": None},
    "Qwen2": {"use_sliding_window": True, "sliding_window": 8, "layer_types": KINDS},
    "Qwen3": {"head_dim": 8},
    "Qwen3Moe": {"head_dim": 8, "num_experts": 4, "moe_intermediate_size": 16} | EXPERTS,
    "Phi3": {"eos_token_id": 1, "bos_token_id": 1},
    "Gemma2": {"head_dim": 8, "sliding_window": 8, "layer_types": KINDS},
    "Gemma3Text": {"head_dim": 8, "sliding_window": 8, "layer_types": KINDS},
    "Cohere2": {"sliding_window": 8, "layer_types": KINDS},
    "Olmo2": {},
    "Olmo3": {"sliding_window": 8, "layer_types": KINDS},
    "GptOss": {"head_dim": 8, "sliding_window": 8, "layer_types": KINDS, "num_local_experts": 4} | EXPERTS,
    "Llama4Text": {"head_dim": 8, "intermediate_size_mlp": 48, "num_local_experts": 2, "attention_chunk_size": 8},
    "SmolLM3": {},
    "Exaone4": {"sliding_window": 8, "layer_types": KINDS},
    "Glm4": {"head_dim": 8},
    "Lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "DeepseekV3": {"num_key_value_heads": 4, "n_routed_experts": 4, "moe_intermediate_size": 16, "n_group": 1}
    | {"topk_group": 1, "first_k_dense_replace": 1}
    | EXPERTS
    | LATENT,
    "GPTNeoX": {"num_key_value_heads": 4},
}
REFUSED = {
    "Mistral": {"sliding_window": 8},
    "FalconH1": {},
    "Mamba": {},
}


def make_model(name: str, fields: dict):
    torch.manual_seed(0)
    config = getattr(hf, f"{name}Config")(**{**SHAPE, **fields})
    model = hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(3)
    return model


def read(model, cache, ids, mask):
    """The logits of a prompt, a chunk and single tokens."""
    pieces, start = [], 0
    for stop in (16, 24, 25, 26, *range(27, ids.shape[1] + 1)):
        pieces.append(model(ids[:, start:stop], attention_mask=mask[:, :stop], **{CACHE: cache}).logits)
        start = stop
    return torch.cat(pieces, dim=1)


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_bounded_and_exact_until_it_is_full(name):
    model = make_model(name, FAMILIES[name])
    if not model._supports_default_dynamic_cache():
        pytest.skip("this release gives the model another kind of cache, which is refused")
    ids = torch.randint(1, VOCAB, (2, 40), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :6] = 0
    wanted = model(ids * mask, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
    for settings in ({}, {"policy": "h2o", "share": "layer"}, {"policy": "fifo"}):
        logits = read(model, VQMemCache(model, 64, **settings), ids * mask, mask)
        torch.testing.assert_close(logits[mask.bool()], wanted[mask.bool()], rtol=1e-4, atol=1e-4)
        cache = VQMemCache(model, CAPACITY, **settings)
        read(model, cache, ids * mask, mask)
        assert cache.groups.bounded
        for index in cache.groups.bounded:
            assert cache.layers[index].keys.shape[-2] < CAPACITY + cache.block, "no layer grows"
        others = [layer for index, layer in enumerate(cache.layers) if index not in cache.groups.bounded]
        keys = [layer.keys for layer in others if torch.is_tensor(getattr(layer, "keys", None))]
        assert all(x.shape[-2] < 8 for x in keys), "windows stay windows"


@pytest.mark.parametrize("name", REFUSED)
def test_a_family_without_such_a_layer_is_refused_in_a_line(name):
    with pytest.raises(ValueError, match=r"\A.+\Z"):
        VQMemCache(make_model(name, REFUSED[name]), CAPACITY)


@torch.no_grad()
def test_what_does_not_work_beside_windows_is_refused(tmp_path):
    model = make_model("Olmo3", FAMILIES["Olmo3"])
    cache = VQMemCache(model, 64)
    model(torch.ones(1, 20, dtype=torch.long), **{CACHE: cache})
    with pytest.raises(ValueError, match=r"\Asave does not work: Olmo3ForCausalLM has layers that"):
        cache.save(tmp_path / "cache.safetensors")
    with pytest.raises(ValueError, match=r'use positions="kept"\Z'):
        VQMemCache(model, 64, positions="compact")
    latent = make_model("DeepseekV3", FAMILIES["DeepseekV3"])
    with pytest.raises(ValueError, match=r'use share="layer"\Z'):
        VQMemCache(latent, 64, policy="fifo", share="head")
    with pytest.raises(ValueError, match="give the capacity in tokens"):
        VQMemCache(latent, "64MB", policy="fifo")
