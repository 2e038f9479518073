"""Which files are recordings: not lists of other files, not pipes, but files of any name."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from vqmem.data.reading.audio import RATE, Audio, is_recording
from vqmem.data.reading.files import UnreadableError


def tone(form: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE), RATE, format=form)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/a.ts\n",
        b"ffconcat version 1.0\nfile other.wav\n",
        b"\xff\xfea\0b\0" * 99,
    ],
)
def test_lists_of_other_files_are_no_recordings(content, tmp_path):
    (tmp_path / "list.mp3").write_bytes(content)
    with pytest.raises(UnreadableError, match=r"list\.mp3' is not audio that can be read here"):
        Audio(str(tmp_path / "list.mp3")).read()


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(UnreadableError, match=r"pipe\.wav' is not a regular file; give a file"):
        Audio(str(tmp_path / "pipe.wav")).read()


@pytest.mark.parametrize("form", ["WAV", "FLAC", "MP3"])
def test_a_name_that_is_not_utf8(form, tmp_path):
    path = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9")))
    path.write_bytes(tone(form))
    assert is_recording(path)
    assert torch.equal(Audio(str(path)).read(), Audio("clip", path.read_bytes()).read())
    path.write_text("no sound")
    with pytest.raises(UnreadableError, match=r"caf\\udce9' is not audio") as caught:
        Audio(str(path)).read()
    assert str(caught.value).isprintable()
