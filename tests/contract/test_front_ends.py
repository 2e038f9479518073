"""What every front-end promises, for each one that listing the folder finds."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from vqmem.data.base import Document
from vqmem.data.reading.audio import Audio
from vqmem.registry import build, load, names
from vqmem.tokenizers_.base import Stream, input_kind, load_tokenizer, output_kind, save_tokenizer, unit_of_size

CORPUS = [
    "the quick brown fox jumps over the lazy dog\n" * 5,
    "à la carte, naïve 語学 😀😀 don't\t12 345",
]
TEXT = [name for name in names("front-ends") if input_kind(load("front-ends", name)()) == "text"]
OTHERS = [name for name in names("front-ends") if name not in TEXT]
LOSSLESS = ["bpe", "bytes"]  # what a pretrained tokenizer decodes to is its makers' affair


@cache
def pretrained_folder() -> str:
    """A tiny tokenizer of the awkward kind: it lowers case, strips accents and forgets spaces."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # pyright: ignore[reportCallIssue]
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    folder = mkdtemp()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(folder)
    return folder


def spec(name: str) -> dict:
    fields = {"bpe": {"vocab_size": 300}, "pretrained": {"path": pretrained_folder()}}
    return {"name": name, **fields.get(name, {})}


@cache
def fitted(name: str):
    return build("front-ends", spec(name)).fit(CORPUS)


def same(one: Stream, other: Stream) -> bool:
    pairs = ((getattr(one, key), getattr(other, key)) for key in ("ids", "starts", "ends", "sizes"))
    return all(a.tolist() == b.tolist() for a, b in pairs)


@pytest.mark.parametrize("name", TEXT)
@given(text=st.text())
@example(text="")
@example(text="   ")
@example(text="x")
@example(text="Hello  There,\r\n\nworld \u2003 là 語😀 don't \x00\x1c ")
@settings(max_examples=60)
def test_stream(name: str, text: str) -> None:
    tokenizer = fitted(name)
    stream = tokenizer.encode(text)
    starts, ends, ids = stream.starts.tolist(), stream.ends.tolist(), stream.ids.tolist()

    assert all(0 <= i < tokenizer.vocab_size for i in ids)
    assert getattr(tokenizer, "ids_of", lambda text: ids)(text) == ids
    assert starts == sorted(starts)
    assert ends == sorted(ends)
    assert all(0 <= start <= end <= len(text) for start, end in zip(starts, ends, strict=True))
    assert (stream.sizes >= 0).all()
    if ids or name in LOSSLESS:
        assert stream.sizes.sum() == len(text.encode())
        assert (min(starts, default=0), max(ends, default=0)) == (0, len(text))
    if text.isascii() and ids:
        assert "".join(text[start:end] for start, end in zip(starts, ends, strict=True)) == text
        assert stream.sizes.tolist() == (stream.ends - stream.starts).tolist()
    if name in LOSSLESS:
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("name", TEXT)
def test_save_and_load_equal(name: str, tmp_path: Path) -> None:
    save_tokenizer(fitted(name), spec(name), tmp_path / "new" / "folder")
    again = load_tokenizer(tmp_path / "new" / "folder")
    assert again.vocab_size == fitted(name).vocab_size
    for text in [*CORPUS, "", "Unseen: ζ\n\n  end "]:
        assert same(again.encode(text), fitted(name).encode(text))
    ids = again.encode(CORPUS[0]).ids.tolist()
    assert again.decode(ids) == fitted(name).decode(ids)


@pytest.mark.parametrize("name", TEXT)
def test_fit_is_deterministic(name: str) -> None:
    again = build("front-ends", spec(name)).fit(CORPUS)
    assert same(again.encode(CORPUS[1]), fitted(name).encode(CORPUS[1]))


@cache
def speech() -> list[Document]:
    """Four seconds of noise in bursts, and units."""
    generator = np.random.default_rng(0)
    made = []
    for i in range(2):
        wave = generator.standard_normal(64_000) * np.repeat(generator.random(16), 4000) * 0.1
        path = Path(mkdtemp()) / f"{i}.wav"
        soundfile.write(path, wave, 16_000)
        units = tuple(generator.integers(0, 9, 50).repeat(3).tolist())
        made.append(Document(path.name, audio=Audio(str(path)), units=units))
    return made


def small(name: str, **keys: object) -> dict:
    fields = {"hubert_units": {"clusters": 8}}
    return {"name": name, **fields.get(name, {}), **keys}


def contents(name: str) -> list:
    return [document.content(input_kind(load("front-ends", name)())) for document in speech()]


@pytest.mark.parametrize("name", OTHERS)
def test_streams_of_speech_tile_time(name: str, tmp_path: Path) -> None:
    first, second = contents(name)
    tokenizer = build("front-ends", small(name)).fit(iter([first, second]))
    stream = tokenizer.encode(second)
    assert input_kind(tokenizer) == input_kind(load("front-ends", name)())
    assert unit_of_size(tokenizer) == unit_of_size(load("front-ends", name)()) != "byte"
    assert output_kind(tokenizer) == output_kind(load("front-ends", name)())
    assert len(stream) > 0
    assert 0 <= stream.ids.min() <= stream.ids.max() < tokenizer.vocab_size
    assert stream.starts[0] == 0
    assert torch.equal(stream.starts[1:], stream.ends[:-1])
    assert (stream.sizes > 0).all()
    assert isinstance(
        tokenizer.decode(stream.ids.tolist()), {"text": str, "audio": torch.Tensor}[output_kind(tokenizer)]
    )
    again = build("front-ends", small(name)).fit(iter([first, second]))
    assert same(again.encode(second), stream)
    save_tokenizer(tokenizer, small(name), tmp_path / "saved")
    loaded = load_tokenizer(tmp_path / "saved")
    assert loaded.vocab_size == tokenizer.vocab_size
    assert same(loaded.encode(second), stream)


@pytest.mark.parametrize("name", names("front-ends"))
def test_keys_have_defaults_and_the_class_is_frozen(name: str) -> None:
    front_end = load("front-ends", name)()
    with pytest.raises(AttributeError):
        front_end.anything = 1


def test_load_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no front_end\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "front_end.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        load_tokenizer(tmp_path)
    (tmp_path / "front_end.json").write_text('{"name": "bpee", "fields": {}}')
    with pytest.raises(ValueError, match="did you mean bpe"):
        load_tokenizer(tmp_path)
    (tmp_path / "front_end.json").write_text('{"name": "bpe", "fields": {}}')
    with pytest.raises(ValueError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("not json")
    with pytest.raises(ValueError, match="damaged"):
        load_tokenizer(tmp_path)
