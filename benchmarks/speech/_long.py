"""Long recordings, and the memory of the process that reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float
from vqmem.data.audio_files import Source
from vqmem.data.reading.audio import RATE

UNITS = 50
"""Of HuBERT, a second."""
SPLIT = "HuBERT units of LJSpeech, test (50 chapters)"


def recording(speech: Path, seconds: int) -> Float[np.ndarray, " samples"]:
    """So many seconds of LibriSpeech at 16 kHz: utterances one after another, again from the first where they end."""
    size, clips, count = seconds * RATE, [], 0
    for document in Source(str(speech), {"path": "librispeech_train_clean_100/*"}).documents("train"):
        clips.append(document.content("audio").read().numpy())
        count += len(clips[-1])
        if count >= size:
            break
    return np.resize(np.concatenate(clips), size)


def resident(which: str) -> int:
    """Bytes of this process in memory: now (``VmRSS``) or at their most (``VmHWM``). Needs Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{which}:"))
