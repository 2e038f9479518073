"""Kinds of tokens, and which of them a memory keeps."""

import pytest
import torch
from vqmem.recipes.compare.kinds import CLASSES, TokenKinds, kept_figures, token_kinds, word_class
from vqmem.recipes.lm.corpus import Passage
from vqmem.registry import build


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (" the", "function word"),
        ("The", "function word"),
        (" house", "other word"),
        (" House", "capitalised"),
        ("ing", "piece"),
        ("a", "piece"),
        (" a", "function word"),
        (" 1984", "number"),
        ("x2", "number"),
        (", ", "punctuation"),
        ("\n", "space"),
        ("", "space"),
        ("\ufffd", "punctuation"),
    ],
)
def test_the_class_of_a_token(token, expected):
    assert word_class(token) == expected


def test_rarity_is_the_unigram_surprisal_of_the_training_passages():
    tokenizer = build("front-ends", "bytes").fit([])
    kinds = token_kinds([Passage.from_ids(tokenizer.encode("aaab").ids)], tokenizer, rare=5.0)
    total = 4 + tokenizer.vocab_size
    a, b, c = tokenizer.encode("abc").ids.tolist()
    assert kinds.rarity[[a, b, c]].exp().tolist() == pytest.approx([total / 4, total / 2, total])
    assert kinds.rare[[a, b, c]].tolist() == [False, False, True]
    assert CLASSES[kinds.classes[a]] == "piece"


def test_units_have_no_classes():
    tokenizer = build("front-ends", {"name": "units", "vocab_size": 5}).fit([])
    assert token_kinds([Passage.from_ids(torch.tensor([1, 2]))], tokenizer, 1.0).classes.tolist() == [-1] * 5


def test_what_is_kept_by_hand():
    """Ten tokens in segments of 3: id 0 is common, id 1 is rare and a number."""
    kinds = TokenKinds(
        torch.tensor([1.0, 5.0]),
        torch.tensor([False, True]),
        torch.tensor([CLASSES.index("space"), CLASSES.index("number")]),
    )
    ids = torch.tensor([0, 1, 0, 0, 1, 0, 0, 0, 0, 0])
    kept = [[0, 1, 2], [1, 4], [1, 8]]  # nothing is evicted at first; then after 6 tokens, and after 9
    found = kept_figures(ids, kept, 3, kinds)
    assert found["kept_age"] == (5 + 2 + 8 + 1, 4)
    means = (4 * 1 + 2 * 5) / 6, (7 * 1 + 2 * 5) / 9
    assert found["kept_rarity"] == pytest.approx((5 + 5 - 2 * means[0] + 5 + 1 - 2 * means[1], 4))
    assert found["kept_number"] == pytest.approx((2 + 1, 2 * 2 / 6 + 2 * 2 / 9))
    assert found["kept_space"] == pytest.approx((0 + 1, 2 * 4 / 6 + 2 * 7 / 9))
    assert found["kept_piece"] == (0.0, 0.0)
