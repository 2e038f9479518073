"""Speak one text with the eSpeak NG engine: text on standard input, 16-bit samples on standard output.

A separate program, started for every text (40 ms), because the engine keeps state between texts that no call resets:
its output would depend on the texts before. It imports only the standard library, to start quickly.

    python _espeak.py LIBRARY DATA VOICE SPEED [EVENTS] < text > samples

With a path EVENTS, it also writes the engine's events of words and sounds there, as JSON: a list of
``[kind, character, milliseconds, name]`` in order of time. Characters of the text count from 0. The kind is ``word``,
where the engine begins a word, or ``sound`` or ``pause``, where it begins a phoneme or a pause; the name is that of the
phoneme or the pause.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

UNKNOWN_VOICE = 3
"""Exit code if the engine has no such voice."""

_RETRIEVE, _UTF8, _RATE = 1, 1, 1  # AUDIO_OUTPUT_RETRIEVAL, espeakCHARS_UTF8, espeakRATE (speak_lib.h)
_PHONEME_EVENTS = 1  # espeakINITIALIZE_PHONEME_EVENTS
_LIST_END, _WORD, _PHONEME = 0, 1, 7  # espeakEVENT_LIST_TERMINATED, espeakEVENT_WORD, espeakEVENT_PHONEME
_PAUSE = "_"  # the names of pauses begin with it

Event = tuple[str, int, int, str]
"""Kind (``word``, ``sound``, ``pause``), character from 0, milliseconds from the start of the audio, and name."""


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """``espeak_EVENT`` of speak_lib.h. Positions in the text count characters from 1."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


def speak(
    library: str, data: str, voice: str, speed: int, text: bytes, events: list[Event] | None = None
) -> bytes | None:
    """Speak one text.

    Args:
        library: path of the shared library of eSpeak NG.
        data: path of its data folder.
        voice: name of the voice, such as ``en-us+f3``.
        speed: words a minute.
        text: the text in UTF-8.
        events: a list to which the events are appended; None = the engine is not asked for the sounds of words.

    Returns:
        16-bit samples at 22,050 Hz; None if there is no such voice.

    Raises:
        OSError: the engine does not start.
    """
    engine = ctypes.CDLL(library)
    if engine.espeak_Initialize(_RETRIEVE, 0, data.encode(), 0 if events is None else _PHONEME_EVENTS) < 0:
        raise OSError(f"eSpeak NG does not start with the data in {data!r}")
    engine.espeak_ng_SetRandSeed(ctypes.c_long(1))  # the default is the time of day, which is audible in breathy voices
    blocks: list[bytes] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
    def receive(samples: Any, count: int, block: Any) -> int:
        if samples and count:
            blocks.append(ctypes.string_at(samples, 2 * count))
        if events is not None and block:
            events.extend(_events(block))
        return 0

    engine.espeak_SetSynthCallback(receive)
    if engine.espeak_SetVoiceByName(voice.encode()):
        return None
    engine.espeak_SetParameter(_RATE, speed, 0)
    engine.espeak_Synth(text + b"\0", ctypes.c_size_t(len(text) + 1), 0, 0, 0, _UTF8, None, None)
    engine.espeak_Synchronize()
    return b"".join(blocks)


def _events(block: Any) -> Iterator[Event]:
    """The events of words and sounds in one block of the engine's, a pointer to `_Event`."""
    for number in itertools.count():
        event = block[number]
        if event.type == _LIST_END:
            return
        if event.type == _WORD:
            yield "word", event.text_position - 1, event.audio_position, ""
        elif event.type == _PHONEME:
            name = event.id.string.decode(errors="replace")
            kind = "pause" if name.startswith(_PAUSE) else "sound"
            yield kind, event.text_position - 1, event.audio_position, name


if __name__ == "__main__":
    library, data, voice, speed, *path = sys.argv[1:]
    found: list[Event] | None = [] if path else None
    spoken = speak(library, data, voice, int(speed), sys.stdin.buffer.read(), found)
    if spoken is None:
        sys.exit(UNKNOWN_VOICE)
    if path:
        Path(path[0]).write_text(json.dumps(found), encoding="ascii")
    sys.stdout.buffer.write(spoken)
