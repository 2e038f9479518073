"""Policies fitted for a model: how they are made, and that a cache keeps what they say."""

import copy
import random
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vqmem.cli import main
from vqmem.data.base import Document
from vqmem.data.reading.files import UnreadableError
from vqmem.memory.fitted import ABOUT
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import CACHE
from vqmem.memory.huggingface.groups import SHARES
from vqmem.memory.huggingface.learned import LearnedSignals
from vqmem.memory.huggingface.presets import DOCUMENT, Preset
from vqmem.recipes.fit_policy import pretrained
from vqmem.recipes.fit_policy.fit import fit_policy
from vqmem.recipes.fit_policy.passages import new_passages, sample_passages
from vqmem.recipes.fit_policy.pretrained import as_host
from vqmem.recipes.fit_policy.regression import Sums, nested_sets
from vqmem.recipes.fit_policy.run import Config, run
from vqmem.recipes.fit_policy.streams import SIGNALS
from vqmem.recipes.lm.corpus import Passage, encode_document
from vqmem.tokenizers_.bytes import ByteTokenizer

VOCAB = 60
IDS = torch.randint(1, VOCAB, (1, 60), generator=torch.Generator().manual_seed(2))


def make_model(seed: int = 0):
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=VOCAB, num_key_value_heads=2, **shape)
    model = transformers.LlamaForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if "_proj" in name:
            parameter.data.mul_(6)
    return model


@pytest.fixture(scope="module")
def fitted():
    model = make_model()
    passages = [*map(Passage.from_ids, torch.randint(1, VOCAB, (6, 512), generator=torch.Generator().manual_seed(1)))]
    return model, *fit_policy(as_host(model, None), passages[:3], passages[2:], SIGNALS, 32)


def test_the_fit_finds_what_is_to_be_kept(fitted):
    _, policy, findings = fitted
    assert {share: x.shape for share, x in policy.prediction.items()} == {
        "head": (2, 2, 18),
        "layer": (2, 1, 34),
        "model": (2, 1, 34),
    }
    assert {share: x.shape for share, x in policy.weights.items()} == {
        "head": (2, 2, 7),
        "layer": (2, 1, 7),
        "model": (2, 1, 7),
    }
    assert findings.r2.shape == findings.recall.shape == (2, 2)
    assert findings.shares.keys() == set(SHARES)
    assert findings.shares["head"] > max(findings.single.values()) > findings.chance
    assert [len(names) for names, _ in findings.sets] == [7, 6, 5, 4, 3, 2, 1]
    assert all({*smaller} < {*larger} for (larger, _), (smaller, _) in pairwise(findings.sets))
    assert findings.sets[0] == (SIGNALS, pytest.approx(findings.shares["head"]))


def test_sets_of_features_drop_what_explains_least():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 500, 3, generator=generator)
    x[..., 2] = x[..., 0] + 0.1 * torch.randn(2, 500, generator=generator)  # nearly the same as the first
    y = 2 * x[..., :1] + x[..., 1:2]
    sums = Sums()
    sums.add(x, y)
    assert nested_sets(sums, 1e-6, 3) == [[0, 1, 2], [0, 1], [0]]
    assert sums.explained(1e-6, [0, 1]) == pytest.approx(float(y.square().sum() / 2), rel=1e-3)


@pytest.fixture(scope="module")
def folder(fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("policy")
    fitted[1].save(path, model="tiny")
    return str(path)


def read(model, cache, ids, sizes, **arguments):
    start = 0
    for size in sizes:
        model(ids[:, start : start + size], **arguments, **{CACHE: cache})
        start += size
    return cache


@torch.no_grad()
@pytest.mark.parametrize("share", SHARES)
def test_the_signal_is_the_weighted_sum_of_what_keys_predict_and_other_signals(fitted, folder, share, monkeypatch):
    model, policy, _ = fitted
    calls = []

    def combine(self, module, found, *args):
        result = LearnedSignals.combine(self, module, found, *args)
        calls.append((module, found, args[-1], result["learned"]))
        return result

    settings = {"name": "weighted", "learned": 1.0, "folder": folder, "score": 0.0}
    cache = VQMemCache(model, 40, policy=settings, share=share, sinks=4, recent=8, block=20)
    monkeypatch.setattr(cache.signals, "combine", partial(combine, cache.signals))
    hidden = {}
    for layer in cache.signals.modules:
        after = partial(
            lambda index, layer, args, kwargs, _: hidden.update({index: kwargs["hidden_states"]}), layer.layer_idx
        )
        layer.register_forward_hook(after, with_kwargs=True)
    model(IDS, **{CACHE: cache})
    for module, found, competing, learned in calls:
        index = module.layer_idx
        keys = module.k_proj(hidden[index])[0].view(60, 2, 8)
        heads = [[0], [1]] if share == "head" else [[0, 1]]
        for group, members in enumerate(heads):
            among = competing[0, min(group, competing.shape[1] - 1)]
            parts = [torch.cat([keys[:, head], keys[:, head] ** 2], dim=1) for head in members]
            place = torch.arange(1, 61.0)[:, None]
            x = torch.cat([*parts, torch.ones_like(place), place.log()], dim=1)
            predicted = x @ policy.prediction[share][index, group]
            columns = {name: x[0, group] for name, x in found.items()}
            columns |= {"predicted": scaled(predicted, among), "log_age": scaled((61 - place[:, 0]).log(), among)}
            weights = policy.weights[share][index, group]
            wanted = sum(weight * columns[name] for name, weight in zip(policy.signals, weights, strict=True))
            torch.testing.assert_close(learned[0, group], wanted, rtol=1e-3, atol=1e-3)
    assert len(calls) == 2


def scaled(x, among):
    return (x - x[among].mean()) / x[among].std(unbiased=False)


@torch.no_grad()
@pytest.mark.parametrize("share", ["layer", "head"])
@pytest.mark.parametrize("positions", ["kept", "compact"])
@pytest.mark.parametrize("prompt", [None, DOCUMENT])
def test_slots_keep_what_was_predicted_from_their_keys(fitted, folder, share, positions, prompt, tmp_path):
    model, policy, _ = fitted
    settings = {"name": "weighted", "learned": 1.0, "folder": folder, "score": 0.0}
    pair = Preset(settings, prompt=prompt)
    cache = VQMemCache(model, 24, policy=pair, share=share, sinks=2, recent=4, block=8, positions=positions)
    if cache.rotation is not None:
        cache.rotation.limit = 40  # positions are moved together within the text
    read(model, cache, IDS[:, :40], (20, 7, 9, 4) if prompt is None else (40,))
    cache.save(tmp_path / "cache.safetensors")
    cache = VQMemCache.load(tmp_path / "cache.safetensors", model)
    read(model, cache, IDS[:, 40:], (16, 4))
    first, width = model.model.layers[0], 8
    keys = first.self_attn.k_proj(first.input_layernorm(model.model.embed_tokens(IDS)))[0].view(60, 2, width)
    slots = cache._state.memory.slots
    for group in range(cache.groups.in_layer):
        places = slots.positions[group]
        known = slots.payload[2][group]
        heads = [group] if share == "head" else [0, 1]
        parts = [torch.cat([keys[places, head], keys[places, head] ** 2], dim=1) for head in heads]
        x = torch.cat([*parts, torch.ones(len(places), 1), (places[:, None] + 1.0).log()], dim=1)
        torch.testing.assert_close(known, x @ policy.prediction[share][0, group], rtol=1e-3, atol=1e-3)


ARGUMENTS = [{"share": share, "block": 5} for share in SHARES] + [{"storage": "int8"}, {"positions": "compact"}]


@torch.no_grad()
@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_saved_copied_and_selected_caches_go_on_as_the_first(fitted, folder, tmp_path, arguments):
    model = fitted[0]
    cache = read(model, VQMemCache(model, 24, policy=folder, **arguments), IDS, [30, 7, 1, 2])
    cache.save(tmp_path / "prefix.safetensors")
    loaded = VQMemCache.load(tmp_path / "prefix.safetensors", model)
    copied = copy.deepcopy(cache)
    repeated = copy.deepcopy(cache)
    repeated.batch_repeat_interleave(3)
    repeated.batch_select_indices(torch.tensor([1]))
    repeated.reorder_cache(torch.tensor([0]))
    rest = IDS[:, 40:]
    outputs = [
        [model(part, **{CACHE: one}).logits for part in (rest[:, :1], rest[:, 1:12], rest[:, 12:])]
        for one in (cache, loaded, copied, repeated)
    ]
    for other in outputs[1:]:
        for x, y in zip(outputs[0], other, strict=True):
            assert torch.equal(x, y)
    assert cache.positions == loaded.positions == copied.positions == repeated.positions


@torch.no_grad()
def test_padding_changes_nothing(fitted, folder):
    model = fitted[0]
    padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), IDS], dim=1)
    mask = torch.ones_like(padded)
    mask[:, :5] = 0
    cache = VQMemCache(model, 40, policy=folder, recent=8, block=20)
    plain = VQMemCache(model, 40, policy=folder, recent=8, block=20)
    read(model, plain, IDS, [60])
    model(padded, attention_mask=mask, **{CACHE: cache})
    assert cache.positions == plain.positions


def test_the_folder_brings_its_settings_and_may_be_a_part_of_a_mixture(fitted, folder):
    model = fitted[0]
    cache = VQMemCache(model, 100, policy=Path(folder))
    assert (cache.memory.guard.recent, cache.block, cache.groups.share) == (32, 32, "head")
    assert VQMemCache(make_model().to(torch.bfloat16), 100, policy=folder).groups.share == "head"
    mixture = {"name": "weighted", "learned": 0.5, "folder": folder, "expected": 0.5, "score": 0.0}
    assert VQMemCache(model, 100, policy=mixture).signals.asked == ("learned", "expected")


def test_what_does_not_fit_is_refused_in_a_line(fitted, folder, tmp_path):
    model, policy, _ = fitted
    damaged = tmp_path / "damaged"
    policy.save(damaged, model="tiny")
    (damaged / "policy.safetensors").write_bytes(b"x")
    for other, given, message in [
        (make_model(seed=1), folder, r"was fitted for another model \(tiny\) than this LlamaForCausalLM"),
        (model, str(tmp_path / "none"), "fit_policy MODEL out=FOLDER` makes one"),
        (model, str(tmp_path), "fit_policy MODEL out=FOLDER` makes one"),
        (model, str(damaged), "is damaged"),
        (model, {"name": "weighted", "learned": 1.0}, "give both"),
        (model, {"name": "weighted", "folder": folder}, "give both"),
    ]:
        with pytest.raises(ValueError, match=rf"\A.*{message}.*\Z"):
            VQMemCache(other, 100, policy=given)
    assert sum(path.stat().st_size for path in Path(folder).iterdir()) < 2**20


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("signals=[expcted]", "signals=expcted; use some of predicted, expected"),
        ("signals=[]", "name one or more"),
        ("capacity=4", "capacity=4 leaves nothing to choose: the guards keep 4 slots; give capacity=5 or more"),
        ("length=300", "length=300 is too short for capacity=128"),
        ("stream_passages=1", "stream_passages"),
        ("ahead=next", "ahead=next is for the runs of `vqmem text_lm`; leave it out for a model of transformers"),
        ("passges=3", "passages"),
    ],
)
def test_the_command_refuses_values_in_a_line(tmp_path, capsys, override, message):
    assert main(["fit_policy", str(tmp_path), override]) == 2
    assert message in (text := capsys.readouterr().err)
    assert text.count("\n") == 1


def test_the_command_fits_a_model_of_a_folder(tmp_path, capsys):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level(), eos_token="<e>")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **shape)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    command = ["fit_policy", str(tmp_path / "model"), f"out={tmp_path / 'policy'}", "passages=2", "stream_passages=2"]
    command += ["length=512", "capacity=48", "dtype=float32", "device=cpu"]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "the policy, a set a head" in printed.out
    assert "fitting the policy" in printed.err
    page = (tmp_path / "policy" / "report.html").read_text()
    assert page.count("<svg") == 3
    assert sum(path.stat().st_size for path in (tmp_path / "policy").iterdir()) < 2**20
    model = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "model")
    VQMemCache(model, tokenizer, 64, policy=str(tmp_path / "policy"))
    assert main(command) == 2
    assert "has a policy already" in capsys.readouterr().err


def test_the_least_capacity_that_is_named_works():
    settings = Config(capacity=5, length=512).settled(pretrained.SETTINGS)
    passages = [*map(Passage.from_ids, torch.randint(1, VOCAB, (3, 512), generator=torch.Generator().manual_seed(1)))]
    _, findings = fit_policy(as_host(make_model(), None), passages[:1], passages[1:], settings.signals, 5)
    assert findings.chance > 0


def test_the_check_leaves_out_what_was_fitted_on():
    first, second, third, fourth = map(Passage.from_ids, torch.arange(20).view(4, 5))
    for last, wanted in [([first, third], [third]), ([first, second], [first]), ([third, fourth], [third, fourth])]:
        found = new_passages(last, [first, second, second[:4]])
        assert [passage.ids.tolist() for passage in found] == [passage.ids.tolist() for passage in wanted]


def test_a_policy_that_another_process_wrote_meanwhile_stays(tmp_path, monkeypatch):
    def prepare(*_):
        (tmp_path / ABOUT).write_text("theirs")
        return None, pretrained.SETTINGS, []

    monkeypatch.setattr("vqmem.recipes.fit_policy.run._pretrained", prepare)
    with pytest.raises(ValueError, match="has a policy already"):
        run("a/model", Config(out=str(tmp_path), device="cpu"))
    assert (tmp_path / ABOUT).read_text() == "theirs"


def encode(document):
    if document.text == "damaged":
        raise UnreadableError("damaged.wav is cut off")
    return Passage.from_ids(torch.tensor([ord(x) for x in document.text]))


def of_texts(texts):
    return sample_passages((Document("x", text) for text in texts), "text", encode, (200, 200), 14, 0)


@pytest.mark.parametrize("place", [0, 3, 6])
def test_passages_leave_out_documents_that_are_short_or_unreadable(place, capsys):
    texts = [letter * 5000 for letter in "abcdef"]
    for odd, error in [("x" * 150, ""), ("damaged", "skipped 1 of 7:\n  damaged.wav is cut off\n")]:
        passages = of_texts([*texts[:place], odd, *texts[place:]])
        counts = [sum(chr(passage.ids[0]) == letter for passage in passages) for letter in "abcdef"]
        assert sorted(counts) == [2, 2, 2, 2, 3, 3]
        assert capsys.readouterr().err == error


def test_documents_none_of_which_gives_a_passage_are_refused(capsys):
    for texts, message in [
        ([], "no document has 200 tokens"),
        (["x" * 150], "no document has 200 tokens"),
        (["damaged"], "damaged.wav is cut off"),
        (["damaged", "damaged"], "none of the 2 can be used"),
        (["damaged", "x" * 150], "no document has 200 tokens"),
    ]:
        with pytest.raises(ValueError, match=message):
            of_texts(texts)
    assert capsys.readouterr().err.endswith("skipped 1 of 2:\n  damaged.wav is cut off\n")


def test_where_all_documents_are_long_enough_each_gives_a_passage_in_turn():
    """The drawing of earlier versions, so that a seed gives the same fit."""
    documents = (Document("x", units=tuple(range(100 * i, 100 * i + 60))) for i in range(3))
    passages = sample_passages(documents, "units", lambda x: Passage.from_ids(torch.tensor(x.units)), (4, 4), 7, 5)
    assert [int(passage.ids[0]) for passage in passages] == [247, 22, 116, 39, 150, 53, 244]


def test_the_answers_of_a_text_stay_marked_wherever_it_is_cut():
    text = random.Random(0).choices("abc?", k=3000)
    document = Document("x", "".join(text), tuple((i, i + 1) for i, letter in enumerate(text) if letter == "?"))
    encode = partial(encode_document, tokenizer=ByteTokenizer())
    for passage in sample_passages([document], "text", encode, (200, 200), 5, 0):
        assert passage.target_mask.tolist() == (passage.ids == ord("?")).tolist()


def byte_level() -> Tokenizer:
    """Each byte is a token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate([*letters, "<e>"])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer
