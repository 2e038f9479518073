"""Fitted policies that come with the package: `auto` finds the one of a model."""

import pytest
import torch
import transformers
from vqmem.artifacts import read_sealed
from vqmem.memory.fitted import ABOUT
from vqmem.memory.huggingface import packaged
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import cache_argument
from vqmem.memory.huggingface.groups import SHARES
from vqmem.memory.huggingface.packaged import FOLDER, PACKAGED
from vqmem.memory.huggingface.presets import DOCUMENT, LEARNED_IN_PROMPTS, STREAM, fitted_preset
from vqmem.recipes.fit_policy.fit import fit_policy
from vqmem.recipes.fit_policy.pretrained import as_host
from vqmem.recipes.lm.corpus import Passage

from .test_fit_policy import VOCAB, make_model

SIGNALS = ("predicted", "keydiff", "log_age")


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model that the package has a policy for."""
    passages = [*map(Passage.from_ids, torch.randint(1, VOCAB, (5, 512), generator=torch.Generator().manual_seed(1)))]
    policy, _ = fit_policy(as_host(made := make_model(), None), passages[:3], passages[3:], SIGNALS, 32)
    policy.save(tmp_path / "tiny", model="tiny")
    monkeypatch.setattr(packaged, "FOLDER", tmp_path)
    packaged._by_host.cache_clear()
    yield made
    packaged._by_host.cache_clear()


def test_auto_is_the_packaged_policy_of_the_model(model):
    policy = VQMemCache(model, 40).memory.policy
    assert (policy.learned, policy.folder) == (1.0, "packaged")
    other = VQMemCache(make_model(seed=1), 40).memory.policy
    assert (other.learned, other.expected) == (0.0, STREAM.policy["expected"])


@torch.no_grad()
@pytest.mark.parametrize("passes", [[120, 20, 20, 40], [20] * 10])
def test_auto_chooses_between_two_uses_of_it(model, tmp_path, passes):
    beside = {**DOCUMENT.policy, "learned": LEARNED_IN_PROMPTS, "folder": PACKAGED}
    arguments = {"recent": 18, "share": "head", "block": 32}
    auto, usual = VQMemCache(model, 40), VQMemCache(model, 40, policy=fitted_preset(PACKAGED))
    explicit = VQMemCache(model, 40, policy=beside if passes[0] > 72 else usual.memory.policy, **arguments)
    ids = torch.randint(1, VOCAB, (1, sum(passes)), generator=torch.Generator().manual_seed(4))
    for turn, new in enumerate(ids.split(passes, dim=1)):
        assert torch.equal(*(model(new, **cache_argument(cache)).logits for cache in (auto, explicit)))
        assert auto.positions == explicit.positions
        explicit.memory, explicit.signals = usual.memory, usual.signals
        if turn == 1:
            auto.save(tmp_path / "cache.safetensors")
            auto = VQMemCache.load(tmp_path / "cache.safetensors", model)
    assert auto.prompt is not None
    assert (auto.prompt.memory.policy.learned, auto.prompt.memory.policy.leverage) == (LEARNED_IN_PROMPTS, 1.0)


@torch.no_grad()
def test_a_saved_cache_finds_it_wherever_the_package_is(model, tmp_path, monkeypatch):
    cache, ids = VQMemCache(model, 40), torch.randint(1, VOCAB, (1, 90))
    model(ids, **cache_argument(cache))
    cache.save(tmp_path / "prefix.safetensors")
    (tmp_path / "tiny").rename(tmp_path / "moved")
    packaged._by_host.cache_clear()
    again = VQMemCache.load(tmp_path / "prefix.safetensors", model)
    assert torch.equal(model(ids, **cache_argument(again)).logits, model(ids, **cache_argument(cache)).logits)


def test_a_model_without_one_is_told_in_a_line(model):
    policy = {"name": "weighted", "learned": 1.0, "folder": "packaged", "score": 0.0}
    with pytest.raises(ValueError, match="no policy that was fitted for this LlamaForCausalLM; fit one with") as error:
        VQMemCache(make_model(seed=1), 40, policy=policy)
    assert "\n" not in str(error.value)


def test_packaged_policies_are_whole_and_small():
    folders = [path.parent for path in FOLDER.glob(f"*/{ABOUT}")]
    assert folders
    for folder in folders:
        about = read_sealed(folder / ABOUT)
        assert about["model"]
        assert sum(path.stat().st_size for path in folder.iterdir()) < 1_000_000
        assert (folder / "README.md").is_file()
        assert {*about["found"]["recall"]} == {*SHARES}


def test_the_packaged_policy_serves_smollm2():
    smollm2 = pytest.importorskip("vqmem.benchmarks.kv.smollm2")
    try:
        smollm2.weights()
    except ValueError as error:
        pytest.skip(str(error))
    lm = smollm2.load_smollm2(torch.bfloat16)
    cache = VQMemCache(lm.model, lm.tokenizer, 64)
    assert cache.memory.policy.folder == "packaged"
    assert packaged.packaged_policy(lm.model).name == "smollm2-135m-instruct-q4_1"
    with torch.no_grad():
        ids = torch.randint(0, 40_000, (1, 300))
        assert lm.model(ids, **cache_argument(cache)).logits.isfinite().all()
    assert cache.stats()["kept"] == [64]


def test_weights_that_are_elsewhere_are_of_no_packaged_policy():
    assert packaged.packaged_policy(make_model().to("meta")) is None


@torch.no_grad()
def test_documents_of_models_that_rotate_a_part_of_their_keys():
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = transformers.PhiForCausalLM(transformers.PhiConfig(vocab_size=VOCAB, **shape)).eval()
    cache = VQMemCache(model, 24, policy="document")
    assert model(torch.randint(1, VOCAB, (1, 90)), **cache_argument(cache)).logits.isfinite().all()
    assert cache.stats()["kept"] == [24]
