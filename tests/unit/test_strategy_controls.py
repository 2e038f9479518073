"""Controls: policies that see shuffled, inverted or random scores in place of the scorer's."""

import pytest
import torch
from vqmem.recipes.compare.config import Config
from vqmem.recipes.lm.strategies import strategies
from vqmem.recipes.text_lm.config import Config as RunConfig

SCORED = {"policy": {"name": "scored", "surprise": 1.0}}
VALUES = [torch.arange(12.0).reshape(6, 2), torch.arange(8.0).reshape(4, 2)]


def control(how: str):
    """The strategy with that control."""
    return strategies({"one": SCORED | {"scores": how}})[0]


def test_scores_are_those_of_the_scorer_unless_a_control_is_named():
    assert strategies({"one": SCORED})[0].controlled(VALUES) is VALUES


def test_shuffled_scores_are_the_same_rows_in_another_order_and_again_the_same():
    found = control("shuffled").controlled(VALUES)
    for values, given in zip(found, VALUES, strict=True):
        assert sorted(values.tolist()) == given.tolist()
    assert any(values.tolist() != given.tolist() for values, given in zip(found, VALUES, strict=True))
    assert all(map(torch.equal, found, control("shuffled").controlled(VALUES)))


def test_inverted_and_random_scores():
    assert all(
        torch.equal(values, -given)
        for values, given in zip(control("inverted").controlled(VALUES), VALUES, strict=True)
    )
    found = control("random").controlled(VALUES)
    assert [values.shape for values in found] == [values.shape for values in VALUES]
    assert all(((values >= 0) & (values < 1)).all() for values in found)
    assert all(map(torch.equal, found, control("random").controlled(VALUES)))


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (SCORED | {"scores": "shufled"}, "scores of the strategy 'one': 'shufled'.*shuffled"),
        ({"policy": "fifo", "scores": "random"}, "strategy 'one': scores=random, but its policy reads no scores"),
    ],
)
def test_controls_that_make_no_sense_are_refused(node, reason):
    with pytest.raises(ValueError, match=reason):
        strategies({"one": node})


def test_no_model_is_trained_with_a_control():
    given = {"fifo": {"policy": "fifo"}, "scored": SCORED, "shuffled": SCORED | {"scores": "shuffled"}}
    config = Config(strategies=given, baseline="fifo")
    assert list(config.mixed(0).strategies) == ["fifo", "scored"]
    with pytest.raises(ValueError, match="scores=shuffled is a control, with which no model is trained; leave it out"):
        Config(strategies=given, baseline="fifo", trained=("fifo", "shuffled"))
    with pytest.raises(ValueError, match=r"scores=shuffled is a control, .*name it in eval_strategies"):
        RunConfig(strategies=given)
