"""The running standardiser against statistics taken the slow way."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vqmem.memory.standardiser import PRIOR_COUNT, PRIOR_VARIANCE, initial_moments, standardise


def slow(values: list[float]) -> list[float]:
    out = []
    for n in range(1, len(values) + 1):
        mean = sum(values[:n]) / n
        spread = sum((v - mean) ** 2 for v in values[:n])
        out.append((values[n - 1] - mean) / math.sqrt((spread + PRIOR_COUNT * PRIOR_VARIANCE) / (n + PRIOR_COUNT)))
    return out


def draw(rows: int = 2, time: int = 40) -> torch.Tensor:
    return 300 + 3 * torch.randn(rows, time, 3, generator=torch.Generator().manual_seed(0))


def test_is_the_statistics_of_the_tokens_so_far():
    scores = draw()
    z, moments = standardise(scores, initial_moments(2, 3))
    wanted = torch.tensor([[slow(scores[b, :, s].tolist()) for s in range(3)] for b in range(2)]).transpose(1, 2)
    torch.testing.assert_close(z, wanted, rtol=0, atol=1e-5)
    assert (moments[..., 0] == 40).all()
    torch.testing.assert_close(moments[..., 1].float(), scores.mean(1))
    torch.testing.assert_close(moments[..., 2].float(), scores.var(1, correction=0) * 40)


@given(cuts=st.sets(st.integers(0, 40), max_size=6), masked=st.booleans())
@settings(max_examples=25)
def test_any_chunking_gives_the_same_scores(cuts, masked):
    scores, moments = draw(), initial_moments(2, 3)
    mask = torch.rand(2, 40, generator=torch.Generator().manual_seed(1)) < (0.6 if masked else 2)
    full, last = standardise(scores, moments, mask)
    parts = []
    cuts = sorted(cuts)
    for part, kept in zip(scores.tensor_split(cuts, 1), mask.tensor_split(cuts, 1), strict=True):
        z, moments = standardise(part, moments, kept)
        parts.append(z)
    torch.testing.assert_close(torch.cat(parts, 1), full, rtol=0, atol=1e-5)
    torch.testing.assert_close(moments, last)


def test_masked_tokens_leave_no_trace():
    scores, mask = draw(), torch.ones(2, 40).bool()
    mask[:, 10:20] = False
    changed = scores.clone()
    changed[:, 10:20] = float("nan")
    a, b = (standardise(x, initial_moments(2, 3), mask) for x in (scores, changed))
    torch.testing.assert_close(a[0][mask], b[0][mask])
    torch.testing.assert_close(a[1], b[1])


def test_a_row_of_zeros_starts_again_and_the_first_token_is_nought():
    scores = draw()
    _, moments = standardise(scores, initial_moments(2, 3))
    moments[1] = 0
    z, _ = standardise(scores, moments)
    fresh, _ = standardise(scores, initial_moments(2, 3))
    torch.testing.assert_close(z[1], fresh[1])
    assert not torch.allclose(z[0], fresh[0])
    assert (fresh[:, 0] == 0).all()
    assert fresh.abs().max() < 6


def test_keeps_the_dtype_and_takes_an_empty_chunk():
    z, moments = standardise(draw()[:, :0].bfloat16(), initial_moments(2, 3))
    assert z.shape == (2, 0, 3)
    assert z.dtype == torch.bfloat16
    assert (moments == 0).all()
