import math
from statistics import NormalDist

import numpy as np
import pytest
from vqmem.recipes.compare.statistics import bootstrap_interval, expanded_tail, paired_bootstrap

T_975 = {6: 2.570582, 20: 2.093024, 300: 1.967930, 5000: 1.960439}
"""97.5 % quantiles of Student's t by the number of documents, which is one more than the degrees of freedom."""


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


def plain_intervals(strategy, baseline, sizes, resamples, resample_seeds):
    """The ends of value and difference by a loop over resamples: the oracle of `paired_bootstrap`."""
    seeds, documents = strategy.shape
    rng = np.random.default_rng(1)
    draws = []
    for _ in range(resamples):
        picked = rng.integers(documents, size=documents)
        models = rng.integers(seeds, size=seeds) if resample_seeds else np.arange(seeds)
        ours, theirs = (numerators[models][:, picked].sum() / seeds for numerators in (strategy, baseline))
        if total := sizes[picked].sum():
            draws.append([ours / total, (ours - theirs) / total])
    tail = expanded_tail(documents)
    return np.quantile(draws, [tail, 1 - tail], axis=0).T


@pytest.mark.parametrize("resample_seeds", [False, True])
@pytest.mark.parametrize("documents", [8, 40])
@pytest.mark.parametrize("without_size", [0, 6])
def test_interval_agrees_with_a_plain_loop(documents, without_size, resample_seeds):
    strategy, baseline, sizes = corpus(np.random.default_rng(0), documents, effect=-0.02, spread=0.02)
    strategy += np.array([[-0.01], [0.0], [0.02]]) * sizes
    for array in (strategy, baseline, sizes):
        array[..., :without_size] = 0
    found = paired_bootstrap(strategy, baseline, sizes, resamples=20_000, resample_seeds=resample_seeds)
    expected = plain_intervals(strategy, baseline, sizes, 20_000, resample_seeds)
    for ends, plain in zip(
        [(found.low, found.high), (found.difference_low, found.difference_high)], expected, strict=True
    ):
        # Monte Carlo error of two sets of 20,000 resamples.
        assert ends == pytest.approx(tuple(plain), abs=0.04 * (plain[1] - plain[0]))


@pytest.mark.parametrize("documents", T_975)
def test_expanded_tail_by_the_table_of_student(documents):
    expected = NormalDist().cdf(-math.sqrt(documents / (documents - 1)) * T_975[documents])
    assert expanded_tail(documents) == pytest.approx(expected, rel=1e-5)


def test_an_interval_of_means_is_about_that_of_students_t():
    groups = np.random.default_rng(1).normal(size=24)
    low, high = bootstrap_interval(lambda drawn: groups[drawn].mean(-1), 24, resamples=2000)
    error = groups.std(ddof=1) / 24**0.5
    assert low == pytest.approx(groups.mean() - 2.07 * error, abs=0.3 * error)
    assert high == pytest.approx(groups.mean() + 2.07 * error, abs=0.3 * error)


def test_draws_that_do_not_define_a_figure_are_left_out_of_it_alone():
    def figures(drawn):
        first = np.where((drawn == 0).any(-1), 1.0, math.nan)
        return np.stack([first, np.full(len(drawn), 2.0), np.full(len(drawn), math.nan)])

    low, high = bootstrap_interval(figures, 8, resamples=100)
    np.testing.assert_array_equal(low, [1.0, 2.0, math.nan])
    np.testing.assert_array_equal(high, low)


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
    comparison = paired_bootstrap(strategy, None, sizes)
    assert (comparison.verdict, comparison.difference, comparison.difference_low) == ("baseline", 0.0, 0.0)
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


@pytest.mark.parametrize(("seeds", "documents"), [(3, 6), (2, 5)])
def test_shapes_that_do_not_match_are_refused(seeds, documents):
    # jaxtyping's check, where it is switched on, refuses them first.
    with pytest.raises((ValueError, TypeError)):
        paired_bootstrap(np.ones((2, 6)), np.ones((seeds, 6)), np.ones(documents))
