"""Rare tokens, and which kinds of tokens a memory keeps."""

import pytest
import torch
from vqmem.recipes.compare.kinds import kept_figures, token_kinds
from vqmem.recipes.compare.table import _kept
from vqmem.recipes.lm.corpus import Passage
from vqmem.registry import build


def test_rarity_is_the_unigram_surprisal_of_the_training_passages():
    tokenizer = build("front-ends", "bytes").fit([])
    kinds = token_kinds([Passage.from_ids(tokenizer.encode("aaab").ids)], tokenizer, rare=5.0)
    total = 4 + tokenizer.vocab_size
    a, b, c = tokenizer.encode("abc").ids.tolist()
    assert kinds.rarity[[a, b, c]].exp().tolist() == pytest.approx([total / 4, total / 2, total])
    assert kinds.rare[[a, b, c]].tolist() == [False, False, True]


def test_what_is_kept_by_hand():
    """Ten tokens in segments of 3, of which two are rare and numbers."""
    is_number = torch.tensor([0, 1, 0, 0, 1, 0, 0, 0, 0, 0]).bool()
    rarity = torch.where(is_number, 5.0, 1.0)
    classes = {"number": is_number, "space": ~is_number, "name": torch.zeros(10).bool()}
    kept = [[0, 1, 2], [1, 4], [1, 8]]  # nothing is evicted at first; then after 6 tokens, and after 9
    found = kept_figures(rarity, classes, kept, 3)
    assert found["kept_age"] == (5 + 2 + 8 + 1, 4)
    means = (4 * 1 + 2 * 5) / 6, (7 * 1 + 2 * 5) / 9
    assert found["kept_rarity"] == pytest.approx((5 + 5 - 2 * means[0] + 5 + 1 - 2 * means[1], 4))
    assert found["class_number"] == pytest.approx((2 + 1, 2 * 2 / 6 + 2 * 2 / 9))
    assert found["class_space"] == pytest.approx((0 + 1, 2 * 4 / 6 + 2 * 7 / 9))
    assert found["class_name"] == (0.0, 0.0)


def test_what_lines_of_older_versions_lack_is_left_out():
    """Their classes were others, under names of the same kind."""
    new = {"kept_age": [[6.0], [2.0]], "class_noun": [[3.0], [2.0]], "class_name": [[0.0], [0.0]]}
    old = {"kept_age": [[4.0], [2.0]], "kept_function word": [[3.0], [2.0]]}
    assert _kept([{"figures": new}]) == {"age": 3.0, "noun": 1.5}
    assert _kept([{"figures": new}, {"figures": old}]) == {"age": 2.5}
