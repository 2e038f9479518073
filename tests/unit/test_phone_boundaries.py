"""Peaks become boundaries where they should, and the figures count, choose and compare them as documented."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vqmem.recipes.speech.unit_metrics import boundaries, matches

times = st.lists(st.integers(0, 40).map(lambda step: step / 100), max_size=8, unique=True).map(sorted)


@pytest.fixture(scope="module")
def peaks() -> ModuleType:
    return importlib.import_module("vqmem.benchmarks.speech._boundaries")


def most(true: list[float], found: list[float]) -> int:
    """The size of the largest matching, by trying every partner of the first true boundary, and none."""
    if not true:
        return 0
    near = [at for at, time in enumerate(found) if abs(time - true[0]) <= 0.02 + 1e-9]
    return max([most(true[1:], found), *(1 + most(true[1:], found[:at] + found[at + 1 :]) for at in near)])


@given(times, times)
def test_no_matching_is_larger(true, found):
    assert matches(true, found) == matches(found, true) == most(true, found)


def test_peaks_by_hand(peaks):
    curve = np.array([0.0, 3.0, 0.0, 0.0, 1.0, 0.0, 5.0, 0.0])
    assert peaks.pick(curve, peaks.Picking(0.0, 1, 0)) == pytest.approx([0.02, 0.08, 0.12])
    assert peaks.pick(curve, peaks.Picking(1.0, 1, 0)) == pytest.approx([0.02, 0.12])
    assert peaks.pick(curve, peaks.Picking(0.0, 4, 0)) == pytest.approx([0.02, 0.12])  # 1 is too near to 5
    assert peaks.pick(curve, peaks.Picking(0.0, 1, 2)) == pytest.approx([0.06, 0.12])  # the last would lie at the end
    assert peaks.pick(curve, peaks.Picking(0.0, 1, -1)) == pytest.approx([0.06, 0.10])
    assert peaks.pick(np.ones(5), peaks.Picking(0.0, 1, 0)) == []
    assert peaks.even(1.0, 4.0) == pytest.approx([0.125, 0.375, 0.625, 0.875])


def test_figures_by_hand(peaks):
    counted = peaks.counts([[0.1, 0.2], [0.3]], [[0.11], [0.3, 0.5]])
    assert counted.tolist() == [[1, 2, 1], [1, 1, 2]]
    total = peaks.figures(counted.sum(0))
    assert (total["precision"], total["recall"], total["F1"]) == boundaries([([0.1, 0.2], [0.11]), ([0.3], [0.3, 0.5])])
    assert total["R-value"] == pytest.approx(1 - (1 / 3 + (1 / 3) / 2**0.5) / 2)
    assert peaks.figures([10, 10, 10])["R-value"] == pytest.approx(1.0)
    assert peaks.figures([10, 10, 30])["R-value"] < 0


def test_the_best_peaks_are_chosen_on_dev(peaks):
    rng = np.random.default_rng(0)
    truths, curves = [], []
    for _ in range(6):
        begins = np.flatnonzero(rng.random(200) < 0.2)[1:-1]
        begins = begins[(np.diff(begins, prepend=-9) > 2) & (begins < 195)]
        curve = 0.05 * rng.random(200)
        curve[begins + 1] += 1.0  # a frame late
        truths.append([0.02 * frame for frame in begins.tolist()])
        curves.append(curve)
    picking = peaks.choose(truths, [curves])
    found = peaks.counts(truths, [peaks.pick(curve, picking) for curve in curves])
    assert picking in peaks.GRID
    assert peaks.figures(found.sum(0))["F1"] > 0.95


def test_intervals_are_paired_and_contain_the_figure(peaks):
    rng = np.random.default_rng(1)
    truths = rng.integers(5, 15, size=40)
    worse = np.stack([np.minimum(truths, rng.integers(2, 8, size=40)), truths, truths], 1)[None]
    better = worse + np.array([1, 0, 0]) * (worse[..., :1] < worse[..., 1:2])
    methods = {"worse": worse, "better": better, "twice": np.concatenate([better, better])}
    bounds, apart = peaks.intervals(methods, ["worse"], resamples=500)
    for name, of in methods.items():
        low, high = bounds[name]
        assert low < peaks.figures(of.sum((0, 1)))["F1"] < high
    assert bounds["twice"] == bounds["better"]
    assert "worse" not in apart["worse"]
    low, high = apart["better"]["worse"]
    assert 0 < low < high < bounds["better"][1] - bounds["better"][0]
