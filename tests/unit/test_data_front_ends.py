"""Front-ends in particular: safe cuts, huge lines, merges learnt from a part, and helpful refusals."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from vqmem.registry import build
from vqmem.tokenizers_ import _text, bpe, pretrained

AWKWARD = st.text(st.sampled_from(list("ab '\n\t.,1é語\u2003\x1c_s")), max_size=80)
TRAINING = ["the quick brown fox's 12 dogs jump over it, don't they? " * 20]


@pytest.fixture(scope="module")
def tokenizer() -> bpe.BPETokenizer:
    return bpe.FrontEnd(vocab_size=400).fit(TRAINING)


@given(text=AWKWARD, limit=st.integers(1, 20))
def test_pieces_concatenate_to_the_text(text: str, limit: int) -> None:
    pieces = list(_text.cut(text, limit))
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= limit for piece in pieces)


@given(text=AWKWARD)
@settings(max_examples=300)
def test_cutting_where_a_word_starts_changes_no_token(tokenizer: bpe.BPETokenizer, text: str) -> None:
    full = tokenizer.encode(text).ids.tolist()
    for match in _text._WORD_START.finditer(text):
        halves = [tokenizer.encode(half).ids.tolist() for half in (text[: match.start()], text[match.start() :])]
        assert [*halves[0], *halves[1]] == full


def test_a_text_of_many_pieces_equals_one_call(tokenizer: bpe.BPETokenizer, tmp_path: Path) -> None:
    text = "".join(f"word{i}, the fox's {i}\n\n  don't é " for i in range(20_000))
    tokenizer.save(tmp_path)
    full = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids
    assert len(text) > 5 * _text.PIECE
    assert tokenizer.encode(text).ids.tolist() == full


@pytest.mark.parametrize("text", ["x" * 3_000_000, "the quick brown fox " * 150_000], ids=["one word", "one line"])
def test_huge_line(tokenizer: bpe.BPETokenizer, text: str) -> None:
    for fitted in (tokenizer, build("front-ends", "bytes").fit([])):
        stream = fitted.encode(text)
        assert stream.sizes.sum() == len(text)
        assert stream.ends[-1] == len(text)


def test_characters_cut_across_tokens_share_their_offsets(tokenizer: bpe.BPETokenizer) -> None:
    for fitted in (tokenizer, build("front-ends", "bytes").fit([])):
        stream = fitted.encode("a語")
        assert stream.starts.tolist() == [0, 1, 1, 1]
        assert stream.ends.tolist() == [1, 2, 2, 2]
        assert fitted.decode(stream.ids[:3].tolist()) == "a\ufffd"


def test_train_bytes_limits_what_is_read() -> None:
    texts = [*TRAINING, "zzzz " * 1000]
    tokens = [len(bpe.FrontEnd(300, limit).fit(texts).encode("zzzz")) for limit in (0, 1000)]
    assert tokens == [1, 4]


def test_a_small_corpus_gives_fewer_tokens() -> None:
    assert bpe.FrontEnd().fit(["ab ab"]).vocab_size < 300
    assert bpe.FrontEnd().fit([]).vocab_size == 256


def test_ids_with_gaps_are_counted_to_the_last() -> None:
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "whale": 1, "sea": 7}, unk_token="[UNK]"))
    fitted = pretrained.PretrainedTokenizer(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]"))
    assert fitted.vocab_size == 8


def test_a_pretrained_tokenizer_is_known_by_what_it_does(tokenizer_folder: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    fitted = pretrained.PretrainedTokenizer(tokenizer)
    before = fitted.sha256()
    fitted.save(tmp_path / "copy")
    assert pretrained.FrontEnd(str(tmp_path / "copy")).fit([]).sha256() == before
    tokenizer("text", truncation=True, max_length=2)
    assert fitted.sha256() == before
    tokenizer.add_tokens(["whale"])
    assert fitted.sha256() != before


def test_refusals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="vocab_size = 100 must be at least 256"):
        bpe.FrontEnd(vocab_size=100)
    with pytest.raises(ValueError, match="train_bytes = -1 must be at least 0"):
        bpe.FrontEnd(train_bytes=-1)
    with pytest.raises(ValueError, match="has no path"):
        pretrained.FrontEnd().fit([])
    with pytest.raises(ValueError, match="no such file or folder"):
        pretrained.FrontEnd(str(tmp_path / "absent")).fit([])
    with pytest.raises(ValueError, match="no tokenizer at"):
        pretrained.FrontEnd(str(tmp_path)).fit([])
    (tmp_path / "words").mkdir()
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as offline:
        offline.setattr("transformers.AutoTokenizer.from_pretrained", Mock(side_effect=OSError("no network")))
        with pytest.raises(ValueError, match=r"no tokenizer at 'wrods' \(no network\); did you mean 'words'\?$"):
            pretrained.FrontEnd("wrods").fit([])
    with pytest.raises(ValueError, match="surrogates"):
        build("front-ends", "bytes").fit([]).encode("\ud800")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install 'vqmem\[hf\]'"):
        pretrained.FrontEnd(str(tmp_path)).fit([])
