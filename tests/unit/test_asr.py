"""Letters, interleaving, alignment, decoding and error rates of the recipe asr."""

from __future__ import annotations

import importlib
import itertools
import json
from types import SimpleNamespace
from unittest.mock import create_autospec

import jiwer
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from vqmem.data._audio import RATE
from vqmem.memory.policy import Guard
from vqmem.models.memory_transformer import TransformerConfig
from vqmem.models.speech.ctc import BLANK, ctc_loss, fits
from vqmem.models.speech.filter_bank import filter_bank
from vqmem.models.speech.hubert import HubertConfig
from vqmem.models.speech.unit_ctc import SLOTS, UnitCTC, UnitCTCConfig
from vqmem.recipes.asr.base import Decoding, Letter, Utterance
from vqmem.recipes.asr.ctc.batches import Loader
from vqmem.recipes.asr.ctc.recogniser import Recogniser as CTCRecogniser
from vqmem.recipes.asr.ctc.recogniser import _read_once
from vqmem.recipes.asr.ctc.task import beam, decoder, greedy, stretches, write_lexicon
from vqmem.recipes.asr.error_rates import Pair, error_rates, part, worst
from vqmem.recipes.asr.text import segments, text_of, words
from vqmem.recipes.asr.units.align import Aligned, Spoken, align
from vqmem.recipes.asr.units.interleave import Interleaving
from vqmem.recipes.asr.units.recogniser import joined
from vqmem.recipes.asr.units.streams import Streams, noise
from vqmem.recipes.asr.units.write import MOST, write
from vqmem.recipes.lm.decoder import Reader, make_reader
from vqmem.recipes.lm.language_model import LanguageModel, strategies
from vqmem.recipes.speech.text_normalisation import Alphabet, normalise
from vqmem.registry import build
from vqmem.tokenizers_._units import stream_of

ALPHABET = Alphabet.of(["abc"])
NOTHING_READ = SimpleNamespace(last=torch.zeros(1))

# --- letters -------------------------------------------------------------------------------------------------------


def test_text_is_normalised():
    assert (
        normalise("  \u201cDon\u2019t,\u201d she said \u2014 \uff34\uff37\uff29\uff23\uff25.") == "don't she said twice"
    )
    assert normalise("\u2018Yes,\u2019 he said; dogs' 'n' don't") == "yes he said dogs n don't"
    assert normalise("Stra\u00dfe, o\ufb03ce 42; '' -- '") == "stra\u00dfe office 42"
    assert normalise(" \u2014 ?! ") == normalise("") == ""


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("Do\u00adnau\u200bdampf\u200c\u200d\u2060schiff\ufeff", "donaudampfschiff"),
        ("e\u0301te\u0301 \u202dna\u0308h\u202c \u05d0\u200f", "\u00e9t\u00e9 n\u00e4h \u05d0"),
        ("o\ufe0fk \ufb01ve\u00a0\uff26\uff35 built\u2011in", "ok five fu built in"),
        ("don\u00b4t don`t don\u2032t don\u02bct", "don't don't don't don't"),
        ("ja/nein Berlin\u2013Hamburg a\u2014b c\u2026d", "ja nein berlin hamburg a b c d"),
        ("Dr. No has 5 %", "dr no has 5"),
    ],
)
def test_what_is_not_seen_splits_no_word_and_signs_do(written, words):
    assert normalise(written) == words


@given(st.text())
def test_normalising_twice_changes_nothing(text):
    assert normalise(normalise(text)) == normalise(text)


def test_an_alphabet_is_learnt_and_tells_what_is_outside():
    alphabet = Alphabet.of(["zero one", "it's"])
    assert alphabet.characters == " 'einorstz"
    assert alphabet.decode(alphabet.encode("one it's").tolist()) == "one it's"
    assert alphabet.decode(alphabet.encode("x one \u00e9 no").tolist()) == "one no"
    assert alphabet.outside(["x \u00e9 x", "one"]) == {"x": 2, "\u00e9": 1}
    assert Alphabet.of(["e\u0301"]).characters == " \u00e9"
    with pytest.raises(ValueError, match="'A', which normalised text never has"):
        Alphabet.of(["A"])
    with pytest.raises(ValueError, match="no letter"):
        Alphabet.of([""])


# --- interleaving --------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 40), st.lists(st.integers(0, 39), max_size=30), st.integers(1, 9), st.integers(0, 12), st.data())
def test_interleaving_loses_nothing(count, places, chunk, lookahead, data):
    codes = Interleaving(7, 4, chunk, lookahead)
    first = data.draw(st.integers(1, chunk))
    units, letters = torch.arange(count) % 7, torch.arange(len(places)) % 4
    places = torch.tensor(sorted(min(place, count - 1) for place in places), dtype=torch.long)
    woven = codes.weave(units, letters, places, first)
    again = codes.unweave(woven.ids)
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
    with pytest.raises(ValueError, match="chunk=0 must be at least 1"):
        Interleaving(1, 1, chunk=0)


def test_streams_join_neighbours_and_shift_the_borders_of_chunks():
    codes = Interleaving(5, len(ALPHABET), chunk=3, lookahead=0)
    utterance = Aligned(torch.tensor([1, 2, 3, 4]), ALPHABET.encode("ab"), torch.tensor([0, 2]))
    streams = Streams([[utterance, utterance, utterance], [utterance]], codes, ALPHABET, 8, seed=0)
    assert len(streams.groups) == 3, "three utterances of 4 units do not fit into 8"
    passages = [streams[i] for i in range(0, len(streams), 3)]
    for passage in passages:
        units, letters = codes.unweave(passage.ids)
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


# --- CTC -----------------------------------------------------------------------------------------------------------


def scores(classes: str) -> torch.Tensor:
    """Log-probabilities whose likeliest classes are those: ``-`` is the blank, others are letters."""
    ids = [BLANK if c == "-" else ALPHABET.characters.index(c) + 1 for c in classes]
    return (5 * torch.nn.functional.one_hot(torch.tensor(ids), len(ALPHABET) + 1).float()).log_softmax(-1)


@given(st.text("- abc", max_size=30), st.integers(1, 7))
@settings(deadline=None)
def test_greedy_decoding_in_windows_equals_that_at_once(classes, size):
    if not classes:
        return
    log_probs = scores(classes)
    found = list(greedy(log_probs.split(size), ALPHABET, 0.02))
    best = torch.unique_consecutive(log_probs.argmax(-1))
    assert "".join(letter.character for letter in found) == ALPHABET.decode((best[best != BLANK] - 1).tolist())
    assert all(one.end <= other.start + 1e-9 for one, other in itertools.pairwise(found))
    collapsed = "".join(c for c, _ in itertools.groupby(classes)).replace("-", "")
    assert "".join(letter.character for letter in found) == collapsed


def test_letters_know_their_frames():
    assert list(greedy([scores("--aab-b")], ALPHABET, 0.5)) == [
        Letter("a", 1.0, 2.0),
        Letter("b", 2.0, 2.5),
        Letter("b", 3.0, 3.5),
    ]


def test_a_beam_writes_what_is_likely_and_words_that_there_are(tmp_path):
    pytest.importorskip("flashlight.lib.text", reason="needs flashlight-text (extra 'asr')")
    log_probs = scores("-a-bb--  -cc-a-")
    decode = decoder(ALPHABET, Decoding(beam=10), tmp_path / "none")
    found = list(beam(log_probs.split(4), ALPHABET, 0.02, decode))
    assert text_of(found) == "ab ca"
    assert [round(word.start, 2) for word in words(found)] == [0.02, 0.20]
    (tmp_path / "lexicon.txt").write_text(write_lexicon(["cb ab", "zz"], ALPHABET))
    assert (tmp_path / "lexicon.txt").read_text() == "ab a b |\ncb c b |\n"
    with_words = decoder(ALPHABET, Decoding(beam=10, lexicon=True), tmp_path / "lexicon.txt")
    assert text_of(beam([log_probs], ALPHABET, 0.02, with_words)) == "ab cb"
    with pytest.raises(ValueError, match=r"decoding.lm \(a KenLM file\) .* not found"):
        decoder(ALPHABET, Decoding(beam=10, lm="absent.arpa"), tmp_path / "lexicon.txt")
    with pytest.raises(ValueError, match="need a beam"):
        Decoding(lexicon=True)


def test_stretches_are_cut_where_nothing_is_said():
    log_probs = scores(("ab" * 4 + "-" * 3) * 8)
    found = list(stretches(log_probs.split(5), size=10))
    assert torch.equal(torch.cat([part for _, part in found]), log_probs)
    assert [first for first, _ in found] == [0, *itertools.accumulate(len(part) for _, part in found)][:-1]
    assert all(len(part) <= 25 for _, part in found)
    assert all(part[0].argmax() == BLANK for _, part in found[1:])


def test_the_loss_counts_letters_and_skips_what_has_no_room():
    log_probs = torch.stack([scores("a-b-"), scores("abca")])
    letters = torch.stack([ALPHABET.encode("ab"), ALPHABET.encode("aa")])
    loss = ctc_loss(log_probs, torch.tensor([4, 2]), letters, torch.tensor([2, 2]))
    alone = ctc_loss(log_probs[:1], torch.tensor([4]), letters[:1], torch.tensor([2]))
    assert not fits(letters[1], 2)
    assert fits(letters[1], 3)
    assert loss.item() == pytest.approx(alone.item() / 2)


def test_padding_changes_nothing_for_units():
    torch.manual_seed(0)
    model = UnitCTC(UnitCTCConfig(dim=8, layers=2), 9, 4).eval()
    units = torch.randint(9, (2, 12))
    together, counts = model(units, torch.tensor([12, 7]))
    alone, _ = model(units[1:, :7], torch.tensor([7]))
    assert counts.tolist() == [12 * SLOTS, 7 * SLOTS]
    torch.testing.assert_close(together[1, : 7 * SLOTS], alone[0])
    assert not torch.allclose(alone[0, 0], model(units[1:, :6], torch.tensor([6]))[0][0, 0]), "it reads both ways"


def test_alignments_are_monotone_and_complete():
    torch.manual_seed(0)
    model = UnitCTC(UnitCTCConfig(dim=8, layers=1), 9, len(ALPHABET)).eval()
    texts = ("abc ab", "aa", "a" * 40, "")
    spoken = [Spoken(text, torch.randint(9, (12,)), ALPHABET.encode(text)) for text in texts]
    found = align(model, spoken)
    assert found[2:] == [None, None], "no room, nothing to align"
    for alignment, text in zip(found[:2], texts, strict=False):
        assert alignment is not None
        assert len(alignment.places) == len(text)
        assert alignment.places.diff().min() >= 0
        assert 0 <= alignment.places[0] <= alignment.places[-1] < 12


def test_about_half_of_the_recordings_are_unmasked():
    """A network that always sees hidden frames in training cannot read a recording without any."""
    said = SimpleNamespace(read=lambda: torch.ones(8000))
    utterances = [Utterance(str(i), said, "ab", 8000) for i in range(64)]
    recogniser = CTCRecogniser(model=HubertConfig(), mask_prob=0.1)
    batch = recogniser._batch(utterances, ALPHABET, recogniser.model, torch.Generator().manual_seed(0))
    waves, lengths, hidden = batch.inputs
    assert waves.shape == (64, 8000)
    assert set(lengths.tolist()) == {8000}
    assert 20 < int(hidden.any(1).sum()) < 44


def test_recordings_that_there_is_room_for_are_read_once():
    reads = []

    def said(name: str) -> Utterance:
        return Utterance(name, SimpleNamespace(read=lambda: reads.append(name) or torch.ones(4)), "ab", 4)

    for utterance in [*_read_once(map(said, "abc"), 8)] * 2:
        assert utterance.content.read().shape == (4,)
    assert reads == ["a", "b", "c", "c"]


def test_a_network_begins_with_band_pass_filters():
    convolutions = ((8, 400, 160), (8, 2, 2))
    config = HubertConfig(extractor_conv_layer_config=convolutions, encoder_embed_dim=16, encoder_num_heads=2)
    model = CTCRecogniser(model=config, filters=4000.0)._fresh(3)
    weights = model.encoder.wav2vec2.feature_extractor.conv_layers[0].conv.weight
    assert torch.equal(weights[:, 0], filter_bank(8, 400, 4000.0, RATE))
    with pytest.raises(ValueError, match=r"filters = 9000.0 Hz must be above 60 and at most 8000, or 0"):
        CTCRecogniser(model=config, filters=9000.0)


@pytest.mark.parametrize("channels", [8, 9])
def test_filters_pass_one_band_each_evenly_on_the_mel_scale(channels):
    bank = filter_bank(channels, 1600, 4000.0, RATE)
    assert bank.shape == (channels, 1600)
    response = torch.fft.rfft(bank).abs()
    peaks = 1127 * torch.log(1 + response.argmax(1) * 10 / 700)
    assert torch.allclose(peaks[0:8:2], peaks[1:8:2], atol=20), "a cosine and a sine"
    assert torch.allclose(peaks[0::2].diff(), peaks[0::2].diff().mean(), atol=20)
    assert float(F.cosine_similarity(bank[0:8:2], bank[1:8:2]).abs().max()) < 0.1, "a quarter of a wave apart"
    assert (response[0:8:2].amax(1).diff() > 0).all(), "high ones are emphasised"


def test_batches_hold_everything_once_and_resume():
    lengths = [(7 * i) % 40 for i in range(50)]

    def loader(rank: int = 0, world: int = 1) -> Loader:
        return Loader(
            lengths, lambda numbers, draw: (numbers, int(torch.randint(99, (), generator=draw))), 5, 0, rank, world
        )

    one = loader()
    epoch = [one.next() for _ in range(10)]
    assert sorted(number for numbers, _ in epoch for number in numbers) == list(range(50))
    assert epoch != [one.next() for _ in range(10)]
    again = loader()
    again.load_state_dict({"drawn": 3})
    assert [again.next() for _ in range(7)] == epoch[3:]
    assert [loader(rank, 2).next() for rank in range(2)] == epoch[:2]
    with pytest.raises(ValueError, match="no utterance to train on"):
        Loader([], lambda numbers, draw: numbers, 5, 0)


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
        woven = codes.weave(units, letters, places, chunk).ids.tolist()

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


@pytest.mark.parametrize("policy", ["fifo", {"name": "scored"}])
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


# --- text and error rates ------------------------------------------------------------------------------------------


def test_words_and_segments_have_times():
    letters = [Letter(c, float(i), i + 1.0) for i, c in enumerate(" ab  c")]
    found = list(words(letters))
    assert [tuple(word) for word in found] == [("ab", 1.0, 3.0), ("c", 5.0, 6.0)]
    assert [tuple(part) for part in segments(found)] == [("ab", 1.0, 3.0), ("c", 5.0, 6.0)]
    close = [word._replace(start=word.start / 10, end=word.end / 10) for word in found]
    assert [part.text for part in segments(close)] == ["ab c"]


def test_error_rates_and_the_worst():
    pairs = [Pair("a", "one two", "one two"), Pair("b", "three", ""), Pair("c", "four", "for four")]
    figures = error_rates(pairs)
    assert figures["wer"] == pytest.approx(2 / 4)
    assert figures["cer"] == pytest.approx((5 + 4) / (7 + 5 + 4))
    assert figures["right"] == pytest.approx(1 / 3)
    assert [utterance["name"] for utterance in worst(pairs, 5)] == ["b", "c"]
    assert json.loads(json.dumps(worst(pairs, 1)))[0]["reference"] == "three"


def test_a_recording_is_cut_into_its_utterances():
    references = ["the first one", "and a second", "zzz"]
    assert part(references, "the first one and a second zzz") == references
    assert part(references, "the frst one an a second") == ["the frst one", "an a second", ""]
    assert part(references, "") == ["", "", ""]
    assert part(["alone"], "whatever") == ["whatever"]


def test_what_a_second_way_gets_wrong_more_is_counted_over_documents():
    added, heard = importlib.import_module("vqmem.benchmarks.speech._errors").added, ["one two", "one too"]
    before, after = ([[Pair("a", "one two", hypothesis), Pair("b", "one", "")]] * 20 for hypothesis in heard)
    assert added(before, after) == pytest.approx({"points": 100 / 3, "low": 100 / 3, "high": 100 / 3})
    assert added(after, before, jiwer.process_characters)["points"] == pytest.approx(-10)
    assert set(added(before[:1], after[:1])) == {"points"}
