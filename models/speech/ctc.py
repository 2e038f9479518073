"""Connectionist temporal classification (Graves et al., ICML 2006): loss and conventions."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..host import on_host

BLANK = 0
"""The blank class; letter ``i`` is class ``i + 1``."""


def ctc_loss(
    log_probs: Float[Tensor, "batch time classes"],
    counts: Int[Tensor, " batch"],
    letters: Int[Tensor, "batch letters"],
    lengths: Int[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """Negative log-likelihood in nats per letter. An utterance whose letters do not fit into its times counts as zero.

    Args:
        log_probs: log-probabilities of the classes.
        counts: valid times of each utterance.
        letters: padded letters, whose ids count from 0.
        lengths: number of letters of each utterance.

    Returns:
        The mean over all letters of the batch.
    """
    # torch's own kernel reads the sizes in main memory
    log_probs, sizes = log_probs.transpose(0, 1).float(), (on_host(counts), on_host(lengths))
    total = F.ctc_loss(log_probs, letters + 1, *sizes, BLANK, reduction="sum", zero_infinity=True)
    return total / lengths.sum().clamp(min=1)


def fits(letters: Int[Tensor, " letters"], times: int) -> bool:
    """Whether ``letters`` fit into ``times`` times: one each, and one more between two equal letters."""
    return len(letters) + int((letters[1:] == letters[:-1]).sum()) <= times
