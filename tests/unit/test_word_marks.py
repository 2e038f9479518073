"""The times of words in text that eSpeak NG speaks, by hand and against SSML marks of the same engine."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from xml.sax.saxutils import escape

import numpy as np
import pytest
from vqmem.data import spoken_text
from vqmem.data._word_marks import WordMark, marks_of, word_spans
from vqmem.data.spoken_text import RATE, speak, speak_with_marks, spoken_file, spoken_file_with_marks

HARD = (
    "\u201cHello,\u201d he said (quietly).  Then:\n\nnothing\u2014at all, in the shop. It cost $1,234.50 in 1999 or "
    "so--I am sure! Dr. Smith\u2019s well-known caf\u00e9 \u2026 na\u00efve \u201cdon\u2019t\u201d; 5% of it, e.g. the "
    "U.S.A. at 10:30?"
)
NAMES = """
import ctypes, json, sys
from vqmem.data._espeak import _Event
library, data, text = sys.argv[1:]
engine, found = ctypes.CDLL(library), []
engine.espeak_Initialize(1, 0, data.encode(), 0)
@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
def receive(samples, count, events):
    number = 0
    while events[number].type:
        if events[number].type == 3:  # espeakEVENT_MARK
            found.append((int(events[number].id.name), events[number].audio_position / 1000))
        number += 1
    return 0
engine.espeak_SetSynthCallback(receive)
engine.espeak_SetVoiceByName(b"en-us")
engine.espeak_SetParameter(1, 160, 0)
said = text.encode() + bytes(1)
engine.espeak_Synth(said, ctypes.c_size_t(len(said)), 0, 0, 0, 1 | 0x10, None, None)  # espeakSSML
engine.espeak_Synchronize()
print(json.dumps(found))
"""


def words(text: str, marks: list[WordMark]) -> list[str]:
    return [text[mark.start_char : mark.end_char] for mark in marks]


def test_words_end_at_dashes_and_ellipses_and_keep_their_punctuation():
    text = "(One) two\u2014three--four... five * e.g. 1,5"
    assert [text[start:end] for start, end in word_spans(text)] == [
        "(One)", "two", "three", "four", "five", "e.g.", "1,5",
    ]  # fmt: skip


def test_marks_by_hand():
    text = "In the 12, * so--on"
    events = [
        ("pause", 0, 0), ("word", 0, 100), ("sound", 0, 110), ("sound", 0, 200),  # "in the" is one event
        ("word", 7, 300), ("sound", 7, 300), ("word", 8, 400), ("sound", 8, 400), ("pause", 8, 500),  # two words of 12
        ("word", 11, 600), ("sound", 11, 600), ("pause", 11, 650),  # the asterisk is no word of the text
        ("word", 13, 700), ("sound", 13, 700), ("word", 15, 800), ("sound", 15, 800),  # an event at the dashes
    ]  # fmt: skip
    marks = marks_of(text, events, 0.9)
    assert words(text, marks) == ["In the", "12", "so", "on"]
    assert [(mark.start, mark.end) for mark in marks] == [(0.1, 0.3), (0.3, 0.5), (0.7, 0.8), (0.8, 0.9)]


def test_a_text_without_words_or_speech_has_no_marks():
    assert marks_of("* \u2014", [("word", 0, 0), ("sound", 0, 0)], 1.0) == []
    assert marks_of("one two", [("word", 0, 0), ("pause", 0, 0)], 1.0) == []
    assert marks_of("one two", [], 1.0) == []


@pytest.fixture
def engine() -> None:
    pytest.importorskip("espeakng_loader", reason="needs espeakng-loader (extra 'speech')")


@pytest.mark.parametrize("voice", ["en-us", "en-us+f5", "en-gb-x-gbclan+m7"])  # the last ones breathe
def test_marks_cover_the_words_in_order_and_change_no_sample(engine, voice):
    samples, marks = speak_with_marks(HARD, voice, 180)
    assert np.array_equal(samples, speak(HARD, voice, 180))
    assert marks[0].start >= 0
    assert marks[-1].end <= len(samples) / RATE
    assert all(mark.start < mark.end for mark in marks)
    assert all(one.end <= other.start and one.end_char < other.start_char for one, other in pairwise(marks))
    spoken = words(HARD, marks)
    assert {"Hello", "quietly", "nothing", "at", "1999", "I am", "well-known", "caf\u00e9", "na\u00efve"} <= {*spoken}
    assert " ".join(spoken).split() == [
        HARD[start:end].strip("\u201c\u201d().,:;!?$%") for start, end in word_spans(HARD)
    ]  # every word has a mark, alone or with its neighbours
    number = marks[spoken.index("1,234.50")]
    assert number.end - number.start > 2  # the engine says nine words


def test_pauses_belong_to_no_word(engine):
    samples, marks = speak_with_marks("Stop. Go on.")
    assert words("Stop. Go on.", marks) == ["Stop", "Go", "on"]
    pause = samples[round(marks[0].end * RATE) + RATE // 20 : round(marks[1].start * RATE)]
    assert len(pause) > 0.2 * RATE
    assert np.abs(pause).max() < 0.02 * np.abs(samples).max()


def test_words_last_as_long_as_between_marks_of_ssml(engine):
    """SSML names the words themselves, so that no position in the text is interpreted."""
    text = "He said that nothing at all happened, and 42 men went home to the large house in 1999 for a long time."
    marks = speak_with_marks(text)[1]
    pieces = [(escape(text[a.start_char : b.start_char]), i) for i, (a, b) in enumerate(pairwise(marks))]
    last = escape(text[marks[-1].start_char :])
    ssml = "".join(f'<mark name="{i}"/>{piece}' for piece, i in [*pieces, (last, len(pieces))])
    command = [sys.executable, "-c", NAMES, *spoken_text._engine()[:2], f"<speak>{ssml}</speak>"]
    times = dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert len(times) == len(marks) > 15
    for number, (one, other) in enumerate(pairwise(marks)):
        if one.end == other.start:  # SSML puts the mark before a pause
            assert times[number + 1] - times[number] == pytest.approx(other.start - one.start, abs=0.06), number


def test_marks_are_cached_beside_the_recording(engine, tmp_path, monkeypatch):
    path, marks = spoken_file_with_marks("One, two.", "en-us", 160, str(tmp_path))
    assert path == spoken_file("One, two.", "en-us", 160, str(tmp_path))
    path.unlink()
    assert path == spoken_file("One, two.", "en-us", 160, str(tmp_path))
    monkeypatch.setattr(spoken_text, "speak_with_marks", lambda *_: pytest.fail("spoken again"))
    assert spoken_file_with_marks("One, two.", "en-us", 160, str(tmp_path)) == (path, marks)
    assert words("One, two.", marks) == ["One", "two"]
