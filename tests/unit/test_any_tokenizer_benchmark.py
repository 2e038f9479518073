"""What the benchmark of the default scorer computes, against slow loops."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from vqmem.benchmarks.kv import mix_texts
from vqmem.models.unigram import Unigram

any_tokenizer = pytest.importorskip("vqmem.benchmarks.kv.any_tokenizer", reason="needs transformers (extra 'bench')")
TEXT = "The cat's name, my_cat and 2 cats: über-cat. " * 3


class Counting:
    """A scorer whose -log P(comes again) is the place of the token."""

    def __init__(self):
        self.unigram = Unigram(300, 1.0)

    def initial_state(self, batch):
        return None

    def score(self, tokens, state):
        return (self.unigram.rarity(tokens) - torch.arange(tokens.shape[1]))[..., None], state


def front_end():
    from transformers import PreTrainedTokenizerFast
    from vqmem.tokenizers_.pretrained import PretrainedTokenizer

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [TEXT], trainers.BpeTrainer(vocab_size=270, initial_alphabet=alphabet, show_progress=False)
    )
    return PretrainedTokenizer(PreTrainedTokenizerFast(tokenizer_object=tokenizer))


def test_a_word_has_the_most_of_the_tokens_that_end_in_it():
    encoder = front_end()
    ends = encoder.encode(TEXT).ends.tolist()
    found = any_tokenizer.word_signals(encoder, Counting(), TEXT)
    for match, value in zip(re.finditer(r"[^\W\d_]+", TEXT), found, strict=True):
        inside = [place for place, end in enumerate(ends) if match.start() < end <= match.end()]
        assert value == pytest.approx(max(inside), abs=1e-4)
    assert len(any_tokenizer.word_signals(encoder, Counting(), "1 2")) == 0


def test_correlation_leaves_out_what_either_lacks():
    one, other = np.array([1.0, 2.0, np.nan, 4.0]), np.array([1.0, 3.0, 0.0, 2.0])
    assert any_tokenizer.correlation(one, other) == 0.5


def test_texts_are_mixed_by_kind(tmp_path, monkeypatch):
    for folder in ("text/train", "text/dev", "text/general/train", "text/general/dev"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.txt").write_text("Once upon a time.")
    monkeypatch.setattr("sys.argv", ["mix_texts", str(tmp_path / "out"), "--data", str(tmp_path)])
    mix_texts.main()
    names = {split: {path.name for path in (tmp_path / "out/text" / split).iterdir()} for split in ("train", "dev")}
    for found in names.values():
        assert {"novels-a.txt", "general-a.txt"} < found
        assert {name.partition("-")[0] for name in found} == {"novels", "general", "code"}
    assert "code-json-decoder.py.txt" in names["train"] | names["dev"]
    assert not names["train"] & names["dev"] - {"novels-a.txt", "general-a.txt"}
