"""Kinds of tokens: how rare they are, and the class of word that they are part of; and which kinds a memory keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...tokenizers_.base import Tokenizer, input_kind
from ..lm.corpus import Passage

CLASSES = ("function word", "other word", "capitalised", "piece", "number", "punctuation", "space")
"""Classes of the tokens of a text; ``piece`` continues a word or is a single letter."""


@dataclass(frozen=True)
class TokenKinds:
    """What is known of each id of a front-end.

    Args:
        rarity: unigram surprisal in the training passages, in nats (add-one smoothing).
        rare: whether it counts as rare.
        classes: the index of its class in `CLASSES`; -1 where tokens are no text.
    """

    rarity: Float[Tensor, " vocab"]
    rare: Bool[Tensor, " vocab"]
    classes: Int[Tensor, " vocab"]


def token_kinds(training: Sequence[Passage], tokenizer: Tokenizer, rare: float) -> TokenKinds:
    """The kinds of all ids; those with a rarity of at least ``rare`` nats in the training passages are rare."""
    size = tokenizer.vocab_size
    counts = torch.bincount(torch.cat([item.ids for item in training]), minlength=size).double() + 1
    rarity = -(counts / counts.sum()).log()
    if input_kind(tokenizer) == "text":
        classes = torch.tensor([CLASSES.index(word_class(tokenizer.decode([number]))) for number in range(size)])
    else:
        classes = torch.full((size,), -1)
    return TokenKinds(rarity, rarity >= rare, classes)


def word_class(token: str) -> str:
    """The class of a token of text, in `CLASSES`; function words are the stop words of scikit-learn."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # takes a second to import

    word = token.strip()
    if not word:
        return "space"
    if not any(map(str.isalnum, word)):
        return "punctuation"
    if any(map(str.isdigit, word)):
        return "number"
    if word.lower() in ENGLISH_STOP_WORDS and (token[0].isspace() or len(word) > 1):
        return "function word"
    if len(word) == 1 or not (token[0].isspace() or word[0].isupper()):
        return "piece"
    return "capitalised" if word[0].isupper() else "other word"


def kept_figures(
    ids: Int[Tensor, " time"], kept: Sequence[Sequence[int]], segment: int, kinds: TokenKinds
) -> dict[str, tuple[float, float]]:
    """What a memory kept of a passage, over the moments after each segment in which it had evicted something.

    ``kept_age``: ages in tokens, and the number of kept tokens, so that their ratio is the mean age; ``kept_rarity``:
    rarities of the kept tokens less the mean rarity of the tokens read so far, in nats; ``kept_CLASS``: kept tokens of
    the class, and how many there would be if the memory kept a fair sample of what was read.

    Args:
        ids: the tokens of the passage.
        kept: the kept positions after each segment.
        segment: tokens of a segment.
        kinds: of the ids.

    Returns:
        The numerator and the size of each figure.
    """
    rarity, classes = kinds.rarity[ids], kinds.classes[ids]
    sums = dict.fromkeys(
        ["kept_age", "kept_rarity", *(f"kept_{name}" for name in CLASSES)], torch.zeros(2, dtype=torch.double)
    )
    for number, positions in enumerate(kept, start=1):
        read = min(number * segment, len(ids) - 1)
        if not positions or len(positions) >= read:
            continue
        at, count = torch.tensor(positions), len(positions)
        sums["kept_age"] = sums["kept_age"] + torch.tensor([float((read - at).sum()), count])
        excess = float((rarity[at] - rarity[:read].mean()).sum())
        sums["kept_rarity"] = sums["kept_rarity"] + torch.tensor([excess, count])
        for index, name in enumerate(CLASSES):
            fair = count * float((classes[:read] == index).double().mean())
            found = float((classes[at] == index).sum())
            sums[f"kept_{name}"] = sums[f"kept_{name}"] + torch.tensor([found, fair])
    return {name: (float(pair[0]), float(pair[1])) for name, pair in sums.items()}
