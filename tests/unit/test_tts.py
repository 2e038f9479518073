"""Speech synthesis: clips, spelling, and speaking piece by piece."""

import io

import numpy as np
import pytest
import soundfile
import torch
from vqmem.data.base import Document
from vqmem.data.reading.audio import Audio
from vqmem.models.speech.unit_speaker import UnitRuns, UnitSpeaker
from vqmem.models.speech.unit_vocoder import FRAME, RATE
from vqmem.recipes.speech.units import load_units
from vqmem.recipes.tts import clips
from vqmem.recipes.tts import speak as speaking
from vqmem.recipes.tts.speak import Manner, speak, unknown, write_speech
from vqmem.recipes.tts.text import alphabet, plain, spell
from vqmem.recipes.tts.voice import Voice
from vqmem.tests.unit.tiny_voice import speaker, vocoder


def test_recordings_that_are_too_long_are_listed_and_reading_stops_when_there_are_enough(monkeypatch, capsys):
    def documents(split):
        for number, seconds in enumerate((61, 2, 2)):
            yield Document(f"{number}.wav", "a", audio=Audio(f"{number}.wav", _wav(seconds)))
        pytest.fail("was read on")

    monkeypatch.setattr(clips, "documents", lambda data, split, out: documents(split))
    kept = clips.read_clips("any", "train", load_units(), seconds=3.0)
    assert [clip.name for clip in kept] == ["1.wav", "2.wav"]
    assert "'0.wav' lasts 61 s; cut it to at most 60 s" in capsys.readouterr().err


def _wav(seconds):
    file = io.BytesIO()
    soundfile.write(file, np.full(seconds * 16_000, 0.1), 16_000, format="WAV")
    return file.getvalue()


# --- text ----------------------------------------------------------------------------------------------------------


def test_text_is_spelt_with_what_the_voice_knows():
    assert plain(" „Grüß\u00a0Gott”\n—  sie… ") == '"grüß gott" - sie.'
    assert alphabet(["abcabcabcabcab Z!"] * 2 + ["b"]) == " abc"
    ids, missing = spell("Bâd caß 語", " abcd")
    assert ids.tolist() == [0, 2, 1, 4, 0, 3, 1, 0, 0]
    assert missing == {"ß", "語"}


LATIN = " abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ja/nein", "ja nein"),
        ("ja / nein", "ja nein"),
        ("Berlin\u2013Hamburg", "berlin hamburg"),
        ("so\u2014und so", "so und so"),
        ("a_b|c\u00b7d", "a b c d"),
        ("well-known", "well known"),
        ("don\u2019t", "dont"),
        ("Do\u00adnau\u200bdampf\ufeffschiff", "donaudampfschiff"),
        ("cafe\u0301", "cafe"),
        ("\ufb01nd \uff26\uff35\uff2c\uff2c", "find full"),
        ("/a/", "a"),
        ("", ""),
    ],
)
def test_signs_that_are_not_learnt_separate_words_and_what_is_not_seen_does_not(text, said):
    assert "".join(LATIN[i] for i in spell(text, LATIN)[0]) == f" {said} "


def test_signs_that_are_learnt_stay():
    ids, missing = spell("Berlin\u2013Hamburg, don\u00b4t!", LATIN + "-'!")
    assert "".join((LATIN + "-'!")[i] for i in ids) == " berlin-hamburg don't! "
    assert missing == {","}


@pytest.fixture
def voice():
    return Voice(None, speaker(), vocoder())


def test_a_long_text_is_spoken_a_piece_at_a_time(voice, monkeypatch, tmp_path):
    asked = []

    def say(texts, temperature, generator):
        asked.extend(map(len, texts))
        return [UnitRuns(torch.tensor([1, 2]), torch.tensor([2, 1]), torch.tensor([0, 1]))] * len(texts)

    monkeypatch.setattr(voice.speaker, "speak", say)
    text = ("abc dea. bce, " * 715)[:10_000]
    made = speak(voice, text, Manner())
    assert asked == []
    assert len(next(made)) == 3 * FRAME
    assert len(asked) == speaking.BATCH_SIZE  # nothing more is spoken before it is asked for
    rest = list(made)
    assert max(asked) <= speaking.PIECE + 2
    assert len(rest) + 1 == len(asked) > 60
    out = tmp_path / "long.flac"
    assert write_speech(voice, text, out, Manner()) == pytest.approx(len(asked) / 2 * 3 * FRAME / RATE)
    assert soundfile.info(out).frames == len(asked) // 2 * 3 * FRAME


def test_pieces_are_no_longer_than_what_the_voice_learnt_from(voice, monkeypatch):
    monkeypatch.setattr(voice.speaker, "max_train_letters", 7)
    assert max(map(len, speaking.pieces(voice, "abc dea bce. " * 9))) == 7 + 2
    again = UnitSpeaker.from_fields(voice.speaker.fields())
    assert again.max_train_letters == 7


def test_pieces_do_not_depend_on_those_before(voice, monkeypatch):
    monkeypatch.setattr(speaking, "PIECE", 4)
    together = list(speak(voice, "ab. de.", Manner(temperature=0.0)))
    assert len(together) == 2
    for piece, text in zip(together, ("ab.", "de."), strict=True):
        (alone,) = speak(voice, text, Manner(temperature=0.0))
        assert torch.equal(piece, alone)


def test_what_cannot_be_spoken_is_an_error(voice):
    assert unknown(voice, "abc. Ω") == [".", "ω"]
    assert unknown(voice, "5") == ["f", "i", "v"], "as it is read"
    assert unknown(voice._replace(language=""), "5") == ["5"]
    with pytest.raises(ValueError, match=r"nothing in '!\?' can be spoken: this voice knows abcde"):
        speak(voice, "!?", Manner())
    for bad in ({"temperature": -1.0}, {"temperature": float("nan")}, {"seed": -1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Manner(**bad)


def test_a_file_is_written_completely_or_not_at_all(voice, monkeypatch, tmp_path):
    out = tmp_path / "said.wav"
    out.write_bytes(b"before")
    with pytest.raises(ValueError, match=r"format of sound '.mp4'"):
        write_speech(voice, "abc", tmp_path / "said.mp4", Manner())

    def fail(*given):
        raise InterruptedError

    monkeypatch.setattr(voice.vocoder, "speak", fail)
    with pytest.raises(OSError, match="cannot write"):
        write_speech(voice, "abc", out, Manner())
    assert out.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["said.wav"]
    monkeypatch.undo()
    seconds = write_speech(voice, "a", out, Manner())
    sound, rate = soundfile.read(out)
    assert (rate, len(sound)) == (RATE, round(seconds * RATE))
    assert np.isfinite(sound).all()
