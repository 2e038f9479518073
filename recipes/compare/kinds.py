"""How rare tokens are, and which kinds of tokens a memory keeps: rare or common, old or new, of which class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...tokenizers_.base import Tokenizer
from ..lm.corpus import Passage


@dataclass(frozen=True)
class TokenKinds:
    """What is known of each id of a front-end.

    Args:
        rarity: unigram surprisal in the training passages, in nats (add-one smoothing).
        rare: whether it counts as rare.
    """

    rarity: Float[Tensor, " vocab"]
    rare: Bool[Tensor, " vocab"]


def token_kinds(training: Sequence[Passage], tokenizer: Tokenizer, rare: float) -> TokenKinds:
    """The kinds of all ids; those with a rarity of at least ``rare`` nats in the training passages are rare."""
    size = tokenizer.vocab_size
    counts = torch.bincount(torch.cat([item.ids for item in training]), minlength=size).double() + 1
    rarity = -(counts / counts.sum()).log()
    return TokenKinds(rarity, rarity >= rare)


def kept_figures(
    rarity: Float[Tensor, " time"],
    classes: Mapping[str, Bool[Tensor, " time"]],
    kept: Sequence[Sequence[int]],
    segment: int,
) -> dict[str, tuple[float, float]]:
    """What a memory kept of a passage, over the moments after each segment in which it had evicted something.

    ``kept_age``: ages in tokens, and the number of kept tokens, so that their ratio is the mean age; ``kept_rarity``:
    rarities of the kept tokens less the mean rarity of the tokens read so far, in nats; ``class_NAME``: kept tokens of
    the class, and how many there would be if the memory kept a fair sample of what was read.

    Args:
        rarity: of the tokens of the passage; see `TokenKinds`.
        classes: which of the tokens are of each class.
        kept: the kept positions after each segment.
        segment: tokens of a segment.

    Returns:
        The numerator and the size of each figure.
    """
    sums = dict.fromkeys(["kept_age", "kept_rarity", *(f"class_{name}" for name in classes)], torch.zeros(2).double())
    for number, positions in enumerate(kept, start=1):
        read = min(number * segment, len(rarity) - 1)
        if not positions or len(positions) >= read:
            continue
        at, count = torch.tensor(positions), len(positions)
        sums["kept_age"] = sums["kept_age"] + torch.tensor([float((read - at).sum()), count])
        excess = float((rarity[at] - rarity[:read].mean()).sum())
        sums["kept_rarity"] = sums["kept_rarity"] + torch.tensor([excess, count])
        for name, of_class in classes.items():
            fair = count * float(of_class[:read].double().mean())
            found = float(of_class[at].sum())
            sums[f"class_{name}"] = sums[f"class_{name}"] + torch.tensor([found, fair])
    return {name: (float(pair[0]), float(pair[1])) for name, pair in sums.items()}
