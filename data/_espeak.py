"""Speak one text with the eSpeak NG engine: text on standard input, 16-bit samples on standard output.

A separate program, started for every text (40 ms), because the engine keeps state between texts that no call resets:
its output would depend on the texts before. It imports only the standard library, to start quickly.

    python _espeak.py LIBRARY DATA VOICE SPEED < text > samples
"""

from __future__ import annotations

import ctypes
import sys

UNKNOWN_VOICE = 3
"""Exit code if the engine has no such voice."""

_RETRIEVE, _UTF8, _RATE = 1, 1, 1  # AUDIO_OUTPUT_RETRIEVAL, espeakCHARS_UTF8, espeakRATE (speak_lib.h)


def speak(library: str, data: str, voice: str, speed: int, text: bytes) -> bytes | None:
    """Speak one text.

    Args:
        library: path of the shared library of eSpeak NG.
        data: path of its data folder.
        voice: name of the voice, such as ``en-us+f3``.
        speed: words a minute.
        text: the text in UTF-8.

    Returns:
        16-bit samples at 22,050 Hz; None if there is no such voice.

    Raises:
        OSError: the engine does not start.
    """
    engine = ctypes.CDLL(library)
    if engine.espeak_Initialize(_RETRIEVE, 0, data.encode(), 0) < 0:
        raise OSError(f"eSpeak NG does not start with the data in {data!r}")
    engine.espeak_ng_SetRandSeed(ctypes.c_long(1))  # the default is the time of day, which is audible in breathy voices
    blocks: list[bytes] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def receive(samples: ctypes._Pointer[ctypes.c_short], count: int, events: int) -> int:
        if samples and count:
            blocks.append(ctypes.string_at(samples, 2 * count))
        return 0

    engine.espeak_SetSynthCallback(receive)
    if engine.espeak_SetVoiceByName(voice.encode()):
        return None
    engine.espeak_SetParameter(_RATE, speed, 0)
    engine.espeak_Synth(text + b"\0", ctypes.c_size_t(len(text) + 1), 0, 0, 0, _UTF8, None, None)
    engine.espeak_Synchronize()
    return b"".join(blocks)


if __name__ == "__main__":
    _, library, data, voice, speed = sys.argv
    spoken = speak(library, data, voice, int(speed), sys.stdin.buffer.read())
    if spoken is None:
        sys.exit(UNKNOWN_VOICE)
    sys.stdout.buffer.write(spoken)
