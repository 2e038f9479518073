"""The scorer that reads characters: its features, its conversion for a tokenizer, and the packaged one."""

from __future__ import annotations

import shutil

import pytest
import torch
from tokenizers import AddedToken
from vqmem import load_default_scorer
from vqmem.artifacts import read_config
from vqmem.benchmarks.kv.pack_default_scorer import count_pieces, pack
from vqmem.default_scorer import FOLDER, FREQUENCIES, make_scorer, read_frequencies
from vqmem.memory.scorer import load_scorer
from vqmem.models.scorers.character_reuse import FEATURES, Scorer, _with_special_tokens, features, features_of
from vqmem.recipes.engine.task import TrainConfig
from vqmem.recipes.text_lm.recipe import Config, run
from vqmem.tokenizers_._pieces import pieces
from vqmem.tokenizers_.base import load_tokenizer
from vqmem.tokenizers_.bpe import FrontEnd

TEXT = "the cat sat on the mat, and the dog ran. " * 8
WORDS = {" the": 20, " cat": 5, ",": 9, " dog": 1}


def tokenizer():
    return FrontEnd(290).fit([TEXT])


def trained(spec: Scorer, front_end):
    """A model whose weights are random."""
    torch.manual_seed(0)
    model = spec.build_for(front_end)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def test_the_hash_is_the_same_everywhere():
    assert features([" the"], 1 << 14)[0, :14].tolist() == [
        *(7988, 8976, 8235, 4541, 12824, 1369, 1896),
        *(9864, 7336, 6373, 11751, 3539, 9060, 15384),
    ]
    assert features([None, "", " the"], 1 << 14)[:2].eq(0).all()


def test_features_of_a_piece():
    found = features_of(" the")
    assert found[4:] == [
        "\3\3 the",
        *("\2t", "th", "he", "e\3"),
        *("\2th", "the", "he\3"),
        *("\2the", "the\3"),
    ]
    assert found[:4] == ["\3lower", "\3letters", "\0033", "\3space True"]
    assert set(features_of("the")[5:]) == set(found[5:])
    assert features_of("\n\n")[:2] == ["\3no case", "\3blank"]
    assert len(features_of("x" * 100)) > FEATURES
    assert features(["x" * 100], 100).shape == (1, FEATURES)


@pytest.mark.parametrize(
    ("word", "shape"),
    [
        ("The", ["capital", "letters"]),
        ("A", ["capital", "letters"]),
        ("NASA", ["upper", "letters"]),
        ("iPhone", ["mixed", "letters"]),
        ("1998", ["no case", "digits"]),
        ("x2", ["lower", "both"]),
        ("...", ["no case", "other"]),
        ("don't", ["lower", "other with letters"]),
    ],
)
def test_shapes(word, shape):
    assert [feature[1:] for feature in features_of(word)[:2]] == shape


def test_an_embedding_is_the_mean_of_its_vectors():
    spec, front_end = Scorer(dim=5, hidden=7, buckets=97), tokenizer()
    model = trained(spec, front_end)
    numbers = model.embed.features
    ids = torch.arange(front_end.vocab_size)[None]
    found = model.embed(ids)[0]
    for i, row in enumerate(numbers.tolist()):
        vectors = [model.embed.weight[number] for number in row if number]
        torch.testing.assert_close(found[i], torch.stack(vectors).mean(0))


def test_converted_for_its_tokenizer_it_predicts_the_same():
    spec, front_end = Scorer(dim=5, hidden=7, buckets=97), tokenizer()
    model = trained(spec, front_end)
    other = spec.convert(model, front_end, WORDS, None)
    ids = front_end.encode(TEXT).ids[None]
    ours, theirs = (one.score(ids, one.initial_state(1))[0][..., 0] - one.unigram.rarity(ids) for one in (model, other))
    torch.testing.assert_close(ours, theirs)
    assert type(other.embed) is torch.nn.Embedding
    assert other.vocab_size == front_end.vocab_size


def test_special_tokens_and_ids_without_a_token():
    spec, front_end = Scorer(dim=5, hidden=7, buckets=97), tokenizer()
    model = trained(spec, front_end)
    front_end.wrapped.add_special_tokens([AddedToken("<end>", special=True)])
    size = front_end.vocab_size
    other = spec.convert(model, front_end, WORDS, size + 10)
    assert other.vocab_size == size + 10
    assert other.initial_state(1).counts.shape == (1, size + 10)
    assert other.embed.weight[size:].eq(0).all()
    counts = other.unigram.counts
    assert counts[size].item() == pytest.approx(0.05 * counts[:size].sum().item())
    assert counts[size + 1 :].eq(0).all()
    with pytest.raises(ValueError, match=f"vocab_size={size} is less than the {size + 1} ids of the tokenizer"):
        spec.convert(model, front_end, WORDS, size)


@pytest.mark.parametrize(("number", "share"), [(1, 0.05), (2, 0.025), (100, 0.0005)])
def test_special_tokens_are_as_rare_as_tokens_on_average_or_rarer(number, share):
    counts = torch.tensor([1.0] * 50 + [0.0] * number, dtype=torch.float64)
    found = _with_special_tokens(counts, ["a"] * 50 + [None] * number)
    assert found[:50].equal(counts[:50])
    assert (found[50:] / 50).tolist() == pytest.approx([min(share, 1 / 50)] * number)


def test_the_packaged_scorer_is_deterministic_and_made_once():
    front_end, random = tokenizer(), torch.get_rng_state()
    made = load_default_scorer(front_end)
    assert torch.equal(torch.get_rng_state(), random)
    assert load_default_scorer(front_end) is made
    assert load_default_scorer(front_end, vocab_size=400) is not made
    again = load_default_scorer(tokenizer())
    assert again is not made
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in made.state_dict().items())
    assert not made.training


def test_the_packaged_scorer_knows_english():
    front_end = tokenizer()
    made = load_default_scorer(front_end)
    (the,), (x,) = (front_end.encode(text).ids.tolist() for text in (" the", "|"))
    rarity = made.unigram.rarity()
    assert rarity[the] < 5 < rarity[x]


def test_it_takes_a_bare_tokenizer():
    front_end = tokenizer()
    bare, wrapped = load_default_scorer(front_end.wrapped), load_default_scorer(front_end)
    assert torch.equal(bare.embed.weight, wrapped.embed.weight)
    assert torch.equal(bare.unigram.counts, wrapped.unigram.counts)


def test_the_package_is_small_and_has_many_pieces():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 5e6
    fields = read_config(FOLDER / "scorer")["fields"]
    counts = read_frequencies(FOLDER, fields["frequencies_sha256"])
    assert len(counts) == 60_000
    assert counts[" the"] == max(count for piece, count in counts.items() if piece[:1] == " " and piece[1:].isalpha())


@pytest.mark.parametrize("name", [FREQUENCIES, "scorer/model.safetensors", "scorer/config.json"])
def test_damaged_or_missing_files_are_refused(name, tmp_path):
    shutil.copytree(FOLDER, tmp_path / "copy")
    path = tmp_path / "copy" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        make_scorer(tmp_path / "copy", tokenizer())
    path.unlink()
    with pytest.raises(ValueError, match="not found"):
        make_scorer(tmp_path / "copy", tokenizer())


def test_a_run_trains_saves_and_is_packed(tmp_path):
    config = Config(
        out=str(tmp_path / "run"),
        front_end={"name": "bpe", "vocab_size": 300, "train_bytes": 20_000},
        train_tokens=4000,
        passage=128,
        eval_passages=2,
        batch_size=2,
        segment=64,
        scorer={"name": "character_reuse", "dim": 4, "hidden": 5, "buckets": 50},
        scorer_train=TrainConfig(steps=3, warmup=1, tensorboard=False),
    )
    run(config)
    loaded = load_scorer(tmp_path / "run")
    assert loaded.embed.weight.any()
    front_end = load_tokenizer(tmp_path / "run" / "front_end")
    assert torch.equal(loaded.embed.features, features(pieces(front_end), 50))
    pack(tmp_path / "run", tmp_path / "packed", 100)
    made = make_scorer(tmp_path / "packed", front_end)
    weights = loaded.half().float().embed(torch.arange(front_end.vocab_size)[None])[0]
    torch.testing.assert_close(made.embed.weight, weights)
    counts = read_frequencies(
        tmp_path / "packed", read_config(tmp_path / "packed/scorer")["fields"]["frequencies_sha256"]
    )
    assert len(counts) == 100
    assert list(counts.values()) == sorted(counts.values(), reverse=True)


def test_pieces_of_text_are_cut_as_gpt2_cuts_them():
    counted = count_pieces(["It's the cat's  mat\n\n\tin 1998, été…", "the"])
    assert next(iter(counted)) == "'s"
    assert counted["'s"] == 2
    assert {"It", " the", " cat", " ", " mat", "\n\n", "\t", "in", " 1998", ",", " été", "…", "the"} <= set(counted)


def test_no_buckets_are_refused():
    with pytest.raises(ValueError, match="buckets = 0 must be at least 1"):
        Scorer(buckets=0)
