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
from vqmem.memory.bank import Memory
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.policies.expire_span import Policy as ExpireSpan
from vqmem.memory.policies.scored import Policy as Scored
from vqmem.memory.policy import Guard, require_signals
from vqmem.memory.scorer import SIGNALS, policy_of, signals_of
from vqmem.models.memory_transformer import TransformerConfig
from vqmem.models.scorers.random import Noise
from vqmem.recipes.asr.units.recogniser import Recogniser
from vqmem.recipes.compare.recipe import Config as Compare
from vqmem.recipes.compare.recipe import run as run_comparison
from vqmem.recipes.engine.config import from_dict
from vqmem.recipes.lm.decoder import make_reader
from vqmem.recipes.lm.language_model import LanguageModel
from vqmem.recipes.lm.strategies import Strategy, strategies
from vqmem.recipes.text_lm.generate import reader
from vqmem.recipes.text_lm.recipe import Config, Run, run

SURPRISE, REUSE = ({"policy": {"name": "scored", "surprise": x, "reuse": 1.0 - x}} for x in (1.0, 0.0))
REFUSED = r"strategy 'mine': policy scored weighs surprise, which the scorer reuse does not give; weigh reuse, as in"


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

    def score(self, tokens, state):
        scores, state = super().score(tokens, state)
        return scores[..., 1:2], state


@dataclass(frozen=True)
class BySurprise:
    """A policy that reads scores in another way."""

    requires: ClassVar = ("scores",)
    signals: ClassVar = ("surprise",)

    def priority(self, slots, now):
        return slots.score(self.signals[0])


class ByRarity(BySurprise):
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
        (BySurprise(), "surprise"),
        (Scored(), "surprise"),
        (Scored(surprise=-0.25, rarity=2.0), "surprise"),
        (ExpireSpan(surprise=0.0, gain=0.1), "gain"),
    ):
        with pytest.raises(ValueError, match=f"weighs {missing}, which the scorer Doubt does not give; weigh rarity"):
            require_signals(policy, Doubt(0))
        require_signals(policy, Noise(0))


class Names(torch.nn.Module):
    """Knows that ids from 40 on come again, and says so as `reuse` does."""

    signals, policy = (getattr(registry.load("scorers", "reuse"), name) for name in ("signals", "policy"))

    def initial_state(self, batch):
        return torch.zeros(batch)

    def score(self, tokens, state):
        return torch.where(tokens >= 40, 5.9, 1.0)[..., None], state

    def training_step(self, tokens, state, mask):
        raise NotImplementedError


@pytest.mark.parametrize("policy", [None, "scored", {"name": "scored", "surprise": 0, "reuse": 1}])
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
    with pytest.raises(
        ValueError, match=r'weighs gain, which the scorer Names does not give; weigh reuse, as in {"name"'
    ):
        VQMemCache(model, 8, policy={"name": "scored", "surprise": 0, "gain": 1}, scorer=Names())


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
    Config(scorer="reuse", strategies={"mine": REUSE})


def test_untrained_strategies_of_a_comparison_are_looked_at_too():
    both = {"kept": REUSE, "mine": SURPRISE}
    with pytest.raises(ValueError, match=REFUSED):
        Compare(strategies=both, trained=("kept",), baseline="kept", lm=Config(scorer="reuse"))


def test_the_scorer_of_another_run_counts_and_not_the_one_that_is_named(reuse_run, tmp_path):
    lm = {"scorer_from": reuse_run.out, "device": "cpu", "front_end": "bytes"}
    with pytest.raises(ValueError, match=REFUSED):
        run(Config(out=str(tmp_path / "run"), strategies={"mine": SURPRISE}, **lm))
    config = Compare(
        out=str(tmp_path / "comparison"),
        strategies={"kept": REUSE, "mine": SURPRISE},
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
    assert strategies({"mine": REUSE}, scorer)[0].policy == registry.build("policies", REUSE["policy"])


def test_score_shows_what_the_scorer_gives(reuse_run, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("a whale is a whale")
    asked = ["score", str(tmp_path / "text.txt"), "--model", reuse_run.out]
    assert main([*asked, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {tuple(row) for row in rows} == {("text", "start", "end", "reuse", "code")}
    assert main(asked) == 0
    errors = capsys.readouterr().err
    assert "orange = high reuse" in errors
    assert "surprise" not in errors
    assert main([*asked, "--signal", "reuse", "--html", str(tmp_path / "page.html")]) == 0
    assert '"signals":{"reuse":' in (tmp_path / "page.html").read_text().replace(": ", ":").replace(", ", ",")
    assert main([*asked, "--signal", "surprise"]) == 2
    assert "this scorer does not give the signal 'surprise'; use reuse" in capsys.readouterr().err


class Vowels(torch.nn.Module):
    """A scorer of another package, with a signal that the package does not know."""

    signals = ("length", "theirs")

    def initial_state(self, batch):
        return torch.zeros(batch)

    def score(self, tokens, state):
        return torch.stack([tokens.float(), (tokens >= 40).float()], -1), state


@dataclass(frozen=True)
class ByTheirs:
    """A policy of another package that reads it."""

    requires: ClassVar = ("scores",)

    def priority(self, slots, now):
        assert slots.score_names == Vowels.signals
        assert slots.standard_score("theirs").shape == slots.score("length").shape
        return slots.score("theirs") - 1e-3 * (now[:, None] - slots.positions)


def small_llama():
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=50, **shape)).eval()


@torch.no_grad()
def test_a_signal_that_the_package_does_not_know_reaches_a_policy_that_does():
    model, ids = small_llama(), torch.randint(1, 40, (1, 60))
    ids[0, [7, 11, 20, 33]] = torch.tensor([41, 42, 43, 44])
    cache = VQMemCache(model, 8, policy=ByTheirs(), scorer=Vowels(), sinks=1, recent=3)
    for part in ids.split(12, 1):
        model(part, None, None, cache)
    assert cache.positions[0][1:5] == [7, 11, 20, 33]
    strategy, guard = Strategy("theirs", ByTheirs(), registry.build("compressions", "drop")), Guard(1, 3)
    language_model = LanguageModel(TransformerConfig(50, layers=1, dim=16, heads=2), [strategy]).eval()
    reader = make_reader(language_model, Vowels(), 12, strategy, strategy.memory(8, guard))
    _, state = reader.read(ids, reader.start())
    assert state.memory.slots.positions[0][1:5].tolist() == [7, 11, 20, 33]


def test_what_reads_a_signal_that_is_not_there_is_refused_in_one_line():
    model = small_llama()
    with pytest.raises(
        ValueError, match="presets weigh surprise, rarity, gain, reuse, and the scorer Vowels gives len"
    ):
        VQMemCache(model, 8, scorer=Vowels())
    cache = VQMemCache(model, 8, policy=ByTheirs(), scorer=Noise(0))
    with pytest.raises(
        ValueError, match="weighs surprise, which the scorer Vowels does not give; weigh length or theirs, in"
    ):
        VQMemCache(model, 8, policy="scored", scorer=Vowels())
    slots = cache.memory.empty((torch.zeros(1, 0),), Noise.signals).slots
    with pytest.raises(ValueError, match=r"no signal 'theirs' of the scorer \(it gives surprise, rarity, gain\)"):
        slots.score("theirs")
    nameless = type("Nameless", (), {"score": Vowels.score, "initial_state": Vowels.initial_state})
    with pytest.raises(ValueError, match="the scorer Nameless does not name what its `score` returns; give it a class"):
        VQMemCache(model, 8, policy="fifo", scorer=nameless())
    memory = Memory(4)
    tokens = torch.zeros(1, 3, dtype=torch.long)
    with pytest.raises(
        ValueError, match=r"scores of 3 signals do not fit a memory of 0 \(none\); name the scorer's in"
    ):
        memory.append(memory.empty((tokens,)), (tokens,), tokens, tokens, torch.zeros(1, 3, 3), tokens >= 0)
