"""Recognition from units: interleaved units and letters, alignment, and writing while reading."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vqmem.memory.policy import Guard
from vqmem.models.memory_transformer import TransformerConfig
from vqmem.models.speech.unit_ctc import FRAMES_PER_UNIT, UnitCTC, UnitCTCConfig
from vqmem.recipes.asr.text import text_of
from vqmem.recipes.asr.units.align import Aligned, SpokenUtterance, align
from vqmem.recipes.asr.units.interleave import Interleaving
from vqmem.recipes.asr.units.recogniser import joined
from vqmem.recipes.asr.units.streams import Streams, noise
from vqmem.recipes.asr.units.write import MOST, write
from vqmem.recipes.lm.decoder import Reader, make_reader
from vqmem.recipes.lm.language_model import LanguageModel
from vqmem.recipes.lm.strategies import strategies
from vqmem.recipes.speech.text_normalisation import Alphabet
from vqmem.registry import build
from vqmem.tokenizers_._units import stream_of

ALPHABET = Alphabet.of(["abc"])
NOTHING_READ = SimpleNamespace(previous=torch.zeros(1, 1))


# --- interleaving --------------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.lists(st.integers(0, 39), max_size=30), st.integers(1, 9), st.integers(0, 12), st.data())
def test_interleaving_loses_nothing(count, places, chunk, lookahead, data):
    codes = Interleaving(7, 4, chunk, lookahead)
    first = data.draw(st.integers(1, chunk))
    units, letters = torch.arange(count) % 7, torch.arange(len(places)) % 4
    places = torch.tensor(sorted(min(place, count - 1) for place in places), dtype=torch.long)
    woven = codes.interleave(units, letters, places, first)
    again = codes.separate(woven.ids)
    assert torch.equal(again[0], units)
    assert torch.equal(again[1], letters)
    assert int(woven.ids.max()) < codes.vocab_size
    assert torch.equal(woven.written, (woven.ids >= 7) & (woven.ids != codes.end))
    assert woven.ids.tolist().count(codes.end) == 1
    assert woven.ids[-1] == codes.switch
    read = written = 0
    for token in woven.ids.tolist():  # no letter is written before its unit and what must follow it were read
        read += token < 7
        if 7 <= token < codes.switch:
            assert read == count or places[written] < read - lookahead
            written += 1


def test_chunks_are_of_one_size_but_the_first_and_the_last():
    assert list(Interleaving(1, 1, chunk=4).chunks(10, 3)) == [(0, 3), (3, 7), (7, 10)]
    assert list(Interleaving(1, 1, chunk=4).chunks(2, 4)) == [(0, 2)]
    with pytest.raises(ValueError, match="chunk = 0 must be at least 1"):
        Interleaving(1, 1, chunk=0)


def test_streams_join_neighbours_and_shift_the_borders_of_chunks():
    codes = Interleaving(5, len(ALPHABET), chunk=3, lookahead=0)
    utterance = Aligned(torch.tensor([1, 2, 3, 4]), ALPHABET.encode("ab"), torch.tensor([0, 2]))
    streams = Streams([[utterance, utterance, utterance], [utterance]], codes, ALPHABET, 8, seed=0)
    assert len(streams.groups) == 3, "three utterances of 4 units do not fit into 8"
    passages = [streams[i] for i in range(0, len(streams), 3)]
    for passage in passages:
        units, letters = codes.separate(passage.ids)
        assert units.tolist() == [1, 2, 3, 4] * 2
        assert ALPHABET.decode(letters.tolist()) == "ab ab"
    assert len({passage.ids[:4].tolist().__str__() for passage in passages}) > 1
    with pytest.raises(ValueError, match="no utterance could be aligned"):
        Streams([[]], codes, ALPHABET, 8, seed=0)


def test_noise_changes_units_to_units_and_letters_to_letters():
    codes = Interleaving(50, 20)
    tokens = torch.arange(codes.vocab_size).repeat(20, 1)
    torch.manual_seed(0)
    noisy = noise(codes, 0.5, 0.25)(tokens)
    changed = (noisy != tokens).float()
    assert changed[:, :50].mean() == pytest.approx(0.5, abs=0.06)
    assert changed[:, 50:70].mean() == pytest.approx(0.25, abs=0.08)
    assert not changed[:, 70:].any()
    assert bool(((noisy < 50) == (tokens < 50)).all())


def test_padding_changes_nothing_for_units():
    torch.manual_seed(0)
    model = UnitCTC(UnitCTCConfig(dim=8, layers=2), 9, 4).eval()
    units = torch.randint(9, (2, 12))
    together, counts = model(units, torch.tensor([12, 7]))
    alone, _ = model(units[1:, :7], torch.tensor([7]))
    assert counts.tolist() == [12 * FRAMES_PER_UNIT, 7 * FRAMES_PER_UNIT]
    torch.testing.assert_close(together[1, : 7 * FRAMES_PER_UNIT], alone[0])
    assert not torch.allclose(alone[0, 0], model(units[1:, :6], torch.tensor([6]))[0][0, 0]), "it reads both ways"


def test_alignments_are_monotone_and_complete():
    torch.manual_seed(0)
    model = UnitCTC(UnitCTCConfig(dim=8, layers=1), 9, len(ALPHABET)).eval()
    texts = ("abc ab", "aa", "a" * 40, "")
    spoken = [SpokenUtterance(text, torch.randint(9, (12,)), ALPHABET.encode(text)) for text in texts]
    found = align(model, spoken)
    assert found[2:] == [None, None], "no room, nothing to align"
    for alignment, text in zip(found[:2], texts, strict=False):
        assert alignment is not None
        assert len(alignment.places) == len(text)
        assert alignment.places.diff().min() >= 0
        assert 0 <= alignment.places[0] <= alignment.places[-1] < 12


# --- writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["fifo", "scored"])
def test_writing_ends_within_its_memory_and_times_never_fall(policy):
    torch.manual_seed(0)
    codes = Interleaving(9, len(ALPHABET), chunk=4, lookahead=2)
    (strategy,) = strategies({"it": {"policy": policy}})
    model = LanguageModel(TransformerConfig(codes.vocab_size, 1, 8, 2), [strategy]).eval()
    scorer = build("scorers", "random").build(codes.vocab_size)
    reader = make_reader(model, scorer, 16, strategy, strategy.memory(12, Guard()))
    counts: list[int] = []
    extend = type(reader)._extend

    def watched(self, tokens, reading):
        logits, reading = extend(self, tokens, reading)
        counts.append(reading.memory.slots.count + reading.segment.count)
        return logits, reading

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(reader), "_extend", watched)
        stream = stream_of(torch.arange(60) % 9, deduplicate=False)
        letters = [letter for _, letter in write(reader, codes, ALPHABET, [stream])]
    assert max(counts) <= 12 + 16
    assert counts.index(max(counts)) < len(counts) // 2, "it stops growing"
    assert 0 < len(letters) <= 15 * MOST * (4 + 2)
    times = [time for letter in letters for time in letter[1:]]
    assert times == sorted(times)
    assert times[-1] <= stream.ends[-1] + 1e-9


def test_a_model_that_knows_writes_the_text_in_chunks_of_any_size():
    """A model that knows the sequence writes the text with chunks of any size."""
    units = torch.arange(10) % 7
    letters, places = ALPHABET.encode("ab ca"), torch.tensor([0, 3, 4, 6, 9])
    for chunk, lookahead in ((1, 0), (3, 2), (10, 4)):
        codes = Interleaving(7, len(ALPHABET), chunk, lookahead)
        woven = codes.interleave(units, letters, places, chunk).ids.tolist()

        reader = create_autospec(Reader, instance=True)
        at = [0]

        def read(ids, reading, codes=codes, woven=woven, at=at):
            place = at[0] + ids.shape[1]
            assert woven[at[0] : place] == ids[0].tolist(), "it reads along in the sequence that was woven"
            at[0] = place
            return torch.nn.functional.one_hot(torch.tensor([woven[place]]), codes.vocab_size).float(), reading

        reader.read.side_effect = read
        reader.start.return_value = NOTHING_READ
        found = [letter for _, letter in write(reader, codes, ALPHABET, [stream_of(units, deduplicate=False)])]
        assert text_of(found) == "ab ca"


@pytest.mark.parametrize("policy", ["fifo", {"name": "scored", "surprise": 0.0, "rarity": 1.0}])
def test_streams_that_are_read_side_by_side_are_written_as_each_alone(policy):
    torch.manual_seed(0)
    codes = Interleaving(9, len(ALPHABET), chunk=4, lookahead=2)
    (strategy,) = strategies({"it": {"policy": policy}})
    model = LanguageModel(TransformerConfig(codes.vocab_size, 2, 16, 2), [strategy]).eval()
    torch.nn.init.normal_(model.transformer.embed.weight)  # so that what is written depends on what is read
    scorer = build("scorers", "unigram").build(codes.vocab_size)
    reader = make_reader(model, scorer, 16, strategy, strategy.memory(12, Guard()))
    streams = [stream_of(torch.randint(9, (size,)), deduplicate=False) for size in (50, 3, 31)]
    together = list(write(reader, codes, ALPHABET, streams))
    alone = [[letter for _, letter in write(reader, codes, ALPHABET, [stream])] for stream in streams]
    assert [[letter for number, letter in together if number == row] for row in range(3)] == alone
    assert len({text_of(letters) for letters in alone}) > 1


def test_streams_of_parts_follow_one_another():
    parts = [stream_of(torch.tensor([3, 3, 4]), deduplicate=True), stream_of(torch.tensor([4]), deduplicate=True)]
    stream = joined(parts)
    assert stream.ids.tolist() == [3, 4, 4]
    assert stream.starts.tolist() == pytest.approx([0, 0.04, 0.06])
    assert stream.ends.tolist() == pytest.approx([0.04, 0.06, 0.08])
