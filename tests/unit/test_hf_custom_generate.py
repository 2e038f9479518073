"""The folder that ``generate(custom_generate=...)`` loads."""

from pathlib import Path

import pytest
import torch
import transformers
from vqmem import registry
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import CACHE

FOLDER = Path(__file__).parents[2] / "docs" / "hub"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=256, **shape)).eval()
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, None
    return model


@pytest.mark.parametrize("arguments", [{"capacity": 40}, {"capacity": "20kB", "policy": "fifo"}])
def test_it_generates_as_with_a_cache(model, arguments, monkeypatch, tmp_path):
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path))
    tokenizer = registry.build("front-ends", "bytes").fit([])
    ids = torch.randint(1, 256, (1, 80), generator=torch.Generator().manual_seed(1))
    common = {"max_new_tokens": 30, "do_sample": False}
    got = model.generate(
        ids, custom_generate=str(FOLDER), trust_remote_code=True, tokenizer=tokenizer, **arguments, **common
    )
    assert torch.equal(got, model.generate(ids, **{CACHE: VQMemCache(model, tokenizer, **arguments)}, **common))
    assert not torch.equal(got, model.generate(ids, **common)), "some tokens were evicted"
    assert not model._forward_hooks, "nothing stays on the model"


def test_it_has_what_the_hub_asks_for():
    card = (FOLDER / "README.md").read_text()
    assert "- custom_generate\n" in card
    assert (FOLDER / "custom_generate" / "requirements.txt").read_text() == "vqmem\n"
