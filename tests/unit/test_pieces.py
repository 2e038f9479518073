"""Every kind of tokenizer gives the same characters for the same text, and the same counts of it."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vqmem.tokenizers_ import bpe, bytes
from vqmem.tokenizers_._pieces import count_tokens, pieces
from vqmem.tokenizers_._text import byte_alphabet
from vqmem.tokenizers_.pretrained import PretrainedTokenizer

TEXT = "the cat sat, the cats"
WORDS = {"the": 1, " cat": 3, " sat": 1, ",": 1, " the": 1, " cats": 2}


def vocabulary(*tokens: str) -> dict[str, int]:
    return {token: i for i, token in enumerate(tokens)}


def merges(*words: str) -> list[tuple[str, str]]:
    """Merges that build each word from its left end."""
    pairs = [(word[:i], word[i]) for word in words for i in range(1, len(word))]
    return list(dict.fromkeys(pairs))


def bpe_of(alphabet: list[str], words: list[str], **settings) -> Tokenizer:
    steps = merges(*words)
    tokens = [*alphabet, *dict.fromkeys(a + b for a, b in steps)]
    return Tokenizer(models.BPE(vocabulary(*tokens), steps, **settings))


def byte_level() -> Tokenizer:
    tokenizer = bpe_of(sorted(byte_alphabet()), ["Ġcat", "Ġsat", "Ġthe", "the"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<end>", special=True)])
    return tokenizer


def sentencepiece() -> Tokenizer:
    letters = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"achest,"]
    words = ["▁cat", "▁sat", "▁the", "the"]
    tokenizer = bpe_of(letters, words, byte_fallback=True, unk_token="<unk>")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.add_special_tokens([AddedToken("<end>", special=True), AddedToken("<unk>", special=True)])
    return tokenizer


def wordpiece() -> Tokenizer:
    tokens = vocabulary("[UNK]", "the", "cat", "sat", ",", "##s", "a")
    tokenizer = Tokenizer(models.WordPiece(tokens, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([AddedToken("<end>", special=True), AddedToken("[UNK]", special=True)])
    return tokenizer


KINDS = [byte_level, sentencepiece, wordpiece]


@pytest.mark.parametrize("make", KINDS)
def test_a_text_has_the_same_pieces_in_every_kind(make):
    tokenizer = make()
    found = pieces(tokenizer)
    ids = tokenizer.encode(f"a {TEXT}", add_special_tokens=False).ids
    assert [found[i] for i in ids][-7:] == [" the", " cat", " sat", ",", " the", " cat", "s"]
    assert found[tokenizer.token_to_id("<end>")] is None
    assert len(found) == tokenizer.get_vocab_size()


@pytest.mark.parametrize("make", KINDS)
def test_wrapped_in_a_front_end_or_in_transformers_it_is_the_same(make):
    tokenizer = make()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    for wrapped in (fast, PretrainedTokenizer(fast)):
        assert pieces(wrapped) == pieces(tokenizer)
        assert count_tokens(wrapped, WORDS, 600).equal(count_tokens(tokenizer, WORDS, 600))


@pytest.mark.parametrize("make", KINDS)
def test_counts_are_those_of_the_running_text(make):
    tokenizer = make()
    found, counts = pieces(tokenizer), count_tokens(tokenizer, WORDS, 600)
    by_piece = {found[i]: counts[i].item() for i in counts.nonzero().flatten().tolist()}
    the = {"the": 1.0, " the": 1.0} if make is not wordpiece else {" the": 2.0}
    assert by_piece == {" cat": 5.0, "s": 2.0, " sat": 1.0, ",": 1.0, **the}


def test_slow_tokenizers_count_the_same():
    class Slow:
        """What a slow tokenizer of transformers offers."""

        inner, all_special_ids = sentencepiece(), (0,)
        added_tokens_decoder = inner.get_added_tokens_decoder()

        def get_vocab(self):
            return self.inner.get_vocab()

        def __call__(self, texts, add_special_tokens):
            assert not add_special_tokens
            return {"input_ids": [self.inner.encode(text).ids for text in texts]}

    assert pieces(Slow()) == pieces(sentencepiece())
    assert count_tokens(Slow(), WORDS, 600).equal(count_tokens(sentencepiece(), WORDS, 600))


def test_bytes_that_are_no_text_stay_apart():
    found = [pieces(make()) for make in (byte_level, sentencepiece)]
    for piece in ("\n", "\udcc3", "\udcff", "~"):
        assert all(piece in one for one in found)


def test_added_tokens_that_are_not_special_stand_for_their_text():
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("Ġ é", special=False)])
    assert pieces(tokenizer)[-1] == "Ġ é"


def test_our_front_ends():
    fitted = bpe.FrontEnd(300).fit(["the cat, the cats. " * 20])
    found = pieces(fitted)
    assert "".join(found[i] or "" for i in fitted.encode(TEXT).ids.tolist()) == TEXT
    assert pieces(bytes.ByteTokenizer())[97] == "a"
    assert count_tokens(bytes.ByteTokenizer(), {" the": 2}, 256)[[32, 116, 97]].tolist() == [2.0, 2.0, 0.0]


def test_an_untrained_byte_level_vocabulary_is_recognised():
    tokenizer = Tokenizer(models.BPE(vocabulary(*sorted(byte_alphabet())), []))
    assert pieces(tokenizer)[tokenizer.token_to_id("Ġ")] == " "
    assert pieces(Tokenizer(models.WordLevel(vocabulary("one", "##")))) == ["one", "##"]
