"""Phone labels of recordings by a small recogniser: `hama` (PyPI, Apache-2.0), ``pip install --no-deps hama==1.7``.

The labels are not checked by people. The model is a CTC model at 50 Hz; it marks most frames as blank and is about 3
frames late. A phone therefore lasts from 3 frames before its first label to 3 frames before the next label or the end
of the word.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vqmem.data.base import Document
from vqmem.files import atomic_write
from vqmem.recipes.engine.progress import progress

LATE = 3
"""Frames."""
FRAME = 0.02
"""Seconds."""


def label(documents: Iterable[Document], path: Path) -> Path:
    """Write a table of phones as `vqmem speech_pretraining` reads it, unless it is there."""
    if path.is_file():
        return path
    from hama.asr import ASRModel

    recogniser, listed = ASRModel(), list(documents)
    lines = ["name\tstart\tend\tphone"]
    for document in progress(listed, len(listed), "phones"):
        assert document.audio is not None
        said = recogniser(document.audio.read().numpy(), 16_000).frame_token_ids
        for start, end, token in _spans(said, recogniser.blank_id):
            name = recogniser.decoder_tokens[token]
            lines.append(f"{document.name}\t{start * FRAME:.2f}\t{end * FRAME:.2f}\t{name}")
    atomic_write(path, "\n".join(lines) + "\n")
    return path


def _spans(said: list[int], blank: int) -> list[tuple[int, int, int]]:
    """Begin, end and token of each run of frames until another token is said; begins are moved by `LATE`."""
    spans: list[tuple[int, int, int]] = []
    for frame, token in enumerate(said):
        start = max(0, frame - LATE)
        if token == blank or (spans and spans[-1][2] == token):
            continue
        if spans:
            spans[-1] = (spans[-1][0], start, spans[-1][2])
        spans.append((start, len(said), token))
    return [span for span in spans if span[0] < span[1]]
