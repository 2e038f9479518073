"""A random Llama with a tiny tokenizer, as a host of caches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from vqmem.memory.huggingface.cache_argument import cache_argument
from vqmem.recipes.kv_cache.host import Host
from vqmem.recipes.lm.corpus import Passage
from vqmem.tokenizers_.pretrained import FrontEnd


def tiny_model(vocab: int = 30) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab, num_hidden_layers=2, **shape)).eval()


def tiny_host(tokenizer_folder: Path, vocab: int = 300) -> Host:
    return Host(tiny_model(vocab), FrontEnd(str(tokenizer_folder)).fit([]), "tiny")


def passage(name: str, ids: list[int]) -> Passage:
    return Passage(name, torch.tensor(ids), torch.ones(len(ids), dtype=torch.long), torch.zeros(len(ids)).bool())


@torch.no_grad()
def read_nats(model: Any, cache: Any, ids: torch.Tensor, chunk: int = 64) -> torch.Tensor:
    """-log p of each token, read in chunks; the first given token 0."""
    inputs = torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], dim=1)
    logits = torch.cat([model(new, **cache_argument(cache)).logits for new in inputs.split(chunk, 1)], dim=1)
    return -logits.log_softmax(-1).gather(2, ids[..., None])[..., 0]
