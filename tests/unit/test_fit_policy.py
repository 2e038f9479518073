"""Policies fitted for a model: how they are made, and that a cache keeps what they say."""

import pytest
import torch
import transformers
from vqmem.memory.huggingface.groups import SHARES
from vqmem.recipes.fit_policy.fit import fit_policy
from vqmem.recipes.fit_policy.host import as_host
from vqmem.recipes.fit_policy.streams import SIGNALS

VOCAB = 60


def make_model(seed: int = 0, dtype: torch.dtype = torch.float32):
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=VOCAB, num_key_value_heads=2, **shape)
    model = transformers.LlamaForCausalLM(config).to(dtype).eval()
    for name, parameter in model.named_parameters():
        if "_proj" in name:
            parameter.data.mul_(6)
    return model


@pytest.fixture(scope="module")
def fitted():
    model = make_model()
    passages = [*torch.randint(1, VOCAB, (6, 512), generator=torch.Generator().manual_seed(1))]
    return model, *fit_policy(as_host(model, None), passages[:3], passages[2:], SIGNALS, 32)


def test_the_fit_finds_what_is_to_be_kept(fitted):
    _, policy, findings = fitted
    assert policy.ridge.shape == (2, 4, 34)
    assert {share: x.shape for share, x in policy.weights.items()} == {
        "head": (2, 2, 7),
        "layer": (2, 1, 7),
        "model": (2, 1, 7),
    }
    assert findings.r2.shape == findings.recall.shape == (2, 2)
    assert findings.shares.keys() == set(SHARES)
    assert findings.shares["head"] > max(findings.single.values()) > findings.chance
