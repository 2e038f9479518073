"""Metrics of units against values worked out by hand, scikit-learn and exhaustive matching."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from vqmem.recipes.speech.unit_metrics import boundaries, changes, pnmi, purities, usage

PHONES = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
UNITS = torch.tensor([5, 5, 5, 7, 7, 7, 9, 9])
labels = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=40)
times = st.lists(st.integers(0, 60), unique=True, max_size=6).map(lambda frames: [f / 100 for f in sorted(frames)])


def test_by_hand():
    # H(phone) = 1 bit; unit 7 (3 of 8 frames) leaves H(1/3, 2/3), the others leave nothing.
    left = 3 / 8 * -(1 / 3 * math.log2(1 / 3) + 2 / 3 * math.log2(2 / 3))
    assert pnmi(PHONES, UNITS) == pytest.approx(1 - left)
    assert purities(PHONES, UNITS) == pytest.approx(((3 + 2 + 2) / 8, (3 + 2) / 8))
    used = usage(UNITS, 100)
    entropy = -(2 * 3 / 8 * math.log(3 / 8) + 2 / 8 * math.log(2 / 8))
    assert used == pytest.approx({"units_used": 3, "unit_perplexity": math.exp(entropy)})
    assert changes(UNITS, 0.02) == pytest.approx([0.06, 0.12])


def test_units_that_say_nothing_or_everything_about_phones():
    assert pnmi(PHONES, torch.zeros(8, dtype=torch.long)) == pytest.approx(0)
    assert pnmi(PHONES, PHONES + 3) == pytest.approx(1)
    assert purities(PHONES, PHONES + 3) == (1.0, 1.0)
    assert usage(torch.arange(100), 100)["unit_perplexity"] == pytest.approx(100)


@settings(max_examples=40)
@given(labels)
def test_as_scikit_learn_has_it(pairs):
    phones, units = (torch.tensor(column) for column in zip(*pairs, strict=True))
    shares = torch.bincount(phones)[torch.bincount(phones) > 0] / len(phones)
    entropy = float(-(shares * shares.log()).sum())
    information = float(metrics.mutual_info_score(phones.numpy(), units.numpy()))
    expected = information / entropy if entropy > 0 else 1.0
    assert pnmi(phones, units) == pytest.approx(expected, abs=1e-6)
    # Purity is the accuracy of naming each unit by its most frequent phone.
    name = {unit: torch.mode(phones[units == unit]).values for unit in units.tolist()}
    named = torch.stack([name[unit] for unit in units.tolist()])
    assert purities(phones, units)[0] == pytest.approx(metrics.accuracy_score(phones.numpy(), named.numpy()))
    assert purities(phones, units)[1] == pytest.approx(purities(units, phones)[0])


def test_boundaries_by_hand():
    # 0.10 takes 0.09 or 0.11, not both; 0.30 and 0.321 are 21 ms apart; 0.50 and 0.52 just 20.
    found = boundaries([([0.10, 0.30, 0.50], [0.09, 0.11, 0.321, 0.52])])
    assert found == pytest.approx((2 / 4, 2 / 3, 2 * 2 / 7))
    assert boundaries([([], [0.1]), ([0.2], [])]) == (0.0, 0.0, 0.0)
    assert boundaries([([0.1], [0.1]), ([0.1], [0.5])]) == pytest.approx((0.5, 0.5, 0.5))  # clips are pooled


@settings(max_examples=40)
@given(times, times)
def test_no_matching_finds_more(true, found):
    def fits(pairs):
        return all(abs(a - b) <= 0.02 + 1e-9 for a, b in pairs)

    short, long = sorted((true, found), key=len)
    best = max(
        size
        for size in range(len(short) + 1)
        if size == 0
        or any(
            fits(zip(some, others, strict=True))
            for some in itertools.combinations(short, size)
            for others in itertools.combinations(long, size)  # in order: crossing pairs can be uncrossed
        )
    )
    assert boundaries([(true, found)]).recall == pytest.approx(best / max(1, len(true)))
