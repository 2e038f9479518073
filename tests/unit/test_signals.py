"""No policy weighs a signal that the scorer beside it does not give, wherever the two meet."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import transformers
from vqmem import registry
from vqmem.cli import main
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.policies.expire_span import Policy as ExpireSpan
from vqmem.memory.policies.scored import Policy as Scored
from vqmem.memory.policy import require_signals
from vqmem.memory.scorer import SIGNALS, policy_of, signals_of
from vqmem.models.scorers.random import Noise
from vqmem.recipes.asr.units.recogniser import Recogniser
from vqmem.recipes.compare.recipe import Config as Compare
from vqmem.recipes.compare.recipe import run as run_comparison
from vqmem.recipes.engine.config import from_dict
from vqmem.recipes.lm.language_model import strategies
from vqmem.recipes.text_lm.generate import reader
from vqmem.recipes.text_lm.recipe import Config, Run, run

SURPRISE, GAIN = ({"policy": {"name": "scored", "surprise": x, "gain": 1.0 - x}} for x in (1.0, 0.0))
REFUSED = r"strategy 'mine': policy scored weighs surprise, which the scorer reuse does not give; weigh gain or rarity"


@pytest.fixture(scope="module")
def reuse_run(tmp_path_factory) -> Config:
    """A finished run of a tiny scorer `reuse`."""
    small = {"device": "cpu", "passage": 64, "batch_size": 2, "segment": 16, "train_tokens": 2000, "eval_passages": 2}
    out = str(tmp_path_factory.mktemp("signals") / "reuse")
    spec = {"name": "reuse", "dim": 4, "hidden": 8, "horizon": 8}
    train = {"steps": 2, "tensorboard": False}
    config = from_dict(Config, {**small, "out": out, "front_end": "bytes", "scorer": spec, "scorer_train": train})
    run(config)
    return config


@pytest.mark.parametrize("name", registry.names("scorers"))
def test_every_scorer_gives_what_its_own_policy_weighs(name):
    spec = registry.build("scorers", name)
    model = spec.build(50)
    assert set(signals_of(spec)) <= set(SIGNALS)
    assert (signals_of(model), policy_of(model)) == (signals_of(spec), policy_of(spec))
    require_signals(registry.build("policies", policy_of(spec)), model)


class Doubt(Noise):
    """Gives the rarity alone and names no policy."""

    signals: ClassVar = ("rarity",)


@dataclass(frozen=True)
class ByFirst:
    """A policy that reads scores in another way."""

    requires: ClassVar = ("scores",)

    def priority(self, slots, now):
        return slots.scores[..., 0]


class ByRarity(ByFirst):
    signals: ClassVar = ("rarity",)


def test_what_a_policy_weighs_is_what_it_declares_or_gives_a_weight():
    assert policy_of(Doubt(0)) == {"name": "scored", "surprise": 0.0, "rarity": 1.0}
    for policy in (
        ByRarity(),
        Scored(surprise=0.0, rarity=-1.0),
        ExpireSpan(surprise=0.0),
        registry.build("policies", "h2o"),
    ):
        require_signals(policy, Doubt(0))
    for policy, missing in (
        (ByFirst(), "surprise and gain"),
        (Scored(), "surprise"),
        (Scored(surprise=-0.25, rarity=2.0), "surprise"),
        (ExpireSpan(surprise=0.0, gain=0.1), "gain"),
    ):
        with pytest.raises(ValueError, match=f"weighs {missing}, which the scorer Doubt does not give; weigh rarity"):
            require_signals(policy, Doubt(0))
        require_signals(policy, Noise(0))


class Names(torch.nn.Module):
    """Knows that ids from 40 on come again, and says so as `reuse` does: by a low first signal and a high gain."""

    signals, policy = (getattr(registry.load("scorers", "reuse"), name) for name in ("signals", "policy"))

    def initial_state(self, batch):
        return torch.zeros(batch)

    def score(self, tokens, state):
        first = torch.where(tokens >= 40, 0.1, 5.0)
        rarity = torch.full_like(first, 6.0)
        return torch.stack([first, rarity, rarity - first], -1), state

    def training_step(self, tokens, state, mask):
        raise NotImplementedError


@pytest.mark.parametrize("policy", [None, "scored", {"name": "scored", "surprise": 0, "gain": 1}])
def test_a_cache_keeps_what_comes_again(policy):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=50, **shape)).eval()
    ids = torch.randint(1, 40, (1, 60))
    ids[0, [7, 11, 20, 33]] = torch.tensor([41, 42, 43, 44])
    cache = VQMemCache(model, 8, policy=policy, scorer=Names(), sinks=1, recent=3)
    with torch.no_grad():
        for part in ids.split(12, 1):
            model(part, None, None, cache)
    assert cache.positions[0][1:5] == [7, 11, 20, 33]
    with pytest.raises(ValueError, match="policy scored weighs surprise, which the scorer"):
        VQMemCache(model, 8, policy={"name": "scored", "window": 3}, scorer=Names())


@pytest.mark.parametrize("policy", ["scored", {"name": "scored", "copies": 2.0}, SURPRISE["policy"]])
def test_configs_are_refused_before_anything_is_trained(policy):
    made = {"mine": {"policy": policy}}
    for make in (
        lambda: Config(scorer="reuse", strategies=made),
        lambda: Compare(strategies=made, baseline="mine", lm=Config(scorer={"name": "reuse"})),
        lambda: Recogniser(scorer="reuse", strategies=made),
    ):
        with pytest.raises(ValueError, match=REFUSED):
            make()
    Config(scorer="vq_lm", strategies=made)
    Config(scorer="reuse", strategies={"mine": GAIN})


def test_untrained_strategies_of_a_comparison_are_looked_at_too():
    both = {"kept": GAIN, "mine": SURPRISE}
    with pytest.raises(ValueError, match=REFUSED):
        Compare(strategies=both, trained=("kept",), baseline="kept", lm=Config(scorer="reuse"))


def test_the_scorer_of_another_run_counts_and_not_the_one_that_is_named(reuse_run, tmp_path):
    lm = {"scorer_from": reuse_run.out, "device": "cpu", "front_end": "bytes"}
    with pytest.raises(ValueError, match=REFUSED):
        run(Config(out=str(tmp_path / "run"), strategies={"mine": SURPRISE}, **lm))
    config = Compare(
        out=str(tmp_path / "comparison"),
        strategies={"kept": GAIN, "mine": SURPRISE},
        trained=("kept",),
        baseline="kept",
        lm=Config(**lm),
    )
    with pytest.raises(ValueError, match=REFUSED):
        run_comparison(config)
    assert not (tmp_path / "comparison" / "seed-0").exists()


def test_a_run_is_not_read_with_a_scorer_that_lacks_a_signal(reuse_run):
    scorer = registry.build("scorers", reuse_run.scorer).build(260)
    asked = Config(strategies={"mine": SURPRISE})  # as a run that has its scorer from elsewhere says
    with pytest.raises(ValueError, match=REFUSED):
        reader(Run(asked, None, scorer, None))  # pyright: ignore[reportArgumentType]
    assert strategies({"mine": GAIN}, scorer)[0].policy == registry.build("policies", GAIN["policy"])


def test_score_shows_what_the_scorer_gives(reuse_run, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("a whale is a whale")
    asked = ["score", str(tmp_path / "text.txt"), "--model", reuse_run.out]
    assert main([*asked, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {tuple(row) for row in rows} == {("text", "start", "end", "rarity", "gain", "code")}
    assert main(asked) == 0
    errors = capsys.readouterr().err
    assert "orange = high gain" in errors
    assert "surprise" not in errors
    assert main([*asked, "--signal", "rarity", "--html", str(tmp_path / "page.html")]) == 0
    assert '"signals":{"rarity":' in (tmp_path / "page.html").read_text().replace(": ", ":").replace(", ", ",")
    assert main([*asked, "--signal", "surprise"]) == 2
    assert "this scorer does not give the signal 'surprise'; use gain or rarity" in capsys.readouterr().err
