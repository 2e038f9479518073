"""`vqmem fit_policy` for memory transformers, on text and on units, and the commands that use what it fitted."""

from __future__ import annotations

import json
import math
import random
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from vqmem.cli import main
from vqmem.memory.bank import Memory
from vqmem.memory.fitted import FittedPolicy
from vqmem.memory.policy import Guard
from vqmem.models.learned_policy import LearnedPolicy, bind
from vqmem.recipes.fit_policy import trained
from vqmem.recipes.fit_policy.full_pass import later_attention
from vqmem.recipes.fit_policy.report import DESCRIPTIONS
from vqmem.recipes.fit_policy.run import _use
from vqmem.recipes.lm.corpus import Passage
from vqmem.recipes.lm.decoder import make_reader
from vqmem.recipes.lm.language_model import read_passages, score_passages
from vqmem.recipes.lm.strategies import strategies
from vqmem.recipes.text_lm.recipe import load_run
from vqmem.registry import build

CPU = torch.device("cpu")
FIT = ["passages=3", "stream_passages=2", "length=192", "device=cpu"]
LEARNED = "{policy: {name: weighted, learned: 1.0, folder: '{run}/policy', score: 0.0}}"
BESIDE = "{policy: {name: weighted, learned: 1.0, folder: '{run}/policy', surprise: 1.0, score: 0.2}}"


def fit(run: Path, out: Path, *more: str) -> None:
    assert main(["fit_policy", str(run), f"out={out}", *FIT, *more]) == 0


def loss_with(folder: Path, policy: dict, ids: torch.Tensor) -> float:
    """The nats a token of reading with a policy and 24 slots."""
    run = load_run(folder)
    (strategy,) = strategies({"it": {"policy": policy}})
    memory = strategy.memory(24, run.config.guard)
    (reading,), _ = read_passages(run.model, strategy, memory, [Passage.from_ids(ids)], None, 1, run.config.segment)
    return reading.nll.mean().item()


@pytest.fixture(scope="module")
def fitted(tiny_run: Path, tmp_path_factory) -> Path:
    """A run with a policy in its folder ``policy``, fitted to attention whether or not that loses least."""
    run = shutil.copytree(tiny_run, tmp_path_factory.mktemp("fitted") / "run")
    fit(run, run / "policy", "ahead=later")
    return run


@pytest.fixture(scope="module")
def ids(fitted) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(load_run(fitted).tokenizer.vocab_size, (193,), generator=generator)


def test_the_command_writes_a_policy_and_what_it_found(fitted, tmp_path, capsys):
    fit(fitted, tmp_path / "again", "ahead=later")
    printed = capsys.readouterr()
    assert "predicted from keys: R²" in printed.out
    for name in ("the policy", "predicted alone", "newest first alone", "usage alone", "surprise alone", "chance"):
        assert f"%  {name}" in printed.out
    assert f"vqmem text_lm {fitted}/config.yaml out={fitted} eval_strategies.learned=" in printed.out
    assert "fitting the policy" in printed.err
    first, second = (
        [(x.name, x.read_bytes()) for x in sorted(y.iterdir()) if "report" not in x.name]
        for y in (fitted / "policy", tmp_path / "again")
    )
    assert first == second
    assert sum(len(data) for _, data in first) < 2**20
    page = (tmp_path / "again" / "report.html").read_text()
    assert page.count("<svg") == 1
    about = json.loads((fitted / "policy" / "policy.json").read_text())
    assert about["found"]["recall"].keys() == {"model"}


def test_a_finished_run_is_evaluated_and_continued_with_the_policy(fitted, capsys):
    weights = (fitted / "transformer" / "model.safetensors").read_bytes()
    command = ["text_lm", str(fitted / "config.yaml"), f"out={fitted}"]
    command.append(f"eval_strategies={{learned: {LEARNED}, beside: {BESIDE}}}")
    assert main(command) == 0
    figures = json.loads((fitted / "evaluation.json").read_text())["memories"]
    assert {"transformer_xl@24", "learned@24", "beside@24"} <= figures.keys()
    assert figures["learned@24"]["nll"] != figures["transformer_xl@24"]["nll"]
    assert (fitted / "transformer" / "model.safetensors").read_bytes() == weights
    capsys.readouterr()
    assert main(["generate", str(fitted), "--prompt", "Call me " * 20, "--strategy", "beside", "--tokens", "9"]) == 0
    assert capsys.readouterr().out.startswith("Call me")


@pytest.mark.parametrize(
    ("signals", "score"),
    [
        (["usage", "surprise", "gain"], {"score": 0.2}),
        (["usage", "rarity", "reuse"], {"surprise": 0.0, "rarity": 1.0, "score": 0.2}),
        (["usage", "vowels"], {"score": 0.0}),
    ],
)
def test_the_printed_command_weighs_what_the_scorer_gives(fitted, signals, score):
    command = shlex.split(_use(str(fitted), "runs/a, 'b' #1", signals))
    node = yaml.safe_load(command[-1].removeprefix("eval_strategies.learned="))
    assert node == {"policy": {"name": "weighted", "learned": 1.0, "folder": "runs/a, 'b' #1", **score}}


def test_the_printed_command_works_for_a_run_that_was_moved(fitted, tmp_path, capsys):
    run = shutil.copytree(fitted, tmp_path / "it's a run #1, é")
    fit(run, run / "my policy")
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert main(command[1:]) == 0
    assert "learned@24" in json.loads((run / "evaluation.json").read_text())["memories"]


def test_a_run_whose_guards_fill_its_capacity_is_refused_before_it_is_read(config_file, tmp_path, capsys):
    run, config = tmp_path / "run", tmp_path / "guarded.yaml"
    config.write_text(config_file.read_text().partition("strategies:")[0] + "strategies: {fifo: {policy: fifo}}\n")
    assert main(["text_lm", str(config), f"out={run}", "capacities=[16]", "sinks=4", "recent=12"]) == 0
    capsys.readouterr()
    assert main(["fit_policy", str(run), f"out={tmp_path / 'policy'}", *FIT]) == 2
    wanted = "vqmem: capacity=16 leaves nothing to choose: the guards keep 16 slots; give capacity=17 or more\n"
    assert capsys.readouterr().err == wanted
    fit(run, tmp_path / "policy", "capacity=17")


def weighs_age_alone(policy: FittedPolicy) -> bool:
    return policy.weights["model"].flatten().tolist() == [0.0, -1.0]


@pytest.mark.parametrize("best", ["attention", "newest"])
def test_a_policy_is_fitted_to_what_loses_least(fitted, tmp_path, capsys, monkeypatch, ids, best):
    read, capacities = trained.TrainedHost.loss, set()

    def loss(host, policy, passages, capacity):
        capacities.add(capacity)
        return read(host, policy, passages, capacity) + (weighs_age_alone(policy) == (best == "attention"))

    monkeypatch.setattr(trained.TrainedHost, "loss", loss)
    fit(fitted, tmp_path / "auto", "capacity=30")
    assert capacities == {24, 30}
    printed = capsys.readouterr().out
    about = json.loads((tmp_path / "auto" / "policy.json").read_text())
    losses = about["found"]["losses"]
    chosen = min(losses, key=losses.get)
    assert (chosen == "newest") == (best == "newest")
    assert f"chosen: {DESCRIPTIONS[chosen]}\n" in printed
    assert losses.keys() == {"newest", "next", "later"}
    assert "nats a token of the streams, kept by the mean attention of the next segment" in printed
    if chosen == "newest":
        assert about["found"]["recall"]["model"] == about["found"]["single"]["log_age"]
        node = {"name": "weighted", "learned": 1.0, "folder": str(tmp_path / "auto"), "score": 0.0}
        assert loss_with(fitted, node, ids) == loss_with(fitted, {"name": "fifo"}, ids)
        return
    tensors = {}
    for ahead in ("next", "later"):
        fit(fitted, tmp_path / ahead, f"ahead={ahead}", "capacity=30")
        found = json.loads((tmp_path / ahead / "policy.json").read_text())["found"]
        assert "losses" not in found
        tensors[ahead] = (tmp_path / ahead / "policy.safetensors").read_bytes()
    assert tensors["next"] != tensors["later"]
    assert (tmp_path / "auto" / "policy.safetensors").read_bytes() == tensors[chosen]


@pytest.mark.parametrize("ahead", ["next", "later"])
def test_the_loss_of_a_policy_is_that_of_reading_with_it(fitted, tmp_path, ids, ahead):
    fit(fitted, tmp_path / "policy", f"ahead={ahead}")
    run = load_run(fitted)
    policy = FittedPolicy.load(str(tmp_path / "policy"), run.model.transformer)
    node = {"name": "weighted", "learned": 1.0, "folder": str(tmp_path / "policy"), "score": 0.0}
    found = trained.TrainedHost(run).loss(policy, [Passage.from_ids(ids[:190])], 24)
    assert found == pytest.approx(loss_with(fitted, node, ids[:190]), abs=1e-5)


def test_what_loses_least_is_measured_as_the_run_weighs_its_answers(fitted, ids):
    run = load_run(fitted)
    host = trained.TrainedHost(run, off_target_weight=0.05)
    policy = FittedPolicy.load(str(fitted / "policy"), run.model.transformer)
    marked = torch.zeros(190, dtype=torch.bool)
    marked[150:160] = True
    passage, other = replace(Passage.from_ids(ids[:190]), target_mask=marked), Passage.from_ids(ids[40:])
    found = host.loss(policy, [passage, other], 24)
    alike = trained.TrainedHost(run)
    head, tail, full, more = (
        alike.loss(policy, [part], 24) * (len(part) - 1) for part in (passage[:150], passage[:160], passage, other)
    )
    of_answers, answers, others = tail - head, 10, 179 + len(other) - 1
    wanted = (of_answers + 0.05 * (full - of_answers + more)) / (answers + 0.05 * others)
    assert found == pytest.approx(wanted, rel=1e-4)


def test_a_fit_without_answers_to_a_run_that_weighs_them_weighs_all_tokens_alike(config_file, tmp_path, capsys):
    run = tmp_path / "run"
    keys = ["data={name: mqar, train_documents: 60, held_out_documents: 8}", "front_end=bytes", "passage=200"]
    assert main(["text_lm", str(config_file), f"out={run}", "off_target_weight=0.1", *keys]) == 0
    capsys.readouterr()
    fit(run, tmp_path / "marked", "length=96")
    assert "mark no answers" not in capsys.readouterr().err
    fit(run, tmp_path / "unmarked", "length=96", "data=builtin_text", "ahead=later")
    assert "the passages mark no answers: all tokens weigh alike\n" in capsys.readouterr().err
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("off_target_weight: 0.1", "off_target_weight: 1.0"))
    fit(run, tmp_path / "alike", "length=96", "data=builtin_text", "ahead=later")
    first, second = (tmp_path / name / "policy.safetensors" for name in ("unmarked", "alike"))
    assert first.read_bytes() == second.read_bytes()


def test_a_run_with_long_segments_is_fitted_to_passages_hardly_longer_than_its_memory(config_file, tmp_path):
    run = tmp_path / "run"
    assert main(["text_lm", str(config_file), f"out={run}", "segment=300", "passage=600"]) == 0
    settings = trained.load_host(str(run), CPU).settings
    assert (settings.chunk, settings.horizon, settings.shortest) == (128, 256, 384)
    fit(run, tmp_path / "policy", "length=384")


def test_a_comparison_measures_the_policies_that_were_fitted_before(config_file, tmp_path, capsys):
    shared = [
        line for line in config_file.read_text().splitlines() if not line.startswith(("capacities", "strategies", " "))
    ]
    config = tmp_path / "compare.yaml"
    lines = ["lm:", *(f"  {line}" for line in shared), "strategies:", "  transformer_xl: {policy: fifo}"]
    lines += [f"capacities: [24]\nseeds: [0, 1]\nout: {tmp_path / 'out'}"]
    config.write_text("\n".join(lines))
    assert main(["compare", str(config)]) == 0
    for seed in (0, 1):
        run = tmp_path / "out" / f"seed-{seed}"
        if seed:
            capsys.readouterr()
            assert main(["compare", str(config), f"strategies.learned={LEARNED}"]) == 2
            assert "no policy can be fitted with passages of 64 tokens" in capsys.readouterr().err
        fit(run, run / "policy")
    assert main(["compare", str(config), f"strategies.learned={LEARNED}"]) == 0
    rows = json.loads((tmp_path / "out" / "summary.json").read_text())["rows"]
    assert [row["strategy"] for row in rows] == ["transformer_xl", "learned"]
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 4


def test_units_of_speech(tmp_path):
    drawing = random.Random(0)
    rows = [{"id": f"{i}", "units": [drawing.randrange(8) for _ in range(300)]} for i in range(20)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sizes = ["passage=256", "batch_size=2", "segment=16", "scorer.dim=8", "scorer.hidden=8", "scorer.codes=4"]
    sizes += ["scorer_train.steps=2", "train.steps=2", "shape.dim=16", "shape.heads=2", "shape.layers=1"]
    sizes += ["train.eval_every=0", "device=cpu", "front_end.vocab_size=8", "capacities=[24]", "eval_passages=2"]
    sizes += ["data={name: unit_files, path: " + str(tmp_path / "rows.jsonl") + "}", f"out={tmp_path / 'run'}"]
    assert main(["text_lm", "units", *sizes]) == 0
    fit(tmp_path / "run", tmp_path / "run" / "policy", "signals=[predicted,usage,log_age]")
    assert main(["text_lm", "units", *sizes, f"eval_strategies.learned={LEARNED}"]) == 0
    assert "learned@24" in json.loads((tmp_path / "run" / "evaluation.json").read_text())["memories"]


@pytest.fixture(scope="module")
def host(fitted):
    """The host of the run, with large weights, so that attention is far from even."""
    host = trained.load_host(str(fitted), CPU)
    torch.manual_seed(0)
    with torch.no_grad():
        for weights in host.transformer.parameters():
            weights.normal_(std=0.3)
    return host


def rotated(x: torch.Tensor, position: int) -> torch.Tensor:
    half = len(x) // 2
    angle = position * 10_000.0 ** (-torch.arange(half) / half)
    return torch.cat([x[:half] * angle.cos() - x[half:] * angle.sin(), x[:half] * angle.sin() + x[half:] * angle.cos()])


def normed(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt() * gain


@pytest.mark.parametrize("ahead", ["later", "next"])
@pytest.mark.parametrize("length", [193, 187, 178])  # twelve full segments, a long rest and one of a single token
@pytest.mark.parametrize("off_target_weight", [1.0, 0.05])
@torch.no_grad()
def test_the_target_is_the_mean_of_the_weights_that_later_queries_pay(host, ids, off_target_weight, length, ahead):
    """Attention of the full passage, written out for each layer, head and query, which counts as its target does."""
    ids = ids[:length]
    marked = torch.rand(length, generator=torch.Generator().manual_seed(2)) < 0.1
    counts = torch.where(marked[1:], 1.0, off_target_weight)
    model, heads = host.transformer, host.transformer.config.heads
    x = model.embed.weight[ids[:-1]]
    time, width = len(x), x.shape[1] // heads
    paid = torch.zeros(len(model.blocks), heads, time, time)
    if model.shift is not None:
        x = x + F.pad(x[:-1], (0, 0, 1, 0)) @ model.shift.weight.T
    for layer, block in enumerate(model.blocks):
        states = normed(x, block.attention_norm.weight)
        q = states @ block.attention.query.weight.T
        k, v = (states @ block.attention.key_value.weight.T).chunk(2, dim=1)
        mixed = torch.zeros_like(x)
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            keys = torch.stack([rotated(k[j, part], j) for j in range(time)])
            for i in range(time):
                weights = torch.softmax(keys[: i + 1] @ rotated(q[i, part], i) / math.sqrt(width), dim=0)
                paid[layer, head, i, : i + 1] = weights
                mixed[i, part] = weights @ v[: i + 1, part]
        x = x + mixed @ block.attention.out.weight.T
        first, last = block.feed_forward[0].weight, block.feed_forward[2].weight
        x = x + F.gelu(normed(x, block.feed_forward_norm.weight) @ first.T, approximate="tanh") @ last.T
    full = trained.TrainedHost(host.run, ahead, off_target_weight).read_full(
        replace(Passage.from_ids(ids), target_mask=marked)
    )
    keys, found = later_attention(full, "model")
    paid = paid * counts[:, None]
    segment, horizon = 16, 64
    assert keys.tolist() == list(range(time - horizon))
    for key in keys.tolist():
        begin = -(-(key + segment) // segment) * segment  # the first segment that begins a segment or more later
        later, following = paid[:, :, begin:, key], paid[:, :, begin : begin + segment, key]
        wanted = (later.amax(-1) if ahead == "later" else following.mean(-1)).mean()
        assert found[0, 0, key].exp() == pytest.approx(float(wanted), rel=1e-3, abs=1e-5)


@torch.no_grad()
def test_slots_carry_what_the_regression_predicts_from_their_keys(host, ids):
    """Keys, squares, 1 and the logarithm of the position, weighed by hand from the states of each slot, decide."""
    transformer, seen = host.transformer, []

    class Spy(LearnedPolicy):
        def priority(self, slots, now):
            seen.append(slots)
            return super().priority(slots, now)

    width, layers = transformer.config.dim, len(transformer.blocks)
    prediction = torch.randn(1, 2 * layers * width + 2, generator=torch.Generator().manual_seed(0))
    mix = build("policies", {"name": "weighted", "learned": 1.0, "folder": ".", "score": 0.0})
    memory = Memory(24, Spy(mix, transformer, ("predicted",), prediction, torch.ones(1)))
    (fifo,) = strategies({"fifo": {"policy": "fifo"}})
    reading, _ = read_passages(host.run.model, fifo, memory, [Passage.from_ids(ids)], None, 1, 16)
    assert len(seen) == 11
    for slots, kept in zip(seen, reading[0].kept[1:], strict=True):
        found = []
        for hidden, block in zip(slots.payload[0][0].unbind(1), transformer.blocks, strict=True):
            keys = normed(hidden, block.attention_norm.weight) @ block.attention.key_value.weight[:width].T
            found.append(keys.unflatten(-1, (transformer.config.heads, 2, -1)).mT.flatten(1))
        keys, place = torch.cat(found, dim=1), slots.positions[0, :, None] + 1.0
        by_hand = torch.cat([keys, keys**2, torch.ones_like(place), place.log()], dim=1) @ prediction[0]
        torch.testing.assert_close(slots.score("predicted")[0], by_hand, atol=1e-3, rtol=1e-3)
        best = by_hand[slots.valid[0]].topk(24).indices
        assert kept == sorted(slots.positions[0][slots.valid[0]][best].tolist())


@pytest.mark.parametrize("strategy", [LEARNED, BESIDE])
@pytest.mark.parametrize("cut", [5, 90])
def test_decoding_reads_as_evaluation_does(fitted, ids, strategy, cut):
    """Keys and values in the slots give the predictions that hidden states give."""
    run = load_run(fitted)
    (chosen,) = strategies({"it": yaml.safe_load(strategy)}, run=fitted)
    memory, item = chosen.memory(24, Guard(1, 4)), Passage.from_ids(ids[:90])
    scores = score_passages(run.scorer, [item], 1, 16, CPU)
    wanted, _ = read_passages(run.model, chosen, memory, [item], scores, 1, 16)
    reader = make_reader(run.model, run.scorer, 16, chosen, memory)
    assert reader.remember == "keys_values"
    state = reader.start()
    for start in range(0, 89, cut):
        stop = min(start + cut, 89)
        logits, state = reader.read(ids[None, start:stop], state)
        nll = F.cross_entropy(logits[0], ids[stop])
        assert float(nll) == pytest.approx(float(wanted[0].nll[stop - 1]), abs=1e-4)
    slots = state.memory.slots
    assert slots.positions[0][slots.valid[0]].tolist() == wanted[0].kept[4]


def test_what_does_not_fit_is_refused_in_a_line(fitted, tiny_run, tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    from vqmem.memory.huggingface.cache import VQMemCache

    run, policy = load_run(fitted), str(fitted / "policy")
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    pretrained = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=20, **shape))
    with pytest.raises(ValueError, match=r"\A.* fitted for another model \(.*run\) than this LlamaForCausalLM.*\Z"):
        VQMemCache(pretrained, 64, policy=policy)
    theirs, damaged = tmp_path / "theirs", shutil.copytree(fitted / "policy", tmp_path / "damaged")
    FittedPolicy("0", ("predicted",), {}, {}).save(theirs, model="a llama")
    (damaged / "policy.safetensors").write_bytes(b"x")
    for folder, message in [
        (theirs, r"fitted for another model \(a llama\) than this MemoryTransformer"),
        (damaged, "is damaged"),
        (tmp_path / "none", "fit_policy MODEL out=FOLDER` makes one"),
    ]:
        mine = build("policies", {"name": "weighted", "learned": 1.0, "folder": str(folder), "score": 0.0})
        with pytest.raises(ValueError, match=rf"\A.*{message}.*\Z"):
            bind(Memory(24, mine), run.model.transformer)
    mixture = f"{{policy: {{name: weighted, learned: 1.0, expected: 1.0, folder: '{policy}', score: 0.0}}}}"
    for command, message in [
        (["text_lm", str(fitted / "config.yaml"), f"strategies.learned={LEARNED}"], "name it in eval_strategies"),
        (["text_lm", str(fitted / "config.yaml"), f"eval_strategies.gain={LEARNED}"], "give it another name"),
        (["text_lm", str(fitted / "config.yaml"), f"eval_strategies.mine={mixture}"], "weigh learned alone"),
        (["compare", "demo", f"strategies.mine={LEARNED}", "trained=[mine]"], "leave it out of trained"),
        (["fit_policy", str(fitted), f"out={policy}"], "has a policy already"),
        (["fit_policy", str(fitted), f"out={tmp_path / 'new'}"], "length=64 is too short for capacity=24"),
        (["fit_policy", str(fitted), f"out={tmp_path / 'new'}", "signals=[keydiff]"], "signals=keydiff; use some of"),
        (["fit_policy", str(fitted), f"out={tmp_path / 'new'}", "length=999999", "capacity=99000"], "no document has"),
        (["fit_policy", str(fitted / "policy"), f"out={tmp_path / 'new'}"], "no model at"),
    ]:
        assert main(command) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.strip().splitlines()[-1].startswith("vqmem: ")
