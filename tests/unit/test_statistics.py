import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vqmem.recipes.compare.statistics import expanded_tail, kendall_tau, paired_bootstrap


def corpus(rng, documents, seeds=3, effect=0.0, spread=0.05):
    """Bits of each document under a strategy and a baseline; documents differ far more than strategies do."""
    sizes = rng.integers(2_000, 20_000, documents).astype(float)
    level = rng.normal(2.3, 0.3, documents)
    lean = rng.normal(effect, spread, documents)
    baseline = (level + rng.normal(0, 0.01, (seeds, documents))) * sizes
    strategy = (level + lean + rng.normal(0, 0.01, (seeds, documents))) * sizes
    return strategy, baseline, sizes


def width(low, high):
    assert low is not None
    assert high is not None
    return high - low


def test_value_and_difference_are_ratios_of_sums():
    strategy, baseline = np.array([[10.0] * 6, [20.0] * 6]), np.array([[12.0] * 6, [22.0] * 6])
    result = paired_bootstrap(strategy, baseline, np.array([1, 1, 2, 2, 3, 3]))
    assert result.value == pytest.approx(90 / 12)
    assert result.difference == pytest.approx(-12 / 12)
    assert result.verdict == "better"
    assert paired_bootstrap(strategy, baseline, np.ones(6), better="higher").verdict == "worse"


def test_interval_agrees_with_scipy_at_the_same_level():
    scipy_stats = pytest.importorskip("scipy.stats", reason="scipy is not installed (extra 'bench')")
    strategy, baseline, sizes = corpus(np.random.default_rng(0), 40, effect=-0.02)
    ours = paired_bootstrap(strategy, baseline, sizes, resamples=20_000)
    mean, other = strategy.mean(0), baseline.mean(0)

    def check(statistic, low, high):
        theirs = scipy_stats.bootstrap(
            (mean, other, sizes),
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=20_000,
            confidence_level=1 - 2 * expanded_tail(40),
            method="percentile",
            rng=np.random.default_rng(1),
        ).confidence_interval
        error = 0.04 * (theirs.high - theirs.low)  # Monte Carlo error of two sets of 20,000 resamples
        assert low == pytest.approx(theirs.low, abs=error)
        assert high == pytest.approx(theirs.high, abs=error)

    check(lambda a, b, n, axis: (a - b).sum(axis) / n.sum(axis), ours.difference_low, ours.difference_high)
    check(lambda a, b, n, axis: a.sum(axis) / n.sum(axis), ours.low, ours.high)


@pytest.mark.parametrize("documents", [6, 20, 300, 5000])
def test_expanded_tail_agrees_with_scipy(documents):
    scipy_stats = pytest.importorskip("scipy.stats", reason="scipy is not installed (extra 'bench')")
    t = scipy_stats.t.ppf(0.975, documents - 1)
    expected = scipy_stats.norm.cdf(-math.sqrt(documents / (documents - 1)) * t)
    assert expanded_tail(documents) == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize(("documents", "effect"), [(12, -0.02), (40, -0.02), (40, 0.0)])
def test_interval_covers_the_truth_about_95_times_in_100(documents, effect):
    rng = np.random.default_rng(documents)
    trials, covered = 600, 0
    for _ in range(trials):
        result = paired_bootstrap(*corpus(rng, documents, effect=effect), resamples=1000)
        assert result.difference_low is not None
        assert result.difference_high is not None
        covered += result.difference_low <= effect <= result.difference_high
    assert 0.92 <= covered / trials <= 0.975


def test_a_null_yields_mostly_nulls_and_a_real_effect_is_found():
    rng = np.random.default_rng(5)
    nulls = [paired_bootstrap(*corpus(rng, 30), resamples=1000).verdict for _ in range(300)]
    assert nulls.count("no difference") >= 0.92 * 300
    assert nulls.count("better") + nulls.count("worse") > 0
    found = [paired_bootstrap(*corpus(rng, 30, effect=-0.05), resamples=1000).verdict for _ in range(50)]
    assert found.count("better") >= 48


def test_pairing_finds_what_document_variance_hides():
    result = paired_bootstrap(*corpus(np.random.default_rng(2), 60, effect=-0.03))
    assert result.verdict == "better"
    assert width(result.low, result.high) > 3 * width(result.difference_low, result.difference_high)


def test_resampling_seeds_widens_the_interval_when_runs_disagree():
    strategy, baseline, sizes = corpus(np.random.default_rng(3), 40, spread=0.01)
    strategy += np.array([[-0.1], [0.0], [0.1]]) * sizes
    documents_only, both = (paired_bootstrap(strategy, baseline, sizes, resample_seeds=also) for also in (False, True))
    narrow = width(documents_only.difference_low, documents_only.difference_high)
    assert width(both.difference_low, both.difference_high) > 3 * narrow


def test_same_seed_same_interval_and_batches_do_not_change_the_law(monkeypatch):
    data = corpus(np.random.default_rng(4), 25)
    first = paired_bootstrap(*data, seed=7)
    assert first == paired_bootstrap(*data, seed=7)
    monkeypatch.setattr("vqmem.recipes.compare.statistics._BATCH", 1000)
    batched = paired_bootstrap(*data, seed=7)
    assert batched.difference_low == pytest.approx(first.difference_low, abs=0.003)


def test_baseline_identical_and_few_documents():
    strategy, _, sizes = corpus(np.random.default_rng(6), 10)
    own = paired_bootstrap(strategy, None, sizes)
    assert (own.verdict, own.difference, own.difference_low) == ("baseline", 0.0, 0.0)
    assert paired_bootstrap(strategy, strategy, sizes).verdict == "no difference"
    few = paired_bootstrap(strategy[:, :3], strategy[:, :3] + 1, sizes[:3])
    assert (few.verdict, few.low, few.difference_high) == ("too few passages", None, None)
    assert few.to_json()["difference"] == pytest.approx(-3 / sizes[:3].sum())


def test_documents_without_the_figure_weigh_nothing():
    rng = np.random.default_rng(8)
    sizes = np.array([0.0] * 9 + [100.0])
    strategy = rng.normal(2, 0.1, (3, 10)) * sizes
    result = paired_bootstrap(strategy, strategy * 1.1, sizes, resamples=500)
    assert result.low == pytest.approx(result.value) == result.high


@pytest.mark.parametrize(
    ("strategy", "baseline", "sizes", "better", "message"),
    [
        (np.ones((2, 6)), np.ones((2, 6)), np.zeros(6), "lower", "positive denominators"),
        (np.ones((2, 6)), np.full((2, 6), np.nan), np.ones(6), "lower", "not finite"),
        (np.ones((2, 6)), np.ones((2, 6)), np.ones(6), "smaller", "'smaller'"),
    ],
)
def test_bad_input_is_one_clear_line(strategy, baseline, sizes, better, message):
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(strategy, baseline, sizes, better=better)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=20))
def test_kendall_tau_agrees_with_scipy(pairs):
    scipy_stats = pytest.importorskip("scipy.stats", reason="scipy is not installed (extra 'bench')")
    first, second = np.array(pairs, dtype=float).T
    assert kendall_tau(first, second) == pytest.approx(scipy_stats.kendalltau(first, second)[0], nan_ok=True)


def test_kendall_tau_by_hand():
    assert kendall_tau(np.array([1.0, 2, 3, 4]), np.array([10.0, 20, 30, 40])) == 1
    assert kendall_tau(np.array([1.0, 2, 3, 4]), np.array([4.0, 3, 2, 1])) == -1
    assert kendall_tau(np.array([1.0, 2, 3]), np.array([1.0, 3, 2])) == pytest.approx(1 / 3)
    assert math.isnan(kendall_tau(np.ones(3), np.array([1.0, 2, 3])))


@pytest.mark.parametrize(("seeds", "documents"), [(3, 6), (2, 5)])
def test_shapes_that_do_not_match_are_refused(seeds, documents):
    # jaxtyping's own check, where it is switched on, refuses them first.
    with pytest.raises((ValueError, TypeError)):
        paired_bootstrap(np.ones((2, 6)), np.ones((seeds, 6)), np.ones(documents))
    with pytest.raises((ValueError, TypeError)):
        kendall_tau(np.ones(3), np.ones(4))
