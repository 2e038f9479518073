"""Token by token is segment by segment: decoding reads as training did, in bounded memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from vqmem.cli import main
from vqmem.memory.policy import Guard
from vqmem.recipes.lm.corpus import Passage
from vqmem.recipes.lm.language_model import read_passages, score_passages
from vqmem.recipes.text_lm.generate import Sampling, _texts, continue_text, generate, reader
from vqmem.recipes.text_lm.recipe import Run, load_run
from vqmem.registry import build
from vqmem.tokenizers_.pretrained import PretrainedTokenizer

STRATEGIES = ["transformer_xl", "gain", "used"]


@pytest.fixture(scope="module")
def run(tiny_run) -> Run:
    run = load_run(tiny_run)
    torch.manual_seed(0)
    with torch.no_grad():  # large weights, so that what is in the memory matters
        for weights in run.model.transformer.parameters():
            weights.normal_(std=0.3)
    return run


@pytest.fixture
def ids(run) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(run.tokenizer.vocab_size, (90,), generator=generator)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("cut", [1, 5, 90])
def test_any_cut_gives_what_evaluation_gives(run, ids, strategy, cut):
    """The likelihoods of `read_passages`, which reads full segments with hidden states, from a reader of pieces."""
    agrees_with_evaluation(run, ids, reader(run, strategy), cut)


@pytest.mark.parametrize("policy", ["h2o", "tova", "lru", "lfu", "knorm"])  # snapkv's window depends on the cut
@pytest.mark.parametrize("cut", [5, 90])
def test_what_a_policy_sees_of_attention_is_the_same_for_any_cut(run, ids, policy, cut):
    like = reader(run, "transformer_xl")
    strategy = replace(like.strategy, policy=build("policies", policy))
    agrees_with_evaluation(run, ids, replace(like, strategy=strategy, memory=strategy.memory(24, Guard(1, 4))), cut)


def agrees_with_evaluation(run, ids, ours, cut):
    item = Passage.from_ids(ids, "x")
    scores = score_passages(run.scorer, [item], 1, run.config.segment, torch.device("cpu"))
    wanted, _ = read_passages(run.model, ours.strategy, ours.memory, [item], scores, 1, run.config.segment)
    reading, found = ours.start(), []
    for piece in ids[:-1].split(cut):
        logits, reading = ours.read(piece[None], reading)
        found.append(logits[0])
    ends = [min(end, 89) for end in range(cut, 89 + cut, cut)]
    nll = torch.stack([F.cross_entropy(x, ids[end]) for x, end in zip(found, ends, strict=True)])
    torch.testing.assert_close(nll, wanted[0].nll[[end - 1 for end in ends]], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("strategy", ["transformer_xl", "gain"])
def test_both_kinds_of_memory_say_the_same(run, ids, strategy):
    greedy = Sampling(tokens=60, temperature=0.0)
    spoken = [list(generate(reader(run, strategy, remember=kind), ids, greedy)) for kind in ("hidden", "keys_values")]
    assert spoken[0] == spoken[1]
    assert len(set(spoken[0])) > 5, "a degenerate text tests nothing"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_memory_does_not_grow(run, ids, strategy):
    ours = reader(run, strategy, capacity=24)
    sizes, reading = [], ours.start()
    for token in torch.cat([ids, ids]):
        _, reading = ours.read(token[None, None], reading)
        slots = reading.memory.read()
        assert slots.count <= 24
        assert reading.segment.count < run.config.segment
        sizes.append(reading.memory.nbytes + reading.segment.nbytes)
    assert max(sizes[90:]) <= max(sizes[:90])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda run: reader(run, "gian"), "unknown strategy 'gian'; did you mean gain?"),
        (lambda run: reader(run, capacity=0), "capacity=0; a memory needs at least 1 slot"),
        (
            lambda run: generate(reader(run), torch.zeros(0, dtype=torch.long), Sampling()),
            "the prompt has no token",
        ),
        (lambda run: Sampling(temperature=-1.0), "temperature = -1.0 must be at least 0"),
        (lambda run: Sampling(tokens=-1), "tokens = -1 must be at least 0"),
        (lambda run: Sampling(top_k=-1), "top_k = -1 must be at least 0"),
        (lambda run: Sampling(temperature=float("inf")), "temperature = inf must be at least 0 and below inf"),
        (lambda run: Sampling(temperature=float("nan")), "temperature = nan must be at least 0 and below inf"),
        (
            lambda run: Sampling(seed=2**63),
            "seed = 9223372036854775808 must be at least 0 and below 9223372036854775808",
        ),
    ],
)
def test_refusals(run, make, message):
    with pytest.raises(ValueError, match="^" + message.replace("?", r"\?")):
        make(run)


@pytest.mark.parametrize("temperature", [1e-320, 1e-30, 1e30])
def test_extreme_temperatures_draw_tokens(run, ids, temperature):
    drawn = list(generate(reader(run), ids, Sampling(tokens=3, temperature=temperature)))
    assert len(drawn) == 3
    if temperature < 1:
        assert drawn == list(generate(reader(run), ids, Sampling(tokens=3, temperature=0.0)))


# --- from tokens to text -------------------------------------------------------------------------------------------

WORDS = "the whale and the sailor sailed a sea of words; naïve 語 🐋 sailors whaled\n"


def word_piece() -> PretrainedTokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # pyright: ignore[reportCallIssue]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=60, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator([WORDS] * 3, trainer)
    return PretrainedTokenizer(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]"))


def sentence_piece() -> PretrainedTokenizer:
    """As Llama's: spaces are part of words, and what has no token is spelt in bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))  # pyright: ignore[reportCallIssue]
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    spelt = [AddedToken(f"<0x{byte:02X}>", special=False) for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=["<unk>", *spelt], show_progress=False)
    tokenizer.train_from_iterator(["the whale and the sailor sailed a sea of words"] * 3, trainer)
    return PretrainedTokenizer(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>"))


@pytest.mark.parametrize("make", [word_piece, sentence_piece])
def test_words_stay_apart_and_characters_unbroken(make):
    tokenizer = make()
    ids = tokenizer.encode(WORDS).ids.tolist()
    for prompt in (1, 4, 9):
        pieces = list(_texts(tokenizer, ids[:prompt], ids[prompt:]))
        assert tokenizer.decode(ids[:prompt]) + "".join(pieces) == tokenizer.decode(ids)
        assert len(pieces) > 5, "it does not stream"
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert "the whale and the sailor" in tokenizer.decode(ids)


@given(st.lists(st.sampled_from([0x61, 0xC3, 0xA9, 0xF0, 0x9F, 0x90, 0x8B, 0xFF]), max_size=24))
def test_bytes_that_are_not_text_are_said_as_they_decode(tokens):
    tokenizer = build("front-ends", "bytes").fit([])
    assert "".join(_texts(tokenizer, [0x61], tokens)) == tokenizer.decode([0x61, *tokens])[1:]
    for piece in _texts(tokenizer, [0x61], "naïve 語🐋".encode()):
        assert "\N{REPLACEMENT CHARACTER}" not in piece


def test_text_cannot_command_the_terminal(tiny_run, capsys, monkeypatch):
    prompt = "\x1b]0;title\x07 \u202eevil\u2067 \x9b31m\r\n\tname"
    monkeypatch.setattr("vqmem.recipes.text_lm.generate._texts", lambda *given: iter(["\x1b[2J", "a\nb", "\u2066"]))
    run = load_run(tiny_run)
    assert list(continue_text(run, prompt, Sampling(3))) == ["\x1b[2J", "a\nb", "\u2066"], "as it is"
    assert main(["generate", str(tiny_run), "--prompt", prompt, "--tokens", "3"]) == 0
    out, err = capsys.readouterr()
    shown = "\\u001b]0;title\\u0007 \\u202eevil\\u2067 \\u009b31m\n\tname"
    assert (out, err) == (f"{shown}\\u001b[2Ja\nb\\u2066\n", "")


def test_progress_is_shown_where_the_text_is_not(capsys, monkeypatch, tiny_run):
    monkeypatch.setattr("vqmem.recipes.engine.progress.PLAIN_EVERY", 0.0)
    argv = ["generate", str(tiny_run), "--prompt", "the", "--tokens", "2"]
    assert main(argv) == 0
    to_file = capsys.readouterr()
    assert [line.partition("  took")[0] for line in to_file.err.splitlines()] == [
        "generating   50%  1/2",
        "generating  100%  2/2",
    ]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(argv) == 0
    assert capsys.readouterr() == (to_file.out, "")


def test_generate_with_the_tokenizer_of_another_model(capsys, config_file, tmp_path):
    tokenizer = word_piece()
    tokenizer.save(tmp_path / "tokenizer")
    front_end = f"front_end={{name: pretrained, path: {tmp_path}/tokenizer}}"
    assert main(["text_lm", str(config_file), f"out={tmp_path}/run", front_end]) == 0
    capsys.readouterr()
    argv = ["generate", f"{tmp_path}/run", "--prompt", "the whale", "--tokens", "40", "--temperature", "9"]
    assert main(argv) == 0
    run, printed = load_run(tmp_path / "run"), capsys.readouterr().out
    prompt = run.tokenizer.encode("the whale").ids
    drawn = list(generate(reader(run), prompt, Sampling(40, 9.0)))
    assert printed == run.tokenizer.decode([*prompt.tolist(), *drawn]) + "\n"
    assert len(printed.split()) > 10, "words are glued together"
