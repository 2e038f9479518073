"""The grid of domains: its config, the agreement of rankings, and what its report says."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from vqmem.cli import main
from vqmem.recipes.cross_domain.agreement import (
    DocumentFigures,
    agreement,
    compare_rankings,
    friedman_p,
    kendall_tau,
)
from vqmem.recipes.cross_domain.recipe import Config
from vqmem.recipes.cross_domain.report import matrix
from vqmem.recipes.cross_domain.table import answer, winner

LINE = {"recipe": "compare", "config": "recall_demo"}


def figures(
    order: list[float], documents: int = 30, noise: float = 0.1, sign: int = 1, seed: int = 0
) -> DocumentFigures:
    """Strategies a, b, c, … whose figures are ``order``, with noise by document."""
    drawn = np.random.default_rng(seed)
    values = np.array(order)[:, None] + noise * drawn.standard_normal((len(order), documents))
    return DocumentFigures(tuple("abcdefgh"[: len(order)]), values, np.ones(documents), sign)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=9))
def test_kendall_tau_is_that_of_scipy(pairs):
    first, second = np.array(pairs, dtype=float).T
    expected = stats.kendalltau(first, second).statistic
    found = kendall_tau(first[None], second[None])[0]
    assert (math.isnan(found) and math.isnan(expected)) or found == pytest.approx(expected)


def test_tau_of_equal_and_of_reversed_rankings():
    up, down = figures([1, 2, 3, 4]), figures([4, 3, 2, 1], documents=20, seed=1)
    assert compare_rankings(up, up) == {"tau": 1.0, "low": 1.0, "high": 1.0, "strategies": 4}
    assert compare_rankings(up, down) == {"tau": -1.0, "low": -1.0, "high": -1.0, "strategies": 4}
    higher = DocumentFigures(down.strategies, down.numerators, down.sizes, sign=-1)
    assert compare_rankings(up, higher)["tau"] == 1.0  # where higher is better, the greatest comes first


def test_tau_is_of_the_strategies_that_both_domains_have():
    some = figures([1, 2, 3, 4])
    other = DocumentFigures(("c", "x", "a", "b"), figures([3, 9, 1, 2]).numerators, np.ones(30), 1)
    assert compare_rankings(some, other) == {"tau": 1.0, "low": 1.0, "high": 1.0, "strategies": 3}
    assert compare_rankings(some, other.of(["x", "c", "a"])) is None


def test_the_interval_of_tau_covers_and_narrows():
    """Two strategies are equal in truth: their order is chance, and τ may be either."""
    found = compare_rankings(figures([1, 2, 3, 3], noise=0.5), figures([1, 2, 3, 4], noise=0.01, seed=1))
    assert found["low"] < 1.0
    assert found["high"] == 1.0


def test_domains_without_differences_are_in_no_pair():
    same = figures([1, 1, 1], noise=0.0)
    chance = figures([1, 1, 1], noise=1.0, seed=3)
    pairs, tests = agreement(
        {"text": figures([1, 2, 3]), "code": figures([1, 2, 3], seed=1), "same": same, "chance": chance}
    )
    assert [pair["domains"] for pair in pairs] == [["text", "code"]]
    assert tests["same"] == 1.0
    assert tests["chance"] > 0.05 > tests["text"]


def test_friedman_needs_three_strategies_and_six_documents():
    assert friedman_p(figures([1, 9])) == 1.0
    assert friedman_p(figures([1, 5, 9], documents=5)) == 1.0
    assert friedman_p(figures([1, 5, 9], documents=6)) < 0.05


def row(strategy: str, verdict: str, difference: float, capacity: int = 64) -> dict:
    """A row of a domain."""
    ends = {"difference_low": difference - 0.1, "difference_high": difference + 0.1}
    found = {"strategy": strategy, "capacity": capacity, "verdict": verdict, "difference": difference, **ends}
    return found | {
        "value": 1 + difference,
        "low": 0.5,
        "high": 2.0,
        "memory_bytes": 1024,
        "tokens_per_second": 10.0,
        "kept": {},
    }


def test_the_winner_beats_the_baseline_by_most_in_the_better_direction():
    rows = [row("fifo", "baseline", 0.0), row("a", "better", -0.2), row("b", "better", -0.5), row("c", "worse", 0.9)]
    rows += [row("d", "better", -0.9, capacity=128), row("e", "no difference", -0.8)]
    assert winner(rows, "lower", 64)["strategy"] == "b"
    rows = [row("fifo", "baseline", 0.0), row("a", "better", 0.2), row("b", "better", 0.5)]
    assert winner(rows, "higher", 64)["strategy"] == "b"
    assert winner([row("fifo", "baseline", 0.0), row("a", "worse", 0.2)], "lower", 64) is None


def test_the_answer_names_winners_and_null_results():
    won = {"winner": row("learned", "better", 0.6)}
    pair = {"domains": ["recall", "digits"], "tau": 0.8, "low": 0.1, "high": 1.0, "strategies": 7}
    summary = {"domains": {"recall": won, "novels": {"winner": None}, "digits": won}, "agreement": [pair]}
    assert answer(summary) == [
        "learned wins in 2 of 3 domains: recall, digits.",
        "No strategy beats the baseline in novels.",
        "Rankings agree with a mean Kendall's τ of 0.80 over 1 pair of domains, clearly (interval above 0) in 1.",
    ]


def test_the_matrix_has_a_cell_for_each_strategy_and_domain_and_none_where_it_was_not_measured():
    rows = [row("fifo", "baseline", 0.0), row("a", "better", -0.25)]
    domains = {"text": {"rows": rows, "capacities": [64]}, "code": {"rows": rows[:1], "capacities": [64]}}
    found = matrix({"domains": domains, "strategies": ["fifo", "a"]}, "smallest")
    assert found["a"][1] is None
    assert found["a"][0]["text"] == "\N{MINUS SIGN}0.25"
    assert found["a"][0]["interval"] == "\N{MINUS SIGN}0.35 … \N{MINUS SIGN}0.15"
    assert [cell["text"] for cell in found["fifo"]] == ["1.00", "1.00"]


def test_changes_of_a_line_come_after_the_shared_ones_and_mappings_replace():
    config = Config(
        domains={"one": LINE | {"seeds": [3], "lm.train.steps": 7}, "two": LINE},
        shared={
            "compare": {
                "seeds": [0],
                "strategies": {"fifo": {"policy": "fifo"}},
                "trained": ["fifo"],
                "baseline": "fifo",
            }
        },
    )
    one, two = config.read()
    assert (one.config.seeds, two.config.seeds) == ((3,), (0,))
    assert (one.config.lm.train.steps, two.config.lm.train.steps) == (7, 500)
    assert list(two.config.strategies) == ["fifo"]
    assert (one.config.out, two.config.out) == ("runs/cross_domain/one", "runs/cross_domain/two")


@pytest.mark.parametrize(
    ("domains", "reason"),
    [
        ({}, "domains is empty"),
        ({"a": {"config": "novels"}}, "domains.a=.* has no recipe"),
        ({"a": {"recipe": "compere"}}, "recipe of the domain 'a': 'compere'.*compare"),
        ({"a": {"recipe": "tts"}}, "domains.a: recipe tts compares no strategies; use compare or kv_cache"),
        ({"a": {"recipe": "compare", "config": "novel"}}, "domains.a: .*novels"),
        ({"a": LINE | {"sead": [1]}}, "domains.a: .*sead.*seeds"),
    ],
)
def test_a_bad_line_is_refused_in_one_line(domains, reason):
    with pytest.raises(ValueError, match=reason) as error:
        Config(domains=domains)
    assert "\n" not in str(error.value)


def test_a_folder_may_have_any_name(tmp_path):
    out = str(tmp_path / "a #1: b")
    (domain,) = Config(out=out, domains={"a": LINE}).read()
    assert domain.config.out == f"{out}/a"


def test_a_domain_without_data_is_listed_and_nothing_else_is_refused(tmp_path, capsys):
    given = ["domains={}", "domains={novels: {recipe: compare, config: text, lm.data.path: MY_FOLDER}}"]
    assert main(["cross_domain", "quick", *given, f"out={tmp_path / 'grid'}"]) == 2
    message = capsys.readouterr().err.strip()
    assert message == (
        "vqmem: nothing was measured: novels: lm.data.path is not given: MY_FOLDER stands for your data; "
        "give lm.data.path=FILE_OR_FOLDER"
    )
    assert not (tmp_path / "grid").exists()


def test_capacities_and_domains_keep_their_order():
    names = [f"d{number}" for number in range(4)]
    config = Config(domains=dict.fromkeys(names, LINE))
    assert all(first.name < second.name for first, second in pairwise(config.read()))
