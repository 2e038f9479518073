"""Speak one text with the eSpeak NG engine: text on standard input, 16-bit samples on standard output.

A program of its own, run anew for every text (40 ms), because the engine keeps state between texts that no call resets:
what it says would depend on what it said before. It imports nothing but the standard library, to start quickly.

    python _espeak.py LIBRARY DATA VOICE SPEED < text > samples
"""

from __future__ import annotations

import ctypes
import sys

UNKNOWN_VOICE = 3
"""Exit code where the engine has no such voice."""

_RETRIEVE, _UTF8, _RATE = 1, 1, 1  # AUDIO_OUTPUT_RETRIEVAL, espeakCHARS_UTF8, espeakRATE (speak_lib.h)


def speak(library: str, data: str, voice: str, speed: int, text: bytes) -> bytes | None:
    """Samples at the engine's own rate (22,050 Hz); None where there is no such voice. Raises `OSError`."""
    engine = ctypes.CDLL(library)
    if engine.espeak_Initialize(_RETRIEVE, 0, data.encode(), 0) < 0:
        raise OSError(f"eSpeak NG does not start with the data in {data!r}")
    engine.espeak_ng_SetRandSeed(ctypes.c_long(1))  # else it is the time of day, which breathy voices let one hear
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
