"""Letters, interleaving, alignment, decoding and error rates of the recipe asr."""

from __future__ import annotations

import importlib
import itertools
import json
from types import SimpleNamespace

import jiwer
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from vqmem.data.reading.audio import RATE
from vqmem.models.speech.ctc import BLANK, ctc_loss, fits
from vqmem.models.speech.filter_bank import filter_bank
from vqmem.models.speech.hubert import HubertConfig
from vqmem.recipes.asr.base import Decoding, Letter, Utterance
from vqmem.recipes.asr.ctc.batches import RecordingLoading, UtteranceRequest, utterance_sampler
from vqmem.recipes.asr.ctc.recogniser import Recogniser as CTCRecogniser
from vqmem.recipes.asr.ctc.task import beam, decoder, greedy, stretches, write_lexicon
from vqmem.recipes.asr.error_rates import TranscriptPair, error_rates, part, worst_utterances
from vqmem.recipes.asr.text import segments, text_of, words
from vqmem.recipes.engine.loader import IndexSampler
from vqmem.recipes.speech.text_normalisation import Alphabet, normalise

ALPHABET = Alphabet.of(["abc"])

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


def test_an_alphabet_is_learnt_and_names_what_is_outside():
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


# --- CTC -----------------------------------------------------------------------------------------------------------


def scores(classes: str) -> torch.Tensor:
    """Log-probabilities whose likeliest classes are those: ``-`` is the blank, others are letters."""
    ids = [BLANK if c == "-" else ALPHABET.characters.index(c) + 1 for c in classes]
    return (5 * torch.nn.functional.one_hot(torch.tensor(ids), len(ALPHABET) + 1).float()).log_softmax(-1)


@given(st.text("- abc", max_size=30), st.integers(1, 7))
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


def test_about_half_of_the_recordings_are_unmasked():
    """A network that always sees hidden frames in training cannot read a recording without any."""
    said = SimpleNamespace(read=lambda: torch.ones(8000))
    utterances = [Utterance(str(i), said, "ab", 8000) for i in range(64)]
    load = RecordingLoading(ALPHABET, HubertConfig(), speed=0.0, mask_prob=0.1, mask_length=5)
    waves, lengths, hidden = load(UtteranceRequest(utterances, 0)).inputs
    assert waves.shape == (64, 8000)
    assert set(lengths.tolist()) == {8000}
    assert 20 < int(hidden.any(1).sum()) < 44


def test_a_network_begins_with_band_pass_filters():
    convolutions = ((8, 400, 160), (8, 2, 2))
    config = HubertConfig(extractor_conv_layer_config=convolutions, encoder_embed_dim=16, encoder_num_heads=2)
    model = CTCRecogniser(model=config, filters=4000.0)._new_model(3)
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


def test_batches_contain_everything_once_and_resume():
    lengths = [(7 * i) % 40 for i in range(50)]

    def loader(rank: int = 0, world: int = 1) -> IndexSampler:
        return utterance_sampler(range(50), lengths, 5, 0, rank, world)

    one = loader()
    epoch = [one.next() for _ in range(10)]
    assert sorted(number for numbers, _ in epoch for number in numbers) == list(range(50))
    assert epoch != [one.next() for _ in range(10)]
    again = loader()
    again.load_state_dict({"drawn": 3})
    assert [again.next() for _ in range(7)] == epoch[3:]
    assert [loader(rank, 2).next() for rank in range(2)] == epoch[:2]
    with pytest.raises(ValueError, match="no utterance to train on"):
        utterance_sampler([], [], 5, 0)


# --- text and error rates ------------------------------------------------------------------------------------------


def test_words_and_segments_have_times():
    letters = [Letter(c, float(i), i + 1.0) for i, c in enumerate(" ab  c")]
    found = list(words(letters))
    assert [tuple(word) for word in found] == [("ab", 1.0, 3.0), ("c", 5.0, 6.0)]
    assert [tuple(part) for part in segments(found)] == [("ab", 1.0, 3.0), ("c", 5.0, 6.0)]
    close = [word._replace(start=word.start / 10, end=word.end / 10) for word in found]
    assert [part.text for part in segments(close)] == ["ab c"]


def test_error_rates_and_the_worst():
    pairs = [
        TranscriptPair("a", "one two", "one two"),
        TranscriptPair("b", "three", ""),
        TranscriptPair("c", "four", "for four"),
    ]
    figures = error_rates(pairs)
    assert figures["wer"] == pytest.approx(2 / 4)
    assert figures["cer"] == pytest.approx((5 + 4) / (7 + 5 + 4))
    assert figures["right"] == pytest.approx(1 / 3)
    assert [utterance["name"] for utterance in worst_utterances(pairs, 5)] == ["b", "c"]
    assert json.loads(json.dumps(worst_utterances(pairs, 1)))[0]["reference"] == "three"


def test_a_recording_is_cut_into_its_utterances():
    references = ["the first one", "and a second", "zzz"]
    assert part(references, "the first one and a second zzz") == references
    assert part(references, "the frst one an a second") == ["the frst one", "an a second", ""]
    assert part(references, "") == ["", "", ""]
    assert part(["alone"], "whatever") == ["whatever"]


def test_what_a_second_way_gets_wrong_more_is_counted_over_documents():
    added, heard = importlib.import_module("vqmem.benchmarks.speech._errors").added, ["one two", "one too"]
    before, after = (
        [[TranscriptPair("a", "one two", hypothesis), TranscriptPair("b", "one", "")]] * 20 for hypothesis in heard
    )
    assert added(before, after) == pytest.approx({"points": 100 / 3, "low": 100 / 3, "high": 100 / 3})
    assert added(after, before, jiwer.process_characters)["points"] == pytest.approx(-10)
    assert set(added(before[:1], after[:1])) == {"points"}
